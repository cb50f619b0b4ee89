// Tensor maps: descriptions of a tensor that TMA copies boxes of, made on the host and passed to kernels by value.
#include "hopper.h"

#ifndef DF_CUDA_EMULATION
#include <cudaTypedefs.h>
#endif

namespace dualform::cuda::hopper {

namespace {

constexpr int64_t kUnit = 16, kBf16Bytes = 2;
constexpr int64_t kMaxStride = int64_t{1} << 40; /* limits of cuTensorMapEncodeTiled */
constexpr int kMaxBox = 256;

/// Columns, heads, rows, batch: in a contiguous tensor the order in which strides grow.
constexpr int kAxes[4] = {3, 2, 1, 0};

/// Strides in bytes, in that order. That of a dimension of size 1 is never taken: it becomes what a contiguous tensor would have.
void strides_of(const df_view* view, int64_t (&stride)[4]) {
    int64_t reach = kBf16Bytes;
    for (int i = 0; i < 4; ++i) {
        const int64_t size = view->shape[kAxes[i]];
        stride[i] = size == 1 ? reach : view->stride[kAxes[i]] * kBf16Bytes;
        reach = larger(reach, stride[i] * size);
    }
}

#ifndef DF_CUDA_EMULATION
/// cuTensorMapEncodeTiled, fetched from the driver: the library links nothing of it.
int encode(const Call& call, CUtensorMap* map, void* data, const cuuint64_t* size, const cuuint64_t* stride, const cuuint32_t* box) {
    static std::atomic<void*> known{nullptr};
    void* entry = known.load(std::memory_order_acquire);
    if (entry == nullptr) {
        cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
        const cudaError_t code = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
        if (const int status = call.check(code, "cuTensorMapEncodeTiled")) return status;
        if (found != cudaDriverEntryPointSuccess || entry == nullptr)
            return fail(call.error, DF_UNAVAILABLE, "%s: the driver has no cuTensorMapEncodeTiled", call.op);
        known.store(entry, std::memory_order_release);
    }
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
    int64_t stride[4];
    strides_of(view, stride);
    for (int i = 0; i < 4; ++i) {
        const int64_t size = view->shape[kAxes[i]];
        if (size < 1 || size >= INT32_MAX) return false; /* coordinates are 32-bit */
        if (i == 0 ? stride[i] != kBf16Bytes : stride[i] < kUnit || stride[i] % kUnit != 0 || stride[i] >= kMaxStride) return false;
    }
    return true;
}

int rows_map(const Call& call, CUtensorMap* map, const df_view* view, int rows) {
    if (!tensor_map_fits(view) || rows < 1 || rows > kMaxBox)
        return fail(call.error, DF_INTERNAL, "%s: no tensor map of this view in boxes of %d rows", call.op, rows);
    int64_t stride[4];
    strides_of(view, stride);
#ifdef DF_CUDA_EMULATION
    *map = {};
    map->data = static_cast<char*>(view->data);
    map->element_bytes = kBf16Bytes;
    map->swizzled = true;
    for (int i = 0; i < 4; ++i) {
        map->size[i] = view->shape[kAxes[i]];
        map->stride[i] = stride[i];
        map->box[i] = i == 0 ? kPanelColumns : i == 2 ? rows : 1;
    }
    return DF_OK;
#else
    cuuint64_t sizes[4], strides[3];
    const cuuint32_t box[4] = {kPanelColumns, 1, static_cast<cuuint32_t>(rows), 1};
    for (int i = 0; i < 4; ++i) {
        sizes[i] = static_cast<cuuint64_t>(view->shape[kAxes[i]]);
        if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(stride[i]);
    }
    return encode(call, map, view->data, sizes, strides, box);
#endif
}

bool device_fits(const Call& call) { return call.queue->compute_capability == 90; }

}  // namespace dualform::cuda::hopper
