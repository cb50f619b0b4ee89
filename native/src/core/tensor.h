// Tensor handles: a view of a reference-counted block.
#pragma once

#include <atomic>

#include "core/device.h"

namespace dualform {

/// A block of device memory, shared by the tensors that view it.
struct Storage {
    df_device* device;
    char* memory;
    size_t bytes;
    bool owned;
    std::atomic<int64_t> references{1};
};

size_t element_size(int dtype);
const char* dtype_name(int dtype);
inline bool is_floating(int dtype) { return dtype != DF_I32; }
/// The dtype sums are taken in.
inline int accumulation_dtype(int dtype) { return dtype == DF_F64 ? DF_F64 : DF_F32; }

}  // namespace dualform

struct df_tensor {
    df_view view;
    dualform::Storage* storage;
    df_device* device;
    int64_t numel;
};
