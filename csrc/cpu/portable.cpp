// Plain loops, one element at a time: compilers make vectors of them for any processor.
#include <algorithm>
#include <cstring>

#include "kernels.hpp"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#define MEGAGROW_TARGET

namespace megagrow::cpu {
namespace {

struct Vector {
    static constexpr std::int64_t width = 1;
    struct alignas(16) Line {
        std::uint64_t word[8];
    };

    static float broadcast(float value) { return value; }
    static float add(float a, float b) { return a + b; }
    static float mul(float a, float b) { return a * b; }

    template <class T>
    static float load(const T* from) {
        return to_float(*from);
    }
    template <class T>
    static void store(T* to, float value) {
        from_float(value, *to);
    }

    template <class T>
    static void store_pair(T* to, float a, float b) {
        from_float(a, to[0]);
        from_float(b, to[1]);
    }

    static Line load_line(const char* from) {
        Line line;
        std::memcpy(&line, from, sizeof line);
        return line;
    }
    static Line either(Line a, const Line& b) {
        for (int i = 0; i < 8; ++i) a.word[i] |= b.word[i];
        return a;
    }
    static void stream_line(char* to, const Line& line) {
#if defined(__x86_64__)
        for (int i = 0; i < 4; ++i) {
            const __m128i part = _mm_load_si128(reinterpret_cast<const __m128i*>(&line) + i);
            _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, part);
        }
#else
        std::memcpy(to, &line, sizeof line);
#endif
    }
};

#include "loops.inl"

}  // namespace

const Kernels& portable() {
    static constexpr Kernels made = make_kernels("portable");
    return made;
}

}  // namespace megagrow::cpu
