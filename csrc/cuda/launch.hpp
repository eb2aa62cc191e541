// What the CUDA sources offer to the binding, which a plain C++ compiler compiles.
#pragma once

#include <cstdint>

#include "../include/dtype.hpp"

namespace megagrow::cuda {

// Elements of one unit of work; a run is cut into tiles from its beginning.
constexpr std::int64_t tile = 8192;

// A table in device memory: the columns of 8 bytes one after the other, then those of 4. It is read
// by the queued kernel, in the order of the stream.
//
//   copy     source [n], length [n], first_tile [n + 1], first [n + 1], destination [m]; scale [m]
//   combine  destination [n], length [n], first_tile [n + 1], first [n + 1], source [m],
//            counter [n]; weight [m], deviation [n]
struct Table {
    const void* data;
    std::int64_t runs;     // n
    std::int64_t members;  // m
    std::int64_t tiles;    // first_tile[n]
};

struct Target {
    void* stream;  // cudaStream_t
    int device;
};

// Both queue one kernel and return. Throw std::runtime_error with CUDA's message.
void copy_segments(const Table& table, bool scaled, DType from, DType to, const Target& target);
void combine_segments(const Table& table, std::uint64_t seed, DType from, DType to,
                      const Target& target);

}  // namespace megagrow::cuda
