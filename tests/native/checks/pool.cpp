// The thread pool itself, compiled into the tests: its class is not exported.
#include "cpu/thread_pool.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "check.h"

namespace dualform::test {

namespace {

using cpu::ThreadPool;

double processor_seconds() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

template <class F>
void run(ThreadPool& pool, int64_t n, F&& f) {
    pool.run(n, [](void* context, int64_t i, int worker) { (*static_cast<std::remove_reference_t<F>*>(context))(i, worker); }, &f);
}

/// One call of n pieces: whether each ran once, on a worker that there is, and no two of them on one worker at a time.
bool runs_each_once(ThreadPool& pool, int64_t n) {
    const std::unique_ptr<std::atomic<int>[]> ran(new std::atomic<int>[static_cast<size_t>(n)]());
    const std::unique_ptr<std::atomic<bool>[]> inside(new std::atomic<bool>[static_cast<size_t>(pool.threads())]());
    std::atomic<bool> right{true};
    run(pool, n, [&](int64_t i, int worker) {
        const bool known = i >= 0 && i < n && worker >= 0 && worker < pool.threads();
        if (!known || inside[static_cast<size_t>(worker)].exchange(true)) {
            right = false;
            return;
        }
        ran[static_cast<size_t>(i)].fetch_add(1, std::memory_order_relaxed);
        inside[static_cast<size_t>(worker)] = false;
    });
    for (int64_t i = 0; i < n; ++i)
        if (ran[static_cast<size_t>(i)] != 1) return false;
    return right;
}

void check_pieces(Report& report) {
    for (const int threads : {1, 2, 3, 8, 64}) {
        ThreadPool pool(threads);
        for (const int64_t n : {0, 1, 2, 3, 7, 64, 1000, 100003})
            report.expect(runs_each_once(pool, n),
                          "pool: " + std::to_string(n) + " pieces on " + std::to_string(threads) + " threads: not each once");
    }
    // Short calls one after another, with pauses about as long as a worker looks for the next: it must miss none that it is called for.
    ThreadPool pool(4);
    bool right = true;
    for (int i = 0; i < 2000 && right; ++i) {
        right = runs_each_once(pool, 2 + i % 9);
        if (i % 4 == 0) sleep_for(40e-6 * (i % 5));
    }
    report.expect(right, "pool: short calls: not each piece once");
    for (int i = 0; i < 200; ++i) {  // closed while its workers start, look, sleep
        ThreadPool brief(3);
        right = right && runs_each_once(brief, 5);
        if (i % 3 == 0) sleep_for(100e-6 * (i % 4));
    }
    report.expect(right, "pool: open and closed at once: not each piece once");
}

void check_parallel(Report& report) {
    // Pieces that wait for one another end only when all threads take part.
    constexpr int kThreads = 3;
    ThreadPool pool(kThreads);
    for (int round = 0; round < 3; ++round) {
        std::atomic<int> arrived{0};
        std::atomic<bool> together{true};
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        run(pool, kThreads, [&](int64_t, int) {
            ++arrived;
            while (arrived < kThreads && together) {
                if (std::chrono::steady_clock::now() > end) together = false;
                std::this_thread::yield();
            }
        });
        report.expect(together, "pool: 3 pieces on 3 threads did not run at the same time");
        sleep_for(2e-3);  // the next round finds them asleep
    }
}

void check_nested_and_concurrent(Report& report) {
    ThreadPool pool(4);
    std::atomic<int64_t> sum{0};
    run(pool, 10, [&](int64_t, int) {
        run(pool, 10, [&](int64_t, int inner) {
            sum += inner == 0 ? 1 : 1000;  // a call within a call runs alone, as worker 0
        });
    });
    report.expect(sum == 100, "pool: calls within a call: not each piece once, as worker 0");

    std::atomic<bool> right{true};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 6; ++caller)
        callers.emplace_back([&] {
            for (int i = 0; i < 300 && right; ++i)
                if (!runs_each_once(pool, 1 + i % 40)) right = false;
        });
    for (std::thread& t : callers) t.join();
    report.expect(right, "pool: six callers at once: not each piece once");
}

void check_quiet(Report& report) {
    ThreadPool pool(4);
    run(pool, 64, [](int64_t, int) {});
    sleep_for(1e-3);
    const double before = processor_seconds();
    sleep_for(0.3);
    const double used = processor_seconds() - before;
    report.expect(used < 0.01, "pool: " + std::to_string(used) + " s of processor time in 0.3 s of idleness, expected less than 0.01");
}

void check_oversubscribed(Report& report) {
    // More threads than processors, and as many that are always busy: calls are slower, but none waits for a worker that is not run.
    const auto processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    ThreadPool pool(4 * processors);
    std::atomic<bool> stop{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < 2 * processors; ++i)
        busy.emplace_back([&] {
            while (!stop) {
            }
        });
    const auto start = std::chrono::steady_clock::now();
    constexpr int kCalls = 300;
    bool right = true;
    for (int i = 0; i < kCalls; ++i) right = right && runs_each_once(pool, 64);
    const double each = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / kCalls;
    stop = true;
    for (std::thread& t : busy) t.join();
    report.expect(right, "pool: oversubscribed: not each piece once");
    // A call of microseconds; a wait for every thread in turn would be some time slices of milliseconds for each of them.
    report.expect(each < 0.05, "pool: oversubscribed: " + std::to_string(each) + " s for a call of 64 empty pieces, expected less than 0.05");
}

void check_fork(Report& report) {
#if !defined(__SANITIZE_THREAD__)
    auto pool = std::make_unique<ThreadPool>(4);
    report.expect(runs_each_once(*pool, 50), "pool: before fork: not each piece once");
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        const bool right = runs_each_once(*pool, 50);
        pool.reset();
        _exit(right ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    report.expect(status == 0, "pool: a call, or its end, in a forked child: status " + std::to_string(status));
    report.expect(runs_each_once(*pool, 50), "pool: after fork: not each piece once");
#else
    report.skip("pool: fork", "not under the thread sanitizer");
#endif
}

}  // namespace

void check_pool(const Options&, Report& report) {
    check_pieces(report);
    check_parallel(report);
    check_nested_and_concurrent(report);
    check_quiet(report);
    check_oversubscribed(report);
    check_fork(report);
}

}  // namespace dualform::test
