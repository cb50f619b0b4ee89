#include <algorithm>
#include <chrono>
#include <cstdio>

#include "check.h"

namespace dualform::test {

// 24 ops in three dtypes: 75 cases of each make 5,400.
constexpr int64_t kCasesPerDtype = 75;
// Every so many cases, one of a size that only attention has (large in cases/attention.cpp).
constexpr int64_t kLargeEvery = 10;

void check_parity(const Options& options, Report& report) {
    Device device(options);
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes()) {
            double worst = 0;
            std::map<std::string, Errors> errors;  // the largest of each over all cases
            int64_t done = 0;
            const auto start = std::chrono::steady_clock::now();
            const int64_t n = options.number(kCasesPerDtype);
            for (int64_t i = 0; i < n; ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                // The emulator is too slow for large cases.
                const bool large = dtype != DF_F64 && i % kLargeEvery == kLargeEvery - 1 && options.backend != "cuda-emulated";
                std::map<std::string, int64_t> given = options.draw;
                given.emplace("large", large);
                Drawn d = draw_case(name, dtype, seed, false, given);
                Fixture fixture(device, *d.op, d.values, options.placement(), seed);
                const df_status status = call(*d.op, fixture.handles());
                if (status == DF_UNSUPPORTED) {
                    report.skip(name + " " + dtype_name(dtype) + " on " + options.backend, df_last_error(), n - i);
                    break;
                }
                std::string failure = status == DF_OK ? fixture.damage() : df_last_error();
                if (failure.empty()) {
                    const Judgement j = judge_outputs(*d.op, d.values, fixture);
                    if (!(j.ratio <= worst)) worst = j.ratio;
                    for (const auto& [output, e] : j.errors)
                        errors[output] = {std::max(errors[output].own, e.own), std::max(errors[output].naive, e.naive)};
                    failure = j.failure;
                }
                ++done;
                if (failure.empty())
                    report.pass();
                else
                    report.fail("%s %s --seed %llu (%s): %s", name.c_str(), dtype_name(dtype), static_cast<unsigned long long>(seed),
                                d.text.c_str(), failure.c_str());
            }
            const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            // Of outputs with errors of their own: a case by itself may be easy for one of both.
            double over_naive = 0;
            for (const auto& [output, e] : errors)
                if (e.naive > 0) over_naive = std::max(over_naive, e.own / e.naive);
            if (done > 0)
                std::printf("%-20s %-4s %5lld cases  worst error/tolerance %.3f  error/naive %.3f  %.2f s\n", name.c_str(), dtype_name(dtype),
                            static_cast<long long>(done), worst, over_naive, seconds);
        }
    }
}

}  // namespace dualform::test
