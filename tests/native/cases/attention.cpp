#include "reference/attention.h"

#include <cmath>

#include "case.h"

namespace dualform::test {
namespace {

class AttentionCase : public Case {
public:
    explicit AttentionCase(bool momentum) : momentum_(momentum) {}

    void draw(Draw& d) override {
        dtype = d.dtype;
        on_tensor_cores = true;
        // In F32 and BF16 the CPU computes up to 2^23 multiply-adds in double: large calls are those beyond.
        const bool large = d.flag("large", 0);
        const int64_t least = large ? 8388609 : 1, affordable = large ? 20000000 : d.differentiable ? 4000 : 300000;
        bool fused = false;
        d.until([&] {
            z_.B = d.dim("B", 4);
            z_.NKV = d.dim("NKV", 3);
            z_.NH = z_.NKV * d.dim("group", 4);
            z_.T = large ? d.one_of("T", {2, 65, 129, 200, 257, 300, 511}) : d.dim("T");
            z_.S = d.flag("self") ? z_.T : large ? d.one_of("S", {65, 129, 200, 257, 300, 511, 2049}) : d.dim("S");
            z_.HS = d.differentiable ? d.dim("HS", 7)
                                     : d.one_of("HS", {1, 2, 3, 5, 8, 16, 31, 33, 40, 59, 64, 80, 96, 127, 128, 129, 192, 255, 256});
            const int64_t work = z_.B * z_.NH * z_.T * z_.S * z_.HS;
            return least <= work && work <= affordable;
        });
        z_.causal = momentum_ || d.flag("causal", 0.7);
        fused = z_.T == z_.S && z_.NH == z_.NKV && d.flag("fused");
        const bool lengths = d.flag("lengths", 0.3);
        z_.scale = d.flag("scaled", 0.8) ? 1 / std::sqrt(static_cast<double>(z_.HS)) : 0.3;
        const Shape q = {z_.B, z_.T, z_.NH, z_.HS}, k = {z_.B, z_.S, z_.NKV, z_.HS}, lse = {z_.B, z_.NH, z_.T};
        const int acc = accumulation_dtype(dtype);
        input("q", q, d.plain()).fused = fused ? 1 : 0;
        // A large mean of k makes logits, and so every weight, ill-conditioned: float64's fixed tolerance is for well-conditioned data.
        input("k", k, dtype == DF_F64 ? d.plain() : d.data()).fused = fused ? 1 : 0;
        input("v", k, d.data()).fused = fused ? 1 : 0;
        const int64_t S = z_.S;
        const Distribution some = [S](Random& r) {  // one in eight is 0
            const int64_t n = r.below(S + 1);
            return static_cast<double>(n % 8 == 0 ? 0 : n);
        };
        if (lengths) input("lengths", {z_.B}, some, DF_I32);
        output("out", q);
        output("lse", lse, acc).least_scale = 1;
        // A state belongs to cached decoding, which has no backward.
        const bool state_in = momentum_ && !d.differentiable && z_.T <= z_.S && d.flag("state_in", 0.25);
        backward_ = !state_in;
        if (momentum_) {
            if (backward_ || d.flag("attn")) output("attn", q);
            const bool zero = d.flag("eta_zero", 0.1);
            const Distribution etas = [zero](Random& r) { return zero || r.chance(0.1) ? 0 : r.chance(0.2) ? 0.97 : r.uniform(0, 0.9); };
            const Distribution inner = [](Random& r) { return r.uniform(0.05, 0.9); };  // differences step to both sides
            input("eta", {z_.NH}, d.differentiable ? inner : etas, d.either("eta_acc"));
            if (state_in) input("state_in", {z_.B, z_.NH, z_.HS}, d.plain(), acc);
            if (d.flag("state_out", 0.4)) output("state_out", {z_.B, z_.NH, z_.HS}, acc);
        }
        if (backward_) {
            input("dout", q, d.plain());
            output("dq", q).fused = fused ? 2 : 0;
            output("dk", k).fused = fused ? 2 : 0;
            output("dv", k).fused = fused ? 2 : 0;
            gradient("q", "dq");
            gradient("k", "dk");
            gradient("v", "dv");
            if (momentum_ && d.flag("deta", 0.8)) {
                accumulate_ = !d.differentiable && d.flag("accumulate");
                result("deta", {z_.NH}, accumulate_, find("eta")->dtype);
                gradient("eta", "deta");
            }
            arriving("out", "dout");
        }
        const double pairs = static_cast<double>(z_.B * z_.NH * z_.T) * static_cast<double>(z_.S) * (z_.causal && z_.T == z_.S ? 0.5 : 1);
        forward_flops = 4 * pairs * static_cast<double>(z_.HS);
        backward_flops = 2.5 * forward_flops;
    }

    df_status forward(const Handles& t) override {
        if (!momentum_) return df_attention_forward(t("out"), t("lse"), t("q"), t("k"), t("v"), t("lengths"), z_.scale, z_.causal);
        return df_momentum_attention_forward(t("out"), t("attn"), t("lse"), t("state_out"), t("q"), t("k"), t("v"), t("lengths"), t("eta"),
                                             t("state_in"), z_.scale);
    }
    df_status backward(const Handles& t) override {
        if (!momentum_)
            return df_attention_backward(t("dq"), t("dk"), t("dv"), t("dout"), t("q"), t("k"), t("v"), t("out"), t("lse"), t("lengths"),
                                         z_.scale, z_.causal);
        return df_momentum_attention_backward(t("dq"), t("dk"), t("dv"), t("deta"), t("dout"), t("q"), t("k"), t("v"), t("attn"), t("lse"),
                                              t("lengths"), t("eta"), z_.scale, accumulate_);
    }
    bool has_backward() const override { return backward_; }

    void expect(Values& v, bool exact) const override {
        in_arithmetic(*this, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            AttentionSizes z = z_;
            if (find("lengths")) z.lengths = v["lengths"];
            const auto r = attention<A>(a, z, numbers<A>(v["q"]), numbers<A>(v["k"]), numbers<A>(v["v"]), numbers<A>(v, *this, "dout"),
                                        numbers<A>(v, *this, "eta"), numbers<A>(v, *this, "state_in"));
            put(v, "out", a, r.out, exact);
            put(v, "attn", a, r.attn, exact);
            put(v, "lse", a, r.lse, exact);
            put(v, "state_out", a, r.state_out, exact);
            put(v, "dq", a, r.dq, exact);
            put(v, "dk", a, r.dk, exact);
            put(v, "dv", a, r.dv, exact);
            put(v, "deta", a, r.deta, exact);
        });
    }

private:
    const bool momentum_;
    bool backward_ = true, accumulate_ = false;
    AttentionSizes z_{};
};

const Registration attention_case("attention", [] { return std::unique_ptr<Case>(new AttentionCase(false)); });
const Registration momentum_case("momentum_attention", [] { return std::unique_ptr<Case>(new AttentionCase(true)); });

}  // namespace
}  // namespace dualform::test
