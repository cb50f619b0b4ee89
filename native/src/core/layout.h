// Which elements a strided view reaches: bounds, self-overlap, overlap of two views.
#pragma once

#include <cstdint>

#include "dualform/df_backend.h"

namespace dualform {

/// Product of the dimensions; throws DF_INVALID_ARGUMENT for rank, a dimension < 1 or a product (in bytes) beyond 2^62.
int64_t checked_numel(int dtype, int rank, const int64_t* shape);
/// Row-major strides.
void contiguous_strides(int rank, const int64_t* shape, int64_t* stride);
bool is_contiguous(const df_view& v);
/// Elements from the first to one past the last that the view reaches; throws when it does not fit 64 bits.
int64_t extent(int rank, const int64_t* shape, const int64_t* stride);
/// True when no element is reached twice (sufficient test: each stride is beyond the reach of the smaller ones).
bool reaches_once(int rank, const int64_t* shape, const int64_t* stride);
/// True when the two views may share an element. Exact for slices of a fused tensor (interleaved rows), else by address range.
bool may_overlap(const df_view& a, const df_view& b);
/// True when both view exactly the same elements in the same order.
bool same_elements(const df_view& a, const df_view& b);

}  // namespace dualform
