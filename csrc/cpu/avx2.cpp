// AVX2 and F16C, switched on for these functions alone; called only where the processor has both.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels.hpp"

#define MEGAGROW_TARGET __attribute__((target("avx2,f16c")))
#define MEGAGROW_INLINE __attribute__((target("avx2,f16c"), always_inline)) static inline

namespace megagrow::cpu {
namespace {

struct Vector {
    static constexpr std::int64_t width = 8;
    struct Line {
        __m256i low;
        __m256i high;
    };

    MEGAGROW_INLINE __m256 broadcast(float value) { return _mm256_set1_ps(value); }
    MEGAGROW_INLINE __m256 add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
    MEGAGROW_INLINE __m256 mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }

    MEGAGROW_INLINE __m256 load(const float* from) { return _mm256_loadu_ps(from); }
    MEGAGROW_INLINE __m256 load(const BFloat16* from) {
        const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    }
    MEGAGROW_INLINE __m256 load(const Float16* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }

    MEGAGROW_INLINE void store(float* to, __m256 value) { _mm256_storeu_ps(to, value); }
    // The upper halves of the 32-bit words, rounded to the nearest, ties to even.
    MEGAGROW_INLINE __m256i rounded(__m256 value) {
        const __m256i bits = _mm256_castps_si256(value);
        const __m256i even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const __m256i bias = _mm256_add_epi32(even, _mm256_set1_epi32(0x7fff));
        return _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    }
    // The same, but NaN words are made quiet instead of being rounded.
    MEGAGROW_INLINE __m256i rounded_or_nan(__m256 value) {
        const __m256i high = _mm256_srli_epi32(_mm256_castps_si256(value), 16);
        const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        const __m256 nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
        return _mm256_blendv_epi8(rounded(value), quiet, _mm256_castps_si256(nan));
    }
    // Packing works within 128-bit halves: the middle two quarters change places.
    MEGAGROW_INLINE __m256i pack(__m256i a, __m256i b) {
        return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
    }

    MEGAGROW_INLINE void store(BFloat16* to, __m256 value) {
        const __m256i words = rounded_or_nan(value);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                         _mm256_castsi256_si128(pack(words, words)));
    }
    template <class T>
    MEGAGROW_INLINE void store_pair(T* to, __m256 a, __m256 b) {
        store(to, a);
        store(to + width, b);
    }
    MEGAGROW_INLINE void store_pair(BFloat16* to, __m256 a, __m256 b) {
        __m256i words = pack(rounded(a), rounded(b));
        if (__builtin_expect(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q)) != 0, 0)) {
            words = pack(rounded_or_nan(a), rounded_or_nan(b));
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
    }
    MEGAGROW_INLINE void store(Float16* to, __m256 value) {
        const __m128i half = _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), half);
    }

    MEGAGROW_INLINE Line load_line(const char* from) {
        const __m256i* words = reinterpret_cast<const __m256i*>(from);
        return Line{_mm256_loadu_si256(words), _mm256_loadu_si256(words + 1)};
    }
    MEGAGROW_INLINE Line either(const Line& a, const Line& b) {
        return Line{_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
    }
    MEGAGROW_INLINE void stream_line(char* to, const Line& line) {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to), line.low);
        _mm256_stream_si256(reinterpret_cast<__m256i*>(to) + 1, line.high);
    }
};

#include "loops.inl"

}  // namespace

const Kernels& avx2() {
    static constexpr Kernels made = make_kernels("avx2");
    return made;
}

}  // namespace megagrow::cpu

#endif
