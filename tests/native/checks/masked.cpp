#include <cmath>

#include "check.h"

namespace dualform::test {

namespace {
constexpr int64_t kCases = 100;  // three in ten have key lengths
}

// Keys and values from lengths[b] on are replaced with NaN: no bit of any output may change. Rows with nothing to attend are exactly 0
// with lse -inf, and the gradients of what nobody sees are exactly 0.
void check_masked(const Options& options, Report& report) {
    Device device(options);
    for (const char* name : {"attention", "momentum_attention"}) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes())
            for (int64_t i = 0; i < options.number(kCases); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false, options.draw);
                const Tensor* lengths = d.op->find("lengths");
                if (lengths == nullptr) continue;
                Fixture fixture(device, *d.op, d.values, Placement::kPadded, seed);
                df_status status = call(*d.op, fixture.handles());
                if (status == DF_UNSUPPORTED) {
                    report.skip(std::string(name) + " " + dtype_name(dtype) + " on " + options.backend, df_last_error());
                    break;
                }
                require_ok(status, name);
                const std::vector<unsigned char> clean = fixture.output_bits();
                std::map<std::string, std::vector<double>> before;
                for (const Tensor& t : d.op->tensors)
                    if (t.role != Role::kInput) before[t.name] = fixture.read(t.name);

                const Shape& keys = d.op->find("k")->shape;
                const int64_t S = keys[1], row = keys[2] * keys[3];
                for (const char* tensor : {"k", "v"}) {
                    std::vector<double> x = d.values.at(tensor);
                    for (int64_t b = 0; b < keys[0]; ++b)
                        for (int64_t at = static_cast<int64_t>(d.values.at("lengths")[static_cast<size_t>(b)]) * row; at < S * row; ++at)
                            x[static_cast<size_t>(b * S * row + at)] = std::nan("");
                    fixture.write(tensor, x);
                }
                fixture.restore();
                require_ok(call(*d.op, fixture.handles()), name);
                std::string failure;
                if (fixture.output_bits() != clean) {
                    failure = "NaN behind the key lengths changes an output";
                    for (const Tensor& t : d.op->tensors)
                        if (t.role != Role::kInput && largest_distance(fixture.read(t.name), before.at(t.name)) != 0) failure += ", " + t.name;
                }

                // What must be exactly 0.
                const Shape q = d.op->find("q")->shape;
                const int64_t T = q[1], NH = q[2], HS = q[3];
                const std::vector<double> lse = fixture.read("lse"), out = fixture.read(d.op->find("attn") ? "attn" : "out");
                const bool momentum_hidden = std::string(name) == "momentum_attention" && !d.op->find("attn");
                for (int64_t b = 0; b < q[0] && failure.empty(); ++b)
                    for (int64_t h = 0; h < NH; ++h)
                        for (int64_t t = 0; t < T; ++t) {
                            if (lse[static_cast<size_t>((b * NH + h) * T + t)] != -INFINITY) continue;
                            for (int64_t c = 0; c < HS && !momentum_hidden; ++c)
                                if (out[static_cast<size_t>(((b * T + t) * NH + h) * HS + c)] != 0)
                                    failure = "a row with lse -inf is not 0";
                        }
                for (int64_t b = 0; b < q[0] && failure.empty(); ++b)
                    if (d.values.at("lengths")[static_cast<size_t>(b)] == 0)
                        for (int64_t n = 0; n < NH * T; ++n)
                            if (lse[static_cast<size_t>(b * NH * T + n)] != -INFINITY)
                                failure = "lse of a row with nothing to attend is not -inf";
                if (d.op->has_backward() && failure.empty())
                    for (const char* gradient : {"dk", "dv"}) {
                        const std::vector<double> g = fixture.read(gradient);
                        for (int64_t b = 0; b < keys[0]; ++b)
                            for (int64_t at = static_cast<int64_t>(d.values.at("lengths")[static_cast<size_t>(b)]) * row; at < S * row;
                                 ++at)
                                if (g[static_cast<size_t>(b * S * row + at)] != 0)
                                    failure = std::string(gradient) + " of a masked key is not 0";
                    }
                if (failure.empty())
                    report.pass();
                else
                    report.fail("%s %s --seed %llu (%s): %s", name, dtype_name(dtype), static_cast<unsigned long long>(seed),
                                d.text.c_str(), failure.c_str());
            }
    }
}

}  // namespace dualform::test
