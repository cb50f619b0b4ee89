// Tensor maps: descriptions of a tensor that TMA copies boxes of, made on the host and passed to kernels by value.
#include "hopper.h"

#ifndef DF_CUDA_EMULATION
#include <cudaTypedefs.h>
#endif

namespace dualform::cuda::hopper {

namespace {

constexpr int64_t kUnit = 16, kBf16Bytes = 2;
constexpr int64_t kMaxStride = int64_t{1} << 40, kMaxSize = int64_t{1} << 32; /* limits of cuTensorMapEncodeTiled */
constexpr int kMaxBox = 256;

/// Stride in bytes; of a dimension of size 1 it is never taken, and any that is allowed will do.
int64_t stride_bytes(const df_view* view, int axis) { return view->shape[axis] == 1 ? kUnit : view->stride[axis] * kBf16Bytes; }

#ifndef DF_CUDA_EMULATION
/// cuTensorMapEncodeTiled, fetched from the driver: the library links nothing of it.
int encode(const Call& call, CUtensorMap* map, void* data, const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    if (const int status = call.check(
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found), "cuTensorMapEncodeTiled"))
        return status;
    if (found != cudaDriverEntryPointSuccess || entry == nullptr)
        return fail(call.error, DF_UNAVAILABLE, "%s: the driver has no cuTensorMapEncodeTiled", call.op);
    const cuuint32_t element_stride[4] = {1, 1, 1, 1};
    const CUresult result = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry)(
        map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, data, size, stride, box, element_stride, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (result != CUDA_SUCCESS)
        return fail(call.error, DF_INTERNAL, "%s: cuTensorMapEncodeTiled: error %d", call.op, static_cast<int>(result));
    return DF_OK;
}
#endif

}  // namespace

bool tensor_map_fits(const df_view* view) {
    if (view->rank != 4 || view->dtype != DF_BF16 || view->shape[3] % kPanelColumns != 0) return false;
    if (reinterpret_cast<uintptr_t>(view->data) % kUnit != 0) return false;
    for (int axis = 0; axis < 3; ++axis) {
        const int64_t stride = stride_bytes(view, axis);
        if (view->shape[axis] < 1 || view->shape[axis] >= INT32_MAX || stride < kUnit || stride % kUnit != 0 || stride >= kMaxStride)
            return false;
    }
    return view->shape[3] < kMaxSize;
}

int rows_map(const Call& call, CUtensorMap* map, const df_view* view, int rows) {
    if (!tensor_map_fits(view) || rows < 1 || rows > kMaxBox)
        return fail(call.error, DF_INTERNAL, "%s: no tensor map of this view in boxes of %d rows", call.op, rows);
    // Columns, heads, rows, batch: in a contiguous tensor the order in which strides grow.
    const int axes[4] = {3, 2, 1, 0};
#ifdef DF_CUDA_EMULATION
    *map = {};
    map->data = static_cast<char*>(view->data);
    map->element_bytes = kBf16Bytes;
    map->swizzled = true;
    for (int i = 0; i < 4; ++i) {
        map->size[i] = view->shape[axes[i]];
        map->stride[i] = i == 0 ? kBf16Bytes : stride_bytes(view, axes[i]);
        map->box[i] = i == 0 ? kPanelColumns : i == 2 ? rows : 1;
    }
    return DF_OK;
#else
    cuuint64_t size[4], stride[3];
    const cuuint32_t box[4] = {kPanelColumns, 1, static_cast<cuuint32_t>(rows), 1};
    for (int i = 0; i < 4; ++i) {
        size[i] = static_cast<cuuint64_t>(view->shape[axes[i]]);
        if (i > 0) stride[i - 1] = static_cast<cuuint64_t>(stride_bytes(view, axes[i]));
    }
    return encode(call, map, view->data, size, stride, box);
#endif
}

bool device_fits(const Call& call) { return call.queue->compute_capability == 90; }

}  // namespace dualform::cuda::hopper
