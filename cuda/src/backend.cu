// The CUDA backend's table: devices, streams, memory and errors. The plug-in's one exported symbol is at the end.
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <new>

#include "choice.h"
#include "cublaslt.h"
#include "graph.h"
#include "kernels.h"
#include "launches.h"

#ifndef DF_CUDA_ARCHITECTURES
#define DF_CUDA_ARCHITECTURES "none"
#endif

namespace dualform::cuda {

int fail(df_error* error, int status, const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error->text, sizeof error->text, format, list);
    va_end(list);
    return status;
}

namespace {

#ifdef DF_CUDA_EMULATION
constexpr char kName[] = "cuda-emulated";
#else
constexpr char kName[] = "cuda";
#endif
constexpr int kNeededDriver = 13000; /* CUDA 13.0, which comes with driver 580 */
constexpr int kLeastMajor = 8;       /* compute capability 8.0: the oldest code compiled in */

/// The codes after which driver_types.h says the process must be relaunched.
bool is_sticky(int code) {
    for (const int sticky : {226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911})
        if (code == sticky) return true;
    return false;
}

/// The codes that mean "no GPU to serve with" rather than a fault: initialization error, stub library, insufficient driver, no device,
/// system not ready, driver mismatch, compatibility not supported.
bool means_unavailable(int code) {
    for (const int absent : {3, 34, 35, 100, 802, 803, 804})
        if (code == absent) return true;
    return false;
}

int driver_version() {
    int version = 0;
    if (cudaDriverGetVersion(&version) != cudaSuccess) (void)cudaGetLastError();
    return version;
}

/// Device errors outside any queue.
int report(df_error* error, cudaError_t code, const char* what) {
    (void)cudaGetLastError();
    const int number = static_cast<int>(code), driver = driver_version();
    if (means_unavailable(number)) {
        char found[64] = "no driver";
        if (driver > 0) snprintf(found, sizeof found, "a driver for CUDA %d.%d", driver / 1000, driver % 1000 / 10);
        return fail(error, DF_UNAVAILABLE, "%s: %s (%d, %s); found %s, needed one for CUDA %d.%d (580 or newer)", what,
                    cudaGetErrorName(code), number,
                    cudaGetErrorString(code), found, kNeededDriver / 1000, kNeededDriver % 1000 / 10);
    }
    const int status = number == 2 ? DF_OUT_OF_MEMORY : is_sticky(number) ? DF_DEVICE_LOST : DF_INTERNAL;
    return fail(error, status, "%s: %s (%d, %s)", what, cudaGetErrorName(code), number, cudaGetErrorString(code));
}

int lost_already(df_queue* queue, const char* op, df_error* error) {
    const int code = queue->lost.load(std::memory_order_relaxed);
    if (code == 0) return DF_OK;
    return fail(error, DF_DEVICE_LOST, "%s: device %d was lost to %s (%d); restart the process to use it", op, queue->device,
                cudaGetErrorName(static_cast<cudaError_t>(code)), code);
}

/// Makes the queue's device current for one call and restores what the caller had.
class CurrentDevice {
public:
    explicit CurrentDevice(int device) {
        if (cudaGetDevice(&before_) != cudaSuccess) before_ = device;
        if (before_ != device) {
            cudaSetDevice(device);
            changed_ = true;
        }
    }
    ~CurrentDevice() {
        if (changed_) cudaSetDevice(before_);
    }
    CurrentDevice(const CurrentDevice&) = delete;
    CurrentDevice& operator=(const CurrentDevice&) = delete;

private:
    int before_ = 0;
    bool changed_ = false;
};

Call call_on(df_queue* queue, const char* op, df_error* error) { return {queue, queue->stream.load(std::memory_order_acquire), op, error}; }

}  // namespace

int Call::check(cudaError_t code, const char* what) const {
    if (code == cudaSuccess) return DF_OK;
    (void)cudaGetLastError();
    const int number = static_cast<int>(code);
    if (is_sticky(number)) {
        queue->lost.store(number, std::memory_order_relaxed);
        return fail(error, DF_DEVICE_LOST,
                    "%s: %s: %s (%d, %s), perhaps from an earlier op; device %d is lost, restart the process to use it", op, what,
                    cudaGetErrorName(code), number, cudaGetErrorString(code), queue->device);
    }
    return fail(error, number == 2 ? DF_OUT_OF_MEMORY : DF_INTERNAL, "%s: %s: %s (%d, %s)", op, what, cudaGetErrorName(code), number,
                cudaGetErrorString(code));
}

int Call::require_device_floats(std::initializer_list<const df_view*> views) const {
    for (const df_view* view : views)
        if (view != nullptr && view->dtype != DF_F32 && view->dtype != DF_BF16)
            return fail(error, DF_UNSUPPORTED, "%s: %s on %s, which has F32 and BF16", op, view->dtype == DF_F64 ? "F64" : "I32", kName);
    return DF_OK;
}

Scratch::Scratch(const Call& call, int64_t bytes)
    : call_(call), bytes_(bytes), data_(call.queue->host.alloc(call.queue->host.context, bytes > 0 ? static_cast<size_t>(bytes) : 1)) {}
Scratch::~Scratch() {
    if (data_ != nullptr) call_.queue->host.release(call_.queue->host.context, data_);
}
int Scratch::failure() const {
    return fail(call_.error, DF_OUT_OF_MEMORY, "%s: no device memory for %lld bytes of scratch", call_.op, static_cast<long long>(bytes_));
}

namespace {

int device_count(int* count, df_error* error) {
    *count = 0;
    int all = 0;
    if (const cudaError_t code = cudaGetDeviceCount(&all); code != cudaSuccess) return report(error, code, kName);
    if (all == 0) return fail(error, DF_UNAVAILABLE, "%s: the driver shows no device", kName);
    cudaDeviceProp properties;
    bool serves = false; /* open() tells of each device by itself */
    for (int i = all - 1; i >= 0; --i) {
        if (const cudaError_t code = cudaGetDeviceProperties(&properties, i); code != cudaSuccess) return report(error, code, kName);
        serves = serves || properties.major >= kLeastMajor;
    }
    if (!serves)
        return fail(error, DF_UNAVAILABLE, "%s: device 0 (%s) has compute capability %d.%d, compiled for %s: %d.0 is the least", kName,
                    properties.name, properties.major, properties.minor, DF_CUDA_ARCHITECTURES, kLeastMajor);
    *count = all;
    return DF_OK;
}

/// Appends to a fixed buffer; what does not fit is cut.
class Text {
public:
    Text(char* out, size_t n) : out_(out), n_(n) {
        if (n > 0) out[0] = 0;
    }
    __attribute__((format(printf, 2, 3))) void add(const char* format, ...) {
        if (used_ >= n_) return;
        va_list list;
        va_start(list, format);
        const int wrote = vsnprintf(out_ + used_, n_ - used_, format, list);
        va_end(list);
        if (wrote > 0) used_ += static_cast<size_t>(wrote);
    }
    /// A JSON string.
    void quote(const char* text) {
        add("\"");
        for (; *text != 0; ++text) {
            const unsigned char c = static_cast<unsigned char>(*text);
            if (c == '"' || c == '\\')
                add("\\%c", c);
            else if (c < 0x20)
                add("\\u%04x", c);
            else
                add("%c", c);
        }
        add("\"");
    }

private:
    char* out_;
    size_t n_, used_ = 0;
};

void describe_nccl(Text& text) {
    void* library = nullptr;
    for (const char* name : {"libnccl.so.2", "libnccl.so"})
        if (library == nullptr) library = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
        const char* why = dlerror();
        text.add("{\"found\":false,\"reason\":");
        text.quote(why != nullptr ? why : "libnccl.so");
        text.add("}");
        return;
    }
    int version = 0;
    const auto get = reinterpret_cast<int (*)(int*)>(dlsym(library, "ncclGetVersion"));
    if (get != nullptr) get(&version);
    text.add("{\"found\":true,\"version\":%d}", version);
    dlclose(library);
}

/// Every kernel that was queued, with its count.
void describe_launches(Text& text) {
    text.add(",\"launches\":{");
    bool any = false;
    for (uint32_t i = 0; i < kLaunchCounts; ++i) {
        const char* const name = launch_counts[i].name.load(std::memory_order_acquire);
        bool known = name == nullptr;
        int64_t count = 0;
        for (uint32_t j = 0; j < kLaunchCounts; ++j) {
            const char* const other = launch_counts[j].name.load(std::memory_order_acquire);
            if (known || other == nullptr || strcmp(name, other) != 0) continue;
            known = j < i; /* said already */
            count += launch_counts[j].count.load(std::memory_order_relaxed);
        }
        if (known) continue;
        text.add("%s", any ? "," : "");
        text.quote(name);
        text.add(":%lld", static_cast<long long>(count));
        any = true;
    }
    text.add("}");
}

int describe(char* json, size_t n, df_error* error) {
    if (const int status = read_choices(error)) return status;
    Text text(json, n);
    int runtime = 0, count = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) (void)cudaGetLastError();
    text.add("{\"driver\":%d,\"runtime\":%d,\"architectures\":", driver_version(), runtime);
    text.quote(DF_CUDA_ARCHITECTURES);
    df_error reason;
    reason.text[0] = 0;
    const int status = device_count(&count, &reason);
    text.add(",\"devices\":[");
    for (int i = 0; i < count; ++i) {
        cudaDeviceProp properties;
        if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) {
            (void)cudaGetLastError();
            continue;
        }
        text.add("%s{\"name\":", i == 0 ? "" : ",");
        text.quote(properties.name);
        text.add(",\"cc\":\"%d.%d\",\"memory_bytes\":%zu}", properties.major, properties.minor, properties.totalGlobalMem);
    }
    text.add("]");
    if (status != DF_OK) {
        text.add(",\"unavailable\":");
        text.quote(reason.text);
    }
    const CublasltSearch lt = find_cublaslt();
    text.add(",\"cublaslt\":{\"found\":%s,\"%s\":", lt.found ? "true" : "false", lt.found ? "path" : "reason");
    text.quote(lt.found ? lt.path : lt.reason);
    if (lt.found) text.add(",\"version\":%zu", lt.version);
    text.add("},\"nccl\":");
    describe_nccl(text);
    text.add(",\"matmul\":\"%s\"", lt.found && kernels() != Kernels::kPlain ? "cublaslt" : "own tiled kernel");
    char choices[1024];
    describe_choices(choices, sizeof choices);
    text.add("%s", choices);
#ifdef DF_CUDA_EMULATION
    text.add(",\"emulation\":\"kernels run on the host, thread by thread: proves index logic only\"");
#endif
    describe_launches(text);
    text.add("}");
    return DF_OK;
}

int set_option(const char* key, const char* value, df_error* error) {
    bool known = false;
    if (key != nullptr)
        if (const int status = set_choice(key, value, &known, error); status != DF_OK || known) return status;
    if (key == nullptr || strcmp(key, "cublaslt") != 0)
        return fail(error, DF_INVALID_ARGUMENT, "option: %s, expected cublaslt, kernels, precision or deterministic",
                    key == nullptr ? "null" : key);
    if (!set_cublaslt_path(value))
        return fail(error, DF_INVALID_ARGUMENT, "cublaslt: %.300s, expected an absolute path under 256 bytes", value);
    return DF_OK;
}

void close(df_queue* queue) {
    if (queue == nullptr) return;
    const CurrentDevice current(queue->device);
    if (queue->lost.load(std::memory_order_relaxed) == 0) {
        close_cublaslt(queue->cublaslt);
        for (const cudaEvent_t event : queue->timer)
            if (event != nullptr) cudaEventDestroy(event);
        cudaStreamDestroy(queue->own_stream);
    }
    delete queue;
}

int open(int index, int, const df_host* host, df_queue** out, df_error* error) {
    *out = nullptr;
    if (const int status = read_choices(error)) return status;
    int count = 0;
    if (const int status = device_count(&count, error)) return status;
    if (index < 0 || index >= count) return fail(error, DF_INVALID_ARGUMENT, "index: %d, expected 0..%d", index, count - 1);
    cudaDeviceProp properties;
    if (const cudaError_t code = cudaGetDeviceProperties(&properties, index); code != cudaSuccess) return report(error, code, kName);
    if (properties.major < kLeastMajor)
        return fail(error, DF_UNAVAILABLE, "%s: device %d (%s) has compute capability %d.%d, compiled for %s", kName, index,
                    properties.name, properties.major, properties.minor, DF_CUDA_ARCHITECTURES);
    auto* queue = new (std::nothrow) df_queue;
    if (queue == nullptr) return fail(error, DF_OUT_OF_MEMORY, "no memory for a %s device", kName);
    queue->device = index;
    queue->compute_capability = 10 * properties.major + properties.minor;
    queue->multiprocessors = properties.multiProcessorCount;
    queue->host = *host;
    const CurrentDevice current(index);
    if (const cudaError_t code = cudaStreamCreateWithFlags(&queue->own_stream, cudaStreamNonBlocking); code != cudaSuccess) {
        delete queue;
        return report(error, code, kName);
    }
    queue->stream.store(queue->own_stream, std::memory_order_release);
    queue->cublaslt = open_cublaslt(queue->matmul_provider, sizeof queue->matmul_provider);
    snprintf(queue->description, sizeof queue->description, "%s:%d (%.80s, compute capability %d.%d, matmul: %.200s)", kName, index,
             properties.name, properties.major, properties.minor, queue->matmul_provider);
    *out = queue;
    return DF_OK;
}

int describe_queue(df_queue* queue, char* text, size_t n, df_error*) {
    snprintf(text, n, "%s", queue->description);
    return DF_OK;
}

int synchronize(df_queue* queue, df_error* error) {
    if (const int status = lost_already(queue, "synchronize", error)) return status;
    const CurrentDevice current(queue->device);
    const Call call = call_on(queue, "synchronize", error);
    return call.check(cudaStreamSynchronize(call.stream), "stream");
}

int start_timer(df_queue* queue, df_error* error) {
    if (const int status = lost_already(queue, "start_timer", error)) return status;
    const CurrentDevice current(queue->device);
    const Call call = call_on(queue, "start_timer", error);
    for (cudaEvent_t& event : queue->timer)
        if (event == nullptr)
            if (const int status = call.check(cudaEventCreate(&event), "event")) return status;
    if (const int status = call.check(cudaEventRecord(queue->timer[0], call.stream), "event")) return status;
    queue->timing.store(true);
    return DF_OK;
}

int stop_timer(df_queue* queue, double* seconds, df_error* error) {
    if (const int status = lost_already(queue, "stop_timer", error)) return status;
    if (!queue->timing.exchange(false)) return fail(error, DF_INVALID_STATE, "timer: stopped without being started");
    const CurrentDevice current(queue->device);
    const Call call = call_on(queue, "stop_timer", error);
    float milliseconds = 0;
    if (const int status = call.check(cudaEventRecord(queue->timer[1], call.stream), "event")) return status;
    if (const int status = call.check(cudaEventSynchronize(queue->timer[1]), "event")) return status;
    if (const int status = call.check(cudaEventElapsedTime(&milliseconds, queue->timer[0], queue->timer[1]), "event")) return status;
    *seconds = static_cast<double>(milliseconds) * 1e-3;
    return DF_OK;
}

/// Work already queued on the old stream is waited for, so that ops and pooled memory keep their order across the change.
int set_stream(df_queue* queue, void* stream, df_error* error) {
    if (const int status = synchronize(queue, error)) return status;
    queue->stream.store(stream == nullptr ? queue->own_stream : static_cast<cudaStream_t>(stream), std::memory_order_release);
    return DF_OK;
}

int allocate(df_queue* queue, size_t bytes, void** out, df_error* error) {
    *out = nullptr;
    if (const int status = lost_already(queue, "allocate", error)) return status;
    const CurrentDevice current(queue->device);
    const cudaError_t code = cudaMalloc(out, bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* not sticky: cleared, the context lives on */
        size_t free_bytes = 0, total = 0;
        if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) (void)cudaGetLastError();
        *out = nullptr;
        return fail(error, DF_OUT_OF_MEMORY, "no device memory for %zu bytes, %zu of %zu are free", bytes, free_bytes, total);
    }
    return call_on(queue, "allocate", error).check(code, "cudaMalloc");
}

void deallocate(df_queue* queue, void* memory, size_t) {
    if (queue->lost.load(std::memory_order_relaxed) != 0) return;
    const CurrentDevice current(queue->device);
    if (cudaFree(memory) != cudaSuccess) (void)cudaGetLastError(); /* the runtime may be unloading */
}

int transfer(df_queue* queue, const char* op, void* to, const void* from, size_t bytes, cudaMemcpyKind kind, df_error* error) {
    if (const int status = lost_already(queue, op, error)) return status;
    const CurrentDevice current(queue->device);
    const Call call = call_on(queue, op, error);
    if (const int status = call.check(cudaMemcpyAsync(to, from, bytes, kind, call.stream), "copy")) return status;
    return call.check(cudaStreamSynchronize(call.stream), "copy");
}

int write(df_queue* queue, void* device, const void* host, size_t bytes, df_error* error) {
    return transfer(queue, "write", device, host, bytes, cudaMemcpyHostToDevice, error);
}
int read(df_queue* queue, void* host, const void* device, size_t bytes, df_error* error) {
    return transfer(queue, "read", host, device, bytes, cudaMemcpyDeviceToHost, error);
}

int capture_begin(df_queue* queue, df_error* error) {
    if (const int status = lost_already(queue, "capture", error)) return status;
    const CurrentDevice current(queue->device);
    return begin_capture(call_on(queue, "capture", error));
}

int capture_end(df_queue* queue, df_recording** out, df_error* error) {
    if (const int status = lost_already(queue, "capture", error)) {
        queue->capturing = false;
        return status;
    }
    const CurrentDevice current(queue->device);
    return end_capture(call_on(queue, "capture", error), out);
}

int replay_recording(df_queue* queue, df_recording* recording, df_error* error) {
    if (const int status = lost_already(queue, "replay", error)) return status;
    const CurrentDevice current(queue->device);
    return replay(call_on(queue, "replay", error), recording);
}

void forget_recording(df_queue* queue, df_recording* recording) {
    const CurrentDevice current(queue->device);
    forget(recording);
}

template <class Args>
int serve(df_queue* queue, const char* op, int (*run)(const Call&, const Args*), const Args* args, df_error* error) {
    if (const int status = lost_already(queue, op, error)) return status;
    const CurrentDevice current(queue->device);
    return run(call_on(queue, op, error), args);
}

#define DF_SERVE(name, Args) \
    [](df_queue* queue, const Args* args, df_error* error) -> int { return serve<Args>(queue, #name, dualform::cuda::name, args, error); },

const df_backend kBackend = {
    sizeof(df_backend), DF_BACKEND_ABI, kName, DF_BUILD_ID, device_count, describe, set_option, open, close, describe_queue,
    start_timer, stop_timer,
    [](df_queue*) -> int { return 1; },
    [](df_queue*, int, double*, df_error* error) -> int { return fail(error, DF_UNSUPPORTED, "peak: the cuda backend does not measure it"); },
    synchronize, set_stream, allocate, deallocate, write, read, capture_begin, capture_end, replay_recording, forget_recording,
    {DF_CUDA_KERNELS(DF_SERVE)}};

}  // namespace

}  // namespace dualform::cuda

extern "C" DF_API const df_backend* df_backend_entry(uint32_t abi) {
    return abi == DF_BACKEND_ABI ? &dualform::cuda::kBackend : nullptr;
}
