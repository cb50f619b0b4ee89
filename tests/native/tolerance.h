// The only tolerances of the native tests.
//
// reference: the op in float64, written plainly (reference/). naive: the same plain op in the candidate's dtype: inputs rounded to it, sums
// in its accumulation type, taken pairwise, and values a plain op would store rounded to it.
//   parity       max|candidate - reference| <= 2 max|naive - reference| + eps(dtype of the output) scale
//   float64      max|candidate - reference| <= 1e-12 scale
//   gradients    max|analytic - finite difference| <= 1e-7 scale
//   identities   max|one way - the other way| <= 1e-12 scale
// Where float32 operands are rounded on tensor cores (option cuda.precision), the naive op rounds the operands of its products and cuts
// their sums alike (Arithmetic::products), and eps is that of an operand, 2^-10 (tf32) or 2^-17 (bf16x3), as 2^-7 is for bfloat16: the same
// rule for another arithmetic, whose products are off by at most 2 2^-11 or 3 2^-18 (two operands kept to 2^-18, lo lo left out) of |x y|.
// It is needed where few products make an output: with eps(float32) 3 of 100 random cases of a few terms fail by up to 2.5 times, for the
// kernel rounds other numbers than the naive op does (a weight before its sum is known). An op without tf32 kernels is judged as bf16x3.
// scale is the largest |reference|; for a gradient at least the largest incoming gradient, and for a logarithm at least 1 (an exact zero
// must not divide by nothing).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "dualform/df.h"
#include "reference/arithmetic.h"

namespace dualform::test {

constexpr double kFloat64Tolerance = 1e-12;
constexpr double kGradientTolerance = 1e-7;
constexpr double kIdentityTolerance = 1e-12;

/// Distance between 1 and the next number.
inline double epsilon(int dtype) {
    switch (dtype) {
        case DF_F32:
            return 0x1p-23;
        case DF_BF16:
            return 0x1p-7;
        case DF_F64:
            return 0x1p-52;
        default:
            return 0;
    }
}

/// 0 where both are the same (infinities and NaN too); NaN where only one is NaN.
inline double distance(double a, double b) {
    if (a == b || (a != a && b != b)) return 0;
    return std::fabs(a - b);
}

/// Largest distance; NaN and infinite distances win.
inline double largest_distance(const std::vector<double>& a, const std::vector<double>& b, int64_t* where = nullptr) {
    double worst = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const double d = distance(a[i], b[i]);
        if (d <= worst) continue;
        worst = d;
        if (where != nullptr) *where = static_cast<int64_t>(i);
        if (d != d) break;
    }
    return worst;
}

/// Largest finite magnitude.
inline double largest_magnitude(const std::vector<double>& a) {
    double m = 0;
    for (const double x : a)
        if (std::isfinite(x) && std::fabs(x) > m) m = std::fabs(x);
    return m;
}

struct Verdict {
    double error, tolerance;
    bool pass;
    double ratio;
};

/// Written so that NaN fails.
inline Verdict judge(double error, double tolerance) {
    const bool pass = !(error != error) && error <= tolerance;
    const double ratio = error == 0 ? 0 : tolerance > 0 ? error / tolerance : std::numeric_limits<double>::infinity();
    return {error, tolerance, pass, ratio};
}

/// Distance between 1 and the next number that an operand of a product can be.
inline double operand_epsilon(int dtype, Operands operands) {
    if (operands == Operands::kTf32) return 0x1p-10;
    if (operands == Operands::kBf16x3) return 0x1p-17;
    return epsilon(dtype);
}

/// operands: of the products that made the output.
inline double parity_tolerance(int dtype, double naive_relative_error, double scale, Operands operands = Operands::kFloat32) {
    if (dtype == DF_I32) return 0;
    if (dtype == DF_F64) return kFloat64Tolerance * scale;
    return (2 * naive_relative_error + std::max(operand_epsilon(dtype, operands), epsilon(dtype))) * scale;
}

}  // namespace dualform::test
