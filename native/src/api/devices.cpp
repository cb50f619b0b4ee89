// The C ABI's devices and backends.
#include <stdio.h>
#include <string.h>

#include <memory>

#include "core/graph.h"

namespace {

using dualform::check;
using dualform::Error;
using dualform::guard;
using dualform::raise;

// CUDA kernels like 256-byte blocks; on the CPU a cache line is enough.
size_t alignment_of(const df_backend* backend) { return strcmp(backend->name, "cpu") == 0 ? 64 : 256; }

void require(const df_device* device) {
    if (device == nullptr) raise(DF_INVALID_ARGUMENT, "device: null, expected an open device");
}

void require_text(const char* text, size_t n) {
    if (text == nullptr || n == 0) raise(DF_INVALID_ARGUMENT, "text: %zu bytes, expected a buffer", text == nullptr ? size_t{0} : n);
}

void* allocate_scratch(void* context, size_t bytes) {
    auto* device = static_cast<df_device*>(context);
    try {
        return device->pool.allocate(bytes);
    } catch (const Error& e) {
        if (dualform::Capture* capture = device->capture.load()) capture->scratch_refused(e);
        return nullptr;
    } catch (...) {
        return nullptr;
    }
}

void release_scratch(void* context, void* memory) { static_cast<df_device*>(context)->pool.release(memory); }

}  // namespace

extern "C" {

df_status df_backend_load(const char* path) {
    return guard([&] { dualform::load_backend(path); });
}

df_status df_backend_device_count(const char* backend, int* count) {
    return guard([&] {
        if (count == nullptr) raise(DF_INVALID_ARGUMENT, "count: null");
        *count = 0;
        df_error error = {};
        check(dualform::find_backend(backend)->device_count(count, &error), error);
    });
}

df_status df_backend_describe(const char* backend, char* json, size_t n) {
    return guard([&] {
        require_text(json, n);
        df_error error = {};
        check(dualform::find_backend(backend)->describe(json, n, &error), error);
    });
}

df_status df_backend_set_option(const char* backend, const char* key, const char* value) {
    return guard([&] {
        if (key == nullptr) raise(DF_INVALID_ARGUMENT, "key: null");
        df_error error = {};
        check(dualform::find_backend(backend)->set_option(key, value, &error), error);
    });
}

df_status df_device_open(const char* backend, int index, int threads, df_device** out) {
    return guard([&] {
        if (out == nullptr) raise(DF_INVALID_ARGUMENT, "out: null");
        *out = nullptr;
        const df_backend* table = dualform::find_backend(backend);
        auto device = std::make_unique<df_device>(table, alignment_of(table));
        device->host = {device.get(), allocate_scratch, release_scratch};
        df_error error = {};
        check(table->open(index, threads, &device->host, &device->queue, &error), error);
        device->pool.attach(device->queue);
        *out = device.release();
    });
}

df_status df_device_close(df_device* device) {
    return guard([&] {
        if (device == nullptr) return;
        const int64_t live = device->live_tensors.load();
        if (live != 0)
            raise(DF_INVALID_STATE, "device: %lld tensor%s of it still open, close them first", static_cast<long long>(live), live == 1 ? "" : "s");
        const int64_t graphs = device->live_graphs.load();
        if (graphs != 0)
            raise(DF_INVALID_STATE, "device: %lld graph%s of it still open, close them first", static_cast<long long>(graphs), graphs == 1 ? "" : "s");
        dualform::refuse_under_capture(device, "closing the device");
        device->pool.trim();
        device->backend->close(device->queue);
        delete device;
    });
}

const char* df_device_backend(const df_device* device) { return device == nullptr ? "" : device->backend->name; }

df_status df_device_describe(const df_device* device, char* text, size_t n) {
    return guard([&] {
        require(device);
        require_text(text, n);
        df_error error = {};
        check(device->backend->describe_queue(device->queue, text, n, &error), error);
    });
}

df_status df_device_peak_gflops(df_device* device, df_dtype dtype, double* gflops) {
    return guard([&] {
        require(device);
        if (gflops == nullptr) raise(DF_INVALID_ARGUMENT, "gflops: null");
        *gflops = 0;
        dualform::refuse_under_capture(device, "measuring the device");
        if (dtype != DF_F32 && dtype != DF_BF16 && dtype != DF_F64)
            raise(DF_INVALID_ARGUMENT, "dtype: %d, expected F32, BF16 or F64", static_cast<int>(dtype));
        df_error error = {};
        check(device->backend->peak(device->queue, dtype, gflops, &error), error);
    });
}

df_status df_device_start_timer(df_device* device) {
    return guard([&] {
        require(device);
        dualform::refuse_under_capture(device, "timing");
        df_error error = {};
        check(device->backend->start_timer(device->queue, &error), error);
    });
}

df_status df_device_stop_timer(df_device* device, double* seconds) {
    return guard([&] {
        require(device);
        if (seconds == nullptr) raise(DF_INVALID_ARGUMENT, "seconds: null");
        dualform::refuse_under_capture(device, "timing");
        *seconds = 0;
        df_error error = {};
        check(device->backend->stop_timer(device->queue, seconds, &error), error);
    });
}

df_status df_device_synchronize(df_device* device) {
    return guard([&] {
        require(device);
        dualform::refuse_under_capture(device, "waiting for the device");
        df_error error = {};
        check(device->backend->synchronize(device->queue, &error), error);
    });
}

int64_t df_device_stat(const df_device* device, df_stat which) {
    if (device == nullptr) return -1;
    switch (which) {
        case DF_STAT_LIVE_TENSORS: return device->live_tensors.load();
        case DF_STAT_LIVE_GRAPHS: return device->live_graphs.load();
        case DF_STAT_THREADS: return device->backend->threads(device->queue);
        default: return device->pool.stat(which);
    }
}

void df_device_reset_peak(df_device* device) {
    if (device != nullptr) device->pool.reset_peak();
}

df_status df_device_trim(df_device* device) {
    return guard([&] {
        require(device);
        dualform::refuse_under_capture(device, "giving memory back");
        df_error error = {};
        check(device->backend->synchronize(device->queue, &error), error);
        device->pool.trim();
    });
}

df_status df_device_set_stream(df_device* device, void* stream) {
    return guard([&] {
        require(device);
        dualform::refuse_under_capture(device, "another stream");
        df_error error = {};
        check(device->backend->set_stream(device->queue, stream, &error), error);
    });
}

}  // extern "C"
