// Numbers on the device: storage types, conversion, reductions over a warp and a block.
//
// A dtype is a run-time property of an operand here. The branch on it is uniform and sits at the load or the store, never in an inner
// loop over registers or shared memory, so each kernel exists once for every mix of dtypes.
#pragma once

#include <math.h>
#include <stdint.h>

#include <initializer_list>

#include "dualform/df_backend.h"

namespace dualform::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/// bfloat16 storage: the upper half of a float.
struct bf16 {
    uint16_t bits;
};

__host__ __device__ inline float bits_to_float(uint32_t bits) {
    union { uint32_t u; float f; } x = {bits};
    return x.f;
}
__host__ __device__ inline uint32_t float_to_bits(float value) {
    union { float f; uint32_t u; } x = {value};
    return x.u;
}
__host__ __device__ inline float to_float(float value) { return value; }
__host__ __device__ inline float to_float(bf16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }

/// Rounds to nearest, ties to even; every NaN becomes a quiet NaN of the same sign.
__host__ __device__ inline bf16 to_bf16(float value) {
    const uint32_t bits = float_to_bits(value);
    if (value != value) return {static_cast<uint16_t>((bits >> 16) | 0x0040u)};
    return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Rounds once: a double that is no float first goes to the neighbouring float with an odd last bit, which no tie can fool.
__host__ __device__ inline bf16 to_bf16(double value) {
    const float nearest = static_cast<float>(value);
    const double back = nearest;
    if (back == value || value != value) return to_bf16(nearest);
    uint32_t bits = float_to_bits(nearest);
    if (value < 0 ? back < value : back > value) bits -= 1; /* rounded away from zero: step back */
    return to_bf16(bits_to_float(bits | 1u));
}

/// Memory of a floating dtype, F32 or BF16; null data means the operand is absent.
struct Floats {
    void* data = nullptr;
    int dtype = DF_F32;

    __host__ __device__ explicit operator bool() const { return data != nullptr; }
    __device__ float load(int64_t i) const {
        return dtype == DF_BF16 ? to_float(static_cast<const bf16*>(data)[i]) : static_cast<const float*>(data)[i];
    }
    __device__ void store(int64_t i, float value) const {
        if (dtype == DF_BF16)
            static_cast<bf16*>(data)[i] = to_bf16(value);
        else
            static_cast<float*>(data)[i] = value;
    }
    __device__ void store(int64_t i, double value) const {
        if (dtype == DF_BF16)
            static_cast<bf16*>(data)[i] = to_bf16(value);
        else
            static_cast<float*>(data)[i] = static_cast<float>(value);
    }
};

inline Floats floats(const df_view* view) {
    Floats f;
    if (view != nullptr) {
        f.data = view->data;
        f.dtype = view->dtype;
    }
    return f;
}

inline Floats floats(float* data) {
    Floats f;
    f.data = data;
    return f;
}

/// Whether accesses of so many bytes can follow these rows: the address of column 0 of every row is a multiple of them. Strides in elements.
inline bool rows_aligned(const Floats& data, std::initializer_list<int64_t> strides, int64_t bytes = 16) {
    const int64_t element = data.dtype == DF_BF16 ? 2 : 4;
    bool aligned = reinterpret_cast<uintptr_t>(data.data) % static_cast<uintptr_t>(bytes) == 0;
    for (const int64_t stride : strides) aligned = aligned && stride * element % bytes == 0;
    return aligned;
}

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// Two bf16 in one register, the first in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
#ifdef DF_CUDA_EMULATION
    return static_cast<uint32_t>(to_bf16(low).bits) | static_cast<uint32_t>(to_bf16(high).bits) << 16;
#else
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
#endif
}
__device__ inline float low_bf16(uint32_t packed) { return bits_to_float(packed << 16); }
__device__ inline float high_bf16(uint32_t packed) { return bits_to_float(packed & 0xffff0000u); }

/// 2^x to two bits of the last place (ex2.approx); denormal results are 0.
__device__ inline float exp2_approx(float x) {
#ifdef DF_CUDA_EMULATION
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

/// A thread's first element and the step to its next: neighbouring threads take neighbouring elements, the grid walks on as a whole.
__device__ inline int64_t first_element() { return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; }
__device__ inline int64_t element_stride() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

/// Sum over `width` neighbouring lanes (a power of two), in the same order on every lane.
template <class T>
__device__ inline T sum_lanes(T value, int width = kWarp) {
    for (int step = width / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
    return value;
}

/// Largest over `width` neighbouring lanes; NaN is left out.
__device__ inline float max_lanes(float value, int width = kWarp) {
    for (int step = width / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
    return value;
}

/// Sum over a block of whole warps, at most 1024 threads; every thread receives it. The order is fixed.
__device__ inline double sum_block(double value) {
    __shared__ double partial[kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    value = sum_lanes(value);
    __syncthreads();
    if (lane == 0) partial[warp] = value;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < warps; ++w) total += partial[w];
    return total;
}

#endif

}  // namespace dualform::cuda
