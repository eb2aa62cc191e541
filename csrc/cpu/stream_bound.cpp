// The yardstick of benchmarks/growth.py: one loop over whole lines, equal shares for all threads,
// no table, no cast, no odd address. What a copy reaches of it is what its generality costs.
#include "stream_bound.hpp"

#include <algorithm>
#include <stdexcept>
#include <thread>

namespace megagrow::cpu {

void stream_bound(std::uint64_t source, std::int64_t read,
                  const std::vector<std::uint64_t>& destinations, std::int64_t written,
                  std::int64_t block, const Kernels& kernels, int threads) {
    const std::int64_t ratio = read / written;
    const std::int64_t lines = written / 64 / std::max(threads, 1);
    const auto work = [&](std::int64_t worker) {
        std::vector<char*> places;
        for (const std::uint64_t each : destinations) {
            places.push_back(reinterpret_cast<char*>(each) + worker * lines * 64);
        }
        kernels.bound(reinterpret_cast<const char*>(source) + worker * lines * 64 * ratio,
                      lines * 64 * ratio, places.data(), static_cast<std::int64_t>(places.size()),
                      lines * 64, block);
        fence();
    };
    std::vector<std::thread> others;
    for (int worker = 1; worker < threads; ++worker) others.emplace_back(work, worker);
    work(0);
    for (std::thread& other : others) other.join();
}

}  // namespace megagrow::cpu
