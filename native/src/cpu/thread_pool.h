// Threads of one CPU device. Started at the first parallel call, joined when the device closes.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace dualform::cpu {

/// Runs independent pieces of one call on a fixed set of threads. Which thread runs which piece is not fixed; kernels must not care.
///
/// The caller takes pieces like every worker and waits for nobody who has not taken one: a worker that the system does not run delays
/// a call by its own piece at most, and a call in a forked child, where there are no workers, does everything alone. Workers look for
/// the next call for a short while and then sleep.
class ThreadPool {
public:
    explicit ThreadPool(int threads) : threads_(threads) {}
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return threads_; }
    /// fn(context, i, worker) for i in [0, n); returns when all are done. Runs alone on this thread, as worker 0, when the pool is busy
    /// (another Java thread is inside an op, or this is a call within a call), so callers never wait for each other.
    void run(int64_t n, void (*fn)(void*, int64_t, int), void* context);

private:
    struct Job {
        void (*fn)(void*, int64_t, int) = nullptr;
        void* context = nullptr;
        int64_t n = 0, chunk = 1;  // pieces; how many are taken at a time
    };
    void start();
    void work(int worker);
    bool join(uint32_t* last);
    void leave();
    void drain(const Job& job, int worker);
    void sleep_until_called(uint32_t last);
    void wait_until_alone();

    const int threads_;
    std::vector<std::thread> workers_;
    pid_t process_ = 0;  // whose threads they are
    Job job_;            // written while nobody is inside
    std::atomic<bool> busy_{false}, stop_{false};
    // What a worker decides by: number of the job (32 bits), places that are free in it (16), workers inside (16).
    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::atomic<int64_t> next_{0};  // the first piece that nobody has taken
    // Futex words: calls changes when sleeping workers are called; caller_waits is 1 while the caller sleeps.
    alignas(64) std::atomic<uint32_t> calls_{0};
    std::atomic<uint32_t> sleeping_{0}, caller_waits_{0};
};

}  // namespace dualform::cpu
