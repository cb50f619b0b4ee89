// The scheduler of the emulation: threads of a block as fibers on one host thread, and a few runtime calls over malloc.
#include "cuda_on_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace dualform::cuda::emulation {

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr int kMaxThreads = 1024, kWarpSize = 32;
constexpr size_t kSharedStart = 1024 + 128; /* address of the first byte of dynamic shared memory: aligned to 128 and no more */
constexpr size_t kSharedBytes = 256 * 1024;

}  // namespace

#if defined(__x86_64__)
// Saves the registers a call must preserve, stores the stack pointer in *from and continues at `to`. swapcontext would do the same
// with two system calls.
asm(R"(
.text
.hidden df_emulation_switch
.type df_emulation_switch, @function
df_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size df_emulation_switch, .-df_emulation_switch
)");
extern "C" void df_emulation_switch(void** from, void* to);
#endif

Fiber* running = nullptr;
Block block = {};
Beside beside;

namespace {

struct Copy {
    unsigned char* to;
    const void* from;
    int size, bytes;
};
/// Asynchronous copies of one thread, oldest first. ends[i]: where group i ends in copies.
struct Copies {
    std::vector<Copy> copies;
    std::vector<size_t> ends;
};

struct Machine {
    std::vector<Fiber> fibers;
    std::vector<uint64_t> exchange; /* one slot a thread */
    std::vector<Copies> copies;     /* the same */
    char* shared = nullptr;         /* the whole window; dynamic shared memory starts at kSharedStart */
    size_t shared_bytes = 0;        /* what the launch asked for */
    int error = kSuccess;
    char fault[200] = ""; /* of a kLaunchFailure */
    void* scheduler = nullptr;
    void (*body)(void*) = nullptr;
    void* context = nullptr;
    int threads = 0, alive = 0, arrived = 0, block_phase = 0;
    int warp_alive[kMaxThreads / kWarpSize] = {}, warp_arrived[kMaxThreads / kWarpSize] = {}, warp_phase[kMaxThreads / kWarpSize] = {};
#if !defined(__x86_64__)
    std::vector<ucontext_t> contexts;
    ucontext_t scheduler_context;
#endif

    ~Machine() {
        free(shared);
        for (Fiber& fiber : fibers)
            if (fiber.stack != nullptr) munmap(fiber.stack, kStackBytes);
    }
};

std::mutex one_at_a_time; /* kernels of several host threads take turns */
Machine machine;

uint32_t random_state = 1; /* the same sequence in every run with the same seed */

struct Chosen {
    Schedule schedule;
    std::string failure; /* a sentence */
};

/// From the environment, once.
const Chosen& chosen() {
    static const Chosen once = [] {
        using Order = Schedule::Order;
        using Async = Schedule::Async;
        Chosen c;
        const auto value = [](const char* variable) {
            const char* const text = getenv(variable);
            return std::string(text == nullptr ? "" : text);
        };
        const std::string order = value("DUALFORM_EMULATION_ORDER"), async = value("DUALFORM_EMULATION_ASYNC");
        unsigned seed = 0;
        int end = 0;
        if (order == "forward")
            c.schedule.order = Order::kForward;
        else if (order == "reverse")
            c.schedule.order = Order::kReverse;
        else if (sscanf(order.c_str(), "random:%u%n", &seed, &end) == 1 && static_cast<size_t>(end) == order.size()) {
            c.schedule.order = Order::kRandom;
            random_state = seed;
        } else if (!order.empty() && order != "turns")
            c.failure = "DUALFORM_EMULATION_ORDER is turns, forward, reverse or random:SEED, not " + order;
        if (async == "early")
            c.schedule.async = Async::kEarly;
        else if (async == "random")
            c.schedule.async = Async::kRandom;
        else if (!async.empty() && async != "late")
            c.failure = "DUALFORM_EMULATION_ASYNC is late, early or random, not " + async;
        return c;
    }();
    return once;
}

void release_block_barrier(Machine& m) {
    if (m.alive > 0 && m.arrived == m.alive) {
        m.arrived = 0;
        ++m.block_phase;
    }
}

void release_warp_barrier(Machine& m, int warp) {
    if (m.warp_alive[warp] > 0 && m.warp_arrived[warp] == m.warp_alive[warp]) {
        m.warp_arrived[warp] = 0;
        ++m.warp_phase[warp];
    }
}

void to_scheduler(Machine& m) {
    Fiber* self = running;
#if defined(__x86_64__)
    df_emulation_switch(&self->stack_pointer, m.scheduler);
#else
    swapcontext(&m.contexts[self->index.x], &m.scheduler_context);
#endif
    running = self;
}

void wait_while(Machine& m, const int* phase, int value) {
    if (*phase != value) return may_switch();
    running->waits_for = phase;
    running->waits_value = value;
    to_scheduler(m);
    running->waits_for = nullptr;
}

/// A thread that returns leaves every barrier it would have met, as on the device.
void fiber_main() {
    Machine& m = machine;
    m.body(m.context);
    const int warp = static_cast<int>(running->index.x) / kWarpSize;
    running->done = true;
    --m.alive;
    --m.warp_alive[warp];
    release_block_barrier(m);
    release_warp_barrier(m, warp);
    to_scheduler(m);
}

void prepare(Machine& m, int thread) {
    Fiber& fiber = m.fibers[thread];
    fiber.index = {static_cast<unsigned>(thread), 0, 0};
    fiber.done = false;
    fiber.waits_for = nullptr;
#if defined(__x86_64__)
    // As df_emulation_switch leaves it: six registers, then where to return.
    void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes) - 1; /* a function starts 8 below a multiple of 16 */
    *top = nullptr;
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fiber.stack_pointer = top;
#else
    getcontext(&m.contexts[thread]);
    m.contexts[thread].uc_stack.ss_sp = fiber.stack;
    m.contexts[thread].uc_stack.ss_size = kStackBytes;
    m.contexts[thread].uc_link = nullptr;
    makecontext(&m.contexts[thread], &fiber_main, 0);
#endif
}

void resume(Machine& m, int thread) {
    running = &m.fibers[thread];
#if defined(__x86_64__)
    df_emulation_switch(&m.scheduler, running->stack_pointer);
#else
    swapcontext(&m.scheduler_context, &m.contexts[thread]);
#endif
}

/// Runs the warp's threads that can, once each, from lane `first` on. False when there was none.
bool run_warp(Machine& m, int warp, int first, bool backwards) {
    bool ran = false;
    for (int i = 0; i < kWarpSize; ++i) {
        const int t = warp * kWarpSize + (backwards ? first - i : first + i) % kWarpSize;
        const Fiber& fiber = m.fibers[t];
        if (fiber.done || (fiber.waits_for != nullptr && *fiber.waits_for == fiber.waits_value)) continue;
        resume(m, t);
        ran = true;
    }
    return ran;
}

/// Which of a block's threads come next.
class Turns {
public:
    Turns(Machine& m, Schedule::Order order) : m_(m), order_(order), backwards_(block.index.x % 2 != 0) {
        for (int w = 0; w * kWarpSize < m.threads; ++w) warps_[count_++] = w;
        if (order == Schedule::Order::kReverse) std::reverse(warps_, warps_ + count_);
    }
    /// False when none could run. passes: how many of the block's warps had a turn.
    bool next(int* passes) {
        const bool all = order_ == Schedule::Order::kTurns, random = order_ == Schedule::Order::kRandom;
        *passes = 1;
        if (all) {
            *passes = count_;
            bool ran = false;
            for (int i = 0; i < count_; ++i) ran = run_warp(m_, backwards_ ? count_ - 1 - i : i, backwards_ ? 2 * kWarpSize - 1 : 0, backwards_) || ran;
            backwards_ = !backwards_;
            return ran;
        }
        if (random && draw() % 8 == 0) std::swap(warps_[0], warps_[draw() % static_cast<uint32_t>(count_)]);
        const bool backwards = random ? draw() % 2 != 0 : order_ == Schedule::Order::kReverse;
        const int first = random ? static_cast<int>(kWarpSize + draw() % kWarpSize) : backwards ? 2 * kWarpSize - 1 : 0;
        for (int i = 0; i < count_; ++i)
            if (run_warp(m_, warps_[i], first, backwards)) return true;
        return false;
    }

private:
    Machine& m_;
    const Schedule::Order order_;
    bool backwards_;
    int warps_[kMaxThreads / kWarpSize] = {}, count_ = 0; /* the first that can run goes on */
};

bool run_block(Machine& m) {
    m.alive = m.threads;
    m.arrived = 0;
    for (int w = 0; w * kWarpSize < m.threads; ++w) {
        m.warp_alive[w] = m.threads - w * kWarpSize < kWarpSize ? m.threads - w * kWarpSize : kWarpSize;
        m.warp_arrived[w] = 0;
    }
    for (int t = 0; t < m.threads; ++t) {
        prepare(m, t);
        m.copies[t].copies.clear();
        m.copies[t].ends.clear();
    }
    memset(m.shared + kSharedStart, 0xff, m.shared_bytes);
    if (beside.begin != nullptr) beside.begin();
    Turns turns(m, chosen().schedule.order);
    for (int since_step = 0; m.alive > 0;) {
        int passes = 0;
        bool ran = turns.next(&passes);
        since_step += passes;
        if (beside.step != nullptr && (!ran || since_step >= m.threads / kWarpSize)) {
            since_step = 0;
            if (beside.step(!ran)) ran = true;
        }
        if (!ran) {
            fault("a barrier that some threads of the block never reach");
            return false;
        }
    }
    if (beside.end != nullptr) beside.end();
    return m.fault[0] == 0;
}

}  // namespace

int run_threads(int64_t blocks, int threads, size_t shared, void (*body)(void*), void* context, size_t max_shared, bool rising) {
    if (threads < 1 || threads > kMaxThreads || threads % kWarpSize != 0 || shared > max_shared) return kInvalidConfiguration;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    Machine& m = machine;
    m.fault[0] = 0;
    if (!chosen().failure.empty()) {
        fault(chosen().failure.c_str());
        return kLaunchFailure;
    }
    m.threads = threads;
    m.body = body;
    m.context = context;
    while (m.fibers.size() < static_cast<size_t>(threads)) {
        Fiber fiber;
        void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED) return kOutOfMemory;
        fiber.stack = static_cast<char*>(stack);
        m.fibers.push_back(fiber);
    }
    m.exchange.resize(m.fibers.size());
    m.copies.resize(m.fibers.size());
    if (m.shared == nullptr) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 1024, kSharedBytes) != 0) return kOutOfMemory;
        m.shared = static_cast<char*>(memory);
    }
    m.shared_bytes = shared;
    m.error = kSuccess;
#if !defined(__x86_64__)
    m.contexts.resize(m.fibers.size());
#endif
    block.block_size = {static_cast<unsigned>(threads), 1, 1};
    block.grid_size = {static_cast<unsigned>(blocks), 1, 1};
    const Schedule::Order order = rising ? Schedule::Order::kForward : chosen().schedule.order;
    std::vector<unsigned> mixed(order == Schedule::Order::kRandom ? static_cast<size_t>(blocks) : 0);
    for (size_t i = 0; i < mixed.size(); ++i) mixed[i] = static_cast<unsigned>(i);
    for (size_t i = 1; i < mixed.size(); ++i) std::swap(mixed[i], mixed[(draw() << 16 | draw()) % (i + 1)]);
    for (int64_t b = 0; b < blocks; ++b) {
        block.index = {static_cast<unsigned>(order == Schedule::Order::kReverse ? blocks - 1 - b : b), 0, 0};
        if (!mixed.empty()) block.index.x = mixed[static_cast<size_t>(b)];
        if (!run_block(m)) return kLaunchFailure;
        if (m.error != kSuccess) return m.error;
    }
    return kSuccess;
}

uint32_t draw() { return (random_state = random_state * 1664525u + 1013904223u) >> 16; }

bool done_at_once() {
    const Schedule::Async async = chosen().schedule.async;
    return async == Schedule::Async::kEarly || (async == Schedule::Async::kRandom && draw() % 2 != 0);
}

void may_switch() {
    if (chosen().schedule.order == Schedule::Order::kRandom && draw() % 4 == 0) to_scheduler(machine);
}

void block_barrier() {
    Machine& m = machine;
    const int phase = m.block_phase;
    ++m.arrived;
    release_block_barrier(m);
    wait_while(m, &m.block_phase, phase);
}

void warp_barrier() {
    Machine& m = machine;
    const int warp = static_cast<int>(running->index.x) / kWarpSize, phase = m.warp_phase[warp];
    ++m.warp_arrived[warp];
    release_warp_barrier(m, warp);
    wait_while(m, &m.warp_phase[warp], phase);
}

void* dynamic_shared() { return machine.shared + kSharedStart; }

uint32_t shared_address(const void* p) {
    const char* const byte = static_cast<const char*>(p);
    if (byte < machine.shared + kSharedStart || byte > machine.shared + kSharedStart + machine.shared_bytes) {
        fault("an address outside dynamic shared memory");
        return 0;
    }
    return static_cast<uint32_t>(byte - machine.shared);
}

char* shared_at(uint32_t address, size_t bytes) {
    return address < kSharedStart || address + bytes > kSharedStart + machine.shared_bytes ? nullptr : machine.shared + address;
}

void sleep_while(const int* word, int value) { wait_while(machine, word, value); }

void fault(const char* sentence) {
    if (machine.fault[0] == 0) snprintf(machine.fault, sizeof machine.fault, "%s", sentence);
}
void fault(Error error) { machine.error = error; }
void exchange_put(uint64_t bits) { machine.exchange[running->index.x] = bits; }
uint64_t exchange_get(int lane) { return machine.exchange[running->index.x / kWarpSize * kWarpSize + lane]; }

namespace {

float bf16_at(uint32_t pair, int half) {
    const uint32_t bits = half ? pair & 0xffff0000u : pair << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

double power_of_two(int exponent) {
    const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/// c + sum x[i], the addends cut to 25 bits below the largest exponent, the sum to a float towards zero.
float add_as_tensor_cores(float c, const double* x, int n) {
    double largest = fabs(static_cast<double>(c)), plain = c;
    for (int i = 0; i < n; ++i) {
        plain += x[i];
        largest = largest < fabs(x[i]) ? fabs(x[i]) : largest;
    }
    if (!(fabs(plain) <= 3.4028234663852886e38)) return static_cast<float>(plain); /* infinite or NaN */
    uint64_t bits;
    memcpy(&bits, &largest, sizeof bits);
    int exponent = static_cast<int>(bits >> 52) - 1023;
    if (exponent < -126) exponent = -126;
    const double up = power_of_two(25 - exponent), down = power_of_two(exponent - 25);
    int64_t sum = static_cast<int64_t>(c * up);
    for (int i = 0; i < n; ++i) sum += static_cast<int64_t>(x[i] * up);
    const double exact = static_cast<double>(sum) * down;
    float cut = static_cast<float>(exact);
    if (fabs(static_cast<double>(cut)) > fabs(exact)) cut = nextafterf(cut, 0.0f);
    return cut;
}

/// Whether these bytes are dynamic shared memory of the block; else the launch fails.
bool in_shared(const unsigned char* address, int bytes) {
    const auto* shared = static_cast<unsigned char*>(dynamic_shared());
    if (address >= shared && address + bytes <= shared + machine.shared_bytes) return true;
    fault(kIllegalAddress);
    return false;
}

template <class T>
const T& of_lane(int lane) {
    return *reinterpret_cast<const T*>(static_cast<uintptr_t>(exchange_get(lane)));
}

/// What a lane brings to a product, reached through the exchange while the warp waits.
struct Operands {
    const uint32_t* a;
    uint32_t b[2];
};

}  // namespace

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const Operands own = {a, {b0, b1}};
    exchange_put(reinterpret_cast<uintptr_t>(&own));
    warp_barrier();
    const int g = static_cast<int>(running->index.x % kWarpSize) / 4, t = static_cast<int>(running->index.x % 4);
    float result[4];
    for (int i = 0; i < 4; ++i) {
        const int row_half = i / 2, column = 2 * t + i % 2; /* the row is g + 8 row_half */
        result[i] = c[i];
        for (int k_half = 0; k_half < 2; ++k_half) { /* eight products at a time */
            double products[8];
            for (int k = 0; k < 8; ++k)
                products[k] = static_cast<double>(bf16_at(of_lane<Operands>(4 * g + k / 2).a[row_half + 2 * k_half], k % 2)) *
                              bf16_at(of_lane<Operands>(4 * column + k / 2).b[k_half], k % 2);
            result[i] = add_as_tensor_cores(result[i], products, 8);
        }
    }
    warp_barrier(); /* the operands of the others are read no more */
    for (int i = 0; i < 4; ++i) c[i] = result[i];
}

void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const Operands own = {a, {b0, b1}};
    exchange_put(reinterpret_cast<uintptr_t>(&own));
    warp_barrier();
    const int g = static_cast<int>(running->index.x % kWarpSize) / 4, t = static_cast<int>(running->index.x % 4);
    const auto number = [](uint32_t bits) {
        bits &= ~0x1fffu;
        float x;
        memcpy(&x, &bits, sizeof x);
        return x;
    };
    float result[4];
    for (int i = 0; i < 4; ++i) {
        const int row_half = i / 2, column = 2 * t + i % 2;
        result[i] = c[i];
        for (int k_half = 0; k_half < 2; ++k_half) {
            double products[4];
            for (int k = 0; k < 4; ++k)
                products[k] = static_cast<double>(number(of_lane<Operands>(4 * g + k).a[row_half + 2 * k_half])) *
                              number(of_lane<Operands>(4 * column + k).b[k_half]);
            result[i] = add_as_tensor_cores(result[i], products, 4);
        }
    }
    warp_barrier();
    for (int i = 0; i < 4; ++i) c[i] = result[i];
}

void ldmatrix(uint32_t (&r)[4], const unsigned char* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fault(kMisalignedAddress);
    if (!in_shared(row, 16)) row = static_cast<unsigned char*>(dynamic_shared());
    exchange_put(reinterpret_cast<uintptr_t>(row));
    warp_barrier();
    const int g = static_cast<int>(running->index.x % kWarpSize) / 4, t = static_cast<int>(running->index.x % 4);
    uint32_t result[4];
    for (int matrix = 0; matrix < 4; ++matrix) {
        uint16_t element[2];
        for (int e = 0; e < 2; ++e) {
            const int at_row = transposed ? 2 * t + e : g, at_column = transposed ? g : 2 * t + e;
            const auto* from = reinterpret_cast<const unsigned char*>(static_cast<uintptr_t>(exchange_get(8 * matrix + at_row)));
            memcpy(&element[e], from + 2 * at_column, sizeof(uint16_t));
        }
        result[matrix] = element[0] | static_cast<uint32_t>(element[1]) << 16;
    }
    warp_barrier();
    for (int i = 0; i < 4; ++i) r[i] = result[i];
}

static void finish(const Copy& copy) {
    memset(copy.to, 0, static_cast<size_t>(copy.size));
    memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
}

void async_copy(unsigned char* to, const void* from, int size, int bytes) {
    if (reinterpret_cast<uintptr_t>(to) % size != 0 || (bytes > 0 && reinterpret_cast<uintptr_t>(from) % size != 0)) fault(kMisalignedAddress);
    if (!in_shared(to, size)) return;
    if (done_at_once()) return finish({to, from, size, bytes});
    memset(to, 0xff, size);
    machine.copies[running->index.x].copies.push_back({to, from, size, bytes});
}

void async_commit() {
    Copies& own = machine.copies[running->index.x];
    own.ends.push_back(own.copies.size());
}

void async_wait(int pending) {
    Copies& own = machine.copies[running->index.x];
    if (own.ends.size() <= static_cast<size_t>(pending)) return;
    const size_t groups = own.ends.size() - pending, done = own.ends[groups - 1];
    for (size_t i = 0; i < done; ++i) finish(own.copies[i]);
    own.copies.erase(own.copies.begin(), own.copies.begin() + static_cast<ptrdiff_t>(done));
    own.ends.erase(own.ends.begin(), own.ends.begin() + static_cast<ptrdiff_t>(groups));
    for (size_t& end : own.ends) end -= done;
}

}  // namespace dualform::cuda::emulation

cudaError_t cudaMalloc(void** memory, size_t bytes) {
    *memory = nullptr;
    if (const int code = dualform::cuda::emulation::unless_capturing()) return code;
    if (posix_memalign(memory, 256, bytes ? bytes : 1) != 0) return cudaErrorMemoryAllocation;
    memset(*memory, 0xff, bytes); /* NaN: memory that nobody wrote must show */
    return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    *free_bytes = *total = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    snprintf(properties->name, sizeof properties->name, "host emulation");
    properties->totalGlobalMem = 0;
    properties->major = 9; /* hopper_on_host.h */
    properties->minor = 0;
    properties->multiProcessorCount = 3; /* few, so that a block which stays has several turns */
    return cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t code) {
    switch (code) {
        case 0: return "cudaSuccess";
        case 2: return "cudaErrorMemoryAllocation";
        case 9: return "cudaErrorInvalidConfiguration";
        case 700: return "cudaErrorIllegalAddress";
        case 716: return "cudaErrorMisalignedAddress";
        case 719: return "cudaErrorLaunchFailure";
        case 900: return "cudaErrorStreamCaptureUnsupported";
        case 901: return "cudaErrorStreamCaptureInvalidated";
        default: return "cudaErrorUnknown";
    }
}

const char* cudaGetErrorString(cudaError_t code) {
    return code == 719 ? dualform::cuda::emulation::machine.fault : cudaGetErrorName(code);
}

// ---- streams and graphs: a graph is the list of what was queued while its stream was being captured ----

namespace dualform::cuda::emulation {

namespace {

struct StreamCapture {
    std::thread::id thread;
    std::vector<std::function<int()>> work;
    bool spoilt = false;
};

std::mutex captures_mutex;
std::map<void*, StreamCapture> captures; /* by stream */

}  // namespace

int unless_capturing() {
    std::lock_guard<std::mutex> lock(captures_mutex);
    int code = kSuccess;
    for (auto& [stream, capture] : captures)
        if (capture.thread == std::this_thread::get_id()) {
            capture.spoilt = true;
            code = kCaptureUnsupported;
        }
    return code;
}

bool is_recording(void* stream) {
    std::lock_guard<std::mutex> lock(captures_mutex);
    return captures.count(stream) != 0;
}

void record(void* stream, std::function<int()> work) {
    std::lock_guard<std::mutex> lock(captures_mutex);
    captures.at(stream).work.push_back(std::move(work));
}

}  // namespace dualform::cuda::emulation

using namespace dualform::cuda::emulation;

struct df_emulated_graph {
    std::vector<std::function<int()>> work;
};

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new char; /* an address of its own */
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete static_cast<char*>(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return unless_capturing(); }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    std::lock_guard<std::mutex> lock(captures_mutex);
    const bool fresh = captures.emplace(stream, StreamCapture{std::this_thread::get_id(), {}}).second;
    return fresh ? kSuccess : kCaptureUnsupported;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    std::lock_guard<std::mutex> lock(captures_mutex);
    *graph = nullptr;
    const auto found = captures.find(stream);
    if (found == captures.end()) return kCaptureUnsupported;
    const bool spoilt = found->second.spoilt;
    if (!spoilt) *graph = new df_emulated_graph{std::move(found->second.work)};
    captures.erase(found);
    return spoilt ? kCaptureInvalidated : kSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = new df_emulated_graph{graph->work};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
    for (const auto& work : exec->work)
        if (const int code = work()) return code;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
