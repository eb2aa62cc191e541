// The two operations on memory of this process. Tables are checked by the caller.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels.hpp"

namespace megagrow::cpu {

// n segments to m destinations; see megagrow.kernels.Segments. Addresses are in bytes.
struct CopyTable {
    std::int64_t segments;
    const std::uint64_t* source;       // [n]
    const std::int64_t* length;        // [n] elements
    const std::int64_t* first;         // [n + 1]
    const std::uint64_t* destination;  // [m]
    const float* scale;                // [m], or null: 1
    DType from;
    DType to;
};

// n sums of m terms; see megagrow.kernels.Combination and Noise.
struct CombineTable {
    std::int64_t sums;
    const std::uint64_t* destination;  // [n]
    const std::int64_t* length;        // [n] elements
    const std::int64_t* first;         // [n + 1]
    const std::uint64_t* source;       // [m]
    const float* weight;               // [m]
    const float* deviation;            // [n] of the noise; 0: none
    const std::uint64_t* counter;      // [n] of the first element
    std::uint64_t seed;
    DType from;
    DType to;
};

// streamed: whether to write past the caches; if not said, where the amount is beyond them.
void copy_segments(const CopyTable& table, const Kernels& kernels, int threads,
                   std::optional<bool> streamed);
void combine_segments(const CombineTable& table, const Kernels& kernels, int threads);

// total[i] += deviation * normal(seed, counter + i)
void add_noise(float* total, std::int64_t count, float deviation, std::uint64_t seed,
               std::uint64_t counter);

}  // namespace megagrow::cpu
