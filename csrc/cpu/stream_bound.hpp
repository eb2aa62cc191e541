// See stream_bound.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.hpp"

namespace megagrow::cpu {

void stream_bound(std::uint64_t source, std::int64_t read,
                  const std::vector<std::uint64_t>& destinations, std::int64_t written,
                  std::int64_t block, const Kernels& kernels, int threads);

}  // namespace megagrow::cpu
