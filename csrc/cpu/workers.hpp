// Work that is a list of runs of elements, shared among threads by bytes rather than by runs: one
// huge run and ten thousand small ones are both balanced.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace megagrow::cpu {

// Hands out stretches of the runs, of about equal traffic, to whichever worker asks next.
class Workers {
public:
    // length: elements of each run; cost: bytes that one element of the run moves.
    Workers(std::vector<std::int64_t> length, std::vector<std::int64_t> cost)
        : length_(std::move(length)), cost_(std::move(cost)), before_(length_.size() + 1, 0) {
        for (std::size_t i = 0; i < length_.size(); ++i) {
            before_[i + 1] = before_[i] + length_[i] * cost_[i];
        }
    }

    std::int64_t total_bytes() const { return before_.back(); }

    // Calls work(run, begin, end) for stretches that cover every run once, in `threads` threads,
    // this one included. `finish()` is called by each of them at its end. The work must not throw.
    template <class Work, class Finish>
    void run(int threads, const Work& work, const Finish& finish) const {
        const std::int64_t total = total_bytes();
        // A thread costs some tens of microseconds: below this much traffic it does not pay.
        const std::int64_t useful = total / bytes_per_thread + 1;
        const auto count = static_cast<int>(std::min<std::int64_t>(std::max(threads, 1), useful));
        const std::int64_t stretches = count == 1 ? 1 : std::int64_t{count} * stretches_per_thread;
        const std::int64_t step = std::max<std::int64_t>((total + stretches - 1) / stretches, 1);
        std::atomic<std::int64_t> next{0};
        const auto loop = [&] {
            for (;;) {
                const std::int64_t begin = step * next.fetch_add(1, std::memory_order_relaxed);
                if (begin >= total) break;
                between(begin, std::min(total, begin + step), work);
            }
            finish();
        };
        std::vector<std::thread> others;
        others.reserve(static_cast<std::size_t>(count));
        try {
            while (static_cast<int>(others.size()) + 1 < count) others.emplace_back(loop);
        } catch (const std::system_error&) {
            // No more threads are allowed: those that run do the work.
        }
        loop();
        for (std::thread& other : others) other.join();
    }

private:
    static constexpr std::int64_t bytes_per_thread = 1 << 20;
    static constexpr std::int64_t stretches_per_thread = 16;
    // Stretches of one run meet at multiples of this many elements.
    static constexpr std::int64_t granularity = 1024;

    // First element of `run` at or after `position` bytes of the whole work; both neighbours ask
    // the same question, so that they meet.
    std::int64_t element(std::size_t run, std::int64_t position) const {
        if (position <= before_[run]) return 0;
        if (position >= before_[run + 1]) return length_[run];
        const std::int64_t exact = (position - before_[run]) / cost_[run];
        return exact / granularity * granularity;
    }

    template <class Work>
    void between(std::int64_t begin, std::int64_t end, const Work& work) const {
        const auto after = std::upper_bound(before_.begin(), before_.end(), begin);
        auto run = static_cast<std::size_t>(after - before_.begin()) - 1;
        for (; run < length_.size() && before_[run] < end; ++run) {
            const std::int64_t first = element(run, begin);
            const std::int64_t last = element(run, end);
            if (first < last) work(run, first, last);
        }
    }

    std::vector<std::int64_t> length_;
    std::vector<std::int64_t> cost_;
    std::vector<std::int64_t> before_;
};

}  // namespace megagrow::cpu
