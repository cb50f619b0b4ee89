#include "core/pool.h"

#include <algorithm>
#include <functional>

#include "core/error.h"

namespace dualform {

// Multiples of the alignment up to 16 of them, then eight steps per doubling: at most 12.5 % is lost.
size_t Pool::class_size(size_t bytes) const {
    if (bytes > SIZE_MAX / 2) raise(DF_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
    size_t step = align_;
    while (step * 16 < bytes) step *= 2;
    return (std::max<size_t>(bytes, 1) + step - 1) / step * step;
}

void* Pool::allocate(size_t bytes) {
    const size_t size = class_size(bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<void*>& heap = free_[size];
    void* memory = nullptr;
    if (!heap.empty()) {
        memory = heap.front();
        std::pop_heap(heap.begin(), heap.end(), std::greater<void*>());
        heap.pop_back();
    } else {
        df_error error = {};
        int status = backend_->allocate(queue_, size, &memory, &error);
        if (status == DF_OUT_OF_MEMORY) {
            trim_locked();
            status = backend_->allocate(queue_, size, &memory, &error);
        }
        check(status, error);
        try {
            // Room for its return, so that release cannot fail.
            heap.reserve(heap.capacity() + 1);
            blocks_.emplace(memory, size);
        } catch (...) {
            backend_->deallocate(queue_, memory, size);
            throw;
        }
        reserved_ += static_cast<int64_t>(size);
        ++system_allocations_;
    }
    in_use_ += static_cast<int64_t>(size);
    peak_ = std::max(peak_, in_use_);
    return memory;
}

void Pool::release(void* memory) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t size = blocks_.find(memory)->second;
    in_use_ -= static_cast<int64_t>(size);
    std::vector<void*>& heap = free_.find(size)->second;
    heap.push_back(memory);
    std::push_heap(heap.begin(), heap.end(), std::greater<void*>());
}

void Pool::trim_locked() noexcept {
    for (auto& [size, heap] : free_) {
        for (void* memory : heap) {
            backend_->deallocate(queue_, memory, size);
            blocks_.erase(memory);
            reserved_ -= static_cast<int64_t>(size);
        }
        heap.clear();
    }
}

void Pool::trim() noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    trim_locked();
}

int64_t Pool::stat(df_stat which) const {
    std::lock_guard<std::mutex> lock(mutex_);
    switch (which) {
        case DF_STAT_BYTES_IN_USE: return in_use_;
        case DF_STAT_BYTES_RESERVED: return reserved_;
        case DF_STAT_PEAK_BYTES: return peak_;
        case DF_STAT_SYSTEM_ALLOCS: return system_allocations_;
        default: return 0;
    }
}

void Pool::reset_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_ = in_use_;
}

}  // namespace dualform
