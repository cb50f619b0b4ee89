#include "case.h"

namespace dualform::test {
namespace {

class EmbeddingCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            B_ = d.dim("B", 8);
            T_ = d.dim("T");
            V_ = d.dim("V");
            C_ = !d.differentiable && d.flag("wide", 0.1) ? d.one_of("C", {768, 8191}) : d.dim("C");
            return (B_ * T_ + V_) * C_ <= 200000;
        });
        position_ = d.below("position", 5);
        const bool wpe = d.flag("wpe"), any = d.differentiable;
        P_ = T_ + position_ + d.below("unused_positions", 4);
        accumulate_ = !d.differentiable && d.flag("accumulate");
        const int64_t V = V_;
        input("ids", {B_, T_}, [V](Random& r) { return static_cast<double>(r.below(V)); }, DF_I32);
        input("wte", {V_, C_}, d.data());
        if (wpe) input("wpe", {P_, C_}, d.plain());
        input("dout", {B_, T_, C_}, d.plain());
        output("out", {B_, T_, C_});
        arriving("out", "dout");
        const bool dwte = any || d.flag("dwte", 0.8);
        if (dwte) {
            result("dwte", {V_, C_}, accumulate_, d.either("dwte_acc"));
            gradient("wte", "dwte");
        }
        if (!dwte || (wpe && any) || d.flag("dwpe")) {
            result("dwpe", {P_, C_}, accumulate_, d.either("dwpe_acc")).is_gradient = true;
            if (wpe) gradient("wpe", "dwpe");
        }
    }
    bool has_backward() const override { return true; }
    df_status forward(const Handles& t) override { return df_embedding_forward(t("out"), t("ids"), t("wte"), t("wpe"), position_); }
    df_status backward(const Handles& t) override {
        return df_embedding_backward(t("dwte"), t("dwpe"), t("dout"), t("ids"), position_, accumulate_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto wte = numbers<A>(v["wte"]), wpe = numbers<A>(v, *this, "wpe"), dout = numbers<A>(v["dout"]);
            const std::vector<double>& ids = v["ids"];
            std::vector<A> out, dwte(static_cast<size_t>(V_ * C_)), dwpe(static_cast<size_t>(P_ * C_));
            std::vector<std::vector<int64_t>> places(static_cast<size_t>(V_));
            for (int64_t n = 0; n < B_ * T_; ++n) {
                const int64_t id = static_cast<int64_t>(ids[static_cast<size_t>(n)]);
                places[static_cast<size_t>(id)].push_back(n);
                for (int64_t c = 0; c < C_; ++c) {
                    A x = wte[static_cast<size_t>(id * C_ + c)];
                    if (!wpe.empty()) x += wpe[static_cast<size_t>((position_ + n % T_) * C_ + c)];
                    out.push_back(x);
                }
            }
            for (int64_t c = 0; c < C_; ++c) {
                for (int64_t id = 0; id < V_; ++id) {
                    const std::vector<int64_t>& at = places[static_cast<size_t>(id)];
                    dwte[static_cast<size_t>(id * C_ + c)] = pairwise_sum<A>(static_cast<int64_t>(at.size()), [&](int64_t i) {
                        return dout[static_cast<size_t>(at[static_cast<size_t>(i)] * C_ + c)];
                    });
                }
                for (int64_t t = 0; t < T_; ++t)
                    dwpe[static_cast<size_t>((position_ + t) * C_ + c)] =
                        pairwise_sum<A>(B_, [&](int64_t b) { return dout[static_cast<size_t>((b * T_ + t) * C_ + c)]; });
            }
            put(v, "out", a, out, exact);
            put(v, "dwte", a, dwte, exact);
            put(v, "dwpe", a, dwpe, exact);
        });
    }

private:
    int64_t B_ = 0, T_ = 0, V_ = 0, C_ = 0, P_ = 0, position_ = 0;
    bool accumulate_ = false;
};

const Registration embedding_case("embedding", [] { return std::unique_ptr<Case>(new EmbeddingCase); });

}  // namespace
}  // namespace dualform::test
