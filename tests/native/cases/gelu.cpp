#include "case.h"

namespace dualform::test {
namespace {

template <class A>
A gelu(A u, df_gelu kind) {
    if (kind == DF_GELU_EXACT) return u / 2 * (1 + std::erf(u / std::sqrt(A(2))));
    return u / 2 * (1 + std::tanh(static_cast<A>(std::sqrt(2 / M_PI)) * (u + static_cast<A>(0.044715) * u * u * u)));
}

template <class A>
A gelu_slope(A u, df_gelu kind) {
    if (kind == DF_GELU_EXACT)
        return (1 + std::erf(u / std::sqrt(A(2)))) / 2 + u * std::exp(-u * u / 2) * static_cast<A>(1 / std::sqrt(2 * M_PI));
    const A c = static_cast<A>(std::sqrt(2 / M_PI)), d = static_cast<A>(0.044715);
    const A t = std::tanh(c * (u + d * u * u * u));
    return (1 + t) / 2 + u / 2 * (1 - t * t) * c * (1 + 3 * d * u * u);
}

class BiasGeluCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            N_ = !d.differentiable && d.flag("many_rows", 0.1) ? d.one_of("N", {768, 8191}) : d.dim("N");
            C_ = !d.differentiable && d.flag("wide", 0.2) ? d.one_of("C", {768, 8191}) : d.dim("C");
            return N_ * C_ <= 200000;
        });
        kind_ = static_cast<df_gelu>(d.below("kind", 2));
        const bool bias = d.flag("bias"), dbias = (bias && d.differentiable) || d.flag("dbias");
        accumulate_ = !d.differentiable && d.flag("accumulate");
        const bool in_place = !d.differentiable && d.flag("in_place", 0.3);
        const Shape x = {N_, C_};
        input("x", x, d.plain(static_cast<double>(d.one_of("spread", {1, 3}))));
        if (bias) input("bias", {C_}, d.plain());
        Tensor& dout = input("dout", x, d.plain());
        if (in_place) dout.role = Role::kUpdated;
        output("out", x);
        Tensor& dx = output("dx", x);
        if (in_place) dx.same_as = "dout";
        arriving("out", "dout");
        gradient("x", "dx");
        if (dbias) {
            result("dbias", {C_}, accumulate_, d.either("dbias_acc"));
            if (bias) gradient("bias", "dbias");
        }
    }
    df_status forward(const Handles& t) override { return df_bias_gelu_forward(t("out"), t("x"), t("bias"), kind_); }
    df_status backward(const Handles& t) override {
        return df_bias_gelu_backward(t("dx"), t("dbias"), t("dout"), t("x"), t("bias"), kind_, accumulate_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto x = numbers<A>(v["x"]), bias = numbers<A>(v, *this, "bias"), dout = numbers<A>(v["dout"]);
            std::vector<A> out(x.size()), dx(x.size()), dbias;
            for (size_t i = 0; i < x.size(); ++i) {
                const A u = bias.empty() ? x[i] : x[i] + bias[i % static_cast<size_t>(C_)];
                out[i] = gelu(u, kind_);
                dx[i] = dout[i] * gelu_slope(u, kind_);
            }
            for (int64_t c = 0; c < C_; ++c)
                dbias.push_back(pairwise_sum<A>(N_, [&](int64_t n) { return dx[static_cast<size_t>(n * C_ + c)]; }));
            put(v, "out", a, out, exact);
            put(v, "dx", a, dx, exact);
            put(v, "dbias", a, dbias, exact);
            if (find("dx")->same_as == "dout") v["dout"] = v["dx"];
        });
    }

private:
    int64_t N_ = 0, C_ = 0;
    df_gelu kind_ = DF_GELU_EXACT;
    bool accumulate_ = false;
};

const Registration gelu_case("bias_gelu", [] { return std::unique_ptr<Case>(new BiasGeluCase); });

}  // namespace
}  // namespace dualform::test
