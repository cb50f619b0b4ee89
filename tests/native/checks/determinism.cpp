#include "check.h"

namespace dualform::test {

namespace {
constexpr int64_t kCases = 10;
}

void check_determinism(const Options& options, Report& report) {
    if (options.backend != "cpu") return report.skip("determinism on " + options.backend, "it is about the cpu's threads");
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes()) {
            for (int64_t i = 0; i < options.number(kCases); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false);
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
