#include "check.h"

namespace dualform::test {

namespace {
constexpr int64_t kCases = 10;
}

namespace {

/// On a device the same call again and again, with other work of the same op queued in between now and then.
void repeat_on_device(const Options& options, Report& report) {
    constexpr int64_t kRepeats = 20;
    const int64_t repeats = options.repeat > 0 ? options.repeat : kRepeats;
    Device device(options);
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes()) {
            if (dtype == DF_F64) continue;  // served by the cpu only
            for (int64_t i = 0; i < options.number(2); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false, options.draw);
                const Placement placement = options.aligned ? Placement::kAligned : Placement::kPlain;
                Fixture fixture(device, *d.op, d.values, placement, seed), other(device, *d.op, d.values, placement, seed + 1);
                std::vector<unsigned char> first;
                std::string failure;
                for (int64_t n = 0; n < repeats && failure.empty(); ++n) {
                    if (n > 0) fixture.restore();
                    if (n % 3 == 1 && call(*d.op, other.handles()) != DF_OK) failure = df_last_error();
                    if (call(*d.op, fixture.handles()) != DF_OK) failure = df_last_error();
                    const std::vector<unsigned char> bits = fixture.output_bits();
                    if (n == 0)
                        first = bits;
                    else if (bits != first && failure.empty())
                        failure = "run " + std::to_string(n + 1) + " gives other bits than the first";
                }
                if (failure.empty())
                    report.pass();
                else
                    report.fail("%s %s --seed %llu (%s): %s", name.c_str(), dtype_name(dtype), static_cast<unsigned long long>(seed),
                                d.text.c_str(), failure.c_str());
            }
        }
    }
}

}  // namespace

void check_determinism(const Options& options, Report& report) {
    if (options.backend != "cpu") return repeat_on_device(options, report);
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes()) {
            for (int64_t i = 0; i < options.number(kCases); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false, options.draw);
                std::vector<unsigned char> first;
                std::string failure;
                for (const int threads : {1, 2, 3, 8}) {
                    Device device(options, threads);
                    Fixture fixture(device, *d.op, d.values, options.placement(), seed);
                    const df_status status = call(*d.op, fixture.handles());
                    if (status != DF_OK) failure = df_last_error();
                    const std::vector<unsigned char> bits = fixture.output_bits();
                    if (threads == 1)
                        first = bits;
                    else if (bits != first && failure.empty())
                        failure = std::to_string(threads) + " threads give other bits than one";
                }
                if (failure.empty())
                    report.pass();
                else
                    report.fail("%s %s --seed %llu (%s): %s", name.c_str(), dtype_name(dtype), static_cast<unsigned long long>(seed),
                                d.text.c_str(), failure.c_str());
            }
        }
    }
}

}  // namespace dualform::test
