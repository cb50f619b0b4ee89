// Threads of one CPU device. Started at the first parallel call, joined when the device closes.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace dualform::cpu {

/// std::condition_variable, over pthreads: the libstdc++ symbol of its wait is newer than the oldest system this library serves.
class Signal {
public:
    ~Signal() { pthread_cond_destroy(&condition_); }
    template <class Predicate>
    void wait(std::unique_lock<std::mutex>& lock, Predicate done) {
        while (!done()) pthread_cond_wait(&condition_, lock.mutex()->native_handle());
    }
    void notify_one() { pthread_cond_signal(&condition_); }
    void notify_all() { pthread_cond_broadcast(&condition_); }

private:
    pthread_cond_t condition_ = PTHREAD_COND_INITIALIZER;
};

/// Runs independent pieces of one call on a fixed set of threads. Which thread runs which piece is not fixed; kernels must not care.
class ThreadPool {
public:
    explicit ThreadPool(int threads) : threads_(threads) {}
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return threads_; }
    /// fn(context, i, worker) for i in [0, n); returns when all are done. Runs alone on this thread when the pool is busy (another
    /// Java thread is inside an op), so callers never wait for each other.
    void run(int64_t n, void (*fn)(void*, int64_t, int), void* context);

private:
    struct Job {
        void (*fn)(void*, int64_t, int) = nullptr;
        void* context = nullptr;
        int64_t n = 0;
    };
    void start();
    void work(int worker);
    void drain(const Job& job, int worker);

    const int threads_;
    std::mutex busy_;  // held by the caller that uses the pool
    std::mutex mutex_;
    Signal wake_, done_;
    Job job_;
    std::atomic<uint64_t> generation_{0};  // counts jobs; a worker that sees a new value takes part
    std::atomic<int64_t> next_{0};
    int active_ = 0;  // workers inside the current job
    bool stop_ = false;
    std::vector<std::thread> workers_;
};

}  // namespace dualform::cpu
