// The C ABI's graphs.
#include <memory>

#include "core/graph.h"

namespace {

using namespace dualform;

void require(const df_device* device) {
    if (device == nullptr) raise(DF_INVALID_ARGUMENT, "device: null, expected an open device");
}

void destroy(df_graph* graph) noexcept {
    df_device* device = graph->device;
    if (graph->recording != nullptr) device->backend->forget(device->queue, graph->recording);
    device->pool.drop(graph->blocks);
    delete graph;
}

/// Ends this thread's capture, whatever comes after. Null where the backend could not make a graph of it.
std::unique_ptr<df_graph, void (*)(df_graph*) noexcept> end(df_device* device, bool wanted, std::optional<Error>& failure) {
    Capture* current = Capture::of_this_thread(device);
    if (current == nullptr) raise(DF_INVALID_STATE, "capture: none was begun on this device");
    const std::unique_ptr<Capture> capture(current);
    std::unique_ptr<df_graph, void (*)(df_graph*) noexcept> graph(capture->take().release(), destroy);
    failure = capture->failure();
    if (!capture->records_calls()) {
        df_error error = {};
        const int status = device->backend->capture_end(device->queue, wanted && !failure ? &graph->recording : nullptr, &error);
        if (status != DF_OK && !failure) failure = Error{static_cast<df_status>(status), error.text};
    }
    graph->blocks = device->pool.end_capture();
    device->capturer.store(std::thread::id(), std::memory_order_release);
    device->capture.store(nullptr, std::memory_order_release);
    return graph;
}

}  // namespace

extern "C" {

df_status df_device_capture_begin(df_device* device) {
    return guard([&] {
        require(device);
        auto capture = std::make_unique<Capture>(device);
        Capture* none = nullptr;
        if (!device->capture.compare_exchange_strong(none, capture.get(), std::memory_order_acq_rel))
            raise(DF_INVALID_STATE, "capture: one is going on already on this device, end it first");
        device->capturer.store(std::this_thread::get_id(), std::memory_order_release);
        if (!capture->records_calls()) {
            df_error error = {};
            const int status = device->backend->capture_begin(device->queue, &error);
            if (status != DF_OK) {
                device->capturer.store(std::thread::id(), std::memory_order_release);
                device->capture.store(nullptr, std::memory_order_release);
            }
            check(status, error);
        }
        device->pool.begin_capture();
        capture.release();
    });
}

df_status df_device_capture_end(df_device* device, df_graph** out) {
    return guard([&] {
        require(device);
        if (out != nullptr) *out = nullptr;
        std::optional<Error> failure;
        auto graph = end(device, out != nullptr, failure);
        if (out == nullptr) raise(DF_INVALID_ARGUMENT, "out: null");
        if (failure) throw *failure;
        device->live_graphs.fetch_add(1);
        *out = graph.release();
    });
}

df_status df_device_capture_abandon(df_device* device) {
    return guard([&] {
        require(device);
        std::optional<Error> failure;
        end(device, false, failure);
    });
}

df_status df_graph_replay(df_graph* graph) {
    return guard([&] {
        if (graph == nullptr) raise(DF_INVALID_ARGUMENT, "graph: null");
        df_device* device = graph->device;
        refuse_under_capture(device, "replaying a graph");
        std::lock_guard<std::mutex> lock(graph->mutex);
        df_error error = {};
        if (graph->recording != nullptr) check(device->backend->replay(device->queue, graph->recording, &error), error);
        for (const auto& call : graph->calls) check(call->run(device->backend->ops, device->queue, &error), error);
    });
}

void df_graph_destroy(df_graph* graph) {
    if (graph == nullptr) return;
    df_device* device = graph->device;
    destroy(graph);
    device->live_graphs.fetch_sub(1);
}

}  // extern "C"
