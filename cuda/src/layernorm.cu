// Residual add and LayerNorm: one warp per row, sums in double across lanes; the gradients of weight and bias are column sums.
#include "columns.h"
#include "kernels.h"
#include "vector_ops.h"

namespace dualform::cuda {

namespace {

constexpr int kRowsPerBlock = 4;

struct Normalize {
    Floats sum, out, x, residual, weight, bias;
    float *mean, *rstd;
    Walk<4> rows; /* sum, out, x, residual */
    int64_t columns;
    double eps;

    /// What is normalised is what backward will read: the sum as it was rounded, where it is kept.
    __device__ float row_value(const int64_t (&at)[4], int64_t c) const { return sum ? sum.load(at[0] + c) : x.load(at[2] + c); }
};

/// The row is read three times: mean, variance about the mean, output. The second and third reads come from cache.
__global__ void layernorm_forward_warp(Normalize p) {
    const int64_t n = blockIdx.x * static_cast<int64_t>(kRowsPerBlock) + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    if (n >= p.rows.count) return;
    int64_t at[4];
    p.rows.offsets(n, at);
    double total = 0;
    for (int64_t c = lane; c < p.columns; c += kWarp) {
        if (p.sum) p.sum.store(at[0] + c, p.residual ? p.x.load(at[2] + c) + p.residual.load(at[3] + c) : p.x.load(at[2] + c));
        total += p.row_value(at, c);
    }
    const double mean = sum_lanes(total) / p.columns;
    double square = 0;
    for (int64_t c = lane; c < p.columns; c += kWarp) {
        const double centred = p.row_value(at, c) - mean;
        square += centred * centred;
    }
    const double rstd = 1.0 / sqrt(sum_lanes(square) / p.columns + p.eps);
    for (int64_t c = lane; c < p.columns; c += kWarp) {
        p.out.store(at[1] + c, (p.row_value(at, c) - mean) * rstd * p.weight.load(c) + p.bias.load(c));
    }
    if (lane == 0) {
        p.mean[n] = static_cast<float>(mean);
        p.rstd[n] = static_cast<float>(rstd);
    }
}

struct NormalizeGradient {
    Floats dx, dout, dsum, sum, weight;
    const float *mean, *rstd;
    Walk<4> rows; /* dx, dout, dsum, sum */
    int64_t columns;

    /// h = (sum - mean) rstd.
    __device__ float normalized(int64_t n, int64_t sum_at) const {
        return static_cast<float>((static_cast<double>(sum.load(sum_at)) - mean[n]) * rstd[n]);
    }
    /// Terms of dweight and dbias.
    __device__ Terms operator()(int64_t n, int64_t c) const {
        int64_t at[4];
        rows.offsets(n, at);
        const double d = dout.load(at[1] + c);
        return {d * normalized(n, at[3] + c), d};
    }
};

__global__ void layernorm_backward_warp(NormalizeGradient p) {
    const int64_t n = blockIdx.x * static_cast<int64_t>(kRowsPerBlock) + threadIdx.x / kWarp;
    const int lane = threadIdx.x % kWarp;
    if (n >= p.rows.count) return;
    int64_t at[4];
    p.rows.offsets(n, at);
    double sum_g = 0, sum_gh = 0;
    for (int64_t c = lane; c < p.columns; c += kWarp) {
        const double g = static_cast<double>(p.dout.load(at[1] + c)) * p.weight.load(c);
        sum_g += g;
        sum_gh += g * p.normalized(n, at[3] + c);
    }
    const double mean_g = sum_lanes(sum_g) / p.columns, mean_gh = sum_lanes(sum_gh) / p.columns;
    for (int64_t c = lane; c < p.columns; c += kWarp) {
        const double g = static_cast<double>(p.dout.load(at[1] + c)) * p.weight.load(c);
        double dx = p.rstd[n] * (g - mean_g - p.normalized(n, at[3] + c) * mean_gh);
        if (p.dsum) dx += p.dsum.load(at[2] + c);
        p.dx.store(at[0] + c, dx);
    }
}

}  // namespace

int residual_layernorm_forward(const Call& call, const df_layernorm_args* args) {
    if (const int status = call.require_device_floats(
            {args->sum, args->out, args->mean, args->rstd, args->x, args->residual, args->weight, args->bias}))
        return status;
    if (kernels() != Kernels::kPlain) {
        bool served = false;
        if (const int status = residual_layernorm_forward_vector(call, args, &served); served || status != DF_OK) return status;
    }
    Normalize p = {};
    p.sum = floats(args->sum);
    p.out = floats(args->out);
    p.x = floats(args->x);
    p.residual = floats(args->residual);
    p.weight = floats(args->weight);
    p.bias = floats(args->bias);
    p.mean = static_cast<float*>(args->mean->data);
    p.rstd = static_cast<float*>(args->rstd->data);
    const df_view* first = args->sum != nullptr ? args->sum : args->x;
    p.rows = walk_rows<4>({first, args->out, args->x, args->residual});
    p.columns = last_dim(args->x);
    p.eps = args->eps;
    return launch(call, "layernorm_forward_warp", ceil_div(p.rows.count, kRowsPerBlock), kRowsPerBlock * kWarp, 0, layernorm_forward_warp,
                  p);
}

int residual_layernorm_backward(const Call& call, const df_layernorm_args* args) {
    if (const int status = call.require_device_floats({args->dx, args->dweight, args->dbias, args->dout, args->dsum, args->sum,
                                                       args->weight,
                                                       args->mean, args->rstd}))
        return status;
    if (kernels() != Kernels::kPlain) {
        bool served = false;
        if (const int status = residual_layernorm_backward_vector(call, args, &served); served || status != DF_OK) return status;
    }
    NormalizeGradient p = {};
    p.dx = floats(args->dx);
    p.dout = floats(args->dout);
    p.dsum = floats(args->dsum);
    p.sum = floats(args->sum);
    p.weight = floats(args->weight);
    p.mean = static_cast<const float*>(args->mean->data);
    p.rstd = static_cast<const float*>(args->rstd->data);
    p.rows = walk_rows<4>({args->dx, args->dout, args->dsum, args->sum});
    p.columns = last_dim(args->dx);
    if (const int status = launch(call, "layernorm_backward_warp", ceil_div(p.rows.count, kRowsPerBlock), kRowsPerBlock * kWarp, 0,
                                  layernorm_backward_warp, p))
        return status;
    if (args->dweight == nullptr && args->dbias == nullptr) return DF_OK;
    return sum_columns(call, p.rows.count, p.columns, floats(args->dweight), floats(args->dbias), args->accumulate != 0, p);
}

}  // namespace dualform::cuda
