#include <algorithm>
#include <vector>

#include "../include/normal.hpp"
#include "operations.hpp"
#include "workers.hpp"

namespace megagrow::cpu {
namespace {

constexpr std::int64_t block = 2048;

void add_terms(const CombineTable& table, const Kernels& kernels, std::size_t sum, std::int64_t at,
               std::int64_t count, float* total) {
    const std::int64_t first = table.first[sum];
    for (std::int64_t k = first; k < table.first[sum + 1]; ++k) {
        const char* source = reinterpret_cast<const char*>(table.source[k]);
        kernels.accumulate[static_cast<int>(table.from)](source + at * size_of(table.from), total,
                                                         count, table.weight[k], k == first);
    }
    if (first == table.first[sum + 1]) std::fill(total, total + count, 0.0f);
}

void combine(const CombineTable& table, const Kernels& kernels, std::size_t sum, std::int64_t begin,
             std::int64_t end) {
    alignas(64) float total[block];
    const auto store =
        kernels.convert[static_cast<int>(DType::float32)][static_cast<int>(table.to)][0];
    char* destination = reinterpret_cast<char*>(table.destination[sum]);
    for (std::int64_t at = begin; at < end; at += block) {
        const std::int64_t count = std::min(block, end - at);
        add_terms(table, kernels, sum, at, count, total);
        if (table.deviation[sum] != 0.0f) {
            const std::uint64_t counter = table.counter[sum] + static_cast<std::uint64_t>(at);
            add_noise(total, count, table.deviation[sum], table.seed, counter);
        }
        store(total, destination + at * size_of(table.to), count, 1.0f);
    }
}

}  // namespace

void add_noise(float* total, std::int64_t count, float deviation, std::uint64_t seed,
               std::uint64_t counter) {
    constexpr int blocks = 64;
    alignas(64) float drawn[blocks * 4];
    std::int64_t done = 0;
    while (done < count) {
        const std::uint64_t at = counter + static_cast<std::uint64_t>(done);
        const std::uint64_t first = at >> 2;
        const auto skip = static_cast<std::int64_t>(at & 3);
        const std::int64_t take = std::min(count - done, blocks * 4 - skip);
        const auto needed = static_cast<int>((skip + take + 3) / 4);
        for (int i = 0; i < needed; ++i) {
            // Counters wrap at 2^64, so blocks do at 2^62.
            const std::uint64_t number = (first + static_cast<std::uint64_t>(i)) & (~0ull >> 2);
            const normal::Words words = normal::philox(seed, number);
            normal::box_muller(words.word[0], words.word[1], drawn[4 * i], drawn[4 * i + 1]);
            normal::box_muller(words.word[2], words.word[3], drawn[4 * i + 2], drawn[4 * i + 3]);
        }
        for (std::int64_t i = 0; i < take; ++i) {
            const float product = deviation * drawn[skip + i];
            total[done + i] = total[done + i] + product;
        }
        done += take;
    }
}

void combine_segments(const CombineTable& table, const Kernels& kernels, int threads) {
    const auto count = static_cast<std::size_t>(table.sums);
    std::vector<std::int64_t> length(table.length, table.length + count);
    std::vector<std::int64_t> cost(count);
    for (std::size_t i = 0; i < count; ++i) {
        cost[i] = size_of(table.to) + (table.first[i + 1] - table.first[i]) * size_of(table.from);
        // Noise costs about as much as moving this many bytes.
        if (table.deviation[i] != 0.0f) cost[i] += 64;
    }
    const auto work = [&](std::size_t sum, std::int64_t begin, std::int64_t end) {
        combine(table, kernels, sum, begin, end);
    };
    Workers(std::move(length), std::move(cost)).run(threads, work, [] {});
}

}  // namespace megagrow::cpu
