#include "case.h"
#include "reference/dual_form.h"

namespace dualform::test {
namespace {

class LinearAttentionCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        on_tensor_cores = true;
        has_tf32 = false;
        d.until([&] {
            B_ = d.dim("B", 4);
            NH_ = d.dim("NH", 4);
            T_ = d.dim("T");
            HS_ = d.differentiable ? d.dim("HS", 7)
                                   : d.one_of("HS", {1, 2, 3, 5, 8, 16, 31, 33, 40, 59, 64, 80, 96, 127, 128, 129, 192, 255, 256});
            return B_ * NH_ * T_ * HS_ * HS_ <= (d.differentiable ? 2000 : 400000);
        });
        const bool fused = d.flag("fused", 0.3), decay = d.flag("decay"), state_in = d.flag("state_in"), state_out = d.flag("state_out");
        accumulate_ = !d.differentiable && d.flag("accumulate");
        const Shape shape = {B_, T_, NH_, HS_}, state = {B_, NH_, HS_, HS_};
        const int acc = accumulation_dtype(dtype);
        input("q", shape, d.data()).fused = fused ? 1 : 0;
        input("k", shape, d.plain()).fused = fused ? 1 : 0;
        input("v", shape, d.data()).fused = fused ? 1 : 0;
        const Distribution decays = [](Random& r) {
            return r.chance(0.1) ? 1 : r.chance(0.1) ? 0 : r.chance(0.1) ? 1e-3 : r.uniform(0.2, 1);
        };
        const Distribution inner = [](Random& r) { return r.uniform(0.05, 0.95); };  // differences step to both sides
        if (decay) input("decay", {NH_}, d.differentiable ? inner : decays, d.either("decay_acc"));
        if (state_in) input("state_in", state, d.plain(), d.either("state_in_acc"));
        input("dout", shape, d.plain());
        output("out", shape);
        arriving("out", "dout");
        if (state_out) {
            output("state_out", state, acc);
            if (d.flag("dstate_out")) {
                input("dstate_out", state, d.plain(), d.either("dstate_out_acc"));
                arriving("state_out", "dstate_out");
            }
        }
        output("dq", shape).fused = fused ? 2 : 0;
        output("dk", shape).fused = fused ? 2 : 0;
        output("dv", shape).fused = fused ? 2 : 0;
        gradient("q", "dq");
        gradient("k", "dk");
        gradient("v", "dv");
        if (decay && d.flag("ddecay", 0.8)) {
            result("ddecay", {NH_}, accumulate_, find("decay")->dtype);
            gradient("decay", "ddecay");
        }
        if (state_in && d.flag("dstate_in", 0.8)) {
            output("dstate_in", state, find("state_in")->dtype);
            gradient("state_in", "dstate_in");
        }
        forward_flops = 4.0 * static_cast<double>(B_ * NH_ * T_ * HS_ * HS_);
        backward_flops = 2.5 * forward_flops;
    }
    df_status forward(const Handles& t) override {
        return df_linear_attention_forward(t("out"), t("state_out"), t("q"), t("k"), t("v"), t("decay"), t("state_in"));
    }
    df_status backward(const Handles& t) override {
        return df_linear_attention_backward(t("dq"), t("dk"), t("dv"), t("ddecay"), t("dstate_in"), t("dout"), t("dstate_out"), t("q"),
                                            t("k"), t("v"), t("decay"), t("state_in"), accumulate_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(*this, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto n = [&](const char* name) { return numbers<A>(v, *this, name); };
            const auto r =
                linear_attention<A>(a, B_, T_, NH_, HS_, n("q"), n("k"), n("v"), n("decay"), n("state_in"), n("dout"), n("dstate_out"));
            put(v, "out", a, r.out, exact);
            put(v, "state_out", a, r.state_out, exact);
            put(v, "dq", a, r.dq, exact);
            put(v, "dk", a, r.dk, exact);
            put(v, "dv", a, r.dv, exact);
            put(v, "ddecay", a, r.ddecay, exact);
            put(v, "dstate_in", a, r.dstate_in, exact);
        });
    }

private:
    int64_t B_ = 0, T_ = 0, NH_ = 0, HS_ = 0;
    bool accumulate_ = false;
};

const Registration linear_attention_case("linear_attention", [] { return std::unique_ptr<Case>(new LinearAttentionCase); });

}  // namespace
}  // namespace dualform::test
