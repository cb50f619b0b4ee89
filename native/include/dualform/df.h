/* dualform C ABI: devices, tensors, memory, errors. Opaque handles, status codes, no C++ type and no exception crosses it.
 *
 * Every function that can fail returns a df_status; df_last_error() then holds one sentence on this thread. Handles are
 * thread-safe to use from several threads at once; destroying a handle while another thread uses it is the caller's error
 * (the Java API guards against it). Ops on one device from several threads are allowed; each runs to completion on its own.
 */
#ifndef DUALFORM_DF_H
#define DUALFORM_DF_H

#include <stddef.h>
#include <stdint.h>

#define DF_API __attribute__((visibility("default")))

#define DF_ABI_VERSION 1
#define DF_MAX_RANK 8

#ifdef __cplusplus
extern "C" {
#endif

/** What a call came to. Everything but DF_OK leaves a sentence in df_last_error(). */
typedef enum df_status {
    DF_OK = 0,
    DF_INVALID_ARGUMENT = 1, /* null, wrong shape, dtype, device or range */
    DF_INVALID_STATE = 2,    /* a device with live tensors refuses to close */
    DF_OUT_OF_MEMORY = 3,    /* recoverable: free something and call again */
    DF_UNSUPPORTED = 4,      /* this backend does not have that op or dtype */
    DF_UNAVAILABLE = 5,      /* the backend cannot serve on this machine */
    DF_DEVICE_LOST = 6,      /* the device's context is gone; the process must restart to use it */
    DF_INTERNAL = 7
} df_status;

/** Element types. F64 is served by the CPU only: it is the oracle. */
typedef enum df_dtype { DF_F32 = 0, DF_BF16 = 1, DF_F64 = 2, DF_I32 = 3 } df_dtype;

/** What df_device_stat() reports. */
typedef enum df_stat {
    DF_STAT_LIVE_TENSORS = 0,   /* handles not yet destroyed */
    DF_STAT_BYTES_IN_USE = 1,   /* bytes handed out to tensors and running ops, or kept for a graph */
    DF_STAT_BYTES_RESERVED = 2, /* bytes taken from the system, in use or kept for reuse */
    DF_STAT_PEAK_BYTES = 3,     /* largest BYTES_IN_USE since open or df_device_reset_peak() */
    DF_STAT_SYSTEM_ALLOCS = 4,  /* allocations made from the system since open: constant in a steady loop */
    DF_STAT_THREADS = 5,        /* threads an op may use (CPU) */
    DF_STAT_LIVE_GRAPHS = 6     /* graphs not yet destroyed */
} df_stat;

typedef struct df_device df_device;
typedef struct df_tensor df_tensor;
typedef struct df_graph df_graph;

/** Message of the last failure on this thread; valid until the next failing call on it. Never null. */
DF_API const char* df_last_error(void);
DF_API int df_abi_version(void);
/** Version of the library, e.g. "0.1.0". */
DF_API const char* df_version(void);
/** Hash of the sources the library was built from; equal in the core, the plug-in and the Java classes. */
DF_API const char* df_build_id(void);
/** Empty call, for measuring the cost of one crossing. */
DF_API int df_nop(int x);

/* ---- backends ---- */

/** Loads a backend plug-in (libdualform_cuda.so) from an absolute path; loading the same path again is a no-op.
 *  DF_UNAVAILABLE with the dlerror, the ABI or the build-id difference when it cannot serve. */
DF_API df_status df_backend_load(const char* path);
/** Devices the named backend ("cpu", "cuda") can open now; *count = 0 and DF_UNAVAILABLE with the reason when none. */
DF_API df_status df_backend_device_count(const char* backend, int* count);
/** One JSON object describing a backend without opening it (cpu: features; cuda: driver, devices, cuBLAS, NCCL). Writes at most n
 *  bytes with the final zero. DF_UNAVAILABLE when that backend is not loaded. */
DF_API df_status df_backend_describe(const char* backend, char* json, size_t n);
/** An option of a backend, read when a device is opened; null or "" restores the default.
 *  cuda, "cublaslt": where cuBLASLt is looked for first, an absolute path.
 *  cuda, "kernels": "plain" (default), "mma" or "hopper" (tensor cores; where these do not serve a case, the simpler ones do);
 *  "precision": how tensor cores multiply float32, "float32" (default: not at all), "tf32" or "bf16x3"; "deterministic": "true" or "false"
 *  (default), whether sums without a fixed order are kept out. They hold for the process from then on, and go before the environment
 *  variables DUALFORM_KERNELS, DUALFORM_PRECISION and DUALFORM_DETERMINISTIC, which are read when a device is opened.
 *  cpu, "level": the instructions that kernels may use, "base", "avx2", "avx512", "avx512bf16" or "amx"; goes before the environment
 *  variable DUALFORM_CPU. DF_UNAVAILABLE when this machine lacks it. */
DF_API df_status df_backend_set_option(const char* backend, const char* key, const char* value);

/* ---- devices ---- */

/** Opens a device. backend "cpu" (index 0) or "cuda"; threads 0 means all CPUs this process may run on (CPU only). */
DF_API df_status df_device_open(const char* backend, int index, int threads, df_device** out);
/** Closes it; DF_INVALID_STATE, and nothing changes, while tensors or graphs of it live. Null is fine. */
DF_API df_status df_device_close(df_device* device);
/** "cpu" or "cuda"; valid while the device is open. */
DF_API const char* df_device_backend(const df_device* device);
/** One line for a log: name, features, threads. */
DF_API df_status df_device_describe(const df_device* device, char* text, size_t n);
/** What its threads can do at most, in 1e9 flops a second: multiply-adds in registers, by the instruction that products of this dtype are
 *  formed with (a floating dtype; BF16: AMX, AVX512_BF16 or float32). Measured anew in some 30 ms. DF_UNSUPPORTED on CUDA. */
DF_API df_status df_device_peak_gflops(df_device* device, df_dtype dtype, double* gflops);
/** A stopwatch for benchmarks: start, queue work, stop. *seconds is the time between the two on the device (CUDA: between two events on its
 *  stream, so that the host's own time does not count while the queue is full; CPU: by the clock). stop waits for the work. One stopwatch a
 *  device; DF_INVALID_STATE when stop comes without start. */
DF_API df_status df_device_start_timer(df_device* device);
DF_API df_status df_device_stop_timer(df_device* device, double* seconds);
/** Waits for everything queued (CPU: returns at once). */
DF_API df_status df_device_synchronize(df_device* device);
DF_API int64_t df_device_stat(const df_device* device, df_stat which);
DF_API void df_device_reset_peak(df_device* device);
/** Gives cached memory that nothing uses back to the system. */
DF_API df_status df_device_trim(df_device* device);
/** CUDA: queue all later work on the caller's stream (a CUstream); null restores the device's own. CPU: DF_UNSUPPORTED. */
DF_API df_status df_device_set_stream(df_device* device, void* stream);

/* ---- graphs: a step recorded once and replayed ---- */

/** From here to the capture's end the ops of this thread on the device are recorded instead of run: what they would compute is there after a
 *  replay, not before. Nothing is allocated from the system under capture (a step that ran before has left what it needs in the pool),
 *  nothing waits for the device and nothing passes between host and device: a call that would fails with DF_INVALID_STATE, and so does every
 *  other thread's on that device. Begin while no other thread is in a call. A graph keeps its memory: where several are captured, run a step
 *  once more after the graphs before it. An op that fails under capture fails the capture too. Ids out of range are found on the CPU at
 *  each replay; on CUDA they make the loss NaN. */
DF_API df_status df_device_capture_begin(df_device* device);
/** Ends the capture, in any case: the device is as usable as before. The graph keeps every block of memory its ops use until it is
 *  destroyed, so that replays find their tensors where they were, closed or not; memory given to df_tensor_wrap is the caller's to keep. */
DF_API df_status df_device_capture_end(df_device* device, df_graph** out);
/** Ends the capture without a graph. */
DF_API df_status df_device_capture_abandon(df_device* device);
/** Runs what was recorded once more, as one launch (CUDA) or call by call (CPU), in the order of the device's other work. */
DF_API df_status df_graph_replay(df_graph* graph);
/** Null is fine. */
DF_API void df_graph_destroy(df_graph* graph);

/* ---- tensors: row-major views with a contiguous last dimension ---- */

/** New tensor, contiguous, contents undefined, 64-byte aligned. shape: rank values >= 1 (rank 0 is a scalar). */
DF_API df_status df_tensor_create(df_device* device, df_dtype dtype, int rank, const int64_t* shape, df_tensor** out);
/** A view of the same memory: shape and strides in elements, offset in elements from base's first element. The last
 *  stride must be 1 (or its dimension 1), strides positive, no element reached twice, all inside base's memory. The memory
 *  lives until its last view is destroyed. */
DF_API df_status df_tensor_view(const df_tensor* base, int rank, const int64_t* shape, const int64_t* strides, int64_t offset,
                                df_tensor** out);
/** A tensor over memory of the caller (device memory on a CUDA device); never freed by dualform. bytes: how much there is. */
DF_API df_status df_tensor_wrap(df_device* device, df_dtype dtype, int rank, const int64_t* shape, void* data, size_t bytes,
                                df_tensor** out);
/** Null is fine. */
DF_API void df_tensor_destroy(df_tensor* tensor);

DF_API int df_tensor_dtype(const df_tensor* tensor);
DF_API int df_tensor_rank(const df_tensor* tensor);
DF_API int64_t df_tensor_dim(const df_tensor* tensor, int axis);
DF_API int64_t df_tensor_stride(const df_tensor* tensor, int axis);
DF_API int64_t df_tensor_numel(const df_tensor* tensor);
/** Address of the first element (a device address on CUDA). */
DF_API void* df_tensor_data(const df_tensor* tensor);

/** Copies n elements, row-major, between the host and a tensor of exactly n elements (any strides). f32 and f64 convert from and
 *  to every floating dtype, rounding to nearest even; i32 serves I32 only. Reading waits for the device. */
DF_API df_status df_tensor_write_f32(df_tensor* tensor, const float* values, int64_t n);
DF_API df_status df_tensor_write_f64(df_tensor* tensor, const double* values, int64_t n);
DF_API df_status df_tensor_write_i32(df_tensor* tensor, const int32_t* values, int64_t n);
DF_API df_status df_tensor_read_f32(const df_tensor* tensor, float* values, int64_t n);
DF_API df_status df_tensor_read_f64(const df_tensor* tensor, double* values, int64_t n);
DF_API df_status df_tensor_read_i32(const df_tensor* tensor, int32_t* values, int64_t n);
/** The same in the tensor's own dtype, little endian: bytes must be numel times the element's size. */
DF_API df_status df_tensor_write_bytes(df_tensor* tensor, const void* bytes, int64_t n);
DF_API df_status df_tensor_read_bytes(const df_tensor* tensor, void* bytes, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
