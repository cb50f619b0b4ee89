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

namespace {

/// The lowest address of a heap that is not empty.
void* pop(std::vector<void*>& heap) {
    void* memory = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<void*>());
    heap.pop_back();
    return memory;
}

}  // namespace

/// There is room: every heap was made as large as the blocks of its class are many.
void Pool::push(Free& free, size_t size, void* memory) noexcept {
    std::vector<void*>& heap = free.find(size)->second;
    heap.push_back(memory);
    std::push_heap(heap.begin(), heap.end(), std::greater<void*>());
}

void* Pool::allocate(size_t bytes) {
    const size_t size = class_size(bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    const bool captured = capturing_ && capturer_ == std::this_thread::get_id();
    std::vector<void*>& heap = free_[size];
    void* memory = nullptr;
    if (captured) {
        // Everything that can fail comes first.
        std::vector<void*>& own = captured_free_[size];
        if (own.empty() && heap.empty())
            raise(DF_INVALID_STATE,
                  "capture: the step needs %zu bytes more than the pool holds free, and nothing is allocated under capture; run the step "
                  "once, uncaptured, before it is captured",
                  size);
        captured_.reserve(captured_.size() + 1);
        own.reserve(heap.capacity());
        memory = pop(own.empty() ? heap : own);
        Block& block = blocks_.find(memory)->second;
        if (!block.captured) captured_.push_back(memory);
        block.captured = block.handed_out = true;
    } else if (!heap.empty()) {
        memory = pop(heap);
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
            blocks_.emplace(memory, Block{size});
        } catch (...) {
            backend_->deallocate(queue_, memory, size);
            throw;
        }
        reserved_ += static_cast<int64_t>(size);
        ++system_allocations_;
    }
    blocks_.find(memory)->second.in_use = true;
    in_use_ += static_cast<int64_t>(size);
    peak_ = std::max(peak_, in_use_);
    return memory;
}

void Pool::release(void* memory) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    Block& block = blocks_.find(memory)->second;
    block.in_use = false;
    // A tensor that was there before the capture keeps its memory to itself: a replay reads it again.
    if (block.graphs > 0 || (block.captured && !block.handed_out)) return;
    in_use_ -= static_cast<int64_t>(block.size);
    push(block.captured ? captured_free_ : free_, block.size, memory);
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

void Pool::begin_capture() {
    std::lock_guard<std::mutex> lock(mutex_);
    capturing_ = true;
    capturer_ = std::this_thread::get_id();
}

void Pool::hold(void* memory) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = blocks_.find(memory);
    if (!capturing_ || found == blocks_.end() || found->second.captured) return;
    captured_.push_back(memory);
    found->second.captured = true;
}

std::vector<void*> Pool::end_capture() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [size, heap] : captured_free_) {
        in_use_ += static_cast<int64_t>(size * heap.size());
        heap.clear();
    }
    peak_ = std::max(peak_, in_use_);
    for (void* memory : captured_) {
        Block& block = blocks_.find(memory)->second;
        block.captured = block.handed_out = false;
        ++block.graphs;
    }
    capturing_ = false;
    std::vector<void*> blocks;
    blocks.swap(captured_);
    return blocks;
}

void Pool::drop(const std::vector<void*>& blocks) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    for (void* memory : blocks) {
        Block& block = blocks_.find(memory)->second;
        if (--block.graphs > 0 || block.in_use) continue;
        // Its tensor may have gone in a capture that is going on.
        if (block.captured) continue;
        in_use_ -= static_cast<int64_t>(block.size);
        push(free_, block.size, memory);
    }
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
