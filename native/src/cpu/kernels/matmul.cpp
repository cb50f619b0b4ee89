// matmul: one blocked product for every dtype, transpose and batch. bias_backward: column sums.
#include "cpu/kernels.h"
#include "cpu/kernels/gemm.h"

namespace dualform::cpu::DF_ISA {

namespace {

/// True when all dimensions but the last are evenly spaced rows; *stride is their distance.
bool rows_follow(const df_view* v, int64_t* stride) {
    int64_t rows = 1;
    *stride = 1;
    for (int d = v->rank - 2; d >= 0; --d) {
        if (v->shape[d] == 1) continue;
        if (rows == 1) *stride = v->stride[d];
        else if (v->stride[d] != rows * *stride) return false;
        rows *= v->shape[d];
    }
    return true;
}

}  // namespace

int matmul(df_queue* queue, const df_matmul_args* args, df_error* error) {
    const df_view *out = args->out, *a = args->a, *b = args->b;
    Gemm g;
    g.m = out->shape[out->rank - 2];
    g.n = out->shape[out->rank - 1];
    g.k = a->shape[a->rank - (args->trans_a ? 2 : 1)];
    g.out = matrix(out);
    g.a = args->trans_a ? transposed(matrix(a)) : matrix(a);
    g.b = args->trans_b ? transposed(matrix(b)) : matrix(b);
    if (args->bias != nullptr) {
        g.bias = matrix(args->bias);
        g.bias.row = 0;
    }
    g.accumulate = args->accumulate != 0;
    const bool shared = b->rank == 2;
    int64_t a_row, out_row;
    if (shared && !args->trans_a && rows_follow(a, &a_row) && rows_follow(out, &out_row)) {  // one tall product
        for (int d = 0; d < out->rank - 2; ++d) g.m *= out->shape[d];
        g.a.row = a_row;
        g.out.row = out_row;
    } else {
        g.batch_rank = out->rank - 2;
        for (int d = 0; d < g.batch_rank; ++d) {
            g.batch_shape[d] = out->shape[d];
            g.out_stride[d] = out->stride[d];
            g.a_stride[d] = a->stride[d];
            g.b_stride[d] = shared ? 0 : b->stride[d];
        }
    }
    return dispatch(a->dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        return gemm<Accumulate<T>>(queue, "matmul", g, error);
    });
}

namespace {

constexpr int64_t kColumns = 512;        // columns of a task: their double sums stay in the L1 cache
constexpr int64_t kMinRowBlock = 256;
constexpr int64_t kMaxRowBlocks = 32;    // bounds the scratch for partial sums
constexpr int kTree = 8;                 // rows added in registers before they join the sum in memory

/// Where row i of a view's flattened leading dimensions begins.
struct RowOffsets {
    int rank = 0;
    int64_t shape[DF_MAX_RANK], stride[DF_MAX_RANK];

    explicit RowOffsets(const df_view* v) {
        for (int d = v->rank - 2; d >= 0; --d) {
            if (v->shape[d] == 1) continue;
            if (rank > 0 && v->stride[d] == shape[rank - 1] * stride[rank - 1]) {
                shape[rank - 1] *= v->shape[d];
                continue;
            }
            shape[rank] = v->shape[d];
            stride[rank++] = v->stride[d];
        }
    }
    int64_t operator()(int64_t i) const {
        if (rank == 1) return i * stride[0];
        int64_t at = 0;
        for (int d = 0; d < rank; ++d) {
            at += i % shape[d] * stride[d];
            i /= shape[d];
        }
        return at;
    }
};

template <class T, int N>
inline void add_rows(double* sum, const T* const* row, int64_t cols) {
    for (int64_t j = 0; j < cols; ++j) {
        double x[N];
        for (int r = 0; r < N; ++r) x[r] = double(get(row[r] + j));
        for (int half = N / 2; half > 0; half /= 2)
            for (int r = 0; r < half; ++r) x[r] += x[r + half];
        sum[j] += x[0];
    }
}

template <class T>
int column_sums(df_queue* queue, const df_bias_args* args, df_error* error) {
    const df_view* dout = args->dout;
    const int64_t columns = dout->shape[dout->rank - 1], rows = numel(dout) / columns;
    const int64_t row_block = larger(kMinRowBlock, round_up(ceil_div(rows, kMaxRowBlocks), kTree));
    const int64_t row_blocks = ceil_div(rows, row_block), col_blocks = ceil_div(columns, kColumns);
    const RowOffsets offset_of(dout);
    const T* from = data<const T>(dout);
    const bool accumulate = args->accumulate != 0;
    const auto sum_block = [&](double* sum, int64_t i, int64_t j, int64_t wide) {
        for (int64_t x = 0; x < wide; ++x) sum[x] = 0;
        const int64_t end = smaller(rows, i + row_block);
        const T* row[kTree];
        for (; i + kTree <= end; i += kTree) {
            for (int r = 0; r < kTree; ++r) row[r] = from + offset_of(i + r) + j;
            add_rows<T, kTree>(sum, row, wide);
        }
        for (; i < end; ++i) {
            row[0] = from + offset_of(i) + j;
            add_rows<T, 1>(sum, row, wide);
        }
    };
    if (row_blocks == 1) {
        parallel_for(queue, col_blocks, [&](int64_t c, int) {
            double sum[kColumns];
            const int64_t j = c * kColumns, wide = smaller(kColumns, columns - j);
            sum_block(sum, 0, j, wide);
            scatter(block(matrix(args->dbias), 0, j), sum, kColumns, 1, wide, accumulate);
        });
        return DF_OK;
    }
    const size_t bytes = size_t(row_blocks * columns) * sizeof(double);
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, "bias_backward", bytes);
    double* partial = scratch.as<double>();
    parallel_for(queue, row_blocks * col_blocks, [&](int64_t t, int) {
        const int64_t r = t / col_blocks, j = t % col_blocks * kColumns;
        sum_block(partial + r * columns + j, r * row_block, j, smaller(kColumns, columns - j));
    });
    for (int64_t r = 1; r < row_blocks; ++r)
        for (int64_t j = 0; j < columns; ++j) partial[j] += partial[r * columns + j];
    scatter(matrix(args->dbias), partial, columns, 1, columns, accumulate);
    return DF_OK;
}

}  // namespace

int bias_backward(df_queue* queue, const df_bias_args* args, df_error* error) {
    return dispatch(args->dout->dtype, [&](auto type) { return column_sums<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
