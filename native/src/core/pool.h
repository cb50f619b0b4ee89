// Memory of one device: blocks in size classes, kept for reuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "dualform/df_backend.h"

namespace dualform {

/// A request gets the lowest free address of its class, so a program that asks and frees in the same way each step is given the
/// same addresses each step, and after the first step nothing more is taken from the system. Thread-safe.
class Pool {
public:
    /// align: every block's size is a multiple of it.
    Pool(const df_backend* backend, size_t align) : backend_(backend), align_(align) {}
    void attach(df_queue* queue) { queue_ = queue; }

    /// Throws Error(DF_OUT_OF_MEMORY) when the system has no more, after giving back what is cached.
    void* allocate(size_t bytes);
    void release(void* memory) noexcept;
    /// Gives unused blocks back.
    void trim() noexcept;

    int64_t stat(df_stat which) const;
    void reset_peak();

private:
    size_t class_size(size_t bytes) const;
    void trim_locked() noexcept;

    const df_backend* backend_;
    df_queue* queue_ = nullptr;
    const size_t align_;
    mutable std::mutex mutex_;
    std::map<size_t, std::vector<void*>> free_;      // class size -> min-heap of addresses
    std::unordered_map<void*, size_t> blocks_;       // address -> class size, free or not: reuse allocates nothing
    int64_t in_use_ = 0, reserved_ = 0, peak_ = 0, system_allocations_ = 0;
};

}  // namespace dualform
