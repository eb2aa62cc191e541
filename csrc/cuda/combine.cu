// combine_segments: a thread sums one element at a time; neighbours by neighbouring threads.
#include "../include/normal.hpp"
#include "device.cuh"

namespace megagrow::cuda {
namespace {

struct Columns {
    const std::uint64_t* destination;
    const std::int64_t* length;
    const std::int64_t* first_tile;
    const std::int64_t* first;
    const std::uint64_t* source;
    const std::uint64_t* counter;
    const float* weight;
    const float* deviation;
    std::int64_t runs;
    std::int64_t tiles;
};

template <class From>
__device__ inline float sum(const Columns& columns, std::int64_t first, std::int64_t last,
                            std::int64_t element) {
    float total = 0.0f;
    for (std::int64_t k = first; k < last; ++k) {
        const From* const source = reinterpret_cast<const From*>(columns.source[k]);
        const float term = __fmul_rn(to_float(source[element]), columns.weight[k]);
        total = k == first ? term : __fadd_rn(total, term);
    }
    return total;
}

template <class From, class To>
__global__ void __launch_bounds__(threads)
    combine_tiles(const Columns columns, std::uint64_t seed) {
    for (std::int64_t number = blockIdx.x; number < columns.tiles; number += gridDim.x) {
        const Tile found = find_tile(columns.first_tile, columns.length, columns.runs, number);
        const std::int64_t first = columns.first[found.run];
        const std::int64_t last = columns.first[found.run + 1];
        To* const destination = reinterpret_cast<To*>(columns.destination[found.run]);
        const float deviation = columns.deviation[found.run];
        const std::uint64_t counter = columns.counter[found.run];
        for (std::int64_t i = threadIdx.x; i < found.count; i += threads) {
            const std::int64_t element = found.begin + i;
            float total = sum<From>(columns, first, last, element);
            if (deviation != 0.0f) {
                const std::uint64_t at = counter + static_cast<std::uint64_t>(element);
                total = __fadd_rn(total, __fmul_rn(deviation, normal::at(seed, at)));
            }
            destination[element] = from_float<To>(total);
        }
    }
}

Columns columns_of(const Table& table) {
    const auto* longs = static_cast<const std::uint64_t*>(table.data);
    const auto* numbers = static_cast<const std::int64_t*>(table.data);
    const std::int64_t n = table.runs;
    const std::int64_t m = table.members;
    const auto* floats = reinterpret_cast<const float*>(longs + 5 * n + 2 + m);
    return Columns{
        longs,
        numbers + n,
        numbers + 2 * n,
        numbers + 3 * n + 1,
        longs + 4 * n + 2,
        longs + 4 * n + 2 + m,
        floats,
        floats + m,
        n,
        table.tiles,
    };
}

}  // namespace

void combine_segments(const Table& table, std::uint64_t seed, DType from, DType to,
                      const Target& target) {
    if (table.tiles == 0) return;
    check(cudaSetDevice(target.device), "combine_segments");
    const Columns columns = columns_of(table);
    const auto stream = static_cast<cudaStream_t>(target.stream);
    with_dtypes(from, to, [&](auto source, auto destination) {
        using From = decltype(source);
        using To = decltype(destination);
        combine_tiles<From, To><<<grid_for(table.tiles), threads, 0, stream>>>(columns, seed);
    });
    check(cudaGetLastError(), "combine_segments");
}

}  // namespace megagrow::cuda
