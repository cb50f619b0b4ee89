#include "cpu/thread_pool.h"

#include <system_error>

namespace dualform::cpu {

namespace {
// A training step is a few hundred parallel calls in a row: a short wait without sleeping saves a wake-up each.
constexpr int kSpins = 400;
inline void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}
}  // namespace

ThreadPool::~ThreadPool() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
        generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& w : workers_) w.join();
}

void ThreadPool::start() {
    if (!workers_.empty()) return;
    try {
        for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
        // The process may start no more threads: fewer take part, results are the same.
    }
}

void ThreadPool::drain(const Job& job, int worker) {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < job.n;) job.fn(job.context, i, worker);
}

void ThreadPool::work(int worker) {
    uint64_t seen = 0;
    for (;;) {
        for (int spin = 0; spin < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spin) pause_briefly();
        Job job;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
            seen = generation_.load(std::memory_order_relaxed);
            if (stop_) return;
            if (job_.fn == nullptr) continue;  // that job has ended already
            job = job_;
            ++active_;
        }
        drain(job, worker);
        std::lock_guard<std::mutex> lock(mutex_);
        if (--active_ == 0) done_.notify_one();
    }
}

void ThreadPool::run(int64_t n, void (*fn)(void*, int64_t, int), void* context) {
    std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
    if (threads_ == 1 || n <= 1 || !turn.owns_lock()) {
        for (int64_t i = 0; i < n; ++i) fn(context, i, 0);
        return;
    }
    start();
    const Job job{fn, context, n};
    {
        std::lock_guard<std::mutex> lock(mutex_);
        job_ = job;
        next_.store(0, std::memory_order_relaxed);
        generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    drain(job, 0);
    std::unique_lock<std::mutex> lock(mutex_);
    job_.fn = nullptr;  // late wakers must not join
    done_.wait(lock, [&] { return active_ == 0; });
}

}  // namespace dualform::cpu
