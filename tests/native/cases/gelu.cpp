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
            result("dbias", {C_}, accumulate_, d.either("dbias_acc")).is_gradient = true; /* without a bias too */
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

/// A feed-forward layer, gelu(a b + bias) w: its second product is there for the gradient that arrives at pre.
class MatmulGeluCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            B_ = d.one_of("B", {1, 3}); /* not 2: a factor with 2 in front would be a batch, and the check of errors wants it refused */
            M_ = d.dim("M");
            N_ = d.dim("N");
            K_ = d.dim("K");
            O_ = d.dim("O");
            return B_ * M_ * N_ * (K_ + O_) <= 300000;
        });
        kind_ = static_cast<df_gelu>(d.below("kind", 2));
        trans_a_ = d.flag("trans_a", 0.2);
        trans_b_ = d.flag("trans_b");
        trans_w_ = d.flag("trans_w");
        accumulate_ = !d.differentiable && d.flag("accumulate");
        const auto spread = [](int64_t terms) { return 1 / std::sqrt(static_cast<double>(terms)); };
        input("a", trans_a_ ? Shape{B_, K_, M_} : Shape{B_, M_, K_}, d.plain());
        input("b", trans_b_ ? Shape{N_, K_} : Shape{K_, N_}, d.plain(spread(K_)));
        if (d.differentiable || d.flag("bias")) input("bias", {N_}, d.plain());
        input("w", trans_w_ ? Shape{N_, O_} : Shape{O_, N_}, d.plain(spread(O_)));
        input("dout", {B_, M_, O_}, d.plain());
        output("hidden", {B_, M_, N_});
        output("pre", {B_, M_, N_});
        output("out", {B_, M_, O_});
        arriving("out", "dout");
        output("dpre", {B_, M_, N_}).is_gradient = true;
        if (find("bias") != nullptr || d.flag("dbias")) {
            result("dbias", {N_}, accumulate_, d.either("dbias_acc")).is_gradient = true;
            if (find("bias") != nullptr) gradient("bias", "dbias");
        }
        forward_flops = 2.0 * static_cast<double>(B_ * M_ * N_ * (K_ + O_));
        backward_flops = 2.0 * static_cast<double>(B_ * M_ * N_ * O_);
    }
    bool has_backward() const override { return true; }
    df_status forward(const Handles& t) override {
        if (const df_status s = df_matmul_gelu_forward(t("hidden"), t("pre"), t("a"), t("b"), t("bias"), trans_a_, trans_b_, kind_)) return s;
        return df_matmul(t("out"), t("hidden"), t("w"), nullptr, 0, !trans_w_, 0);
    }
    df_status backward(const Handles& t) override {
        return df_matmul_gelu_backward(t("dpre"), t("dbias"), t("dout"), t("w"), t("pre"), trans_w_, kind_, accumulate_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto arithmetic) {
            using A = typename decltype(arithmetic)::Type;
            const auto a = numbers<A>(v["a"]), b = numbers<A>(v["b"]), w = numbers<A>(v["w"]), bias = numbers<A>(v, *this, "bias"),
                       dout = numbers<A>(v["dout"]);
            const auto w_at = [&](int64_t o, int64_t n) { return w[static_cast<size_t>(trans_w_ ? n * O_ + o : o * N_ + n)]; };
            const auto stored = [&](A x) { return exact ? x : static_cast<A>(round_to(dtype, static_cast<double>(x))); };
            std::vector<A> pre, hidden, out, dpre, dbias;
            for (int64_t i = 0; i < B_; ++i)
                for (int64_t m = 0; m < M_; ++m) {
                    for (int64_t n = 0; n < N_; ++n) {
                        const A sum = pairwise_sum<A>(K_, [&](int64_t k) {
                            return a[static_cast<size_t>(i * M_ * K_ + (trans_a_ ? k * M_ + m : m * K_ + k))] *
                                   b[static_cast<size_t>(trans_b_ ? n * K_ + k : k * N_ + n)];
                        });
                        const A u = stored(bias.empty() ? sum : sum + bias[static_cast<size_t>(n)]);
                        pre.push_back(u);
                        hidden.push_back(stored(gelu(u, kind_)));
                        const A arrives = stored(pairwise_sum<A>(
                            O_, [&](int64_t o) { return dout[static_cast<size_t>((i * M_ + m) * O_ + o)] * w_at(o, n); }));
                        dpre.push_back(arrives * gelu_slope(u, kind_));
                    }
                    const A* row = &hidden[static_cast<size_t>((i * M_ + m) * N_)];
                    for (int64_t o = 0; o < O_; ++o) out.push_back(pairwise_sum<A>(N_, [&](int64_t n) { return row[n] * w_at(o, n); }));
                }
            for (int64_t n = 0; n < N_; ++n)
                dbias.push_back(pairwise_sum<A>(B_ * M_, [&](int64_t r) { return dpre[static_cast<size_t>(r * N_ + n)]; }));
            put(v, "pre", arithmetic, pre, exact);
            put(v, "hidden", arithmetic, hidden, exact);
            put(v, "out", arithmetic, out, exact);
            put(v, "dpre", arithmetic, dpre, exact);
            put(v, "dbias", arithmetic, dbias, exact);
        });
    }

private:
    int64_t B_ = 0, M_ = 0, N_ = 0, K_ = 0, O_ = 0;
    df_gelu kind_ = DF_GELU_EXACT;
    bool trans_a_ = false, trans_b_ = false, trans_w_ = false, accumulate_ = false;
};

const Registration matmul_gelu_case("matmul_gelu", [] { return std::unique_ptr<Case>(new MatmulGeluCase); });
const Registration gelu_case("bias_gelu", [] { return std::unique_ptr<Case>(new BiasGeluCase); });

}  // namespace
}  // namespace dualform::test
