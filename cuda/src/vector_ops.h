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

/// Numbers an access: 16 bytes of the narrowest operand.
inline int vector_width(std::initializer_list<const df_view*> views) {
    for (const df_view* view : views)
        if (view != nullptr && view->dtype == DF_BF16) return 8;
    return 4;
}

/// Whether every row of the operand starts where an access of W can.
template <int W>
inline bool rows_aligned(const df_view* view) {
    if (view == nullptr) return true;
    bool aligned = is_aligned<W>(floats(view));
    for (int axis = 0; axis + 1 < view->rank; ++axis) aligned = aligned && (view->shape[axis] == 1 || view->stride[axis] % W == 0);
    return aligned;
}
template <int W>
inline bool rows_aligned(std::initializer_list<const df_view*> views) {
    for (const df_view* view : views)
        if (!rows_aligned<W>(view)) return false;
    return true;
}

}  // namespace dualform::cuda
