// Which kernels this process has queued, and how often: what tells, on a device as emulated, who served a case.
#pragma once

#include <atomic>
#include <cstdint>

namespace dualform::cuda {

/// A name, which is a literal, and its count. Two sources may each have a literal of the same text: readers add them up.
struct LaunchCount {
    std::atomic<const char*> name{nullptr};
    std::atomic<int64_t> count{0};
};

/// Several times as many as there are names. Were it full, what is left over would not be counted.
constexpr uint32_t kLaunchCounts = 512;
inline LaunchCount launch_counts[kLaunchCounts];

/// Once for each call that queues the kernel; under capture once for the recording, and not when it is replayed. Some nanoseconds: no lock.
inline void count_launch(const char* name) {
    uint32_t at = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(name) * 0x9E3779B97F4A7C15u >> 32);
    for (uint32_t tried = 0; tried < kLaunchCounts; ++tried) {
        LaunchCount& entry = launch_counts[at++ % kLaunchCounts];
        const char* here = entry.name.load(std::memory_order_acquire);
        if (here == nullptr && entry.name.compare_exchange_strong(here, name, std::memory_order_acq_rel)) here = name;
        if (here != name) continue;
        entry.count.fetch_add(1, std::memory_order_relaxed);
        return;
    }
}

}  // namespace dualform::cuda
