// The CPU backend: threads, plain memory, and the kernels of the best instruction set this machine has.
#include "cpu/backend.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <new>
#include <thread>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

struct df_queue {
    df_queue(int threads, const df_host& h, const char* set, const df_backend_ops* o) : pool(threads), host(h), instruction_set(set), ops(o) {}
    dualform::cpu::ThreadPool pool;
    df_host host;
    const char* instruction_set;
    const df_backend_ops* ops;
};

namespace dualform::cpu {

int fail(df_error* error, int status, const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error->text, sizeof error->text, format, list);
    va_end(list);
    return status;
}

int out_of_memory(df_error* error, const char* op, size_t bytes) {
    return fail(error, DF_OUT_OF_MEMORY, "%s: no memory for %zu bytes of scratch", op, bytes);
}

int thread_count(df_queue* queue) { return queue->pool.threads(); }

void run_parallel(df_queue* queue, int64_t n, void (*fn)(void*, int64_t, int), void* context) { queue->pool.run(n, fn, context); }

Scratch::Scratch(df_queue* queue, size_t bytes) : queue_(queue), data_(queue->host.alloc(queue->host.context, bytes ? bytes : 1)) {}
Scratch::~Scratch() {
    if (data_ != nullptr) queue_->host.release(queue_->host.context, data_);
}

namespace {

constexpr int kMaxThreads = 1024;

struct InstructionSet {
    const char* name;
    const df_backend_ops* ops;
    bool (*supported)();
};

// Best first.
const InstructionSet kInstructionSets[] = {
#if defined(DF_X86_KERNELS)
    {"avx512", &kAvx512Ops,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma");
     }},
    {"avx2", &kAvx2Ops, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }},
#endif
    {"base", &kBaseOps, [] { return true; }},
};

/// DUALFORM_CPU_ISA=base|avx2|avx512 forces a level (the tests run each one); otherwise the best that the machine has.
const InstructionSet* choose(df_error* error) {
    const char* wanted = getenv("DUALFORM_CPU_ISA");
    for (const InstructionSet& set : kInstructionSets) {
        if (wanted != nullptr && *wanted != 0 && strcmp(wanted, set.name) != 0) continue;
        if (set.supported()) return &set;
    }
    fail(error, DF_UNAVAILABLE, "DUALFORM_CPU_ISA: %s, expected one that this machine has (base, avx2, avx512)", wanted);
    return nullptr;
}

int usable_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    const bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    const int n = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());  // 0: unknown
    return std::clamp(n, 1, kMaxThreads);
}

int device_count(int* count, df_error*) {
    *count = 1;
    return DF_OK;
}

int describe(char* json, size_t n, df_error* error) {
    const InstructionSet* set = choose(error);
    if (set == nullptr) return DF_UNAVAILABLE;
    char supported[64] = "";
    for (const InstructionSet& s : kInstructionSets)
        if (s.supported()) snprintf(supported + strlen(supported), sizeof supported - strlen(supported), "%s\"%s\"", *supported ? "," : "", s.name);
    bool bf16 = false;
#if defined(__x86_64__)
    bf16 = __builtin_cpu_supports("avx512bf16");
#endif
    snprintf(json, n, "{\"instruction_set\":\"%s\",\"supported\":[%s],\"avx512_bf16\":%s,\"cpus\":%d}", set->name, supported, bf16 ? "true" : "false",
             usable_cpus());
    return DF_OK;
}

int set_option(const char* key, const char*, df_error* error) { return fail(error, DF_INVALID_ARGUMENT, "option: %s, the cpu backend has none", key); }

int open(int index, int threads, const df_host* host, df_queue** out, df_error* error) {
    if (index != 0) return fail(error, DF_INVALID_ARGUMENT, "index: %d, expected 0 (there is one cpu device)", index);
    if (threads < 0 || threads > kMaxThreads) return fail(error, DF_INVALID_ARGUMENT, "threads: %d, expected 0..%d (0: all)", threads, kMaxThreads);
    const InstructionSet* set = choose(error);
    if (set == nullptr) return DF_UNAVAILABLE;
    *out = new (std::nothrow) df_queue(threads == 0 ? usable_cpus() : threads, *host, set->name, set->ops);
    return *out != nullptr ? DF_OK : fail(error, DF_OUT_OF_MEMORY, "no memory for a cpu device");
}

void close(df_queue* queue) { delete queue; }

int describe_queue(df_queue* queue, char* text, size_t n, df_error*) {
    snprintf(text, n, "cpu (%s, %d thread%s)", queue->instruction_set, queue->pool.threads(), queue->pool.threads() == 1 ? "" : "s");
    return DF_OK;
}

int synchronize(df_queue*, df_error*) { return DF_OK; }

int set_stream(df_queue*, void*, df_error* error) { return fail(error, DF_UNSUPPORTED, "stream: the cpu backend has no streams"); }

int allocate(df_queue*, size_t bytes, void** out, df_error* error) {
    *out = nullptr;
    if (posix_memalign(out, 64, bytes) != 0) return fail(error, DF_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
    return DF_OK;
}

void deallocate(df_queue*, void* memory, size_t) { free(memory); }

int copy_bytes(df_queue*, void* to, const void* from, size_t bytes, df_error*) {
    memcpy(to, from, bytes);
    return DF_OK;
}

#define DF_FORWARD(name, Args) \
    [](df_queue* queue, const Args* args, df_error* error) -> int { return queue->ops->name(queue, args, error); },

const df_backend kBackend = {
    sizeof(df_backend), DF_BACKEND_ABI, "cpu", DF_BUILD_ID, device_count, describe, set_option, open, close, describe_queue,
    [](df_queue* queue) -> int { return queue->pool.threads(); }, synchronize, set_stream, allocate, deallocate, copy_bytes, copy_bytes,
    {DF_CPU_KERNELS(DF_FORWARD)}};

}  // namespace

const df_backend* backend() { return &kBackend; }

}  // namespace dualform::cpu
