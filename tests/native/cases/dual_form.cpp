#include "reference/dual_form.h"

#include "case.h"

namespace dualform::test {
namespace {

class DeltaAccumulateCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        on_tensor_cores = true;
        has_tf32 = false;
        d.until([&] { return (N_ = d.dim("N", 768)) * (O_ = d.dim("O")) * (I_ = d.dim("I")) <= 300000; });
        accumulate_ = d.flag("accumulate");
        input("e", {N_, O_}, d.data());
        input("xp", {N_, I_}, d.data());
        result("delta_w", {O_, I_}, accumulate_, accumulation_dtype(dtype));
        forward_flops = 2.0 * static_cast<double>(N_ * O_ * I_);
    }
    df_status forward(const Handles& t) override { return df_delta_accumulate(t("delta_w"), t("e"), t("xp"), accumulate_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(*this, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            put(v, "delta_w", a, outer_products<A>(a, numbers<A>(v["e"]), numbers<A>(v["xp"]), N_, O_, I_), exact);
        });
    }

private:
    int64_t N_ = 0, O_ = 0, I_ = 0;
    bool accumulate_ = false;
};

class DeltaApplyCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        on_tensor_cores = true;
        has_tf32 = false;
        d.until([&] { return (M_ = d.dim("M")) * (O_ = d.dim("O")) * (I_ = d.dim("I")) <= 300000; });
        input("x", {M_, I_}, d.data());
        if (d.flag("w0")) input("w0", {O_, I_}, d.plain());
        input("delta_w", {O_, I_}, d.plain(), accumulation_dtype(dtype));
        output("out", {M_, O_});
        forward_flops = 2.0 * static_cast<double>(M_ * O_ * I_);
    }
    df_status forward(const Handles& t) override { return df_delta_apply(t("out"), t("x"), t("w0"), t("delta_w")); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(*this, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            std::vector<A> w = numbers<A>(v["delta_w"]);
            const std::vector<A> w0 = numbers<A>(v, *this, "w0");
            for (size_t i = 0; i < w0.size(); ++i) w[i] += w0[i];
            put(v, "out", a, product<A>(a, numbers<A>(v["x"]), w, M_, I_, O_, true), exact);
        });
    }

private:
    int64_t M_ = 0, O_ = 0, I_ = 0;
};

class DualFormCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        on_tensor_cores = true;
        has_tf32 = false;
        d.until([&] {
            P_ = d.flag("batch", 0.3) ? d.dim("P", 5) : 0;
            M_ = d.dim("M");
            N_ = d.dim("N");
            O_ = d.dim("O");
            I_ = d.dim("I");
            return count(problems()) * ((M_ + N_) * O_ * I_ + M_ * N_ * (O_ + I_)) <= (d.differentiable ? 4000 : 300000);
        });
        form_ = static_cast<df_form>(d.below("form", 3));
        const bool delta_w = d.flag("delta_w"), any = d.differentiable;
        accumulate_ = !d.differentiable && d.flag("accumulate");
        input("w0", problems({O_, I_}), d.plain());
        input("e", problems({N_, O_}), d.data());
        input("xp", problems({N_, I_}), d.plain());
        input("x", problems({M_, I_}), d.data());
        input("dout", problems({M_, O_}), d.plain());
        output("out", problems({M_, O_}));
        if (delta_w) output("delta_w", problems({O_, I_}), accumulation_dtype(dtype));
        arriving("out", "dout");
        if (any || d.flag("dw0", 0.8)) {
            result("dw0", problems({O_, I_}), accumulate_, d.either("dw0_acc"));
            gradient("w0", "dw0");
        }
        if (any || d.flag("de", 0.8)) {
            output("de", problems({N_, O_}));
            gradient("e", "de");
        }
        if (any || d.flag("dxp", 0.8)) {
            output("dxp", problems({N_, I_}));
            gradient("xp", "dxp");
        }
        if (any || d.flag("dx", 0.8)) {
            output("dx", problems({M_, I_}));
            gradient("x", "dx");
        }
        forward_flops = 2.0 * static_cast<double>(count(problems()) * (M_ + N_) * O_ * I_);
        backward_flops = 2.0 * static_cast<double>(count(problems()) * (2 * M_ + 3 * N_) * O_ * I_);
    }
    df_status forward(const Handles& t) override {
        return df_dual_form_forward(t("out"), t("delta_w"), t("w0"), t("e"), t("xp"), t("x"), form_);
    }
    df_status backward(const Handles& t) override {
        return df_dual_form_backward(t("dw0"), t("de"), t("dxp"), t("dx"), t("dout"), t("w0"), t("e"), t("xp"), t("x"), form_, accumulate_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(*this, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            std::vector<A> out, delta_w, G, de, dxp, dx;
            const auto join = [](std::vector<A>& all, const std::vector<A>& one) { all.insert(all.end(), one.begin(), one.end()); };
            for (int64_t p = 0; p < count(problems()); ++p) {
                const auto part = [&](const char* name, int64_t size) {
                    const std::vector<A> all = numbers<A>(v[name]);
                    return std::vector<A>(all.begin() + p * size, all.begin() + (p + 1) * size);
                };
                const auto e = part("e", N_ * O_), xp = part("xp", N_ * I_), x = part("x", M_ * I_), dout = part("dout", M_ * O_);
                const auto dw_p = outer_products<A>(a, e, xp, N_, O_, I_), G_p = outer_products<A>(a, dout, x, M_, O_, I_);
                auto w = part("w0", O_ * I_);
                for (size_t i = 0; i < w.size(); ++i) w[i] += dw_p[i];
                join(out, product<A>(a, x, w, M_, I_, O_, true));
                join(delta_w, dw_p);
                join(G, G_p);
                join(de, product<A>(a, xp, G_p, N_, I_, O_, true));
                join(dxp, product<A>(a, e, G_p, N_, O_, I_, false));
                join(dx, product<A>(a, dout, w, M_, O_, I_, false));
            }
            put(v, "out", a, out, exact);
            put(v, "delta_w", a, delta_w, exact);
            put(v, "dw0", a, G, exact);
            put(v, "de", a, de, exact);
            put(v, "dxp", a, dxp, exact);
            put(v, "dx", a, dx, exact);
        });
    }

private:
    /// A shape with the problems before it, if there is a batch of them.
    Shape problems(Shape one = {}) const {
        if (P_ > 0) one.insert(one.begin(), P_);
        return one;
    }

    int64_t P_ = 0, M_ = 0, N_ = 0, O_ = 0, I_ = 0;
    df_form form_ = DF_FORM_AUTO;
    bool accumulate_ = false;
};

const Registration delta_accumulate_case("delta_accumulate", [] { return std::unique_ptr<Case>(new DeltaAccumulateCase); });
const Registration delta_apply_case("delta_apply", [] { return std::unique_ptr<Case>(new DeltaApplyCase); });
const Registration dual_form_case("dual_form", [] { return std::unique_ptr<Case>(new DualFormCase); });

}  // namespace
}  // namespace dualform::test
