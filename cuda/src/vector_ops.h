// The memory-bound ops in accesses of 16 bytes, one pass over memory: chosen by the option "kernels" (choice.h), any but plain.
//
// Each function leaves *served false, and does nothing, where the operands do not allow whole accesses: a row that W does not divide, an
// address or a row's start that is not aligned, more columns than registers hold. The plain kernel serves then.
#pragma once

#include "choice.h"
#include "vectors.h"
#include "views.h"

namespace dualform::cuda {

int residual_layernorm_forward_vector(const Call& call, const df_layernorm_args* args, bool* served);
int residual_layernorm_backward_vector(const Call& call, const df_layernorm_args* args, bool* served);
int bias_gelu_forward_vector(const Call& call, const df_gelu_args* args, bool* served);
int bias_gelu_backward_vector(const Call& call, const df_gelu_args* args, bool* served);
/// The rows' losses and gradients; *count is there already.
struct CrossEntropyRows {
    Floats dlogits, logits;
    const int32_t* targets;
    float* losses;
    const double* count; /* rows that are not ignored */
    int64_t rows, vocabulary, dlogits_row, logits_row;
    int32_t ignored;
};
int cross_entropy_rows_vector(const Call& call, const CrossEntropyRows& rows, bool* served);

/// Numbers an access: 16 bytes of the narrowest operand, of rows of so many columns. 0 where an operand does not allow whole accesses.
inline int vector_width(std::initializer_list<const df_view*> views, int64_t columns) {
    int width = 4;
    for (const df_view* view : views)
        if (view != nullptr && view->dtype == DF_BF16) width = 8;
    bool aligned = columns % width == 0;
    for (const df_view* view : views) {
        if (view == nullptr) continue;
        const int64_t bytes = smaller(16, width * (view->dtype == DF_BF16 ? 2 : 4));
        aligned = aligned && rows_aligned(floats(view), {}, bytes);
        for (int axis = 0; axis + 1 < view->rank; ++axis)
            aligned = aligned && (view->shape[axis] == 1 || rows_aligned(floats(view), {view->stride[axis]}, bytes));
    }
    return aligned ? width : 0;
}

}  // namespace dualform::cuda
