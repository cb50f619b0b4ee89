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
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
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
    double (*multiply_adds)(int dtype, Bf16Products products, int64_t rounds);
};
}  // namespace dualform::cpu

struct df_queue {
    df_queue(int threads, const df_host& h, const dualform::cpu::Level& l) : pool(threads), host(h), level(l) {}
    dualform::cpu::ThreadPool pool;
    df_host host;
    const dualform::cpu::Level& level;
    std::atomic<int64_t> timer_start{-1};  // below 0: not started
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
#if defined(DF_EMULATED_TILES)
    return has_avx512_bf16();  // whose roundings the level uses, too
#elif defined(__linux__)
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
    {"amx", &kAvx512Ops, Bf16Products::kTiles, has_amx, avx512::multiply_adds},
    {"avx512bf16", &kAvx512Ops, Bf16Products::kDot, has_avx512_bf16, avx512::multiply_adds},
    {"avx512", &kAvx512Ops, Bf16Products::kWidened, has_avx512, avx512::multiply_adds},
    {"avx2", &kAvx2Ops, Bf16Products::kWidened,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"); },
     avx2::multiply_adds},
#endif
    {"base", &kBaseOps, Bf16Products::kWidened, [] { return true; }, base::multiply_adds},
};

/// The option "level"; null: not given.
std::atomic<const Level*> forced{nullptr};

/// What this machine has, the least first.
struct Supported {
    char names[64] = "";
    explicit Supported(const char* quote = "", const char* comma = ", ") {
        for (auto level = std::rbegin(kLevels); level != std::rend(kLevels); ++level)
            if (level->supported())
                snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s%s%s", *names ? comma : "", quote, level->name, quote);
    }
};

/// The level of that name, which source asks for.
int find_level(const char* source, const char* name, const Level** found, df_error* error) {
    for (const Level& level : kLevels) {
        if (strcmp(name, level.name) != 0) continue;
        if (!level.supported()) return fail(error, DF_UNAVAILABLE, "%s: %s, this machine has %s", source, name, Supported().names);
        *found = &level;
        return DF_OK;
    }
    return fail(error, DF_INVALID_ARGUMENT, "%s: %.40s, expected one of base, avx2, avx512, avx512bf16, amx; this machine has %s", source, name,
                Supported().names);
}

/// The option, then the environment variable DUALFORM_CPU (the tests run each level by it), then the best that the machine has.
int choose(const Level** chosen, df_error* error) {
    *chosen = forced.load(std::memory_order_acquire);
    if (*chosen != nullptr) return DF_OK;
    const char* wanted = getenv("DUALFORM_CPU");
    if (wanted != nullptr && *wanted != 0) return find_level("DUALFORM_CPU", wanted, chosen, error);
    *chosen = std::find_if(std::begin(kLevels), std::end(kLevels), [](const Level& level) { return level.supported(); });
    return DF_OK;
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
    const Level* level = nullptr;
    if (const int status = choose(&level, error)) return status;
    snprintf(json, n, "{\"instruction_set\":\"%s\",\"supported\":[%s],\"cpus\":%d}", level->name, Supported("\"", ",").names, usable_cpus());
    return DF_OK;
}

int set_option(const char* key, const char* value, df_error* error) {
    if (strcmp(key, "level") != 0) return fail(error, DF_INVALID_ARGUMENT, "option: %s, the cpu backend has level only", key);
    const Level* level = nullptr;
    if (value != nullptr && *value != 0)
        if (const int status = find_level("level", value, &level, error)) return status;
    forced.store(level, std::memory_order_release);
    return DF_OK;
}

int open(int index, int threads, const df_host* host, df_queue** out, df_error* error) {
    if (index != 0) return fail(error, DF_INVALID_ARGUMENT, "index: %d, expected 0 (there is one cpu device)", index);
    if (threads < 0 || threads > kMaxThreads) return fail(error, DF_INVALID_ARGUMENT, "threads: %d, expected 0..%d (0: all)", threads, kMaxThreads);
    const Level* level = nullptr;
    if (const int status = choose(&level, error)) return status;
    *out = new (std::nothrow) df_queue(threads == 0 ? usable_cpus() : threads, *host, *level);
    return *out != nullptr ? DF_OK : fail(error, DF_OUT_OF_MEMORY, "no memory for a cpu device");
}

void close(df_queue* queue) { delete queue; }

int describe_queue(df_queue* queue, char* text, size_t n, df_error*) {
    snprintf(text, n, "cpu (%s, %d thread%s)", queue->level.name, queue->pool.threads(), queue->pool.threads() == 1 ? "" : "s");
    return DF_OK;
}

/// The best of five runs of about 5 ms, in pieces that the threads share.
int peak(df_queue* queue, int dtype, double* gflops, df_error*) {
    using Clock = std::chrono::steady_clock;
    constexpr double kPiece = 1e-4, kRun = 5e-3;
    struct Piece {
        const Level& level;
        int dtype;
        int64_t rounds;
    } piece = {queue->level, dtype, 256};
    double flops = 0, seconds = 0;
    const auto time = [&](int64_t pieces) {
        const auto start = Clock::now();
        queue->pool.run(
            pieces,
            [](void* context, int64_t, int) {
                const Piece& p = *static_cast<const Piece*>(context);
                p.level.multiply_adds(p.dtype, p.level.bf16, p.rounds);
            },
            &piece);
        return std::chrono::duration<double>(Clock::now() - start).count();
    };
    for (seconds = time(1); seconds < kPiece; seconds = time(1)) piece.rounds *= 2;
    flops = queue->level.multiply_adds(dtype, queue->level.bf16, piece.rounds);
    const int64_t pieces = queue->pool.threads() * std::max(int64_t{1}, static_cast<int64_t>(kRun / seconds));
    for (int run = 0; run < 5; ++run) *gflops = std::max(*gflops, flops * static_cast<double>(pieces) / time(pieces) / 1e9);
    return DF_OK;
}

int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int start_timer(df_queue* queue, df_error*) {
    queue->timer_start.store(now());
    return DF_OK;
}

int stop_timer(df_queue* queue, double* seconds, df_error* error) {
    const int64_t stop = now(), start = queue->timer_start.exchange(-1);
    if (start < 0) return fail(error, DF_INVALID_STATE, "timer: stopped without being started");
    *seconds = static_cast<double>(stop - start) * 1e-9;
    return DF_OK;
}

int synchronize(df_queue*, df_error*) { return DF_OK; }

int set_stream(df_queue*, void*, df_error* error) { return fail(error, DF_UNSUPPORTED, "stream: the cpu backend has no streams"); }

/// Large blocks ask for huge pages: the rows of a head lie a page apart, and looking up the address of each takes as long as its arithmetic.
int allocate(df_queue*, size_t bytes, void** out, df_error* error) {
    constexpr size_t kHugePage = size_t{1} << 21;
    *out = nullptr;
    if (posix_memalign(out, bytes < kHugePage ? 64 : kHugePage, bytes) != 0) return fail(error, DF_OUT_OF_MEMORY, "no memory for %zu bytes", bytes);
#if defined(__linux__)
    if (bytes >= kHugePage) madvise(*out, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // advice: what cannot be had is not missed
#endif
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
    start_timer, stop_timer,
    [](df_queue* queue) -> int { return queue->pool.threads(); }, peak, synchronize, set_stream, allocate, deallocate, copy_bytes, copy_bytes,
    nullptr, nullptr, nullptr, nullptr, /* the core records calls */
    {DF_CPU_KERNELS(DF_FORWARD) nullptr, nullptr /* no two ops in one */}};

}  // namespace

const df_backend* backend() { return &kBackend; }

}  // namespace dualform::cpu
