// A device handle: a backend's queue and the memory it hands out.
#pragma once

#include <atomic>
#include <thread>

#include "core/error.h"
#include "core/pool.h"

namespace dualform {
class Capture;
}

struct df_device {
    df_device(const df_backend* b, size_t align) : backend(b), pool(b, align) {}

    const df_backend* const backend;
    df_queue* queue = nullptr;
    dualform::Pool pool;
    df_host host = {};
    std::atomic<int64_t> live_tensors{0}, live_graphs{0};
    std::atomic<dualform::Capture*> capture{nullptr};  // of the graph that is being captured
    std::atomic<std::thread::id> capturer{};           // the thread that captures it
};

namespace dualform {

/// The backend's table by name; throws DF_UNAVAILABLE when it is not loaded, DF_INVALID_ARGUMENT when null.
const df_backend* find_backend(const char* name);

/// Loads a plug-in once per path.
void load_backend(const char* path);

}  // namespace dualform
