// One case per op: what it draws, how it is called through the C ABI, what the plain op says. Parity, gradients, poison, determinism,
// steady state, failed allocations and the benchmark are all made from that.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dualform/df_ops.h"
#include "random.h"
#include "reference/arithmetic.h"

namespace dualform::test {

using Shape = std::vector<int64_t>;
using Distribution = std::function<double(Random&)>;
inline int64_t count(const Shape& shape) {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
}

inline int accumulation_dtype(int dtype) { return dtype == DF_F64 ? DF_F64 : DF_F32; }
const char* dtype_name(int dtype);

enum class Role { kInput, kOutput, kUpdated };

/// A tensor of a case. Values of every tensor are kept as doubles, row-major.
struct Tensor {
    std::string name;
    Role role;
    int dtype;
    Shape shape;
    Distribution values;       // of inputs and updated tensors
    bool is_gradient = false;  // judged relative to the incoming gradient too
    double least_scale = 0;    // 1 for logarithms
    std::string same_as;       // in place: the memory of another tensor
    int fused = 0;             // tensors of one number above 0 are slices of one fused tensor
};

/// Values by tensor name.
class Values {
public:
    std::vector<double>& operator[](const std::string& name) { return map_[name]; }
    const std::vector<double>& at(const std::string& name) const { return map_.at(name); }
    bool has(const std::string& name) const { return map_.count(name) != 0; }

private:
    std::map<std::string, std::vector<double>> map_;
};

/// Handles by tensor name; null when the optional tensor is absent.
using Handles = std::function<df_tensor*(const char*)>;

/// Draws the dimensions and options of one case, or takes those that are given.
class Draw {
public:
    Draw(uint64_t seed, int d, bool differentiable_case, std::map<std::string, int64_t> given = {})
        : dtype(d), differentiable(differentiable_case), random(seed), given_(std::move(given)) {}

    const int dtype;
    /// For finite differences: small, nothing accumulates, no value near a kink.
    const bool differentiable;
    Random random;

    /// An awkward size, at most max.
    int64_t dim(const char* name, int64_t max = 129);
    int64_t one_of(const char* name, std::initializer_list<int64_t> values);
    int64_t below(const char* name, int64_t n);
    bool flag(const char* name, double probability = 0.5);
    /// The call's dtype or its accumulation type.
    int either(const char* name);
    /// Values around a mean which is large now and then.
    Distribution data(double spread = 1);
    Distribution plain(double spread = 1) const;

    /// Draws again until the work is affordable.
    template <class F>
    void until(F&& attempt) {
        do options_.clear();
        while (!attempt() && !sizes_given());
    }
    std::string text() const;
    bool is_given() const { return !given_.empty(); }

private:
    int64_t choose(const char* name, const std::function<int64_t()>& draw);
    /// More is given than the kind of case: what is drawn is taken as it comes.
    bool sizes_given() const { return given_.size() > given_.count("large"); }
    std::map<std::string, int64_t> given_;
    std::vector<std::pair<std::string, int64_t>> options_;
};

class Case {
public:
    virtual ~Case() = default;

    /// Declares the tensors, from the draw.
    virtual void draw(Draw& d) = 0;
    /// The calls. backward follows forward and may read what it wrote.
    virtual df_status forward(const Handles& t) = 0;
    virtual df_status backward(const Handles&) { return DF_OK; }
    virtual bool has_backward() const { return !gradients.empty(); }
    /// The plain op: fills outputs (and updates updated tensors) from the inputs.
    virtual void expect(Values& v, bool exact) const = 0;

    struct Gradient {
        std::string of, gradient;
    };
    struct Incoming {
        std::string output, gradient;  // gradient "": 1
    };

    int dtype = DF_F32;
    bool on_tensor_cores = false;  // its products are Arithmetic::products
    bool has_tf32 = true;          // with precision tf32 its kernels split operands in two bfloat16 otherwise
    std::vector<Tensor> tensors;
    std::vector<Gradient> gradients;
    std::vector<Incoming> incoming;
    double forward_flops = 0, backward_flops = 0;  // 0: memory decides

    const Tensor* find(const std::string& name) const;
    /// What becomes of the operands of its float32 products.
    Operands operands() const {
        if (dtype != DF_F32 || !on_tensor_cores) return Operands::kFloat32;
        return float32_operands() == Operands::kTf32 && !has_tf32 ? Operands::kBf16x3 : float32_operands();
    }

protected:
    Tensor& input(const char* name, Shape shape, Distribution values) {
        return add(name, Role::kInput, dtype, std::move(shape), std::move(values));
    }
    Tensor& input(const char* name, Shape shape, Distribution values, int type) {
        return add(name, Role::kInput, type, std::move(shape), std::move(values));
    }
    Tensor& output(const char* name, Shape shape) { return add(name, Role::kOutput, dtype, std::move(shape), nullptr); }
    Tensor& output(const char* name, Shape shape, int type) { return add(name, Role::kOutput, type, std::move(shape), nullptr); }
    /// Adds to what is there when accumulate, else assigns.
    Tensor& result(const char* name, Shape shape, bool accumulate, int type) {
        return accumulate ? add(name, Role::kUpdated, type, std::move(shape), [](Random& r) { return r.normal(); })
                          : output(name, std::move(shape), type);
    }
    /// Names the gradient of an input, or the gradient that arrives at an output.
    void gradient(const char* of, const char* name);
    void arriving(const char* output, const char* name) { incoming.push_back({output, name}); }
    /// Writes a plain result into v, adding to what is there when the tensor accumulates.
    template <class A>
    void put(Values& v, const char* name, const Arithmetic<A>&, const std::vector<A>& x, bool exact) const {
        const Tensor* t = find(name);
        if (t == nullptr) return;
        std::vector<double>& to = v[name];
        const bool adds = t->role == Role::kUpdated;
        if (!adds) to.assign(x.size(), 0);
        for (size_t i = 0; i < x.size(); ++i) {
            const double sum = adds ? static_cast<double>(static_cast<A>(to[i]) + x[i]) : static_cast<double>(x[i]);
            to[i] = exact ? sum : round_to(t->dtype, sum);
        }
    }

private:
    Tensor& add(const char* name, Role role, int type, Shape shape, Distribution values);
};

template <class F>
void in_arithmetic(const Case& c, bool exact, F&& f) {
    in_arithmetic(c.dtype, exact, std::forward<F>(f), c.operands());
}

using MakeCase = std::unique_ptr<Case> (*)();
struct Registration {
    Registration(const char* op, MakeCase make);
};
/// Every op by name.
const std::map<std::string, MakeCase>& cases();

/// Inputs drawn and rounded to their dtypes.
Values draw_values(const Case& c, Random& random);

template <class A>
std::vector<A> numbers(const std::vector<double>& x) {
    return std::vector<A>(x.begin(), x.end());
}
template <class A>
std::vector<A> numbers(Values& v, const Case& c, const char* name) {
    return c.find(name) == nullptr ? std::vector<A>{} : numbers<A>(v[name]);
}

}  // namespace dualform::test
