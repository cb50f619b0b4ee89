#include "check.h"

namespace dualform::test {

void check_steady_state(const Options& options, Report& report) {
    Device device(options);
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes())
            for (int64_t i = 0; i < options.number(6); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false);
                Fixture fixture(device, *d.op, d.values, Placement::kPadded, seed);
                int64_t after_first = 0;
                std::string failure;
                if (call(*d.op, fixture.handles()) == DF_UNSUPPORTED) {
                    report.skip(name + " " + dtype_name(dtype) + " on " + options.backend, df_last_error());
                    break;
                }
                for (int round = 0; round < 4; ++round) {
                    if (call(*d.op, fixture.handles()) != DF_OK) failure = df_last_error();
                    const int64_t now = df_device_stat(device, DF_STAT_SYSTEM_ALLOCS);
                    if (round == 0)
                        after_first = now;
                    else if (now != after_first)
                        failure = std::to_string(now - after_first) + " allocations after the first call";
                }
                if (failure.empty())
                    report.pass();
                else
                    report.fail("%s %s --seed %llu: %s", name.c_str(), dtype_name(dtype), static_cast<unsigned long long>(seed),
                                failure.c_str());
            }
    }
}

}  // namespace dualform::test
