// Bias + GELU, one thread per element; the gradient of the bias is a column sum of the unrounded dx.
#include "columns.h"
#include "gelu_math.h"
#include "kernels.h"
#include "vector_ops.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

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
    if (kernels() != Kernels::kPlain) {
        bool served = false;
        if (const int status = bias_gelu_forward_vector(call, args, &served); served || status != DF_OK) return status;
    }
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
    if (kernels() != Kernels::kPlain) {
        bool served = false;
        if (const int status = bias_gelu_backward_vector(call, args, &served); served || status != DF_OK) return status;
    }
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
