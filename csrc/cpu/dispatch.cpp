// Which instruction set runs, asked of the processor at run time.
#include <stdexcept>

#include "kernels.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace megagrow::cpu {
namespace {

#if defined(__x86_64__)
bool has_f16c() {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

// __builtin_cpu_supports also asks whether the operating system saves the registers.
std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        found.push_back(&avx512());
    }
    if (__builtin_cpu_supports("avx2") && has_f16c()) found.push_back(&avx2());
#endif
    found.push_back(&portable());
    return found;
}

}  // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Kernels* each : available()) names.emplace_back(each->name);
    return names;
}

const Kernels& kernels(const std::string& name) {
    static const std::vector<const Kernels*> found = available();
    if (name.empty()) return *found.front();
    for (const Kernels* each : found) {
        if (name == each->name) return *each;
    }
    throw std::invalid_argument("this processor has no instruction set " + name);
}

void fence() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

}  // namespace megagrow::cpu
