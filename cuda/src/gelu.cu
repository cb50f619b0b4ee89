// Bias + GELU, one thread per element; the gradient of the bias is a column sum of the unrounded dx.
#include "columns.h"
#include "kernels.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

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

struct Activation {
    Floats out, dout, x, bias; /* out is dx in the backward pass */
    Walk<3> rows;              /* out, dout, x */
    int64_t columns;
    int kind;

    __device__ float input(int64_t x_at, int64_t c) const { return bias ? x.load(x_at + c) + bias.load(c) : x.load(x_at + c); }
    /// Terms of dbias.
    __device__ Terms operator()(int64_t n, int64_t c) const {
        int64_t at[3];
        rows.offsets(n, at);
        return {static_cast<double>(dout.load(at[1] + c)) * gelu_slope(input(at[2], c), kind), 0};
    }
};

__global__ void bias_gelu_elements(Activation p, bool backward) {
    const int64_t count = p.rows.count * p.columns;
    for (int64_t i = first_element(); i < count; i += element_stride()) {
        const int64_t c = i % p.columns;
        int64_t at[3];
        p.rows.offsets(i / p.columns, at);
        const float u = p.input(at[2], c);
        p.out.store(at[0] + c, backward ? p.dout.load(at[1] + c) * gelu_slope(u, p.kind) : gelu(u, p.kind));
    }
}

int run(const Call& call, const char* name, const Activation& p, bool backward) {
    return launch(call, name, element_blocks(p.rows.count * p.columns, kThreads), kThreads, 0, bias_gelu_elements, p, backward);
}

}  // namespace

int bias_gelu_forward(const Call& call, const df_gelu_args* args) {
    if (const int status = call.require_device_floats({args->out, args->x, args->bias})) return status;
    Activation p = {};
    p.out = floats(args->out);
    p.x = floats(args->x);
    p.bias = floats(args->bias);
    p.rows = walk_rows<3>({args->out, nullptr, args->x});
    p.columns = last_dim(args->x);
    p.kind = args->kind;
    return run(call, "bias_gelu_elements", p, false);
}

int bias_gelu_backward(const Call& call, const df_gelu_args* args) {
    if (const int status = call.require_device_floats({args->dx, args->dbias, args->dout, args->x, args->bias})) return status;
    Activation p = {};
    p.out = floats(args->dx);
    p.dout = floats(args->dout);
    p.x = floats(args->x);
    p.bias = floats(args->bias);
    p.rows = walk_rows<3>({args->dx, args->dout, args->x});
    p.columns = last_dim(args->x);
    p.kind = args->kind;
    if (args->dbias != nullptr) /* first: dx may be dout */
        if (const int status = sum_columns(call, p.rows.count, p.columns, floats(args->dbias), Floats(), args->accumulate != 0, p))
            return status;
    return run(call, "bias_gelu_elements backward", p, true);
}

}  // namespace dualform::cuda
