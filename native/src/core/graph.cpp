#include "core/graph.h"

namespace dualform {

Capture::Capture(df_device* device) : records_calls_(device->backend->capture_begin == nullptr), graph_(std::make_unique<df_graph>()) {
    graph_->device = device;
}

void Capture::refuse_other_thread() {
    raise(DF_INVALID_STATE, "device: another thread captures a graph on it; its own work waits until the capture has ended");
}

void Capture::fail(const Error& error) {
    if (!failure_) failure_ = error;
}

void Capture::op_failed(df_status status, const char* sentence) {
    const Error error = scratch_refusal_ ? *scratch_refusal_ : Error{status, sentence};
    scratch_refusal_.reset();
    fail(error);
    throw error;
}

void refuse_under_capture(df_device* device, const char* what) {
    Capture* capture = Capture::of_this_thread(device);
    if (capture == nullptr) return;
    try {
        raise(DF_INVALID_STATE, "capture: %s is no part of a graph; do it before the capture or after a replay", what);
    } catch (const Error& error) {
        capture->fail(error);
        throw;
    }
}

void* allocate(df_device* device, size_t bytes) {
    Capture* capture = Capture::of_this_thread(device);
    try {
        return device->pool.allocate(bytes);
    } catch (const Error& error) {
        if (capture != nullptr) capture->fail(error);
        throw;
    }
}

}  // namespace dualform
