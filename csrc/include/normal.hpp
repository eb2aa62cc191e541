// Standard normal numbers as a pure function of seed and counter; the definition, with its sources,
// is megagrow/kernels/normal.py. The same operations in the same order, each rounded: the bits of
// numpy, of every vector width and of CUDA are the same. Needs -ffp-contract=off on the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define MEGAGROW_HOST_DEVICE __host__ __device__ inline
#else
#define MEGAGROW_HOST_DEVICE inline
#endif

namespace megagrow::normal {

// nvcc fuses a product and a sum unless told otherwise.
#if defined(__CUDA_ARCH__)
__device__ inline float add(float a, float b) {
    return __fadd_rn(a, b);
}
__device__ inline float mul(float a, float b) {
    return __fmul_rn(a, b);
}
__device__ inline float div(float a, float b) {
    return __fdiv_rn(a, b);
}
__device__ inline float root(float a) {
    return __fsqrt_rn(a);
}
#else
inline float add(float a, float b) {
    return a + b;
}
inline float mul(float a, float b) {
    return a * b;
}
inline float div(float a, float b) {
    return a / b;
}
inline float root(float a) {
    return std::sqrt(a);
}
#endif

MEGAGROW_HOST_DEVICE std::uint32_t as_bits(float value) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(value);
#else
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
#endif
}

MEGAGROW_HOST_DEVICE float as_float(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

struct Words {
    std::uint32_t word[4];
};

MEGAGROW_HOST_DEVICE Words philox(std::uint64_t seed, std::uint64_t block) {
    std::uint32_t a = static_cast<std::uint32_t>(block);
    std::uint32_t b = static_cast<std::uint32_t>(block >> 32);
    std::uint32_t c = 0;
    std::uint32_t d = 0;
    std::uint32_t key0 = static_cast<std::uint32_t>(seed);
    std::uint32_t key1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t first = std::uint64_t{0xD2511F53u} * a;
        const std::uint64_t second = std::uint64_t{0xCD9E8D57u} * c;
        a = static_cast<std::uint32_t>(second >> 32) ^ b ^ key0;
        b = static_cast<std::uint32_t>(second);
        c = static_cast<std::uint32_t>(first >> 32) ^ d ^ key1;
        d = static_cast<std::uint32_t>(first);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return Words{{a, b, c, d}};
}

MEGAGROW_HOST_DEVICE float log(float x) {
    const std::int32_t bits = static_cast<std::int32_t>(as_bits(x));
    const std::int32_t exponent = (bits - 0x3F3504F3) >> 23;
    const float f = add(as_float(static_cast<std::uint32_t>(bits - exponent * (1 << 23))), -1.0f);
    const float k = static_cast<float>(exponent);
    const float s = div(f, add(2.0f, f));
    const float z = mul(s, s);
    const float w = mul(z, z);
    const float odd = mul(w, add(0.40000972152f, mul(w, 0.24279078841f)));
    const float even = mul(z, add(0.66666662693f, mul(w, 0.28498786688f)));
    const float half = mul(mul(0.5f, f), f);
    const float tail = add(mul(s, add(half, add(even, odd))), mul(k, 9.0580006145e-06f));
    return add(add(add(tail, -half), f), mul(k, 6.9313812256e-01f));
}

// Words 0 and 1 make lanes 0 and 1, words 2 and 3 lanes 2 and 3.
MEGAGROW_HOST_DEVICE void box_muller(std::uint32_t radius, std::uint32_t angle, float& first,
                                     float& second) {
    const float uniform =
        add(mul(static_cast<float>(radius), 2.3283064365386963e-10f), 1.1641532182693481e-10f);
    const float length = root(mul(-2.0f, log(uniform)));
    const std::uint32_t quadrant = (angle + 0x20000000u) >> 30;
    const std::int32_t rest = static_cast<std::int32_t>(angle - (quadrant << 30));
    const float x = mul(static_cast<float>(rest), 1.4629180792671596e-09f);
    const float z = mul(x, x);
    float sine = mul(add(mul(-1.9515295891e-4f, z), 8.3321608736e-3f), z);
    sine = add(mul(mul(add(sine, -1.6666654611e-1f), z), x), x);
    float cosine = mul(add(mul(2.443315711809948e-5f, z), -1.388731625493765e-3f), z);
    cosine = mul(mul(add(cosine, 4.166664568298827e-2f), z), z);
    cosine = add(add(cosine, -mul(0.5f, z)), 1.0f);
    const bool swap = (quadrant & 1u) != 0;
    const float upright = swap ? cosine : sine;
    const float level = swap ? sine : cosine;
    first = mul(length, quadrant == 1u || quadrant == 2u ? -level : level);
    second = mul(length, quadrant >= 2u ? -upright : upright);
}

// The number of one counter.
MEGAGROW_HOST_DEVICE float at(std::uint64_t seed, std::uint64_t counter) {
    const Words words = philox(seed, counter >> 2);
    const bool late = (counter & 2) != 0;
    float first;
    float second;
    box_muller(late ? words.word[2] : words.word[0], late ? words.word[3] : words.word[1], first,
               second);
    return (counter & 1) != 0 ? second : first;
}

}  // namespace megagrow::normal
