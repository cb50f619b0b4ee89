// Residual add and LayerNorm in one pass: a row waits in registers between its sum, its mean, its variance and its output.
//
// Rows of up to 1024 columns belong to a warp, eight rows a block; longer ones, up to 8192, to a block of 256 threads. Either way a thread
// holds at most 32 columns, in accesses of W.
#include "kernels.h"
#include "launch.h"
#include "vector_columns.h"
#include "vector_ops.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kHeld = 32;               /* columns of a thread: two such arrays and two of sums stay under 255 registers */
constexpr int kWarpColumns = kWarp * kHeld, kBlockColumns = kThreads * kHeld;

/// The sum over the threads of a row, which all of them receive, in a fixed order.
template <bool kBlock>
__device__ inline double sum_row(double value) {
    if constexpr (kBlock) return sum_block(value);
    return sum_lanes(value);
}

/// f(k, v) for the accesses of a thread: its k-th is access v of the row.
template <int W, int kLanes, class F>
__device__ __forceinline__ void each_access(int lane, int64_t vectors, F f) {
#pragma unroll
    for (int k = 0; k < kHeld / W; ++k) {
        const int64_t v = lane + static_cast<int64_t>(k) * kLanes;
        if (v >= vectors) break;
        f(k, v);
    }
}

struct Forward {
    Floats sum, out, x, residual, weight, bias;
    float *mean, *rstd;
    Walk<4> rows; /* sum, out, x, residual */
    int64_t columns;
    double eps;
};

/// Bytes per element: x and residual read, sum and out written, each once; weight and bias come from cache.
template <int W, bool kBlock>
__global__ void __launch_bounds__(kThreads) layernorm_forward_registers(Forward p) {
    constexpr int kLanes = kBlock ? kThreads : kWarp;
    const int lane = threadIdx.x % kLanes;
    const int64_t n = blockIdx.x * static_cast<int64_t>(kThreads / kLanes) + threadIdx.x / kLanes;
    if (n >= p.rows.count) return; /* a whole warp; with a block per row, never */
    int64_t at[4];
    p.rows.offsets(n, at);
    const int64_t vectors = p.columns / W;
    float held[kHeld];
    double total = 0;
    each_access<W, kLanes>(lane, vectors, [&](int k, int64_t v) {
        float x[W];
        load_vector(p.x, at[2] + v * W, x);
        if (p.residual) {
            float residual[W];
            load_vector(p.residual, at[3] + v * W, residual);
#pragma unroll
            for (int j = 0; j < W; ++j) x[j] += residual[j];
        }
        if (p.sum) {
            store_vector(p.sum, at[0] + v * W, x);
            if (p.sum.dtype == DF_BF16) /* what is normalised is what backward will read: the sum as it was rounded */
#pragma unroll
                for (int j = 0; j < W; ++j) x[j] = to_float(to_bf16(x[j]));
        }
#pragma unroll
        for (int j = 0; j < W; ++j) {
            held[k * W + j] = x[j];
            total += x[j];
        }
    });
    const double mean = sum_row<kBlock>(total) / p.columns;
    double square = 0;
    each_access<W, kLanes>(lane, vectors, [&](int k, int64_t) {
#pragma unroll
        for (int j = 0; j < W; ++j) {
            const double centred = held[k * W + j] - mean;
            held[k * W + j] = static_cast<float>(centred);
            square += centred * centred;
        }
    });
    const double rstd = 1.0 / sqrt(sum_row<kBlock>(square) / p.columns + p.eps);
    const float scale = static_cast<float>(rstd);
    each_access<W, kLanes>(lane, vectors, [&](int k, int64_t v) {
        float weight[W], out[W];
        load_vector(p.weight, v * W, weight);
        load_vector(p.bias, v * W, out);
#pragma unroll
        for (int j = 0; j < W; ++j) out[j] = fmaf(held[k * W + j] * scale, weight[j], out[j]);
        store_vector(p.out, at[1] + v * W, out);
    });
    if (lane == 0) {
        p.mean[n] = static_cast<float>(mean);
        p.rstd[n] = scale;
    }
}

struct Backward {
    Floats dx, dout, dsum, sum, weight;
    const float *mean, *rstd;
    Walk<4> rows; /* dx, dout, dsum, sum */
    int64_t columns, rows_per_block;
    float* partials; /* (blocks, 2, columns): terms of dweight and dbias; null where nobody asks */
};

/// A block owns consecutive rows and all columns: it sums its terms of dweight and dbias in registers while it makes dx, so that dout and
/// sum are read once. Bytes per element: dout, sum and dsum read, dx written, each once.
template <int W, bool kBlock>
__global__ void __launch_bounds__(kThreads) layernorm_backward_registers(Backward p) {
    constexpr int kLanes = kBlock ? kThreads : kWarp, kRows = kThreads / kLanes;
    __shared__ double totals[kBlock ? 1 : 2 * kWarpColumns];
    const int lane = threadIdx.x % kLanes, row = threadIdx.x / kLanes;
    const int64_t vectors = p.columns / W, first = blockIdx.x * p.rows_per_block;
    const int64_t end = smaller(p.rows.count, first + p.rows_per_block);
    float dweight[kHeld], dbias[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) dweight[i] = dbias[i] = 0;
    for (int64_t n = first + row; n < end; n += kRows) {
        int64_t at[4];
        p.rows.offsets(n, at);
        const float mean = p.mean[n], rstd = p.rstd[n];
        float g[kHeld], h[kHeld]; /* dout weight, and what was normalised */
        double sum_g = 0, sum_gh = 0;
        each_access<W, kLanes>(lane, vectors, [&](int k, int64_t v) {
            float dout[W], x[W], weight[W];
            load_vector(p.dout, at[1] + v * W, dout);
            load_vector(p.sum, at[3] + v * W, x);
            load_vector(p.weight, v * W, weight);
#pragma unroll
            for (int j = 0; j < W; ++j) {
                const int i = k * W + j;
                h[i] = static_cast<float>(static_cast<double>(x[j]) - mean) * rstd;
                g[i] = dout[j] * weight[j];
                sum_g += g[i];
                sum_gh += static_cast<double>(g[i]) * h[i];
                dweight[i] = fmaf(dout[j], h[i], dweight[i]);
                dbias[i] += dout[j];
            }
        });
        const float mean_g = static_cast<float>(sum_row<kBlock>(sum_g) / p.columns);
        const float mean_gh = static_cast<float>(sum_row<kBlock>(sum_gh) / p.columns);
        each_access<W, kLanes>(lane, vectors, [&](int k, int64_t v) {
            float dx[W];
#pragma unroll
            for (int j = 0; j < W; ++j) dx[j] = rstd * (g[k * W + j] - mean_g - h[k * W + j] * mean_gh);
            if (p.dsum) {
                float dsum[W];
                load_vector(p.dsum, at[2] + v * W, dsum);
#pragma unroll
                for (int j = 0; j < W; ++j) dx[j] += dsum[j];
            }
            store_vector(p.dx, at[0] + v * W, dx);
        });
    }
    if (p.partials == nullptr) return;
    float* out = p.partials + 2 * blockIdx.x * p.columns;
    if constexpr (kBlock) { /* each column has one thread */
        each_access<W, kLanes>(lane, vectors, [&](int k, int64_t v) {
#pragma unroll
            for (int j = 0; j < W; ++j) {
                out[v * W + j] = dweight[k * W + j];
                out[p.columns + v * W + j] = dbias[k * W + j];
            }
        });
    } else { /* the warps in turn */
        for (int turn = 0; turn < kRows; ++turn) {
            if (turn == row)
                each_access<W, kLanes>(lane, vectors, [&](int k, int64_t v) {
#pragma unroll
                    for (int j = 0; j < W; ++j) {
                        const int64_t c = v * W + j;
                        totals[c] = dweight[k * W + j] + (turn == 0 ? 0.0 : totals[c]);
                        totals[kWarpColumns + c] = dbias[k * W + j] + (turn == 0 ? 0.0 : totals[kWarpColumns + c]);
                    }
                });
            __syncthreads();
        }
        for (int64_t c = threadIdx.x; c < p.columns; c += kThreads) {
            out[c] = static_cast<float>(totals[c]);
            out[p.columns + c] = static_cast<float>(totals[kWarpColumns + c]);
        }
    }
}

template <int W>
int forward(const Call& call, const Forward& p) {
    if (p.columns <= kWarpColumns)
        return launch(call, "layernorm_forward_registers<warp>", ceil_div(p.rows.count, kThreads / kWarp), kThreads, 0,
                      layernorm_forward_registers<W, false>, p);
    return launch(call, "layernorm_forward_registers<block>", p.rows.count, kThreads, 0, layernorm_forward_registers<W, true>, p);
}

template <int W>
int backward(const Call& call, Backward p, Floats dweight, Floats dbias, bool accumulate) {
    const bool warp = p.columns <= kWarpColumns;
    // 16 rows one after another keep a float's sum as exact as pairs would, and the partials at 2 % of what is moved.
    p.rows_per_block = warp ? 16 * kThreads / kWarp : 16;
    const int64_t blocks = ceil_div(p.rows.count, p.rows_per_block);
    const bool sums = dweight || dbias;
    Scratch partials(call, sums ? 2 * blocks * p.columns * static_cast<int64_t>(sizeof(float)) : 0);
    if (!partials) return partials.failure();
    p.partials = sums ? partials.as<float>() : nullptr;
    const int status = warp ? launch(call, "layernorm_backward_registers<warp>", blocks, kThreads, 0, layernorm_backward_registers<W, false>, p)
                            : launch(call, "layernorm_backward_registers<block>", blocks, kThreads, 0, layernorm_backward_registers<W, true>, p);
    if (status != DF_OK || !sums) return status;
    return launch(call, "vector_column_totals", ceil_div(p.columns, kWarp), kThreads, 0, vector_column_totals, dweight, dbias,
                  partials.as<const float>(), p.columns, blocks, accumulate);
}

}  // namespace

int residual_layernorm_forward_vector(const Call& call, const df_layernorm_args* args, bool* served) {
    *served = false;
    Forward p = {};
    p.columns = last_dim(args->x);
    const int width = vector_width({args->sum, args->out, args->x, args->residual, args->weight, args->bias}, p.columns);
    if (width == 0 || p.columns > kBlockColumns) return DF_OK;
    *served = true;
    p.sum = floats(args->sum);
    p.out = floats(args->out);
    p.x = floats(args->x);
    p.residual = floats(args->residual);
    p.weight = floats(args->weight);
    p.bias = floats(args->bias);
    p.mean = static_cast<float*>(args->mean->data);
    p.rstd = static_cast<float*>(args->rstd->data);
    p.rows = walk_rows<4>({args->sum != nullptr ? args->sum : args->x, args->out, args->x, args->residual});
    p.eps = args->eps;
    return width == 8 ? forward<8>(call, p) : forward<4>(call, p);
}

int residual_layernorm_backward_vector(const Call& call, const df_layernorm_args* args, bool* served) {
    *served = false;
    Backward p = {};
    p.columns = last_dim(args->dx);
    const int width = vector_width({args->dx, args->dout, args->dsum, args->sum, args->weight}, p.columns);
    if (width == 0 || p.columns > kBlockColumns) return DF_OK;
    *served = true;
    p.dx = floats(args->dx);
    p.dout = floats(args->dout);
    p.dsum = floats(args->dsum);
    p.sum = floats(args->sum);
    p.weight = floats(args->weight);
    p.mean = static_cast<const float*>(args->mean->data);
    p.rstd = static_cast<const float*>(args->rstd->data);
    p.rows = walk_rows<4>({args->dx, args->dout, args->dsum, args->sum});
    const Floats dweight = floats(args->dweight), dbias = floats(args->dbias);
    return width == 8 ? backward<8>(call, p, dweight, dbias, args->accumulate != 0)
                      : backward<4>(call, p, dweight, dbias, args->accumulate != 0);
}

}  // namespace dualform::cuda
