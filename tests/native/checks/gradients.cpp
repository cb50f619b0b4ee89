#include <cstdio>

#include "check.h"

namespace dualform::test {

namespace {

constexpr int64_t kShapes = 60;
constexpr int64_t kElements = 12;  // of each input
constexpr double kStep = 1e-3;

/// sum over the outputs of <output, incoming gradient>.
double objective(Case& c, const Fixture& fixture, const Values& values) {
    require_ok(c.forward(fixture.handles()), "forward");
    double sum = 0;
    for (const Case::Incoming& g : c.incoming) {
        const std::vector<double> out = fixture.read(g.output);
        for (size_t i = 0; i < out.size(); ++i) sum += out[i] * (g.gradient.empty() ? 1 : values.at(g.gradient)[i]);
    }
    return sum;
}

}  // namespace

// Four points, error of order step^4:  f' = (8 (f(x+h) - f(x-h)) - (f(x+2h) - f(x-2h))) / 12 h.
void check_gradients(const Options& options, Report& report) {
    Device device(options);
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        double worst = 0;
        int64_t shapes = 0, elements = 0;
        for (int64_t i = 0; i < options.number(kShapes); ++i) {
            const uint64_t seed = options.seed + static_cast<uint64_t>(i);
            Drawn d = draw_case(name, DF_F64, seed, true);
            if (d.op->gradients.empty()) break;
            Fixture fixture(device, *d.op, d.values, Placement::kPadded, seed);
            require_ok(call(*d.op, fixture.handles()), name.c_str());
            double incoming = 0;
            for (const Case::Incoming& g : d.op->incoming)
                incoming = std::max(incoming, g.gradient.empty() ? 1 : largest_magnitude(d.values.at(g.gradient)));
            std::map<std::string, std::vector<double>> analytic;
            for (const Case::Gradient& g : d.op->gradients) analytic[g.gradient] = fixture.read(g.gradient);
            Random random(seed);
            ++shapes;
            for (const Case::Gradient& g : d.op->gradients) {
                std::vector<double> x = d.values.at(g.of);
                const double scale = std::max(largest_magnitude(analytic[g.gradient]), incoming);
                double error = 0;
                for (int64_t e = 0; e < std::min<int64_t>(kElements, static_cast<int64_t>(x.size())); ++e) {
                    const size_t at = static_cast<size_t>(x.size() <= kElements ? e : random.below(static_cast<int64_t>(x.size())));
                    const double here = x[at];
                    double f[4];
                    int k = 0;
                    for (const double step : {kStep, -kStep, 2 * kStep, -2 * kStep}) {
                        x[at] = here + step;
                        fixture.write(g.of, x);
                        f[k++] = objective(*d.op, fixture, d.values);
                    }
                    x[at] = here;
                    const double difference = distance((8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * kStep), analytic[g.gradient][at]);
                    if (!(difference <= error)) error = difference;
                    ++elements;
                }
                fixture.write(g.of, x);
                const Verdict verdict = judge(error, kGradientTolerance * scale);
                if (!(verdict.ratio <= worst)) worst = verdict.ratio;
                if (verdict.pass)
                    report.pass();
                else
                    report.fail("%s %s --seed %llu (%s): error %.3g, tolerance %.3g", name.c_str(), g.gradient.c_str(),
                                static_cast<unsigned long long>(seed), d.text.c_str(), error, verdict.tolerance);
            }
        }
        if (shapes > 0)
            std::printf("%-20s %3lld shapes %5lld elements  worst relative error %.2e\n", name.c_str(), static_cast<long long>(shapes),
                        static_cast<long long>(elements), worst * kGradientTolerance);
    }
}

}  // namespace dualform::test
