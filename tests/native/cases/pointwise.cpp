#include <algorithm>
#include <cmath>

#include "case.h"

namespace dualform::test {
namespace {

/// A shape of rank 0 to 4, now and then one long row.
Shape draw_shape(Draw& d, int64_t affordable = 60000) {
    Shape shape;
    d.until([&] {
        shape.clear();
        static const char* const names[] = {"d0", "d1", "d2", "d3"};
        const int64_t rank = d.below("rank", 5);
        for (int64_t i = 0; i < rank; ++i)
            shape.push_back(i + 1 == rank && !d.differentiable && d.flag("wide", 0.1) ? d.one_of(names[i], {768, 8191}) : d.dim(names[i]));
        return count(shape) <= affordable;
    });
    return shape;
}

template <class A>
A unary(A x, df_unary op) {
    switch (op) {
        case DF_UNARY_NEG:
            return -x;
        case DF_UNARY_EXP:
            return std::exp(x);
        case DF_UNARY_LOG:
            return std::log(x);
        case DF_UNARY_SQRT:
            return std::sqrt(x);
        case DF_UNARY_RSQRT:
            return 1 / std::sqrt(x);
        case DF_UNARY_RECIPROCAL:
            return 1 / x;
        case DF_UNARY_SQUARE:
            return x * x;
        case DF_UNARY_ABS:
            return std::fabs(x);
        case DF_UNARY_TANH:
            return std::tanh(x);
        case DF_UNARY_SIGMOID:
            return 1 / (1 + std::exp(-x));
        case DF_UNARY_RELU:
            return x > 0 ? x : 0;
        case DF_UNARY_SIN:
            return std::sin(x);
        default:
            return std::cos(x);
    }
}

template <class A>
A unary_slope(A x, df_unary op) {
    const A y = unary(x, op);
    switch (op) {
        case DF_UNARY_NEG:
            return -1;
        case DF_UNARY_EXP:
            return y;
        case DF_UNARY_LOG:
            return 1 / x;
        case DF_UNARY_SQRT:
            return 1 / (2 * y);
        case DF_UNARY_RSQRT:
            return -y / (2 * x);
        case DF_UNARY_RECIPROCAL:
            return -y * y;
        case DF_UNARY_SQUARE:
            return 2 * x;
        case DF_UNARY_ABS:
            return static_cast<A>((x > 0) - (x < 0));
        case DF_UNARY_TANH:
            return 1 - y * y;
        case DF_UNARY_SIGMOID:
            return y * (1 - y);
        case DF_UNARY_RELU:
            return x > 0 ? 1 : 0;
        case DF_UNARY_SIN:
            return std::cos(x);
        default:
            return -std::sin(x);
    }
}

class UnaryCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        op_ = static_cast<df_unary>(d.below("op", 13));
        const Shape shape = draw_shape(d);
        const bool in_place = !d.differentiable && d.flag("in_place", 0.3);
        const bool positive = op_ == DF_UNARY_LOG || op_ == DF_UNARY_SQRT || op_ == DF_UNARY_RSQRT || op_ == DF_UNARY_RECIPROCAL,
                   smooth = d.differentiable;
        const double spread = static_cast<double>(d.one_of("spread", {1, 1, 6}));
        const bool zeros = d.flag("zeros", 0.2) && !positive;
        input("x", shape, [=](Random& r) {
            if (positive) return r.uniform(0.3, 4);
            if (smooth) return (r.chance(0.5) ? 1 : -1) * r.uniform(0.1, 2);
            return zeros && r.chance(0.2) ? 0 : spread * r.normal();
        });
        Tensor& dout = input("dout", shape, d.plain());
        if (in_place) dout.role = Role::kUpdated;
        output("out", shape);
        Tensor& dx = output("dx", shape);
        if (in_place) dx.same_as = "dout";
        arriving("out", "dout");
        gradient("x", "dx");
    }
    df_status forward(const Handles& t) override { return df_unary_forward(t("out"), t("x"), op_); }
    df_status backward(const Handles& t) override { return df_unary_backward(t("dx"), t("dout"), t("x"), op_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            std::vector<A> out, dx;
            const auto x = numbers<A>(v["x"]), dout = numbers<A>(v["dout"]);
            for (size_t i = 0; i < x.size(); ++i) {
                out.push_back(unary(x[i], op_));
                dx.push_back(dout[i] * unary_slope(x[i], op_));
            }
            put(v, "out", a, out, exact);
            put(v, "dx", a, dx, exact);
            if (find("dx")->same_as == "dout") v["dout"] = v["dx"];
        });
    }

private:
    df_unary op_ = DF_UNARY_NEG;
};

/// Index into a tensor that broadcasts to shape.
int64_t broadcast_index(int64_t i, const Shape& shape, const Shape& from) {
    int64_t at = 0, stride = 1;
    for (size_t k = 0; k < shape.size(); ++k) {
        const int64_t here = i % shape[shape.size() - 1 - k];
        i /= shape[shape.size() - 1 - k];
        if (k >= from.size()) continue;
        const int64_t size = from[from.size() - 1 - k];
        if (size != 1) at += here * stride;
        stride *= size;
    }
    return at;
}

/// A shape that broadcasts to this one.
Shape draw_broadcast(Draw& d, Shape shape, const char* name) {
    const int64_t kind = d.below(name, 3);
    if (kind == 0) return shape;
    for (int64_t& n : shape)
        if (d.random.chance(0.4)) n = 1;
    if (kind == 2 && !shape.empty()) shape.erase(shape.begin(), shape.begin() + d.random.below(static_cast<int64_t>(shape.size()) + 1));
    return shape;
}

class BinaryCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        shape_ = draw_shape(d);
        op_ = static_cast<df_binary>(d.below("op", 6));
        const bool integer = op_ != DF_BINARY_DIV && d.flag("integer", 0.1);
        const Shape a = draw_broadcast(d, shape_, "a_broadcast"), b = draw_broadcast(d, shape_, "b_broadcast");
        const bool in_place = a == shape_ && d.flag("in_place", 0.3);
        const int type = integer ? int{DF_I32} : dtype;
        const Distribution whole = [](Random& r) { return static_cast<double>(r.below(2001) - 1000); };
        const Distribution divisor = [](Random& r) { return (r.chance(0.5) ? 1 : -1) * r.uniform(0.3, 3); };
        Tensor& ta = input("a", a, integer ? whole : d.data(), type);
        if (in_place) ta.role = Role::kUpdated;
        input("b", b, integer ? whole : op_ == DF_BINARY_DIV ? divisor : d.plain(), type);
        Tensor& out = output("out", shape_, type);
        if (in_place) out.same_as = "a";
    }
    df_status forward(const Handles& t) override { return df_binary_forward(t("out"), t("a"), t("b"), op_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact || find("a")->dtype == DF_I32, [&](auto arithmetic) {
            using A = typename decltype(arithmetic)::Type;
            const auto a = numbers<A>(v["a"]), b = numbers<A>(v["b"]);
            std::vector<A> out;
            for (int64_t i = 0; i < count(shape_); ++i) {
                const A x = a[static_cast<size_t>(broadcast_index(i, shape_, find("a")->shape))],
                        y = b[static_cast<size_t>(broadcast_index(i, shape_, find("b")->shape))];
                switch (op_) {
                    case DF_BINARY_ADD:
                        out.push_back(x + y);
                        break;
                    case DF_BINARY_SUB:
                        out.push_back(x - y);
                        break;
                    case DF_BINARY_MUL:
                        out.push_back(x * y);
                        break;
                    case DF_BINARY_DIV:
                        out.push_back(x / y);
                        break;
                    case DF_BINARY_MAX:
                        out.push_back(std::max(x, y));
                        break;
                    default:
                        out.push_back(std::min(x, y));
                }
            }
            put(v, "out", arithmetic, out, exact);
            if (find("out")->same_as == "a") v["a"] = v["out"];
        });
    }

private:
    Shape shape_;
    df_binary op_ = DF_BINARY_ADD;
};

class AffineCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        const Shape shape = draw_shape(d);
        alpha_ = d.random.uniform(-2, 2);
        beta_ = d.flag("beta") ? d.random.uniform(-2, 2) : 0;
        Tensor& x = input("x", shape, d.data());
        const bool in_place = d.flag("in_place", 0.3);
        if (in_place) x.role = Role::kUpdated;
        Tensor& out = output("out", shape);
        if (in_place) out.same_as = "x";
    }
    df_status forward(const Handles& t) override { return df_affine(t("out"), t("x"), alpha_, beta_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            std::vector<A> out;
            for (const A x : numbers<A>(v["x"])) out.push_back(static_cast<A>(alpha_) * x + static_cast<A>(beta_));
            put(v, "out", a, out, exact);
            if (find("out")->same_as == "x") v["x"] = v["out"];
        });
    }

private:
    double alpha_ = 0, beta_ = 0;
};

class CopyCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        shape_ = draw_shape(d);
        const Shape from = draw_broadcast(d, shape_, "broadcast");
        const bool integer = d.flag("integer", 0.1);
        input("x", from, integer ? Distribution([](Random& r) { return static_cast<double>(r.below(2001) - 1000); }) : d.data(),
              integer ? int{DF_I32} : dtype);
        output("out", shape_,
               integer ? int{DF_I32} : static_cast<int>(d.dtype == DF_F64 ? d.one_of("to", {0, 1, 2}) : d.one_of("to", {0, 1})));
    }
    df_status forward(const Handles& t) override { return df_copy(t("out"), t("x")); }
    void expect(Values& v, bool exact) const override {
        std::vector<double> out;
        for (int64_t i = 0; i < count(shape_); ++i)
            out.push_back(v["x"][static_cast<size_t>(broadcast_index(i, shape_, find("x")->shape))]);
        put(v, "out", Arithmetic<double>{}, out, exact);
    }

private:
    Shape shape_;
};

class FillCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        const bool integer = d.flag("integer", 0.2);
        shape_ = draw_shape(d);
        value_ = integer ? static_cast<double>(d.random.below(1000) - 500) : d.random.normal();
        output("out", shape_, integer ? int{DF_I32} : dtype);
    }
    df_status forward(const Handles& t) override { return df_fill(t("out"), value_); }
    void expect(Values& v, bool exact) const override {
        put(v, "out", Arithmetic<double>{}, std::vector<double>(static_cast<size_t>(count(shape_)), value_), exact);
    }

private:
    Shape shape_;
    double value_ = 0;
};

class ArgmaxCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        do shape_ = draw_shape(d);
        while (shape_.empty());
        const bool ties = d.flag("ties"), nan = d.flag("nan", 0.2);
        input("x", shape_, [=](Random& r) {
            return nan && r.chance(0.05) ? std::nan("") : ties ? static_cast<double>(r.below(5)) : r.normal();
        });
        Shape rows = shape_;
        rows.pop_back();
        output("out", rows, DF_I32);
    }
    df_status forward(const Handles& t) override { return df_argmax(t("out"), t("x")); }
    void expect(Values& v, bool exact) const override {
        const std::vector<double>& x = v["x"];
        std::vector<double> out;
        for (size_t row = 0, C = static_cast<size_t>(shape_.back()); row < x.size(); row += C) {
            size_t best = 0;
            for (size_t c = 1; c < C; ++c)
                if (x[row + best] == x[row + best] && (x[row + c] > x[row + best] || x[row + c] != x[row + c])) best = c;
            out.push_back(static_cast<double>(best));
        }
        put(v, "out", Arithmetic<double>{}, out, exact);
    }

private:
    Shape shape_;
};

class ReduceCase : public Case {
public:
    void draw(Draw& d) override {
        dtype = d.dtype;
        shape_ = draw_shape(d);
        op_ = static_cast<df_reduction>(d.below("op", 4));
        axes_ = static_cast<unsigned>(d.below("axes", int64_t{1} << shape_.size()));
        const bool keep = d.flag("keep"), distinct = d.differentiable && op_ >= DF_REDUCE_MAX;
        for (size_t i = 0; i < shape_.size(); ++i) {
            if ((axes_ >> i & 1u) == 0)
                reduced_.push_back(shape_[i]);
            else if (keep)
                reduced_.push_back(1);
        }
        const bool ties = d.flag("ties", 0.3) && !d.differentiable;
        // For differences, the extreme elements lie apart by more than the steps.
        const auto next = std::make_shared<int64_t>(0);
        const int64_t n = count(shape_);
        const Distribution apart = [next, n](Random&) {
            return 0.05 * static_cast<double>((*next)++ * 7919 % std::max<int64_t>(n, 1)) - 0.025 * static_cast<double>(n);
        };
        input("x", shape_, distinct ? apart : ties ? Distribution([](Random& r) { return static_cast<double>(r.below(4)); }) : d.data());
        input("dout", reduced_, d.plain(), d.either("dout_acc"));
        output("out", reduced_, d.either("out_acc"));
        output("dx", shape_);
        arriving("out", "dout");
        gradient("x", "dx");
    }
    df_status forward(const Handles& t) override { return df_reduce_forward(t("out"), t("x"), op_, axes_); }
    df_status backward(const Handles& t) override { return df_reduce_backward(t("dx"), t("dout"), t("x"), t("out"), op_, axes_); }
    void expect(Values& v, bool exact) const override {
        in_arithmetic(dtype, exact, [&](auto a) {
            using A = typename decltype(a)::Type;
            const auto x = numbers<A>(v["x"]), dout = numbers<A>(v["dout"]);
            std::vector<std::vector<int64_t>> members(dout.size());
            for (int64_t i = 0; i < count(shape_); ++i) {
                int64_t at = 0, stride = 1, rest = i;
                for (size_t k = shape_.size(); k-- > 0;) {
                    if ((axes_ >> k & 1u) == 0) {
                        at += rest % shape_[k] * stride;
                        stride *= shape_[k];
                    }
                    rest /= shape_[k];
                }
                members[static_cast<size_t>(at)].push_back(i);
            }
            std::vector<A> out(dout.size()), dx(x.size());
            for (size_t j = 0; j < out.size(); ++j) {
                const std::vector<int64_t>& m = members[j];
                const auto value = [&](int64_t i) { return x[static_cast<size_t>(m[static_cast<size_t>(i)])]; };
                const int64_t n = static_cast<int64_t>(m.size());
                if (op_ == DF_REDUCE_SUM || op_ == DF_REDUCE_MEAN) {
                    const A divisor = op_ == DF_REDUCE_MEAN ? static_cast<A>(n) : A(1);
                    out[j] = pairwise_sum<A>(n, value) / divisor;
                    for (const int64_t i : m) dx[static_cast<size_t>(i)] = dout[j] / divisor;
                } else {
                    int64_t best = 0;
                    for (int64_t i = 1; i < n; ++i)
                        if (op_ == DF_REDUCE_MAX ? value(i) > value(best) : value(i) < value(best)) best = i;
                    out[j] = value(best);
                    dx[static_cast<size_t>(m[static_cast<size_t>(best)])] = dout[j];
                }
            }
            put(v, "out", a, out, exact);
            put(v, "dx", a, dx, exact);
        });
    }

private:
    Shape shape_, reduced_;
    df_reduction op_ = DF_REDUCE_SUM;
    unsigned axes_ = 0;
};

const Registration unary_case("unary", [] { return std::unique_ptr<Case>(new UnaryCase); });
const Registration binary_case("binary", [] { return std::unique_ptr<Case>(new BinaryCase); });
const Registration affine_case("affine", [] { return std::unique_ptr<Case>(new AffineCase); });
const Registration copy_case("copy", [] { return std::unique_ptr<Case>(new CopyCase); });
const Registration fill_case("fill", [] { return std::unique_ptr<Case>(new FillCase); });
const Registration argmax_case("argmax", [] { return std::unique_ptr<Case>(new ArgmaxCase); });
const Registration reduce_case("reduce", [] { return std::unique_ptr<Case>(new ReduceCase); });

}  // namespace
}  // namespace dualform::test
