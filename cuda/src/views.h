// Strided views as kernels receive them: by value, with neighbouring dimensions merged where their strides allow it.
#pragma once

#include "numbers.h"

namespace dualform::cuda {

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
template <class T>
__host__ __device__ constexpr T smaller(T a, T b) { return b < a ? b : a; }
template <class T>
__host__ __device__ constexpr T larger(T a, T b) { return a < b ? b : a; }

inline int64_t numel(const df_view* view) {
    int64_t n = 1;
    for (int i = 0; i < view->rank; ++i) n *= view->shape[i];
    return n;
}

/// Size of the last dimension; 1 for a scalar.
inline int64_t last_dim(const df_view* view) { return view->rank == 0 ? 1 : view->shape[view->rank - 1]; }

/// Row-major walk over one shape through N operands: element i is at offset(i, k) of operand k.
template <int N>
struct Walk {
    int64_t count = 1;
    int rank = 0;
    int64_t shape[DF_MAX_RANK] = {};
    int64_t stride[N][DF_MAX_RANK] = {};

    __host__ __device__ void offsets(int64_t i, int64_t (&offset)[N]) const {
        if (rank == 1) { /* merged to one dimension: no division */
            for (int k = 0; k < N; ++k) offset[k] = i * stride[k][0];
            return;
        }
        for (int k = 0; k < N; ++k) offset[k] = 0;
        for (int d = rank - 1; d >= 0; --d) {
            const int64_t at = i % shape[d];
            i /= shape[d];
            for (int k = 0; k < N; ++k) offset[k] += at * stride[k][d];
        }
    }

    /// Appends an inner dimension, merging it into the one before where every operand's strides allow it.
    void append(int64_t size, const int64_t (&inner)[N]) {
        count *= size;
        if (size == 1) return;
        if (rank > 0) {
            bool merges = true;
            for (int k = 0; k < N; ++k) merges = merges && stride[k][rank - 1] == inner[k] * size;
            if (merges) {
                shape[rank - 1] *= size;
                for (int k = 0; k < N; ++k) stride[k][rank - 1] = inner[k];
                return;
            }
        }
        shape[rank] = size;
        for (int k = 0; k < N; ++k) stride[k][rank] = inner[k];
        ++rank;
    }

    /// A kernel's offsets() needs at least one dimension to be quick about a scalar.
    void finish() {
        if (rank == 0) {
            rank = 1;
            shape[0] = 1;
        }
    }
};

/// Stride of `view` along axis `axis` of a shape of rank `rank`, NumPy broadcasting: 0 where the view has no such axis or has it as 1.
inline int64_t broadcast_stride(const df_view* view, int axis, int rank) {
    const int own = axis - (rank - view->rank);
    return own < 0 || view->shape[own] == 1 ? 0 : view->stride[own];
}

/// The walk over views[0]'s shape, the others broadcast to it; a null view gets stride 0.
template <int N>
Walk<N> walk(const df_view* const (&views)[N]) {
    Walk<N> w;
    for (int axis = 0; axis < views[0]->rank; ++axis) {
        int64_t inner[N];
        for (int k = 0; k < N; ++k) inner[k] = views[k] == nullptr ? 0 : broadcast_stride(views[k], axis, views[0]->rank);
        w.append(views[0]->shape[axis], inner);
    }
    w.finish();
    return w;
}

/// The walk over all but the last `inner` dimensions of views[0]: row n of operand k starts at offset(n, k). Every view has those
/// leading dimensions, or is null.
template <int N>
Walk<N> walk_rows(const df_view* const (&views)[N], int inner = 1) {
    Walk<N> w;
    for (int axis = 0; axis < views[0]->rank - inner; ++axis) {
        int64_t strides[N];
        for (int k = 0; k < N; ++k) strides[k] = views[k] == nullptr ? 0 : views[k]->stride[axis];
        w.append(views[0]->shape[axis], strides);
    }
    w.finish();
    return w;
}

/// Stride of an axis of a present view; 0 when absent.
inline int64_t stride_of(const df_view* view, int axis) { return view == nullptr ? 0 : view->stride[axis]; }

}  // namespace dualform::cuda
