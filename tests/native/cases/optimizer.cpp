#include <algorithm>
#include <cmath>

#include "case.h"

namespace dualform::test {
namespace {

class SquaredNormCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        N_ = d.flag("wide", 0.3) ? d.one_of("N", {768, 8191, 100003}) : d.dim("N");
        M_ = N_ > 10000 ? 1 : d.dim("M", 5);
        accumulate_ = d.flag("accumulate");
        input("x", {M_, N_}, d.data());
        result("sumsq", d.flag("scalar") ? Shape{} : Shape{1}, accumulate_, accumulation_dtype(dtype));
    }
    df_status forward(const Handles& t) override { return df_squared_norm(t("sumsq"), t("x"), accumulate_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto x = numbers<A>(v["x"]);
            put(v, "sumsq", a,
                std::vector<A>{pairwise_sum<A>(M_ * N_, [&](int64_t i) { return x[static_cast<size_t>(i)] * x[static_cast<size_t>(i)]; })},
                exact);
        });
    }

private:
    int64_t M_ = 0, N_ = 0;
    bool accumulate_ = false;
};

class ClipScaleCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = accumulation_dtype(d.dtype);
        max_norm_ = d.random.uniform(0.1, 5);
        input("sumsq", d.flag("scalar") ? Shape{} : Shape{1}, [](Random& r) { return r.chance(0.1) ? 0 : r.uniform(0, 10); });
        output("scale", {});
    }
    df_status forward(const Handles& t) override { return df_clip_scale(t("scale"), t("sumsq"), max_norm_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const A s = static_cast<A>(max_norm_) / (std::sqrt(static_cast<A>(v["sumsq"][0])) + static_cast<A>(1e-6));
            put(v, "scale", a, std::vector<A>{std::min(A(1), s)}, exact);
        });
    }

private:
    double max_norm_ = 0;
};

/// A parameter with its gradient, state and, now and then, a master copy in the accumulation type.
class StepCase : public Case {
protected:
    void draw_parameter(Draw& d, std::initializer_list<const char*> states) {
        dtype = d.dtype;
        const Shape shape = {d.dim("N", 33), d.flag("wide", 0.2) ? 768 : d.dim("M")};
        const int acc = accumulation_dtype(dtype);
        const Distribution values = d.plain(), square = [](Random& r) { return r.uniform(0, 1); };
        const bool master = d.flag("master", 0.3);
        input("param", shape, values).role = Role::kUpdated;
        for (const char* name : states) input(name, shape, name[0] == 'v' ? square : values, acc).role = Role::kUpdated;
        if (master) input("master", shape, values, acc).role = Role::kUpdated;
        input("grad", shape, d.plain(), d.either("grad_acc"));
        if (d.flag("scale")) input("scale", {}, [](Random& r) { return r.uniform(0.1, 1); }, acc);
        lr_ = d.random.uniform(1e-4, 1e-1);
        decay_ = d.flag("decay") ? d.random.uniform(0, 0.2) : 0;
    }
    /// Replaces what the tensor held.
    template <class A>
    void replace(Values& v, const char* name, const std::vector<A>& x, bool exact) const {
        const Tensor* t = find(name);
        if (t == nullptr) return;
        for (size_t i = 0; i < x.size(); ++i)
            v[name][i] = exact ? static_cast<double>(x[i]) : round_to(t->dtype, static_cast<double>(x[i]));
    }
    double lr_ = 0, decay_ = 0;
};

class AdamwCase : public StepCase {
public:
    void draw(Draw& d) override {
        draw_parameter(d, {"m", "v"});
        step_ = d.one_of("step", {1, 2, 10, 1000});
    }
    df_status forward(const Handles& t) override {
        return df_adamw_step(t("param"), t("m"), t("v"), t("master"), t("grad"), t("scale"), lr_, 0.9, 0.95, 1e-8, decay_, step_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            auto p = numbers<A>(v[find("master") ? "master" : "param"]), m = numbers<A>(v["m"]), v2 = numbers<A>(v["v"]);
            const auto grad = numbers<A>(v["grad"]);
            const A scale = find("scale") ? static_cast<A>(v["scale"][0]) : A(1), b1 = static_cast<A>(0.9), b2 = static_cast<A>(0.95);
            const A m_hat = static_cast<A>(1 - std::pow(0.9, static_cast<double>(step_))),
                    v_hat = static_cast<A>(1 - std::pow(0.95, static_cast<double>(step_)));
            for (size_t i = 0; i < p.size(); ++i) {
                const A g = scale * grad[i];
                m[i] = b1 * m[i] + (1 - b1) * g;
                v2[i] = b2 * v2[i] + (1 - b2) * g * g;
                p[i] -= static_cast<A>(lr_) *
                        (static_cast<A>(decay_) * p[i] + m[i] / m_hat / (std::sqrt(v2[i] / v_hat) + static_cast<A>(1e-8)));
            }
            replace(v, "m", m, exact);
            replace(v, "v", v2, exact);
            replace(v, "master", p, exact);
            replace(v, "param", p, exact);
        });
    }

private:
    int64_t step_ = 1;
};

class SgdCase : public StepCase {
public:
    void draw(Draw& d) override {
        if (d.flag("buffer"))
            draw_parameter(d, {"momentum_buffer"});
        else
            draw_parameter(d, {});
        momentum_ = find("momentum_buffer") ? 0.9 : 0;
    }
    df_status forward(const Handles& t) override {
        return df_sgd_step(t("param"), t("momentum_buffer"), t("master"), t("grad"), t("scale"), lr_, momentum_, decay_);
    }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            auto p = numbers<A>(v[find("master") ? "master" : "param"]), buffer = numbers<A>(v, *this, "momentum_buffer");
            const auto grad = numbers<A>(v["grad"]);
            const A scale = find("scale") ? static_cast<A>(v["scale"][0]) : A(1);
            for (size_t i = 0; i < p.size(); ++i) {
                A g = scale * grad[i] + static_cast<A>(decay_) * p[i];
                if (!buffer.empty()) g = buffer[i] = static_cast<A>(momentum_) * buffer[i] + g;
                p[i] -= static_cast<A>(lr_) * g;
            }
            replace(v, "momentum_buffer", buffer, exact);
            replace(v, "master", p, exact);
            replace(v, "param", p, exact);
        });
    }

private:
    double momentum_ = 0;
};

/// AdamW over parts of flat tensors, with the numbers of the step from the host or the device.
class AdamwRangesCase : public StepCase {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        const int acc = accumulation_dtype(dtype);
        const int64_t N = d.flag("wide", 0.3) ? d.one_of("N", {4096, 8191, 12289}) : d.dim("N");
        // Parts of any size, some next to one another, more than one launch takes now and then.
        const int64_t longest = d.flag("many", 0.2) ? 3 : N;
        for (int64_t at = d.random.below(3); at < N;) {
            const int64_t to = std::min(N, at + 1 + d.random.below(longest));
            bounds_.insert(bounds_.end(), {at, to});
            decays_.push_back(d.random.chance(0.5) ? d.random.uniform(0, 0.2) : 0);
            at = to + (d.random.chance(0.5) ? 0 : d.random.below(9));
        }
        const Distribution values = d.plain(), square = [](Random& r) { return r.uniform(0, 1); };
        const bool master = d.flag("master", 0.3);
        input("param", {N}, values).role = Role::kUpdated;
        input("m", {N}, values, acc).role = Role::kUpdated;
        input("v", {N}, square, acc).role = Role::kUpdated;
        if (master) input("master", {N}, values, acc).role = Role::kUpdated;
        input("grad", {N}, d.plain(), d.either("grad_acc"));
        if (d.flag("scale")) input("scale", {}, [](Random& r) { return r.uniform(0.1, 1); }, acc);
        step_ = d.one_of("step", {1, 2, 10, 1000});
        lr_ = d.random.uniform(1e-4, 1e-1);
        if (!d.flag("device")) return;
        input("rates", {d.dim("K", 12)}, [](Random& r) { return r.uniform(1e-4, 1e-1); }, acc);
        const double step = static_cast<double>(step_);
        input("steps", {}, [step](Random&) { return step; }, DF_I32);
    }
    df_status forward(const Handles& t) override {
        return df_adamw_ranges(t("param"), t("m"), t("v"), t("master"), t("grad"), t("scale"), t("rates"), t("steps"), bounds_.data(),
                               decays_.data(), static_cast<int>(decays_.size()), lr_, 0.9, 0.95, 1e-8, step_);
    }
    void expect(Values& values, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            auto p = numbers<A>(values[find("master") ? "master" : "param"]), m = numbers<A>(values["m"]), v = numbers<A>(values["v"]);
            const auto grad = numbers<A>(values["grad"]), rates = numbers<A>(values, *this, "rates");
            const std::vector<double> before = values["param"];
            const A scale = find("scale") ? static_cast<A>(values["scale"][0]) : A(1), b1 = static_cast<A>(0.9), b2 = static_cast<A>(0.95);
            const A m_hat = static_cast<A>(1 - std::pow(0.9, static_cast<double>(step_))),
                    v_hat = static_cast<A>(1 - std::pow(0.95, static_cast<double>(step_)));
            const A lr = rates.empty() ? static_cast<A>(lr_) : rates[std::min(static_cast<size_t>(step_), rates.size()) - 1];
            for (size_t part = 0; part < decays_.size(); ++part)
                for (size_t i = static_cast<size_t>(bounds_[2 * part]); i < static_cast<size_t>(bounds_[2 * part + 1]); ++i) {
                    const A g = scale * grad[i];
                    m[i] = b1 * m[i] + (1 - b1) * g;
                    v[i] = b2 * v[i] + (1 - b2) * g * g;
                    p[i] -= lr * (static_cast<A>(decays_[part]) * p[i] + m[i] / m_hat / (std::sqrt(v[i] / v_hat) + static_cast<A>(1e-8)));
                }
            replace(values, "m", m, exact);
            replace(values, "v", v, exact);
            replace(values, "master", p, exact);
            replace(values, "param", p, exact);
            // Outside the parts the value is none of the master copy's.
            std::vector<char> inside(p.size(), 0);
            for (size_t part = 0; part < decays_.size(); ++part)
                for (int64_t i = bounds_[2 * part]; i < bounds_[2 * part + 1]; ++i) inside[static_cast<size_t>(i)] = 1;
            for (size_t i = 0; i < p.size(); ++i)
                if (!inside[i]) values["param"][i] = before[i];
        });
    }

private:
    std::vector<int64_t> bounds_;
    std::vector<double> decays_;
    int64_t step_ = 1;
};

/// Of finite numbers; what is not finite is the graph check's.
class ClipStepCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = accumulation_dtype(d.dtype);
        input("sumsq", d.flag("scalar") ? Shape{} : Shape{1}, [](Random& r) { return r.chance(0.1) ? 0 : r.uniform(0, 10); });
        if (d.flag("loss")) input("loss", {}, [](Random& r) { return r.normal(); });
        if (d.flag("limited", 0.8)) input("max_norm", {1}, [](Random& r) { return r.uniform(0.1, 5); });
        input("step", {}, [](Random& r) { return static_cast<double>(r.below(100)); }, DF_I32).role = Role::kUpdated;
        output("scale", {});
    }
    df_status forward(const Handles& t) override { return df_clip_step(t("scale"), t("step"), t("sumsq"), t("loss"), t("max_norm")); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            A scale = 1;
            if (find("max_norm")) scale = static_cast<A>(v["max_norm"][0]) / (std::sqrt(static_cast<A>(v["sumsq"][0])) + static_cast<A>(1e-6));
            put(v, "scale", a, std::vector<A>{std::min(A(1), scale)}, exact);
        });
        v["step"][0] += 1;
    }
};

const Registration squared_norm_case("squared_norm", [] { return std::unique_ptr<Case>(new SquaredNormCase); });
const Registration clip_scale_case("clip_scale", [] { return std::unique_ptr<Case>(new ClipScaleCase); });
const Registration adamw_case("adamw_step", [] { return std::unique_ptr<Case>(new AdamwCase); });
const Registration adamw_ranges_case("adamw_ranges", [] { return std::unique_ptr<Case>(new AdamwRangesCase); });
const Registration clip_step_case("clip_step", [] { return std::unique_ptr<Case>(new ClipStepCase); });
const Registration sgd_case("sgd_step", [] { return std::unique_ptr<Case>(new SgdCase); });

}  // namespace
}  // namespace dualform::test
