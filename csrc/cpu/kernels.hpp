// What one instruction set offers: the inner loops that the CPU kernels are made of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../include/dtype.hpp"

namespace megagrow::cpu {

// destination[i] = cast(float(source[i]) * scale); without the product where not `scaled`.
using Convert = void (*)(const void* source, void* destination, std::int64_t count, float scale);

// total[i] (+)= weight * float(source[i]); the first term overwrites.
using Accumulate = void (*)(const void* source, float* total, std::int64_t count, float weight,
                            bool overwrite);

// Copies bytes past the caches; call `fence` before another thread reads them.
using Stream = void (*)(const void* source, void* destination, std::int64_t bytes);

// The yardstick: reads `read` bytes and writes `written` bytes to each of `count` places, whole
// lines past the caches, `block` bytes to one place before the next. All addresses and sizes are
// multiples of 64. The data is copied where both sizes are equal, and thinned out where not.
using Bound = void (*)(const char* source, std::int64_t read, char* const* destinations,
                       std::int64_t count, std::int64_t written, std::int64_t block);

struct Kernels {
    const char* name;
    Convert convert[dtype_count][dtype_count][2];  // [from][to][scaled]
    Accumulate accumulate[dtype_count];
    Stream stream;
    Bound bound;
};

const Kernels& portable();
#if defined(__x86_64__)
const Kernels& avx2();
const Kernels& avx512();
#endif

// Names of the instruction sets that this processor can run, the best one first.
std::vector<std::string> instruction_sets();

// The kernels of that name; the best ones if it is empty. Throws std::invalid_argument.
const Kernels& kernels(const std::string& name);

// Makes streamed stores of this thread visible to others.
void fence();

}  // namespace megagrow::cpu
