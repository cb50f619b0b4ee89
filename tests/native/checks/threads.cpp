#include <thread>

#include "check.h"

namespace dualform::test {

namespace {
constexpr int kCallers = 4;
constexpr int64_t kRounds = 3;
}  // namespace

void check_threads(const Options& options, Report& report) {
    Device device(options);
    struct Work {
        std::string name;
        Drawn d;
        std::vector<unsigned char> alone;
    };
    std::vector<Work> all;
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (int64_t i = 0; i < options.number(2); ++i) {
            Work w{name,
                   draw_case(name, options.dtype >= 0 ? options.dtype : int{DF_F32}, options.seed + static_cast<uint64_t>(i), false),
                   {}};
            Fixture fixture(device, *w.d.op, w.d.values, Placement::kPadded, 1);
            require_ok(call(*w.d.op, fixture.handles()), name.c_str());
            w.alone = fixture.output_bits();
            all.push_back(std::move(w));
        }
    }
    // Each caller goes through all cases in an order of its own.
    std::vector<std::vector<std::string>> failures(kCallers);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < kCallers; ++caller)
        callers.emplace_back([&, caller] {
            for (int64_t round = 0; round < kRounds; ++round)
                for (size_t i = 0; i < all.size(); ++i) {
                    const Work& w = all[(i * 7 + static_cast<size_t>(caller) * 5) % all.size()];
                    try {
                        Fixture fixture(device, *w.d.op, w.d.values, Placement::kPadded, 1);
                        require_ok(call(*w.d.op, fixture.handles()), w.name.c_str());
                        if (fixture.output_bits() != w.alone)
                            failures[static_cast<size_t>(caller)].push_back(w.name + ": other bits than alone");
                    } catch (const Failure& f) {
                        failures[static_cast<size_t>(caller)].push_back(f.sentence);
                    }
                }
        });
    for (std::thread& t : callers) t.join();
    for (const auto& of_caller : failures) {
        for (const std::string& f : of_caller) report.fail("threads: %s", f.c_str());
        if (of_caller.empty()) report.pass();
    }
    report.expect(df_device_stat(device, DF_STAT_LIVE_TENSORS) == 0, "threads: tensors left open");
}

}  // namespace dualform::test
