// matmul: one blocked product for every dtype, transpose and batch.
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

}  // namespace dualform::cpu::DF_ISA
