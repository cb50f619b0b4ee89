// Memory of one device: blocks in size classes, kept for reuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "dualform/df_backend.h"

namespace dualform {

/// A request gets the lowest free address of its class, so a program that asks and frees in the same way each step is given the
/// same addresses each step, and after the first step nothing more is taken from the system. Thread-safe.
///
/// While a graph is captured the capturing thread takes nothing from the system. What it was given, and what its ops were given by others,
/// is the graph's: blocks that are freed meanwhile go round within the capture, and afterwards nobody is given a block of a graph until
/// drop(), whether or not a tensor still uses it.
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

    /// From here to end_capture() this thread's requests belong to a graph.
    void begin_capture();
    /// An op under capture uses memory that may have been there before; memory of the caller's own is none of the pool's.
    void hold(void* memory);
    /// The blocks of the graph, for drop().
    std::vector<void*> end_capture();
    void drop(const std::vector<void*>& blocks) noexcept;

    int64_t stat(df_stat which) const;
    void reset_peak();

private:
    struct Block {
        size_t size;
        bool in_use = true;
        int graphs = 0;           // that hold it
        bool captured = false;    // used in the capture that is going on
        bool handed_out = false;  // in that capture, not before it
    };
    using Free = std::map<size_t, std::vector<void*>>;  // class size -> min-heap of addresses

    size_t class_size(size_t bytes) const;
    void trim_locked() noexcept;
    static void push(Free& free, size_t size, void* memory) noexcept;

    const df_backend* backend_;
    df_queue* queue_ = nullptr;
    const size_t align_;
    mutable std::mutex mutex_;
    Free free_;
    std::unordered_map<void*, Block> blocks_;  // free or not: reuse allocates nothing
    int64_t in_use_ = 0, reserved_ = 0, peak_ = 0, system_allocations_ = 0;

    bool capturing_ = false;
    std::thread::id capturer_;
    std::vector<void*> captured_;
    Free captured_free_;  // freed during the capture that it was handed out in
};

}  // namespace dualform
