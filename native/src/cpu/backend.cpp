// The CPU backend: threads, plain memory, and the kernels of the best instruction set this machine has.
#include "cpu/backend.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <new>
#include <thread>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"

namespace dualform::cpu {
/// A set of instructions that the kernels may use.
struct Level {
    const char* name;
    const df_backend_ops* ops;
    Bf16Products bf16;
    bool (*supported)();
};
}  // namespace dualform::cpu

struct df_queue {
    df_queue(int threads, const df_host& h, const dualform::cpu::Level& l) : pool(threads), host(h), level(l) {}
    dualform::cpu::ThreadPool pool;
    df_host host;
    const dualform::cpu::Level& level;
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

Bf16Products bf16_products(df_queue* queue) { return queue->level.bf16; }

int thread_count(df_queue* queue) { return queue->pool.threads(); }

void run_parallel(df_queue* queue, int64_t n, void (*fn)(void*, int64_t, int), void* context) { queue->pool.run(n, fn, context); }

Scratch::Scratch(df_queue* queue, size_t bytes) : queue_(queue), data_(queue->host.alloc(queue->host.context, bytes ? bytes : 1)) {}
Scratch::~Scratch() {
    if (data_ != nullptr) queue_->host.release(queue_->host.context, data_);
}

namespace {

constexpr int kMaxThreads = 1024;

#if defined(DF_X86_KERNELS)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("fma");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

/// Tile registers, and the kernel's leave to use them, which holds for the whole process (Linux, Documentation/arch/x86/xstate.rst).
bool has_amx() {
#if defined(__linux__)
    static const bool granted = [] {
        constexpr int kRequestPermission = 0x1023, kTileData = 18;
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (!has_avx512_bf16() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
        const bool bf16 = (d & (1u << 22)) != 0, tiles = (d & (1u << 24)) != 0;
        return bf16 && tiles && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    }();
    return granted;
#else
    return false;
#endif
}
#endif

// Best first.
const Level kLevels[] = {
#if defined(DF_X86_KERNELS)
    {"amx", &kAvx512Ops, Bf16Products::kTiles, has_amx},
    {"avx512bf16", &kAvx512Ops, Bf16Products::kDot, has_avx512_bf16},
    {"avx512", &kAvx512Ops, Bf16Products::kWidened, has_avx512},
    {"avx2", &kAvx2Ops, Bf16Products::kWidened,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); }},
#endif
    {"base", &kBaseOps, Bf16Products::kWidened, [] { return true; }},
};

/// DUALFORM_CPU=base|avx2|avx512|avx512bf16|amx forces a level (the tests run each one); otherwise the best that the machine has.
const Level* choose(df_error* error) {
    const char* wanted = getenv("DUALFORM_CPU");
    for (const Level& level : kLevels) {
        if (wanted != nullptr && *wanted != 0 && strcmp(wanted, level.name) != 0) continue;
        if (level.supported()) return &level;
    }
    fail(error, DF_UNAVAILABLE, "DUALFORM_CPU: %s, expected one that this machine has (base, avx2, avx512, avx512bf16, amx)", wanted);
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
    const Level* level = choose(error);
    if (level == nullptr) return DF_UNAVAILABLE;
    char supported[64] = "";
    for (const Level& s : kLevels)
        if (s.supported()) snprintf(supported + strlen(supported), sizeof supported - strlen(supported), "%s\"%s\"", *supported ? "," : "", s.name);
    snprintf(json, n, "{\"instruction_set\":\"%s\",\"supported\":[%s],\"cpus\":%d}", level->name, supported, usable_cpus());
    return DF_OK;
}

int set_option(const char* key, const char*, df_error* error) { return fail(error, DF_INVALID_ARGUMENT, "option: %s, the cpu backend has none", key); }

int open(int index, int threads, const df_host* host, df_queue** out, df_error* error) {
    if (index != 0) return fail(error, DF_INVALID_ARGUMENT, "index: %d, expected 0 (there is one cpu device)", index);
    if (threads < 0 || threads > kMaxThreads) return fail(error, DF_INVALID_ARGUMENT, "threads: %d, expected 0..%d (0: all)", threads, kMaxThreads);
    const Level* level = choose(error);
    if (level == nullptr) return DF_UNAVAILABLE;
    *out = new (std::nothrow) df_queue(threads == 0 ? usable_cpus() : threads, *host, *level);
    return *out != nullptr ? DF_OK : fail(error, DF_OUT_OF_MEMORY, "no memory for a cpu device");
}

void close(df_queue* queue) { delete queue; }

int describe_queue(df_queue* queue, char* text, size_t n, df_error*) {
    snprintf(text, n, "cpu (%s, %d thread%s)", queue->level.name, queue->pool.threads(), queue->pool.threads() == 1 ? "" : "s");
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
    [](df_queue* queue, const Args* args, df_error* error) -> int { return queue->level.ops->name(queue, args, error); },

const df_backend kBackend = {
    sizeof(df_backend), DF_BACKEND_ABI, "cpu", DF_BUILD_ID, device_count, describe, set_option, open, close, describe_queue,
    [](df_queue* queue) -> int { return queue->pool.threads(); }, synchronize, set_stream, allocate, deallocate, copy_bytes, copy_bytes,
    {DF_CPU_KERNELS(DF_FORWARD)}};

}  // namespace

const df_backend* backend() { return &kBackend; }

}  // namespace dualform::cpu
