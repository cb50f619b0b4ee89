// The kernels of sm_90a over shapes that they serve: parity by the common rule, the common check of masked keys, and, emulated, that it
// was they that ran. A case is given by its sizes, since few of those that parity draws have a head size and an alignment they take.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "check.h"

namespace dualform::test {

namespace {

using Given = std::map<std::string, int64_t>;

constexpr const char* kForward = "attention_forward_wgmma";
constexpr const char* kBackward = "attention_backward_wgmma"; /* where there is a backward */

struct Served {
    const char* op;
    Given sizes;
};

/// Launches of a kernel so far, -1 where the backend does not count them.
int64_t launches(const Options& options, const char* kernel) {
    std::vector<char> json(16384);
    if (df_backend_describe(options.backend.c_str(), json.data(), json.size()) != DF_OK) return -1;
    if (std::strstr(json.data(), "\"launches\":") == nullptr) return -1;
    const std::string key = std::string("\"") + kernel + "\":";
    const char* const found = std::strstr(json.data(), key.c_str());
    return found == nullptr ? 0 : std::atoll(found + key.size());
}

Given sizes(int64_t B, int64_t NKV, int64_t group, int64_t T, int64_t S, int64_t HS, Given more = {}) {
    Given g = {{"B", B}, {"NKV", NKV}, {"group", group}, {"T", T}, {"self", T == S}, {"S", S}, {"HS", HS}};
    for (const auto& [key, value] : more) g[key] = value;
    return g;
}

std::vector<Served> served() {
    std::vector<Served> all;
    const auto add = [&](const char* op, Given g) { all.push_back({op, std::move(g)}); };
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
    }
    return all;
}

}  // namespace

void check_hopper(const Options& options, Report& report) {
    Device device(options);
    uint64_t seed = options.seed;
    for (const Served& s : served()) {
        if (!options.wants(s.op)) continue;
        ++seed;
        const bool drawn = std::all_of(options.draw.begin(), options.draw.end(), [&](const auto& size) {
            const auto found = s.sizes.find(size.first);
            return found != s.sizes.end() && found->second == size.second;
        });
        if (!drawn) continue; /* --draw: those cases only */
        Drawn d = draw_case(s.op, DF_BF16, seed, false, s.sizes);
        Fixture fixture(device, *d.op, d.values, Placement::kAligned, seed);
        const int64_t before = launches(options, kForward), before_backward = launches(options, kBackward);
        const df_status status = call(*d.op, fixture.handles());
        std::string failure = status == DF_OK ? fixture.damage() : df_last_error();
        double ratio = 0;
        if (failure.empty()) {
            const Judgement j = judge_outputs(*d.op, d.values, fixture);
            failure = j.failure;
            ratio = j.ratio;
        }
        if (failure.empty() && before >= 0 && launches(options, kForward) == before) failure = std::string(kForward) + " did not serve";
        if (failure.empty() && before >= 0 && (launches(options, kBackward) != before_backward) != d.op->has_backward())
            failure = std::string(kBackward) + " did not serve";
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
