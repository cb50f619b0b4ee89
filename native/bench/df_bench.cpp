// df_bench: checks an op's answer, then times it.
//   df_bench --list
//   df_bench OP [--dtype F32|BF16|F64] [--backend cpu|cuda] [--plugin PATH] [--threads N] [--seconds S] [NAME=SIZE ...]
// NAME=SIZE sets a dimension or an option of the op's case (see the line it prints); what is not given is drawn. One line for reading and
// one JSON object for each pass. GB/s counts every tensor of the pass once (what is updated, twice); flops are those of the formula.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "check.h"

using namespace dualform::test;

namespace {

// The plain reference is slow: the answer is checked at the largest shape, halved from the one asked for, of at most so many elements'
// worth of work.
constexpr double kCheckedWork = 4e7;

struct Timing {
    double median, fastest;
    int64_t calls;
};

template <class F>
Timing time_calls(df_device* device, double seconds, F&& f) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); };
    f();  // takes its memory
    require_ok(df_device_synchronize(device), "synchronize");
    std::vector<double> times;
    const auto start = Clock::now();
    do {
        const auto t = Clock::now();
        f();
        require_ok(df_device_synchronize(device), "synchronize");
        times.push_back(since(t));
    } while (since(start) < seconds || times.size() < 3);
    std::sort(times.begin(), times.end());
    return {times[times.size() / 2], times.front(), static_cast<int64_t>(times.size())};
}

void print(const std::string& op, const char* pass, int dtype, const std::string& shape, const char* backend, int threads, double flops,
           double bytes, const Timing& t) {
    const bool by_flops = flops > 0;
    const double rate = (by_flops ? flops : bytes) / t.median / 1e9;
    std::printf("%-20s %-8s %-4s %10.1f us  %8.2f %s  (%s)\n", op.c_str(), pass, dtype_name(dtype), t.median * 1e6, rate,
                by_flops ? "GFLOP/s" : "GB/s", shape.c_str());
    std::printf(
        "{\"op\":\"%s\",\"pass\":\"%s\",\"dtype\":\"%s\",\"shape\":\"%s\",\"backend\":\"%s\",\"threads\":%d,\"median_us\":%.3f,\"fastest_"
        "us\":%.3f,\"calls\":%lld,\"%s\":%.3f}\n",
        op.c_str(), pass, dtype_name(dtype), shape.c_str(), backend, threads, t.median * 1e6, t.fastest * 1e6,
        static_cast<long long>(t.calls), by_flops ? "gflops" : "gbs", rate);
}

double work(const Case& c) {
    double elements = 0;
    for (const Tensor& t : c.tensors) elements += static_cast<double>(count(t.shape));
    return std::max(elements, c.forward_flops + (c.has_backward() ? c.backward_flops : 0));
}

int run(const Options& options, std::map<std::string, int64_t> sizes, double seconds) {
    Device device(options);
    const int dtype = options.dtype >= 0 ? options.dtype : int{DF_F32}, threads = static_cast<int>(df_device_stat(device, DF_STAT_THREADS));
    if (sizes.empty()) sizes["-"] = 0;  // drawn, but without a limit of work
    Drawn timed = draw_case(options.op, dtype, options.seed, false, sizes);

    std::map<std::string, int64_t> checked_sizes = sizes;
    for (Drawn checked = draw_case(options.op, dtype, options.seed, false, checked_sizes);;
         checked = draw_case(options.op, dtype, options.seed, false, checked_sizes)) {
        bool halved = false;
        if (work(*checked.op) > kCheckedWork)
            for (auto& [name, size] : checked_sizes)
                if (size > 16) size /= 2, halved = true;
        if (halved) continue;
        Fixture fixture(device, *checked.op, checked.values, Placement::kPadded, options.seed);
        require_ok(call(*checked.op, fixture.handles()), "call");
        const Judgement j = judge_outputs(*checked.op, checked.values, fixture);
        std::printf("checked at %s: error/tolerance %.3f\n", checked.text.c_str(), j.ratio);
        if (!j.failure.empty()) return std::printf("FAILED: %s\n", j.failure.c_str()), 1;
        break;
    }

    Fixture fixture(device, *timed.op, timed.values, Placement::kPlain, options.seed);
    const Handles handles = fixture.handles();
    for (const bool backward : {false, true}) {
        if (backward && !timed.op->has_backward()) break;
        const auto pass = [&](const Handles& h) { require_ok(backward ? timed.op->backward(h) : timed.op->forward(h), "call"); };
        std::set<std::string> asked;  // the tensors of this pass
        pass([&](const char* name) {
            if (handles(name) != nullptr) asked.insert(name);
            return handles(name);
        });
        double bytes = 0;
        for (const std::string& name : asked) {
            const Tensor& t = *timed.op->find(name);
            bytes += static_cast<double>(count(t.shape)) * static_cast<double>(element_size(t.dtype)) * (t.role == Role::kUpdated ? 2 : 1);
        }
        const Timing timing = time_calls(device, seconds, [&] { pass(handles); });
        print(options.op, backward ? "backward" : "forward", dtype, timed.text, options.backend.c_str(), threads,
              backward ? timed.op->backward_flops : timed.op->forward_flops, bytes, timing);
    }
    return 0;
}

int usage(const char* what) {
    std::fprintf(stderr, "df_bench: %s\n", what);
    return 2;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    std::map<std::string, int64_t> sizes;
    double seconds = 1;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        const size_t equals = argument.find('=');
        if (argument == "--list") {
            for (const auto& [name, make] : cases()) std::printf("%s\n", name.c_str());
            return 0;
        }
        if (argument.compare(0, 2, "--") == 0) {
            if (i + 1 == argc) return usage((argument + " needs a value").c_str());
            const std::string value = argv[++i];
            if (argument == "--backend")
                options.backend = value;
            else if (argument == "--plugin")
                options.plugin = value;
            else if (argument == "--threads")
                options.threads = std::atoi(value.c_str());
            else if (argument == "--seconds")
                seconds = std::atof(value.c_str());
            else if (argument == "--dtype") {
                for (const int d : {DF_F32, DF_BF16, DF_F64})
                    if (value == dtype_name(d)) options.dtype = d;
                if (options.dtype < 0) return usage("--dtype is F32, BF16 or F64");
            } else
                return usage((argument + " is unknown").c_str());
        } else if (equals != std::string::npos) {
            sizes[argument.substr(0, equals)] = std::atoll(argument.c_str() + equals + 1);
        } else {
            options.op = argument;
        }
    }
    if (cases().count(options.op) == 0) return usage("which op? (df_bench --list)");
    if (!options.plugin.empty() && df_backend_load(options.plugin.c_str()) != DF_OK) return usage(df_last_error());
    try {
        return run(options, sizes, seconds);
    } catch (const Failure& failure) {
        return usage(failure.sentence.c_str());
    }
}
