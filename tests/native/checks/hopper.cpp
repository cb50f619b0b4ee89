// The kernels of sm_90a over shapes that they serve: parity by the common rule, the common check of masked keys, that it was they that ran
// (the backend counts what it launches), and with --repeat the same bits in so many runs. A case is given by its sizes, since few of those
// that parity draws have a head size and an alignment they take. --T leaves out what is longer, --draw what
// has other sizes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "check.h"

namespace dualform::test {

namespace {

using Given = std::map<std::string, int64_t>;

struct Served {
    const char* op;
    Given sizes;
    const char *forward, *backward; /* the kernels; backward runs where there is a backward */
};

std::string described(const Options& options) {
    std::vector<char> json(1 << 16);
    require_ok(df_backend_describe(options.backend.c_str(), json.data(), json.size()), "describe");
    return json.data();
}

/// Launches of a kernel so far.
int64_t launches(const Options& options, const char* kernel) {
    const std::string json = described(options), key = std::string("\"") + kernel + "\":";
    const size_t list = json.find("\"launches\":");
    if (list == std::string::npos) throw Failure{options.backend + " does not count its launches"};
    const size_t found = json.find(key, list);
    return found == std::string::npos ? 0 : std::atoll(json.c_str() + found + key.size());
}

/// "", or the compute capability of a device that does not run these kernels.
std::string other_capability(const Options& options) {
    const std::string json = described(options), key = "\"cc\":\"";
    const size_t found = json.find(key); /* of the first device, which the checks use */
    if (found == std::string::npos) return "unknown";
    const size_t begin = found + key.size();
    const std::string cc = json.substr(begin, json.find('"', begin) - begin);
    return cc == "9.0" ? "" : cc;
}

Given sizes(int64_t B, int64_t NKV, int64_t group, int64_t T, int64_t S, int64_t HS, Given more = {}) {
    Given g = {{"B", B}, {"NKV", NKV}, {"group", group}, {"T", T}, {"self", T == S}, {"S", S}, {"HS", HS}};
    for (const auto& [key, value] : more) g[key] = value;
    return g;
}

std::vector<Served> served() {
    std::vector<Served> all;
    const auto add = [&](const char* op, Given g) { all.push_back({op, std::move(g), "attention_forward_wgmma", "attention_backward_wgmma"}); };
    const Given full = {{"causal", 0}, {"lengths", 0}}, causal = {{"causal", 1}, {"lengths", 0}};
    const Given lengths = {{"causal", 1}, {"lengths", 1}}, full_lengths = {{"causal", 0}, {"lengths", 1}};
    for (const int64_t HS : {64, 128}) {
        add("attention", sizes(1, 1, 1, 64, 64, HS, causal));
        add("attention", sizes(2, 1, 2, 1, 1, HS, full));
        add("attention", sizes(1, 2, 1, 200, 200, HS, causal));
        add("attention", sizes(1, 1, 2, 70, 300, HS, causal));
        add("attention", sizes(1, 1, 1, 300, 70, HS, causal)); /* rows that see nothing */
        add("attention", sizes(2, 1, 1, 130, 257, HS, full));
        add("attention", sizes(3, 1, 1, 129, 129, HS, lengths));
        add("attention", sizes(3, 1, 2, 65, 190, HS, full_lengths));
        for (const int64_t saved : {0, 1}) { /* with state_in there is no backward, and attn is asked for or not */
            const Given momentum = {{"lengths", 0}, {"state_in", saved == 0}, {"attn", 0}};
            const Given masked = {{"lengths", 1}, {"state_in", saved == 0}, {"attn", 0}};
            add("momentum_attention", sizes(1, 1, 1, 64, 64, HS, momentum));
            add("momentum_attention", sizes(1, 1, 2, 200, 200, HS, momentum));
            add("momentum_attention", sizes(1, 2, 1, 65, 300, HS, momentum));
            add("momentum_attention", sizes(3, 1, 1, 150, 150, HS, masked));
            add("momentum_attention", sizes(3, 1, 1, 33, 140, HS, masked));
        }
        add("momentum_attention", sizes(1, 1, 1, 260, 100, HS, {{"lengths", 0}, {"state_in", 0}})); /* positions before key 0 */
        for (const int64_t T : {1, 64, 70, 129, 200})
            for (const int64_t more : {0, 1}) {
                const Given linear = {{"B", more + 1}, {"NH", 2 - more}, {"T", T}, {"HS", HS}, {"fused", 0}, {"decay", more}, {"ddecay", 0},
                                      {"state_in", more}, {"state_out", more}, {"dstate_out", more}};
                /* one token has a kernel of its own, forward */
                all.push_back({"linear_attention", linear, T == 1 ? nullptr : "linear_attention_wgmma out", "linear_attention_wgmma dq dk dv"});
            }
    }
    return all;
}

}  // namespace

void check_hopper(const Options& options, Report& report) {
    Device device(options);
    uint64_t seed = options.seed;
    if (const std::string cc = other_capability(options); !cc.empty())
        return report.skip("the kernels of sm_90a", "compute capability " + cc + ", they run on 9.0");
    for (const Served& s : served()) {
        ++seed;
        if (!options.wants(s.op) || s.sizes.at("T") > options.T || (s.sizes.count("S") != 0 && s.sizes.at("S") > options.T)) continue;
        const bool drawn = std::all_of(options.draw.begin(), options.draw.end(), [&](const auto& size) {
            const auto found = s.sizes.find(size.first);
            return found != s.sizes.end() && found->second == size.second;
        });
        if (!drawn) continue; /* --draw: those cases only */
        Drawn d = draw_case(s.op, DF_BF16, seed, false, s.sizes);
        Fixture fixture(device, *d.op, d.values, Placement::kAligned, seed);
        const int64_t before = s.forward == nullptr ? 0 : launches(options, s.forward), before_backward = launches(options, s.backward);
        const df_status status = call(*d.op, fixture.handles());
        std::string failure = status == DF_OK ? fixture.damage() : df_last_error();
        double ratio = 0;
        if (failure.empty()) {
            const Judgement j = judge_outputs(*d.op, d.values, fixture);
            failure = j.failure;
            ratio = j.ratio;
        }
        if (failure.empty() && s.forward != nullptr && launches(options, s.forward) == before)
            failure = std::string(s.forward) + " did not serve";
        if (failure.empty() && (launches(options, s.backward) != before_backward) != d.op->has_backward())
            failure = std::string(s.backward) + (d.op->has_backward() ? " did not serve" : " ran, and there is no backward");
        const std::vector<unsigned char> first = options.repeat > 1 ? fixture.output_bits() : std::vector<unsigned char>();
        for (int64_t n = 2; n <= options.repeat && failure.empty(); ++n) {
            fixture.restore();
            require_ok(call(*d.op, fixture.handles()), s.op);
            if (fixture.output_bits() != first) failure = "run " + std::to_string(n) + " gives other bits than the first";
        }
        const Tensor* lengths = d.op->find("lengths");
        if (failure.empty() && lengths != nullptr) { /* what lies behind the lengths must not count */
            const std::vector<unsigned char> clean = fixture.output_bits();
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
            require_ok(call(*d.op, fixture.handles()), s.op);
            if (fixture.output_bits() != clean) failure = "NaN behind the key lengths changes an output";
        }
        if (failure.empty())
            report.pass();
        else
            report.fail("%s --seed %llu (%s): %s", s.op, static_cast<unsigned long long>(seed), d.text.c_str(), failure.c_str());
        std::printf("%-20s %-90s error/tolerance %.3f\n", s.op, d.text.c_str(), ratio);
    }
}

}  // namespace dualform::test
