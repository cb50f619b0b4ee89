// GELU and its slope at one number.
#pragma once

#include "numbers.h"

namespace dualform::cuda {

/// 1 / (1 + e^-x); e^-x may overflow to infinity, which gives 0.
__device__ inline float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

/// erfc and the logistic function instead of 1 + erf and 1 + tanh: those cancel for negative u.
__device__ inline float gelu(float u, int kind) {
    if (kind == DF_GELU_EXACT) return u * 0.5f * erfcf(-u * 0.70710678118654752f);
    return u * logistic(2.0f * 0.79788456080286536f * (u + 0.044715f * u * u * u));
}

__device__ inline float gelu_slope(float u, int kind) {
    if (kind == DF_GELU_EXACT) return 0.5f * erfcf(-u * 0.70710678118654752f) + u * 0.39894228040143268f * expf(-0.5f * u * u);
    const float w = 2.0f * 0.79788456080286536f * (u + 0.044715f * u * u * u);
    const float s = logistic(w), spread = s * logistic(-w);
    if (spread == 0) return s; /* far out: the second factor may have overflowed */
    return s + u * spread * 2.0f * 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * u * u);
}

}  // namespace dualform::cuda
