#include "case.h"

namespace dualform::test {
namespace {

class ResidualLayernormCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            B_ = d.dim("B", 4);
            N_ = !d.differentiable && d.flag("many_rows", 0.1) ? d.one_of("N", {768, 2000}) : d.dim("N");
            C_ = !d.differentiable && d.flag("wide", 0.2) ? d.one_of("C", {768, 8191}) : d.dim("C");
            return B_ * N_ * C_ <= 100000;
        });
        // For differences: the step must be small beside the deviation that eps leaves at least.
        eps_ = d.differentiable ? 0.1 : d.flag("large_eps", 0.3) ? 1e-2 : 1e-5;
        const bool residual = d.flag("residual"), sum = residual || d.flag("sum"), dsum = sum && d.flag("dsum"),
                   parameters = d.differentiable || d.flag("dweight", 0.8);
        accumulate_ = !d.differentiable && d.flag("accumulate");
        const bool in_place = dsum && !d.differentiable && d.flag("in_place", 0.3);
        const Shape x = {B_, N_, C_}, rows = {B_ * N_};
        const int acc = accumulation_dtype(dtype);
        input("x", x, d.data());
        if (residual) input("residual", x, d.plain());
        input("weight", {C_}, d.data());
        input("bias", {C_}, d.plain());
        input("dout", x, d.plain());
        if (dsum) {
            Tensor& t = input("dsum", x, d.plain());
            if (in_place) t.role = Role::kUpdated;
        }
        if (sum) output("sum", x);
        output("out", x);
        output("mean", rows, acc);
        output("rstd", rows, acc);
        Tensor& dx = output("dx", x);
        if (in_place) dx.same_as = "dsum";
        arriving("out", "dout");
        if (dsum) arriving("sum", "dsum");
        gradient("x", "dx");
        if (residual) gradient("residual", "dx");
        if (parameters) {
            const int type = d.either("dweight_acc");
            result("dweight", {C_}, accumulate_, type);
            result("dbias", {C_}, accumulate_, type);
            gradient("weight", "dweight");
            gradient("bias", "dbias");
        }
    }
    df_status forward(const Handles& t) override {
        return df_residual_layernorm_forward(t("sum"), t("out"), t("mean"), t("rstd"), t("x"), t("residual"), t("weight"), t("bias"), eps_);
    }
    df_status backward(const Handles& t) override {
        return df_residual_layernorm_backward(t("dx"), t("dweight"), t("dbias"), t("dout"), t("dsum"), find("sum") ? t("sum") : t("x"),
                                              t("weight"), t("mean"), t("rstd"), accumulate_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto x = numbers<A>(v["x"]), residual = numbers<A>(v, *this, "residual"), weight = numbers<A>(v["weight"]),
                       bias = numbers<A>(v["bias"]);
            const auto dout = numbers<A>(v["dout"]), dsum = numbers<A>(v, *this, "dsum");
            const int64_t rows = B_ * N_;
            const A C = static_cast<A>(C_);
            std::vector<A> sum(x.size()), out(x.size()), dx(x.size()), h(x.size()), mean, rstd, dweight, dbias;
            for (size_t i = 0; i < x.size(); ++i) sum[i] = residual.empty() ? x[i] : a.stored(x[i] + residual[i]);
            for (int64_t n = 0; n < rows; ++n) {
                const A* s = &sum[static_cast<size_t>(n * C_)];
                const auto row = [&](std::vector<A>& to, int64_t c) -> A& { return to[static_cast<size_t>(n * C_ + c)]; };
                const A m = pairwise_sum<A>(C_, [&](int64_t c) { return s[c]; }) / C;
                const A variance = pairwise_sum<A>(C_, [&](int64_t c) { return (s[c] - m) * (s[c] - m); }) / C;
                const A r = 1 / std::sqrt(variance + static_cast<A>(eps_));
                mean.push_back(m);
                rstd.push_back(r);
                const auto g = [&](int64_t c) { return dout[static_cast<size_t>(n * C_ + c)] * weight[static_cast<size_t>(c)]; };
                for (int64_t c = 0; c < C_; ++c) {
                    row(h, c) = (s[c] - m) * r;
                    row(out, c) = row(h, c) * weight[static_cast<size_t>(c)] + bias[static_cast<size_t>(c)];
                }
                const A mean_g = pairwise_sum<A>(C_, g) / C, mean_gh = pairwise_sum<A>(C_, [&](int64_t c) { return g(c) * row(h, c); }) / C;
                for (int64_t c = 0; c < C_; ++c) {
                    row(dx, c) = r * (g(c) - mean_g - row(h, c) * mean_gh);
                    if (!dsum.empty()) row(dx, c) += dsum[static_cast<size_t>(n * C_ + c)];
                }
            }
            for (int64_t c = 0; c < C_; ++c) {
                dweight.push_back(pairwise_sum<A>(
                    rows, [&](int64_t n) { return dout[static_cast<size_t>(n * C_ + c)] * h[static_cast<size_t>(n * C_ + c)]; }));
                dbias.push_back(pairwise_sum<A>(rows, [&](int64_t n) { return dout[static_cast<size_t>(n * C_ + c)]; }));
            }
            put(v, "sum", a, sum, exact);
            put(v, "out", a, out, exact);
            put(v, "mean", a, mean, exact);
            put(v, "rstd", a, rstd, exact);
            put(v, "dx", a, dx, exact);
            put(v, "dweight", a, dweight, exact);
            put(v, "dbias", a, dbias, exact);
            if (find("dx")->same_as == "dsum") v["dsum"] = v["dx"];
        });
    }

private:
    int64_t B_ = 0, N_ = 0, C_ = 0;
    double eps_ = 0;
    bool accumulate_ = false;
};

const Registration layernorm_case("residual_layernorm", [] { return std::unique_ptr<Case>(new ResidualLayernormCase); });

}  // namespace
}  // namespace dualform::test
