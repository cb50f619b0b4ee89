#include "cpu/thread_pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <system_error>

namespace dualform::cpu {

namespace {

// A training step is a few hundred parallel calls in a row, with some microseconds of Java between them: who looks for the next call so
// long seldom has to be woken, and after it a worker costs nothing.
constexpr int64_t kSpinNanoseconds = 50'000;
constexpr int kSpinsPerYield = 32;

// Pieces are taken in chunks where there are many: at most so many chunks for each thread.
constexpr int64_t kChunksPerThread = 32;

constexpr uint64_t kPlace = uint64_t{1} << 16, kPlaces = uint64_t{0xffff} << 16, kInside = 0xffff;
uint32_t number_of(uint64_t state) { return static_cast<uint32_t>(state >> 32); }

int64_t now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

inline void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/// Waits actively for a condition; false when it took too long. Who waits for a thread that waits for this processor lets it go first.
template <class F>
bool spin_until(F&& done) {
    const int64_t end = now() + kSpinNanoseconds;
    do {
        for (int i = 0; i < kSpinsPerYield; ++i) {
            if (done()) return true;
            pause_briefly();
        }
        sched_yield();
    } while (now() < end);
    return false;
}

/// Sleeps while the word has this value; may return earlier.
void futex_wait(std::atomic<uint32_t>& word, uint32_t value) {
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>& word, int most) { syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, most, nullptr, nullptr, 0); }

}  // namespace

ThreadPool::~ThreadPool() {
    stop_.store(true);
    calls_.fetch_add(1);
    futex_wake(calls_, INT_MAX);
    for (std::thread& w : workers_) {
        if (getpid() == process_) w.join();
        else w.detach();  // a forked child has no such thread
    }
}

void ThreadPool::start() {
    if (process_ != 0) return;
    process_ = getpid();
    try {
        workers_.reserve(static_cast<size_t>(threads_ - 1));
        for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
        // The process may start no more threads: fewer take part, results are the same.
    } catch (const std::bad_alloc&) {
    }
}

void ThreadPool::drain(const Job& job, int worker) {
    for (int64_t first; (first = next_.fetch_add(job.chunk, std::memory_order_relaxed)) < job.n;)
        for (int64_t i = first, end = std::min(first + job.chunk, job.n); i < end; ++i) job.fn(job.context, i, worker);
    state_.fetch_and(~kPlaces, std::memory_order_relaxed);  // who comes now would find nothing
}

/// Takes a place in a job that this worker was not in yet.
bool ThreadPool::join(uint32_t* last) {
    uint64_t state = state_.load(std::memory_order_relaxed);
    while ((state & kPlaces) != 0 && number_of(state) != *last) {
        if (!state_.compare_exchange_weak(state, state - kPlace + 1, std::memory_order_acquire, std::memory_order_relaxed)) continue;
        *last = number_of(state);
        return true;
    }
    return false;
}

void ThreadPool::leave() {
    const bool last = (state_.fetch_sub(1) & kInside) == 1;
    if (last && caller_waits_.load() != 0) {
        caller_waits_.store(0);
        futex_wake(caller_waits_, 1);
    }
}

/// sleeping_ is raised before state_ is read, and run() writes state_ before it reads sleeping_: one of them sees the other.
void ThreadPool::sleep_until_called(uint32_t last) {
    sleeping_.fetch_add(1);
    const uint32_t calls = calls_.load();
    const uint64_t state = state_.load();
    const bool called = (state & kPlaces) != 0 && number_of(state) != last;
    if (!called && !stop_.load()) futex_wait(calls_, calls);
    sleeping_.fetch_sub(1);
}

void ThreadPool::work(int worker) {
    uint32_t last = 0;
    bool joined = false;
    const auto called = [&] { return (joined = join(&last)) || stop_.load(std::memory_order_relaxed); };
    while (!stop_.load(std::memory_order_relaxed)) {
        if (!spin_until(called)) sleep_until_called(last);
        if (!joined) continue;
        joined = false;
        drain(job_, worker);
        leave();
    }
}

/// Until the workers that are inside have done their last piece.
void ThreadPool::wait_until_alone() {
    const auto alone = [this] { return (state_.load(std::memory_order_acquire) & kInside) == 0; };
    if (alone() || spin_until(alone)) return;
    for (;;) {
        caller_waits_.store(1);
        if ((state_.load() & kInside) == 0) break;
        futex_wait(caller_waits_, 1);
    }
    caller_waits_.store(0);
}

void ThreadPool::run(int64_t n, void (*fn)(void*, int64_t, int), void* context) {
    if (threads_ == 1 || n <= 1 || busy_.load(std::memory_order_relaxed) || busy_.exchange(true, std::memory_order_acquire)) {
        for (int64_t i = 0; i < n; ++i) fn(context, i, 0);
        return;
    }
    start();
    const auto workers = static_cast<int64_t>(workers_.size());
    const Job job{fn, context, n, std::max<int64_t>(1, n / ((workers + 1) * kChunksPerThread))};
    const auto places = static_cast<uint64_t>(std::min(workers, (n - 1) / job.chunk));
    job_ = job;
    next_.store(0, std::memory_order_relaxed);
    const uint32_t number = number_of(state_.load(std::memory_order_relaxed)) + 1;
    state_.store(uint64_t{number} << 32 | places * kPlace);
    const auto asleep = static_cast<int64_t>(sleeping_.load());
    const int64_t missing = static_cast<int64_t>(places) - (workers - asleep);
    if (missing > 0) {
        calls_.fetch_add(1);
        futex_wake(calls_, static_cast<int>(missing));
    }
    drain(job, 0);
    wait_until_alone();
    busy_.store(false, std::memory_order_release);
}

}  // namespace dualform::cpu
