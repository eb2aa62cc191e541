// AVX-512 F, BW and VL, switched on for these functions alone; called only where the processor has
// them. Not AVX512-BF16: its conversion flushes subnormal numbers to zero.
#if defined(__x86_64__)

// GCC's own header leaves a result register unset on purpose, and GCC warns of it (bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels.hpp"

#define MEGAGROW_TARGET __attribute__((target("avx512f,avx512bw,avx512vl")))
#define MEGAGROW_INLINE \
    __attribute__((target("avx512f,avx512bw,avx512vl"), always_inline)) static inline

namespace megagrow::cpu {
namespace {

struct Vector {
    static constexpr std::int64_t width = 16;
    using Line = __m512i;

    MEGAGROW_INLINE __m512 broadcast(float value) { return _mm512_set1_ps(value); }
    MEGAGROW_INLINE __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
    MEGAGROW_INLINE __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }

    MEGAGROW_INLINE __m512 load(const float* from) { return _mm512_loadu_ps(from); }
    MEGAGROW_INLINE __m512 load(const BFloat16* from) {
        const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    }
    MEGAGROW_INLINE __m512 load(const Float16* from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }

    MEGAGROW_INLINE void store(float* to, __m512 value) { _mm512_storeu_ps(to, value); }
    MEGAGROW_INLINE void store(BFloat16* to, __m512 value) {
        const __m512i bits = _mm512_castps_si512(value);
        const __m512i high = _mm512_srli_epi32(bits, 16);
        const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
        const __m512i bias = _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff));
        const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, bias), 16);
        const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        const __m512i words = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(words));
    }
    MEGAGROW_INLINE void store(Float16* to, __m512 value) {
        const __m256i half = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), half);
    }

    template <class T>
    MEGAGROW_INLINE void store_pair(T* to, __m512 a, __m512 b) {
        store(to, a);
        store(to + width, b);
    }

    MEGAGROW_INLINE Line load_line(const char* from) { return _mm512_loadu_si512(from); }
    MEGAGROW_INLINE Line either(Line a, Line b) { return _mm512_or_si512(a, b); }
    MEGAGROW_INLINE void stream_line(char* to, Line line) {
        _mm512_stream_si512(reinterpret_cast<__m512i*>(to), line);
    }
};

#include "loops.inl"

}  // namespace

const Kernels& avx512() {
    static constexpr Kernels made = make_kernels("avx512");
    return made;
}

}  // namespace megagrow::cpu

#endif
