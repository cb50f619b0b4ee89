// What a CUDA op sees on the host: the queue, the context of one call, scratch memory, errors.
//
// Nothing here exits, aborts, prints or throws: a failure is a status and a sentence.
#pragma once

#include <atomic>
#include <initializer_list>

#ifndef DF_CUDA_EMULATION
#include <cuda_runtime.h>
#endif

#include "dualform/df_backend.h"

namespace dualform::cuda {
struct Cublaslt;
}

/// One open device. The fields set by open never change; the stream and the lost code may be read by several threads.
struct df_queue {
    int device = 0;
    int compute_capability = 0; /* 10 major + minor */
    int multiprocessors = 1;
    df_host host = {};
    cudaEvent_t timer[2] = {}; /* start and stop, made by the first start_timer */
    std::atomic<bool> timing{false};
    cudaStream_t own_stream = nullptr;
    std::atomic<cudaStream_t> stream{nullptr};
    std::atomic<int> lost{0}; /* the sticky CUDA error that took the context, 0 while it lives */
    std::atomic<bool> capturing{false}; /* a graph: ops record and must not wait; only the capturing thread's ops run then */
    dualform::cuda::Cublaslt* cublaslt = nullptr;
    char matmul_provider[256] = "";
    char description[384] = "";
};

namespace dualform::cuda {

/// Writes a sentence and returns the status.
int fail(df_error* error, int status, const char* format, ...) __attribute__((format(printf, 3, 4)));

/// One op being served: every launch and copy of it goes to the same stream and names the same op in errors.
struct Call {
    df_queue* queue;
    cudaStream_t stream;
    const char* op;
    df_error* error;

    /// DF_OK, or the status of a CUDA error with a sentence that names the op and `what`. Remembers a lost context.
    int check(cudaError_t code, const char* what) const;
    /// DF_UNSUPPORTED naming the op when a present view is neither F32 nor BF16.
    int require_device_floats(std::initializer_list<const df_view*> views) const;
};

/// Device memory from the pool for the duration of one op. The pool reuses it in stream order, so it may be released when the last
/// kernel that reads it has been queued.
class Scratch {
public:
    Scratch(const Call& call, int64_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    explicit operator bool() const { return data_ != nullptr; }
    /// DF_OUT_OF_MEMORY with a sentence; for use when the scratch is false.
    int failure() const;
    template <class T>
    T* as(int64_t byte_offset = 0) const { return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset); }

private:
    const Call& call_;
    int64_t bytes_;
    void* data_;
};

}  // namespace dualform::cuda
