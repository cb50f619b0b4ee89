// Bias + GELU in accesses of W, one pass: a thread keeps W columns and walks down the rows, so that it reads its part of the bias once and
// sums its part of the bias's gradient while it makes dx.
#include "gelu_math.h"
#include "kernels.h"
#include "launch.h"
#include "vector_columns.h"
#include "vector_ops.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
constexpr int kRowsOfWarp = 8;                     /* one after another: few enough for a sum in float, enough to be worth the start */
constexpr int kRowsOfBlock = kWarps * kRowsOfWarp;

struct Activation {
    Floats out, dout, x, bias; /* out is dx in the backward pass */
    Walk<3> rows;              /* out, dout, x */
    int64_t columns, column_blocks;
    float* partials; /* (row blocks, 2, columns), of which the first half is used: terms of dbias; null where nobody asks */
};

/// A block owns 64 rows and 32 accesses of each; a warp has its columns and 8 of the rows. Bytes per element: x read and out written, each
/// once, and in the backward pass dout read; bias comes from cache.
template <int W, int kKind, bool kBackward>
__global__ void __launch_bounds__(kThreads) bias_gelu_columns(Activation p) {
    __shared__ float terms[kBackward ? kWarps : 1][kWarp * W];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const int64_t c = (blockIdx.x % p.column_blocks * kWarp + lane) * W;
    const int64_t first = blockIdx.x / p.column_blocks * kRowsOfBlock + warp * kRowsOfWarp;
    const int64_t end = smaller(p.rows.count, first + kRowsOfWarp);
    float dbias[W];
#pragma unroll
    for (int j = 0; j < W; ++j) dbias[j] = 0;
    if (c < p.columns) {
        float bias[W];
#pragma unroll
        for (int j = 0; j < W; ++j) bias[j] = 0;
        if (p.bias) load_vector(p.bias, c, bias);
#pragma unroll 1
        for (int64_t n = first; n < end; ++n) {
            int64_t at[3];
            p.rows.offsets(n, at);
            float x[W], out[W];
            load_vector(p.x, at[2] + c, x);
            if constexpr (kBackward) {
                load_vector(p.dout, at[1] + c, out);
#pragma unroll
                for (int j = 0; j < W; ++j) {
                    out[j] *= gelu_slope(x[j] + bias[j], kKind);
                    dbias[j] += out[j];
                }
            } else {
#pragma unroll
                for (int j = 0; j < W; ++j) out[j] = gelu(x[j] + bias[j], kKind);
            }
            store_vector(p.out, at[0] + c, out);
        }
    }
    if constexpr (kBackward) {
        if (p.partials == nullptr) return;
#pragma unroll
        for (int j = 0; j < W; ++j) terms[warp][lane * W + j] = dbias[j];
        __syncthreads();
        const int64_t block_column = blockIdx.x % p.column_blocks * kWarp * W;
        for (int i = threadIdx.x; i < kWarp * W; i += kThreads) {
            if (block_column + i >= p.columns) continue;
            double sum = 0;
            for (int w = 0; w < kWarps; ++w) sum += terms[w][i];
            p.partials[2 * (blockIdx.x / p.column_blocks) * p.columns + block_column + i] = static_cast<float>(sum);
        }
    }
}

template <int W, bool kBackward>
int run(const Call& call, Activation p, int kind, Floats dbias, bool accumulate) {
    p.column_blocks = ceil_div(p.columns, kWarp * W);
    const int64_t row_blocks = ceil_div(p.rows.count, kRowsOfBlock);
    Scratch partials(call, dbias ? 2 * row_blocks * p.columns * static_cast<int64_t>(sizeof(float)) : 0);
    if (!partials) return partials.failure();
    p.partials = dbias ? partials.as<float>() : nullptr;
    const auto kernel = kind == DF_GELU_EXACT ? bias_gelu_columns<W, DF_GELU_EXACT, kBackward> : bias_gelu_columns<W, DF_GELU_TANH, kBackward>;
    if (const int status = launch(call, kBackward ? "bias_gelu_columns backward" : "bias_gelu_columns", row_blocks * p.column_blocks, kThreads, 0,
                                  kernel, p))
        return status;
    if (!dbias) return DF_OK;
    return launch(call, "vector_column_totals", ceil_div(p.columns, kWarp), kThreads, 0, vector_column_totals, dbias, Floats(),
                  partials.as<const float>(), p.columns, row_blocks, accumulate);
}

}  // namespace

int bias_gelu_forward_vector(const Call& call, const df_gelu_args* args, bool* served) {
    *served = false;
    Activation p = {};
    p.columns = last_dim(args->x);
    const int width = vector_width({args->out, args->x, args->bias}, p.columns);
    if (width == 0) return DF_OK;
    *served = true;
    p.out = floats(args->out);
    p.x = floats(args->x);
    p.bias = floats(args->bias);
    p.rows = walk_rows<3>({args->out, nullptr, args->x});
    return width == 8 ? run<8, false>(call, p, args->kind, Floats(), false) : run<4, false>(call, p, args->kind, Floats(), false);
}

int bias_gelu_backward_vector(const Call& call, const df_gelu_args* args, bool* served) {
    *served = false;
    Activation p = {};
    p.columns = last_dim(args->x);
    const int width = vector_width({args->dx, args->dout, args->x, args->bias}, p.columns);
    if (width == 0) return DF_OK;
    *served = true;
    p.out = floats(args->dx);
    p.dout = floats(args->dout);
    p.x = floats(args->x);
    p.bias = floats(args->bias);
    p.rows = walk_rows<3>({args->dx, args->dout, args->x});
    const Floats dbias = floats(args->dbias);
    return width == 8 ? run<8, true>(call, p, args->kind, dbias, args->accumulate != 0)
                      : run<4, true>(call, p, args->kind, dbias, args->accumulate != 0);
}

}  // namespace dualform::cuda
