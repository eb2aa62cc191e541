#include <algorithm>
#include <cstring>
#include <vector>

#include "operations.hpp"
#include "workers.hpp"

namespace megagrow::cpu {
namespace {

// Elements of a segment that are taken to all destinations before the next ones are: they stay in
// the first cache meanwhile.
constexpr std::int64_t block = 512;
// A block may begin this many elements early for one destination (`cut`).
constexpr std::int64_t slack = 32;
constexpr std::int64_t line = 64;
// Writes of more than this go past the caches. Not what the system reports as cache: in a virtual
// machine of two cores that may be the cache of the whole processor.
constexpr std::int64_t cached_bytes = 16 << 20;

// Where, at or before element `edge`, a line of the destination begins: streamed stores fill whole
// lines, except at both ends [begin, end) of the stretch.
std::int64_t cut(std::uint64_t destination, std::int64_t size, std::int64_t edge,
                 std::int64_t begin, std::int64_t end) {
    if (edge <= begin || edge >= end) return std::clamp(edge, begin, end);
    const auto past =
        static_cast<std::int64_t>((destination + static_cast<std::uint64_t>(edge * size)) % line);
    return edge - past / size;
}

class Copier {
public:
    Copier(const CopyTable& table, const Kernels& kernels, bool streamed)
        : table_(table), kernels_(kernels), streamed_(streamed) {}

    void operator()(std::size_t segment, std::int64_t begin, std::int64_t end) const {
        const std::int64_t first = table_.first[segment];
        const std::int64_t last = table_.first[segment + 1];
        if (!streamed_) {
            for (std::int64_t at = begin; at < end; at += block) {
                const std::int64_t stop = std::min(at + block, end);
                for (std::int64_t k = first; k < last; ++k) write(segment, k, at, stop);
            }
            return;
        }
        alignas(line) char stage[(block + slack) * 4];
        for (std::int64_t at = begin; at < end; at += block) {
            const std::int64_t stop = std::min(at + block, end);
            stream_block(segment, first, last, at, stop, begin, end, stage);
        }
    }

private:
    bool plain(std::int64_t k) const { return table_.scale == nullptr || table_.scale[k] == 1.0f; }

    const char* source(std::size_t segment, std::int64_t element) const {
        return reinterpret_cast<const char*>(table_.source[segment]) +
               element * size_of(table_.from);
    }

    char* destination(std::int64_t k, std::int64_t element) const {
        return reinterpret_cast<char*>(table_.destination[k]) + element * size_of(table_.to);
    }

    void convert(std::size_t segment, std::int64_t k, std::int64_t at, std::int64_t stop,
                 void* to) const {
        const auto& pair =
            kernels_.convert[static_cast<int>(table_.from)][static_cast<int>(table_.to)];
        pair[plain(k) ? 0 : 1](source(segment, at), to, stop - at,
                               plain(k) ? 1.0f : table_.scale[k]);
    }

    void write(std::size_t segment, std::int64_t k, std::int64_t at, std::int64_t stop) const {
        if (table_.from == table_.to && plain(k)) {
            const auto bytes = static_cast<std::size_t>((stop - at) * size_of(table_.to));
            std::memcpy(destination(k, at), source(segment, at), bytes);
        } else {
            convert(segment, k, at, stop, destination(k, at));
        }
    }

    // Elements [at, stop) to all destinations. What needs a cast or a factor is made in `stage`
    // first, once for neighbours that agree.
    void stream_block(std::size_t segment, std::int64_t first, std::int64_t last, std::int64_t at,
                      std::int64_t stop, std::int64_t begin, std::int64_t end, char* stage) const {
        const std::int64_t size = size_of(table_.to);
        const std::int64_t early = std::max(at - slack, begin);
        std::int64_t staged = -1;
        for (std::int64_t k = first; k < last; ++k) {
            const std::int64_t from = cut(table_.destination[k], size, at, begin, end);
            const std::int64_t to = cut(table_.destination[k], size, stop, begin, end);
            const char* data = source(segment, from);
            if (table_.from != table_.to || !plain(k)) {
                if (staged < 0 || (table_.scale != nullptr &&
                                   bits_of(table_.scale[k]) != bits_of(table_.scale[staged]))) {
                    convert(segment, k, early, stop, stage);
                    staged = k;
                }
                data = stage + (from - early) * size;
            }
            kernels_.stream(data, destination(k, from), (to - from) * size);
        }
    }

    const CopyTable& table_;
    const Kernels& kernels_;
    const bool streamed_;
};

}  // namespace

void copy_segments(const CopyTable& table, const Kernels& kernels, int threads,
                   std::optional<bool> streamed) {
    const auto count = static_cast<std::size_t>(table.segments);
    std::vector<std::int64_t> length(table.length, table.length + count);
    std::vector<std::int64_t> cost(count);
    std::int64_t written = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::int64_t writes = (table.first[i + 1] - table.first[i]) * size_of(table.to);
        cost[i] = size_of(table.from) + writes;
        written += length[i] * writes;
    }
    const Copier copier(table, kernels, streamed.value_or(written > cached_bytes));
    Workers(std::move(length), std::move(cost)).run(threads, copier, fence);
}

}  // namespace megagrow::cpu
