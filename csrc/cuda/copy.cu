// copy_segments: a block reads a tile of a segment once, 16 bytes at a time and thread, and writes
// it to all destinations that are aligned like the source. The others are written element by
// element, from the cache.
#include <cstddef>

#include "device.cuh"

namespace megagrow::cuda {
namespace {

struct Columns {
    const std::uint64_t* source;
    const std::int64_t* length;
    const std::int64_t* first_tile;
    const std::int64_t* first;
    const std::uint64_t* destination;
    const float* scale;
    std::int64_t runs;
    std::int64_t tiles;
};

constexpr int word_bytes = 16;
// Vectors that a thread has in flight.
constexpr int unroll = 4;

// As many elements as make whole words of either type; kept as they are read.
template <class From, class To>
struct Pack {
    static constexpr int count =
        word_bytes / static_cast<int>(sizeof(From) < sizeof(To) ? sizeof(From) : sizeof(To));
    static constexpr int read_words = count * static_cast<int>(sizeof(From)) / word_bytes;
    static constexpr int write_words = count * static_cast<int>(sizeof(To)) / word_bytes;

    union {
        uint4 word[read_words];
        From element[count];
    };

    __device__ Pack() {}

    __device__ void load(const From* from) {
#pragma unroll
        for (int i = 0; i < read_words; ++i) {
            word[i] = __ldcs(reinterpret_cast<const uint4*>(from) + i);
        }
    }
};

template <class From, class To, bool scaled>
__device__ inline To cast(From value, float scale) {
    const float product = scaled ? __fmul_rn(to_float(value), scale) : to_float(value);
    return from_float<To>(product);
}

// Equal types are copied bit by bit, also where the factor is 1.
template <class T>
__device__ inline T scale_same(T value, float scale) {
    return scale == 1.0f ? value : cast<T, T, true>(value, scale);
}

template <class From, class To, bool scaled>
struct Convert {
    __device__ static To one(From value, float scale) {
        return cast<From, To, scaled>(value, scale);
    }
};
template <class T>
struct Convert<T, T, false> {
    __device__ static T one(T value, float) { return value; }
};
template <class T>
struct Convert<T, T, true> {
    __device__ static T one(T value, float scale) { return scale_same(value, scale); }
};

template <class From, class To, bool scaled>
__device__ inline void store(const Pack<From, To>& pack, To* to, float scale) {
    using P = Pack<From, To>;
    union Words {
        uint4 word[P::write_words];
        To element[P::count];
        __device__ Words() {}
    } words;
#pragma unroll
    for (int i = 0; i < P::count; ++i) {
        words.element[i] = Convert<From, To, scaled>::one(pack.element[i], scale);
    }
#pragma unroll
    for (int i = 0; i < P::write_words; ++i) {
        __stcs(reinterpret_cast<uint4*>(to) + i, words.word[i]);
    }
}

__device__ inline bool aligned(const void* address) {
    return reinterpret_cast<std::uintptr_t>(address) % word_bytes == 0;
}

// One tile: source and destinations from its first element on.
template <class From, class To, bool scaled>
struct TileCopy {
    const Columns& columns;
    const From* source;
    std::int64_t begin;
    int count;
    std::int64_t first;
    std::int64_t last;

    __device__ To* destination(std::int64_t k) const {
        return reinterpret_cast<To*>(columns.destination[k]) + begin;
    }

    __device__ float scale(std::int64_t k) const { return scaled ? columns.scale[k] : 1.0f; }

    // Elements [from, to) to destination k, neighbours by neighbouring threads.
    __device__ void single(std::int64_t k, int from, int to) const {
        To* const place = destination(k);
        const float factor = scale(k);
        for (int i = from + static_cast<int>(threadIdx.x); i < to; i += threads) {
            place[i] = Convert<From, To, scaled>::one(source[i], factor);
        }
    }

    // The first element at which the source and the first destination that can be are aligned;
    // `count` where none is.
    __device__ int start() const {
        using P = Pack<From, To>;
        for (int i = 0; i < P::count && i < count; ++i) {
            if (!aligned(source + i)) continue;
            for (std::int64_t k = first; k < last; ++k) {
                if (aligned(destination(k) + i)) return i;
            }
        }
        return count;
    }

    __device__ void run() const {
        using P = Pack<From, To>;
        const int head = start();
        const int packs = (count - head) / P::count;
        const int tail = head + packs * P::count;
        for (int at = static_cast<int>(threadIdx.x); at < packs; at += threads * unroll) {
            P held[unroll];
#pragma unroll
            for (int u = 0; u < unroll; ++u) {
                const int pack = at + u * threads;
                if (pack < packs) held[u].load(source + head + pack * P::count);
            }
            for (std::int64_t k = first; k < last; ++k) {
                To* const place = destination(k) + head;
                if (!aligned(place)) continue;
                const float factor = scale(k);
#pragma unroll
                for (int u = 0; u < unroll; ++u) {
                    const int pack = at + u * threads;
                    if (pack < packs) {
                        store<From, To, scaled>(held[u], place + pack * P::count, factor);
                    }
                }
            }
        }
        for (std::int64_t k = first; k < last; ++k) {
            if (aligned(destination(k) + head)) {
                single(k, 0, head);
                single(k, tail, count);
            } else {
                single(k, 0, count);
            }
        }
    }
};

template <class From, class To, bool scaled>
__global__ void __launch_bounds__(threads) copy_tiles(const Columns columns) {
    for (std::int64_t number = blockIdx.x; number < columns.tiles; number += gridDim.x) {
        const Tile found = find_tile(columns.first_tile, columns.length, columns.runs, number);
        const From* source = reinterpret_cast<const From*>(columns.source[found.run]);
        const TileCopy<From, To, scaled> copy{columns,
                                              source + found.begin,
                                              found.begin,
                                              static_cast<int>(found.count),
                                              columns.first[found.run],
                                              columns.first[found.run + 1]};
        copy.run();
    }
}

Columns columns_of(const Table& table) {
    const auto* longs = static_cast<const std::uint64_t*>(table.data);
    const std::int64_t n = table.runs;
    const auto* numbers = static_cast<const std::int64_t*>(table.data);
    return Columns{
        longs,
        numbers + n,
        numbers + 2 * n,
        numbers + 3 * n + 1,
        longs + 4 * n + 2,
        reinterpret_cast<const float*>(longs + 4 * n + 2 + table.members),
        n,
        table.tiles,
    };
}

}  // namespace

void copy_segments(const Table& table, bool scaled, DType from, DType to, const Target& target) {
    if (table.tiles == 0) return;
    check(cudaSetDevice(target.device), "copy_segments");
    const Columns columns = columns_of(table);
    const auto stream = static_cast<cudaStream_t>(target.stream);
    const unsigned grid = grid_for(table.tiles);
    with_dtypes(from, to, [&](auto source, auto destination) {
        using From = decltype(source);
        using To = decltype(destination);
        if (scaled) {
            copy_tiles<From, To, true><<<grid, threads, 0, stream>>>(columns);
        } else {
            copy_tiles<From, To, false><<<grid, threads, 0, stream>>>(columns);
        }
    });
    check(cudaGetLastError(), "copy_segments");
}

}  // namespace megagrow::cuda
