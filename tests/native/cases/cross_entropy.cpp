#include <limits>

#include "case.h"

namespace dualform::test {
namespace {

class CrossEntropyCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        d.until([&] {
            N_ = d.dim("N");
            V_ = !d.differentiable && d.flag("wide", 0.2) ? d.one_of("V", {768, 8191}) : d.dim("V");
            return N_ * V_ <= 200000;
        });
        ignore_ = static_cast<int>(d.one_of("ignore_index", {-100, -1, 0}));
        const bool dlogits = d.differentiable || d.flag("dlogits", 0.8), in_place = dlogits && !d.differentiable && d.flag("in_place", 0.3);
        const int64_t V = V_;
        const int ignore = ignore_;
        const double share = d.flag("all_ignored", 0.05) ? 1 : d.flag("some_ignored") ? 0.3 : 0;
        const int acc = accumulation_dtype(dtype);
        output("loss", d.flag("scalar") ? Shape{} : Shape{1}, acc).least_scale = 1;
        output("losses", {N_}, acc).least_scale = 1;
        Tensor& logits = input("logits", {N_, V_}, d.data(static_cast<double>(d.one_of("spread", {1, 5}))));
        if (in_place) logits.role = Role::kUpdated;
        input("targets", {N_}, [=](Random& r) { return static_cast<double>(r.chance(share) ? ignore : r.below(V)); }, DF_I32);
        if (dlogits) {
            Tensor& t = output("dlogits", {N_, V_});
            if (in_place) t.same_as = "logits";
            gradient("logits", "dlogits");
        }
        arriving("loss", "");
    }
    bool has_backward() const override { return false; }  // one call gives both
    df_status forward(const Handles& t) override {
        return df_cross_entropy(t("loss"), t("losses"), t("dlogits"), t("logits"), t("targets"), ignore_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto logits = numbers<A>(v["logits"]);
            const std::vector<double>& targets = v["targets"];
            std::vector<A> losses(static_cast<size_t>(N_)), dlogits(logits.size()), loss(1);
            int64_t counted = 0;
            for (const double t : targets) counted += t != ignore_;
            for (int64_t n = 0; n < N_; ++n) {
                const A* x = &logits[static_cast<size_t>(n * V_)];
                const int64_t target = static_cast<int64_t>(targets[static_cast<size_t>(n)]);
                if (target == ignore_) continue;
                A highest = -std::numeric_limits<A>::infinity();
                for (int64_t i = 0; i < V_; ++i) highest = std::max(highest, x[i]);
                const A sum = pairwise_sum<A>(V_, [&](int64_t i) { return std::exp(x[i] - highest); });
                losses[static_cast<size_t>(n)] = highest + std::log(sum) - x[target];
                for (int64_t i = 0; i < V_; ++i)
                    dlogits[static_cast<size_t>(n * V_ + i)] =
                        (a.stored(std::exp(x[i] - highest) / sum) - (i == target ? 1 : 0)) / static_cast<A>(counted);
            }
            if (counted > 0)
                loss[0] = pairwise_sum<A>(N_, [&](int64_t n) { return losses[static_cast<size_t>(n)]; }) / static_cast<A>(counted);
            put(v, "loss", a, loss, exact);
            put(v, "losses", a, losses, exact);
            put(v, "dlogits", a, dlogits, exact);
            if (find("dlogits") && find("dlogits")->same_as == "logits") v["logits"] = v["dlogits"];
        });
    }

private:
    int64_t N_ = 0, V_ = 0;
    int ignore_ = 0;
};

const Registration cross_entropy_case("cross_entropy", [] { return std::unique_ptr<Case>(new CrossEntropyCase); });

}  // namespace
}  // namespace dualform::test
