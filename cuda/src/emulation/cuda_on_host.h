// CUDA C++ on the host, for tests on machines without a GPU: included before each .cu file, which then compiles as C++.
//
// It runs one block at a time, its threads as fibers that switch at barriers and shuffles. That proves index logic, barriers
// between phases (in every order that `Schedule` offers; dynamic shared memory starts as NaN), waits for
// asynchronous copies (what is on its way reads as NaN) and numbers up to rounding. It proves nothing about the hardware: memory coalescing, speed, occupancy, warp divergence, the driver.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __shared__ static /* one block runs at a time in the whole process */
#define __grid_constant__
#define __forceinline__ inline

struct dim3 {
    unsigned x, y, z;
};

namespace dualform::cuda::emulation {

/// One thread of the running block.
struct Fiber {
    void* stack_pointer = nullptr;
    char* stack = nullptr;
    dim3 index = {0, 0, 0};
    int phase = 0; /* barriers passed, of the block or of its warp */
    bool done = false;
    const int* waits_for = nullptr; /* not runnable while *waits_for == waits_value */
    int waits_value = 0;
};

struct Block {
    dim3 index, block_size, grid_size;
};

extern Fiber* running;
extern Block block;

/// What CUDA leaves open, chosen for the process by DUALFORM_EMULATION_ORDER (turns, forward, reverse, random:SEED) and
/// DUALFORM_EMULATION_ASYNC (late, early, random).
///   kTurns           all threads that can run, once each, forwards and backwards in turn: nobody gets far ahead
///   kForward         the first warp that can run, as far as it gets: it is ahead of the others by all that barriers allow
///   kReverse         the same for the last warp, and blocks from the last
///   kRandom          a warp that is drawn stays ahead for a while; a thread may lose its turn also where it need not wait; blocks in any order
/// Asynchronous work (copies, wgmma) happens when it is waited for, or some time before that; or when it is issued; or either, drawn
/// each time.
struct Schedule {
    enum class Order { kTurns, kForward, kReverse, kRandom } order = Order::kTurns;
    enum class Async { kLate, kEarly, kRandom } async = Async::kLate;
};

/// cudaError values that the emulation can produce.
enum Error {
    kSuccess = 0,
    kOutOfMemory = 2,
    kInvalidConfiguration = 9,
    kIllegalAddress = 700,
    kMisalignedAddress = 716,
    kLaunchFailure = 719,
    kCaptureUnsupported = 900,
    kCaptureInvalidated = 901
};

/// Dynamic shared memory a block can have on every device of compute capability 8.0 and above.
constexpr size_t kMaxShared = 99 * 1024;

/// Runs body once per thread of every block. kLaunchFailure when the threads of a block wait for a barrier that cannot be reached, or
/// when one of them called fault(). rising: blocks run in the order of their numbers, whatever the schedule.
int run_threads(int64_t blocks, int threads, size_t shared, void (*body)(void*), void* context, size_t max_shared, bool rising);
template <class Body>
int run(int64_t blocks, int threads, size_t shared, Body&& body, size_t max_shared = kMaxShared, bool rising = false) {
    return run_threads(
        blocks, threads, shared, [](void* context) { (*static_cast<Body*>(context))(); },
            const_cast<void*>(static_cast<const void*>(&body)), max_shared, rising);
}
/// The next of the schedule's random numbers, 16 bits.
uint32_t draw();
/// Whether the asynchronous work that is being issued is done at once.
bool done_at_once();
/// A random schedule may let others go on here.
void may_switch();

/// Whether work for the stream is being recorded instead of run.
bool is_recording(void* stream);
void record(void* stream, std::function<int()> work);
/// What a capturing thread must not do: kCaptureUnsupported, and its captures are spoilt.
int unless_capturing();
/// Runs work now, or when the graph that the stream records is launched; it holds copies of its arguments, as a launch does.
template <class Work>
int enqueue(void* stream, Work&& work) {
    if (!is_recording(stream)) return work();
    record(stream, std::function<int()>(std::forward<Work>(work)));
    return kSuccess;
}

void block_barrier();
void warp_barrier();
/// The dynamic shared memory of the running block. It starts at a multiple of 128, on purpose not of 1024.
void* dynamic_shared();
/// The address of a byte of dynamic shared memory as the hardware counts it, and the way back (null outside of what was asked for).
uint32_t shared_address(const void* p);
char* shared_at(uint32_t address, size_t bytes);
/// The running thread sleeps while *word == value.
void sleep_while(const int* word, int value);
/// A use of the hardware that the emulation knows to be wrong: the launch fails with this sentence (the first one counts).
void fault(const char* sentence);

/// Work that goes on beside the threads of a block (asynchronous copies). Null members are not called.
struct Beside {
    void (*begin)() = nullptr;        /* before a block */
    bool (*step)(bool idle) = nullptr; /* after about as much as a round over the threads, idle when none could run; true when it did something */
    void (*end)() = nullptr;          /* after a block */
};
extern Beside beside;
/// Eight bytes that lane `lane` of the running warp left with exchange_put.
void exchange_put(uint64_t bits);
uint64_t exchange_get(int lane);


// ---- tensor cores and asynchronous copies: what mma.h says, by the PTX ISA ----

/// Products of 8 (bf16) or 4 (tf32) elements are added to the accumulator at once, aligned to the largest of them and cut towards zero,
/// as measured on tensor cores: a float sum would be kinder than the hardware.
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void ldmatrix(uint32_t (&r)[4], const unsigned char* row, bool transposed);
/// Unless it is done at once the destination is NaN until async_wait has waited for the copy's group. size: 4, 8 or 16 bytes, of which
/// `bytes` are read.
void async_copy(unsigned char* to, const void* from, int size, int bytes);
void async_commit();
void async_wait(int pending);
/// Ends the launch with an error once the block is done.
void fault(Error error);

template <class T>
T shuffle(T value, int lane) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves at most eight bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    exchange_put(bits);
    warp_barrier();
    bits = exchange_get(lane);
    warp_barrier();
    memcpy(&value, &bits, sizeof value);
    return value;
}
template <class T>
T shuffle_xor(T value, int mask) {
    return shuffle(value, static_cast<int>(running->index.x % 32) ^ mask);
}

}  // namespace dualform::cuda::emulation

#define threadIdx (dualform::cuda::emulation::running->index)
#define blockIdx (dualform::cuda::emulation::block.index)
#define blockDim (dualform::cuda::emulation::block.block_size)
#define gridDim (dualform::cuda::emulation::block.grid_size)

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline void __syncthreads() { dualform::cuda::emulation::block_barrier(); }
inline void __syncwarp() { dualform::cuda::emulation::warp_barrier(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) { return dualform::cuda::emulation::shuffle_xor(value, mask); }
template <class T>
T __shfl_sync(unsigned, T value, int lane) { return dualform::cuda::emulation::shuffle(value, lane); }
inline int atomicAdd(int* address, int value) {
    const int old = *address;
    *address += value;
    return old;
}
inline unsigned long long atomicMin(unsigned long long* address, unsigned long long value) {
    const unsigned long long old = *address;
    if (value < old) *address = value;
    return old;
}

// ---- the part of the CUDA runtime that the backend calls ----

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorMemoryAllocation = 2;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
constexpr unsigned cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor;
    int multiProcessorCount;
};

cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    return dualform::cuda::emulation::enqueue(stream, [=] {
        memcpy(to, from, bytes);
        return cudaSuccess;
    });
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
    return dualform::cuda::emulation::enqueue(stream, [=] {
        memset(to, value, bytes);
        return cudaSuccess;
    });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

// Graphs: a list of what was queued. As on the device, waiting for the stream or allocating in the capturing thread spoils the capture.
using cudaGraph_t = struct df_emulated_graph*;
using cudaGraphExec_t = struct df_emulated_graph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 0;
    return cudaSuccess;
}
/// An event holds the time at which it was recorded: kernels are done when a launch returns.
using cudaEvent_t = double*;
inline cudaError_t cudaEventCreate(cudaEvent_t* event) {
    *event = new double(0);
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *event = static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
    return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
    *milliseconds = static_cast<float>(*stop - *start);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
const char* cudaGetErrorName(cudaError_t code);
const char* cudaGetErrorString(cudaError_t code);
