// What both kernels share: elements as floats, the tile a block works on, errors.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "launch.hpp"

namespace megagrow::cuda {

constexpr int threads = 256;

inline void check(cudaError_t status, const char* what) {
    if (status != cudaSuccess) {
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
    }
}

template <class T>
__device__ inline float to_float(T value);
template <>
__device__ inline float to_float(float value) {
    return value;
}
template <>
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
template <>
__device__ inline float to_float(__half value) {
    return __half2float(value);
}

// To the nearest, ties to even; a NaN stays one.
template <class T>
__device__ inline T from_float(float value);
template <>
__device__ inline float from_float(float value) {
    return value;
}
template <>
__device__ inline __nv_bfloat16 from_float(float value) {
    return __float2bfloat16_rn(value);
}
template <>
__device__ inline __half from_float(float value) {
    return __float2half_rn(value);
}

// The part of a run that one block works on.
struct Tile {
    std::int64_t run;
    std::int64_t begin;  // elements
    std::int64_t count;
};

// The last run whose first tile is at most `number`; runs without elements have no tiles.
__device__ inline Tile find_tile(const std::int64_t* first_tile, const std::int64_t* length,
                                 std::int64_t runs, std::int64_t number) {
    std::int64_t low = 0;
    std::int64_t high = runs;
    while (high - low > 1) {
        const std::int64_t middle = low + (high - low) / 2;
        if (first_tile[middle] <= number) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const std::int64_t begin = (number - first_tile[low]) * tile;
    const std::int64_t rest = length[low] - begin;
    return Tile{low, begin, rest < tile ? rest : tile};
}

// Blocks to start: one for each tile, as far as a grid goes; a block takes every grid-th tile.
inline unsigned grid_for(std::int64_t tiles) {
    constexpr std::int64_t most = 0x7fffffff;
    return static_cast<unsigned>(tiles < most ? tiles : most);
}

// Calls launch<From, To>() for the dtypes.
template <class From, class Launch>
void with_to(DType to, const Launch& launch) {
    switch (to) {
        case DType::float32:
            launch(From{}, float{});
            return;
        case DType::bfloat16:
            launch(From{}, __nv_bfloat16{});
            return;
        case DType::float16:
            launch(From{}, __half{});
            return;
    }
}

template <class Launch>
void with_dtypes(DType from, DType to, const Launch& launch) {
    switch (from) {
        case DType::float32:
            with_to<float>(to, launch);
            return;
        case DType::bfloat16:
            with_to<__nv_bfloat16>(to, launch);
            return;
        case DType::float16:
            with_to<__half>(to, launch);
            return;
    }
}

}  // namespace megagrow::cuda
