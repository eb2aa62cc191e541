// The element types and how one element becomes a float and back. Everything else builds on these:
// the vector paths must give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

namespace megagrow {

// The order is that of megagrow/kernels/tables.py.
enum class DType : int { float32 = 0, bfloat16 = 1, float16 = 2 };
constexpr int dtype_count = 3;

struct BFloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};

constexpr std::int64_t size_of(DType dtype) {
    return dtype == DType::float32 ? 4 : 2;
}

inline std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float to_float(float value) {
    return value;
}

inline float to_float(BFloat16 value) {
    return float_of(std::uint32_t{value.bits} << 16);
}

inline float to_float(Float16 value) {
    const std::uint32_t sign = std::uint32_t(value.bits & 0x8000) << 16;
    const std::uint32_t rest = value.bits & 0x7fff;
    const std::uint32_t normal = (rest << 13) + (112u << 23);
    const std::uint32_t special = (rest << 13) | 0x7f800000u | (rest > 0x7c00 ? 0x400000u : 0u);
    // Below the smallest normal number, an element counts steps of 2^-24.
    const std::uint32_t tiny =
        bits_of(static_cast<float>(static_cast<std::int32_t>(rest)) * 5.9604644775390625e-08f);
    return float_of(sign | (rest >= 0x7c00 ? special : rest >= 0x400 ? normal : tiny));
}

// Rounding is to the nearest, ties to even. A NaN stays one: it is made quiet, its high bits stay.
inline void from_float(float value, float& result) {
    result = value;
}

inline void from_float(float value, BFloat16& result) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const std::uint32_t quiet = (bits >> 16) | 0x40u;
    result.bits = static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

inline void from_float(float value, Float16& result) {
    const std::uint32_t bits = bits_of(value);
    const std::uint32_t size = bits & 0x7fffffffu;
    const std::uint32_t normal = ((size + 0xfffu + ((size >> 13) & 1u)) >> 13) - (112u << 10);
    // The last place of 0.5f is 2^-24, the step below the smallest normal number.
    const std::uint32_t tiny = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
    const std::uint32_t nan = 0x7e00u | ((size >> 13) & 0x3ffu);
    const std::uint32_t large = size > 0x7f800000u ? nan : 0x7c00u;
    const std::uint32_t rest = size >= 0x47800000u ? large : size >= 0x38800000u ? normal : tiny;
    result.bits = static_cast<std::uint16_t>(rest | ((bits >> 16) & 0x8000u));
}

}  // namespace megagrow
