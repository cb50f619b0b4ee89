#include "case.h"

namespace dualform::test {
namespace {

class MatmulCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            const int64_t axes = d.below("batch_axes", 3);
            batch_.clear();
            static const char* const names[] = {"B0", "B1"};
            for (int64_t i = 0; i < axes; ++i) batch_.push_back(d.dim(names[i], 4));
            M_ = d.dim("M");
            N_ = d.dim("N");
            K_ = d.flag("long_K", 0.1) ? d.one_of("K", {768, 1000, 3000}) : d.dim("K");
            return count(batch_) * M_ * N_ * K_ <= 300000;
        });
        trans_a_ = d.flag("trans_a");
        trans_b_ = d.flag("trans_b");
        shared_b_ = batch_.empty() || d.flag("shared_b");
        accumulate_ = d.flag("accumulate", 0.3);
        const auto with_batch = [&](bool batched, int64_t rows, int64_t columns) {
            Shape s = batched ? batch_ : Shape{};
            s.push_back(rows);
            s.push_back(columns);
            return s;
        };
        input("a", trans_a_ ? with_batch(true, K_, M_) : with_batch(true, M_, K_), d.data());
        input("b", trans_b_ ? with_batch(!shared_b_, N_, K_) : with_batch(!shared_b_, K_, N_), d.data());
        if (d.flag("bias", 0.4)) input("bias", {N_}, d.plain(), d.either("bias_acc"));
        result("out", with_batch(true, M_, N_), accumulate_, d.either("out_acc"));
        forward_flops = 2.0 * static_cast<double>(count(batch_) * M_ * N_ * K_);
    }
    df_status forward(const Handles& t) override { return df_matmul(t("out"), t("a"), t("b"), t("bias"), trans_a_, trans_b_, accumulate_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto arithmetic) {
            using A = typename decltype(arithmetic)::Type;
            const auto a = numbers<A>(v["a"]), b = numbers<A>(v["b"]), bias = numbers<A>(v, *this, "bias");
            std::vector<A> out;
            for (int64_t i = 0; i < count(batch_); ++i)
                for (int64_t m = 0; m < M_; ++m)
                    for (int64_t n = 0; n < N_; ++n) {
                        const A* a_i = &a[static_cast<size_t>(i * M_ * K_)];
                        const A* b_i = &b[static_cast<size_t>(shared_b_ ? 0 : i * K_ * N_)];
                        A sum = pairwise_sum<A>(K_, [&](int64_t k) {
                            return a_i[trans_a_ ? k * M_ + m : m * K_ + k] * b_i[trans_b_ ? n * K_ + k : k * N_ + n];
                        });
                        if (!bias.empty()) sum += bias[static_cast<size_t>(n)];
                        out.push_back(sum);
                    }
            put(v, "out", arithmetic, out, exact);
        });
    }

private:
    Shape batch_;
    int64_t M_ = 0, N_ = 0, K_ = 0;
    bool trans_a_ = false, trans_b_ = false, shared_b_ = false, accumulate_ = false;
};

class BiasBackwardCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            N_ = d.flag("many_rows", 0.2) ? d.one_of("N", {768, 8191}) : d.dim("N");
            C_ = d.flag("wide", 0.1) ? d.one_of("C", {768, 8191}) : d.dim("C");
            return N_ * C_ <= 600000;
        });
        B_ = d.dim("B", 3);
        accumulate_ = d.flag("accumulate");
        input("dout", {B_, N_, C_}, d.data());
        result("dbias", {C_}, accumulate_, d.either("dbias_acc"));
    }
    df_status forward(const Handles& t) override { return df_bias_backward(t("dbias"), t("dout"), accumulate_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto dout = numbers<A>(v["dout"]);
            std::vector<A> dbias;
            for (int64_t c = 0; c < C_; ++c)
                dbias.push_back(pairwise_sum<A>(B_ * N_, [&](int64_t n) { return dout[static_cast<size_t>(n * C_ + c)]; }));
            put(v, "dbias", a, dbias, exact);
        });
    }

private:
    int64_t B_ = 0, N_ = 0, C_ = 0;
    bool accumulate_ = false;
};

const Registration matmul_case("matmul", [] { return std::unique_ptr<Case>(new MatmulCase); });
const Registration bias_backward_case("bias_backward", [] { return std::unique_ptr<Case>(new BiasBackwardCase); });

}  // namespace
}  // namespace dualform::test
