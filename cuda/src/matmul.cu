#include "matmul.h"

#include "choice.h"
#include "columns.h"
#include "cublaslt.h"
#include "kernels.h"
#include "launch.h"
#include "tile.h"

namespace dualform::cuda {

namespace {

/// shared[r][c] = matrix element (row0 + r, column0 + c), zero outside; consecutive threads follow the contiguous direction.
__device__ inline void stage_matrix(float* shared, const Matrix& m, const Matrix& plus, int64_t offset, int64_t row0, int64_t column0,
                                    int64_t rows,
                                    int64_t columns) {
    const bool along_rows = m.column == 1;
    for (int e = threadIdx.x; e < kTile * kDepth; e += kTileThreads) {
        const int r = along_rows ? e / kDepth : e % kTile, c = along_rows ? e % kDepth : e / kTile;
        const int64_t row = row0 + r, column = column0 + c;
        float value = 0;
        if (row < rows && column < columns) {
            value = m.data.load(offset + row * m.row + column * m.column);
            if (plus.data) value += plus.data.load(row * plus.row + column * plus.column);
        }
        shared[r * kStagePitch + c] = value;
    }
}

/// One block per (matrix, 64 x 64 tile of out); a thread owns 4 x 4 elements. Runs of kRun products make up partial sums of 32, which go
/// to a compensated total, so the error does not grow with K.
__global__ void __launch_bounds__(kTileThreads, 1) matmul_tile(Product p, int64_t row_tiles, int64_t column_tiles) {
    __shared__ float a_stage[kTile * kStagePitch];
    __shared__ float b_stage[kTile * kStagePitch];
    const int64_t n0 = blockIdx.x % column_tiles * kTile, m0 = blockIdx.x / column_tiles % row_tiles * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    int64_t offset[4];
    p.batch.offsets(blockIdx.x / column_tiles / row_tiles, offset);
    Matrix b_transposed = p.b, plus_transposed = p.b_plus; /* staged as (N,K) */
    b_transposed.row = p.b.column;
    b_transposed.column = p.b.row;
    plus_transposed.row = p.b_plus.column;
    plus_transposed.column = p.b_plus.row;

    float total[kPerThread][kPerThread] = {}, lost[kPerThread][kPerThread] = {};
    for (int64_t k0 = 0; k0 < p.k; k0 += kDepth) {
        __syncthreads();
        stage_matrix(a_stage, p.a, Matrix(), offset[1], m0, k0, p.m, p.k);
        stage_matrix(b_stage, b_transposed, plus_transposed, offset[2], n0, k0, p.n, p.k);
        __syncthreads();
        float partial[kPerThread][kPerThread] = {};
        const int depth = static_cast<int>(smaller<int64_t>(kDepth, p.k - k0));
        for (int d0 = 0; d0 < depth; d0 += kRun) { /* beyond K both operands are 0 */
            float run[kPerThread][kPerThread] = {};
#pragma unroll 2
            for (int d = d0; d < d0 + kRun; ++d) {
                float x[kPerThread], y[kPerThread];
#pragma unroll
                for (int i = 0; i < kPerThread; ++i) x[i] = a_stage[(ty + kSide * i) * kStagePitch + d];
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) y[j] = b_stage[(tx + kSide * j) * kStagePitch + d];
#pragma unroll
                for (int i = 0; i < kPerThread; ++i)
#pragma unroll
                    for (int j = 0; j < kPerThread; ++j) run[i][j] = fmaf(x[i], y[j], run[i][j]);
            }
#pragma unroll
            for (int i = 0; i < kPerThread; ++i)
#pragma unroll
                for (int j = 0; j < kPerThread; ++j) partial[i][j] += run[i][j];
        }
#pragma unroll
        for (int i = 0; i < kPerThread; ++i)
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) {
                const float added = partial[i][j] - lost[i][j], sum = total[i][j] + added;
                const float error = (sum - total[i][j]) - added;
                lost[i][j] = fabsf(error) < INFINITY ? error : 0.0f; /* an infinite total has no error to carry */
                total[i][j] = sum;
            }
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) {
            const int64_t m = m0 + ty + kSide * i, n = n0 + tx + kSide * j;
            if (m >= p.m || n >= p.n) continue;
            float value = total[i][j];
            if (p.addend.data) value += p.addend.data.load(offset[3] + m * p.addend.row + n * p.addend.column);
            if (p.bias) value += p.bias.load(n);
            p.out.data.store(offset[0] + m * p.out.row + n * p.out.column, value);
        }
}

/// One block per (64 rows of out, group of output columns): walks the rows of y and z in tiles of 64, keeps x y^T of one tile in shared
/// memory and the result in registers. Blocks of other column groups compute x y^T again: memory stays O(1).
template <int Columns>
__global__ void __launch_bounds__(kTileThreads, 1) chain_tile(Matrix out, Matrix x, Matrix y, Matrix z, int64_t m, int64_t n, int inner,
                                                              int o,
                                                           int64_t column_groups) {
    __shared__ float staging[kStageFloats];
    __shared__ float weights[kWeightFloats];
    const int column0 = static_cast<int>(blockIdx.x % column_groups) * kSide * Columns;
    const int64_t m0 = blockIdx.x / column_groups * kTile;
    const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
    Rows x_rows, y_rows, z_rows;
    x_rows.data = x.data;
    x_rows.stride = x.row;
    x_rows.end = m;
    y_rows.data = y.data;
    y_rows.stride = y.row;
    y_rows.end = n;
    z_rows.data = z.data;
    z_rows.stride = z.row;
    z_rows.end = n;
    float sum[kPerThread][Columns] = {};
    for (int64_t n0 = 0; n0 < n; n0 += kTile) {
        float product[kPerThread][kPerThread], partial[kPerThread][Columns] = {};
        product_transposed(product, x_rows, m0, y_rows, n0, inner, staging);
        int first[kPerThread], last[kPerThread];
#pragma unroll
        for (int i = 0; i < kPerThread; ++i) {
            first[i] = 0;
            last[i] = static_cast<int>(smaller<int64_t>(kTile, n - n0));
#pragma unroll
            for (int j = 0; j < kPerThread; ++j) weights[(ty + kSide * i) * kWeightPitch + tx + kSide * j] = product[i][j];
        }
        product_values(partial, weights, first, last, z_rows, n0, column0, o, staging);
#pragma unroll
        for (int i = 0; i < kPerThread; ++i)
#pragma unroll
            for (int c = 0; c < Columns; ++c) sum[i][c] += partial[i][c];
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i)
#pragma unroll
        for (int c = 0; c < Columns; ++c) {
            const int64_t row = m0 + ty + kSide * i;
            const int column = column0 + tx + kSide * c;
            if (row < m && column < o) out.data.store(row * out.row + column, sum[i][c]);
        }
}

}  // namespace

Matrix matrix(const df_view* view, bool transposed) {
    Matrix m;
    m.data = floats(view);
    m.row = view->stride[view->rank - 2];
    m.column = 1;
    if (transposed) {
        m.column = m.row;
        m.row = 1;
    }
    return m;
}

Matrix matrix(float* data, int64_t columns, bool transposed) {
    Matrix m;
    m.data = floats(data);
    m.row = transposed ? 1 : columns;
    m.column = transposed ? columns : 1;
    return m;
}

int multiply(const Call& call, const Product& product) {
    bool served = false;
    if (kernels() != Kernels::kPlain)
        if (const int status = multiply_with_cublaslt(call, product, &served); status != DF_OK || served) return status;
    const int64_t row_tiles = ceil_div(product.m, kTile), column_tiles = ceil_div(product.n, kTile);
    return launch(call, "matmul_tile", product.batch.count * row_tiles * column_tiles, kTileThreads, 0, matmul_tile, product, row_tiles,
                  column_tiles);
}

int multiply_chain(const Call& call, const Matrix& out, const Matrix& x, const Matrix& y, const Matrix& z, int64_t m, int64_t n,
                   int64_t inner,
                   int64_t o) {
    constexpr int64_t kLargest = 1 << 30;
    if (inner > kLargest || o > kLargest)
        return fail(call.error, DF_UNSUPPORTED, "%s: %lld by %lld columns, at most %lld each", call.op, static_cast<long long>(inner),
                    static_cast<long long>(o), static_cast<long long>(kLargest));
    constexpr int kNarrow = 4, kWide = 16;
    const bool narrow = o <= kSide * kNarrow;
    const int64_t groups = ceil_div(o, kSide * (narrow ? kNarrow : kWide)), blocks = ceil_div(m, kTile) * groups;
    return launch(call, "chain_tile", blocks, kTileThreads, 0, narrow ? chain_tile<kNarrow> : chain_tile<kWide>, out, x, y, z, m, n,
                  static_cast<int>(inner), static_cast<int>(o), groups);
}

int matmul(const Call& call, const df_matmul_args* args) {
    if (const int status = call.require_device_floats({args->out, args->a, args->b, args->bias})) return status;
    const df_view *a = args->a, *b = args->b, *out = args->out;
    Product p;
    p.m = out->shape[out->rank - 2];
    p.n = out->shape[out->rank - 1];
    p.k = a->shape[a->rank - (args->trans_a ? 2 : 1)];
    p.a = matrix(a, args->trans_a != 0);
    p.b = matrix(b, args->trans_b != 0);
    p.out = matrix(out);
    if (args->accumulate) p.addend = p.out;
    p.bias = floats(args->bias);
    p.batch = Walk<4>();
    for (int axis = 0; axis < out->rank - 2; ++axis) {
        const int64_t shared = b->rank == out->rank ? b->stride[axis] : 0;
        p.batch.append(out->shape[axis], {out->stride[axis], a->stride[axis], shared, out->stride[axis]});
    }
    p.batch.finish();
    return multiply(call, p);
}

namespace {

/// All leading dimensions as rows of one matrix, where their strides allow it.
bool as_rows(const df_view* view, int64_t* count, Matrix* rows) {
    if (view->rank < 2) return false;
    *count = view->shape[view->rank - 2];
    for (int axis = view->rank - 3; axis >= 0; --axis) {
        if (view->shape[axis] != 1 && view->stride[axis] != *count * view->stride[view->rank - 2]) return false;
        *count *= view->shape[axis];
    }
    *rows = matrix(view);
    return true;
}

/// With any kernels but plain, and of the tanh kind: cuBLASLt's epilogue, where it takes the case.
int matmul_gelu(const Call& call, const df_matmul_gelu_args* args, bool gradient) {
    const df_view *views[] = {args->out, args->a, args->b, args->pre, args->bias, args->dbias};
    for (const df_view* view : views)
        if (view != nullptr && view->dtype != DF_F32 && view->dtype != DF_BF16) return DF_OK;
    if (kernels() == Kernels::kPlain || args->kind != DF_GELU_TANH || args->trans_a || args->b->rank != 2) return DF_OK;
    Product p;
    Matrix pre;
    int64_t rows_of_pre = 0;
    if (!as_rows(args->out, &p.m, &p.out) || !as_rows(args->a, &p.m, &p.a)) return DF_OK;
    if (args->pre != nullptr && !as_rows(args->pre, &rows_of_pre, &pre)) return DF_OK;
    p.n = last_dim(args->out);
    p.k = last_dim(args->a);
    p.b = matrix(args->b, args->trans_b != 0);
    p.bias = floats(args->bias);
    GeluEpilogue gelu;
    gelu.gradient = gradient;
    gelu.pre = pre.data;
    gelu.pre_row = pre.row;
    bool served = false;
    if (const int status = multiply_with_cublaslt(call, p, &served, &gelu); status != DF_OK || !served) return status;
    *args->served = 1;
    // Its epilogue could sum the columns too, but in out's dtype, over what was there, and in an order that is its own.
    if (args->dbias == nullptr) return DF_OK;
    df_bias_args sum = {};
    sum.dbias = args->dbias;
    sum.dout = args->out;
    sum.accumulate = args->accumulate;
    return bias_backward(call, &sum);
}

}  // namespace

int matmul_gelu_forward(const Call& call, const df_matmul_gelu_args* args) { return matmul_gelu(call, args, false); }
int matmul_gelu_backward(const Call& call, const df_matmul_gelu_args* args) { return matmul_gelu(call, args, true); }

int bias_backward(const Call& call, const df_bias_args* args) {
    if (const int status = call.require_device_floats({args->dbias, args->dout})) return status;
    const Floats dout = floats(args->dout);
    const Walk<1> rows = walk_rows<1>({args->dout});
    return sum_columns(call, rows.count, last_dim(args->dout), floats(args->dbias), Floats(), args->accumulate != 0, ColumnOf{dout, rows});
}

}  // namespace dualform::cuda
