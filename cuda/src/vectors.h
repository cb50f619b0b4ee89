// Several neighbouring numbers at once: accesses of 16 bytes where the memory allows it.
#pragma once

#include "numbers.h"

namespace dualform::cuda {

/// One access, which the compiler makes several of where it can see the parts.
template <class Bits>
__device__ inline void store_bits(void* to, const Bits& bits) {
#ifdef DF_CUDA_EMULATION
    *static_cast<Bits*>(to) = bits;
#else
    __stwb(static_cast<Bits*>(to), bits);
#endif
}

/// Whether element i of x, for every i that W divides, can be reached by load_vector and store_vector; an absent operand is no obstacle.
template <int W>
inline bool is_aligned(const Floats& x) {
    const uintptr_t bytes = W * (x.dtype == DF_BF16 ? 2 : 4);
    return reinterpret_cast<uintptr_t>(x.data) % (bytes < 16 ? bytes : 16) == 0;
}

/// A double is rounded once.
__device__ inline uint32_t pack_bf16(double low, double high) { return to_bf16(low).bits | static_cast<uint32_t>(to_bf16(high).bits) << 16; }

/// out[j] = x[i + j]. W is 4 or 8: one access of 8 or 16 bytes in BF16, one or two of 16 in F32.
template <int W>
__device__ inline void load_vector(const Floats& x, int64_t i, float (&out)[W]) {
    static_assert(W == 4 || W == 8);
    if (x.dtype == DF_BF16) {
        const bf16* from = static_cast<const bf16*>(x.data) + i;
        uint32_t pairs[W / 2];
        if constexpr (W == 4) {
            const uint2 bits = *reinterpret_cast<const uint2*>(from);
            pairs[0] = bits.x, pairs[1] = bits.y;
        } else {
            const uint4 bits = *reinterpret_cast<const uint4*>(from);
            pairs[0] = bits.x, pairs[1] = bits.y, pairs[2] = bits.z, pairs[3] = bits.w;
        }
#pragma unroll
        for (int j = 0; j < W / 2; ++j) out[2 * j] = low_bf16(pairs[j]), out[2 * j + 1] = high_bf16(pairs[j]);
        return;
    }
#pragma unroll
    for (int k = 0; k < W; k += 4) {
        const uint4 bits = *reinterpret_cast<const uint4*>(static_cast<const float*>(x.data) + i + k);
        out[k] = bits_to_float(bits.x), out[k + 1] = bits_to_float(bits.y);
        out[k + 2] = bits_to_float(bits.z), out[k + 3] = bits_to_float(bits.w);
    }
}

/// x[i + j] = values[j], each rounded once.
template <int W, class T>
__device__ inline void store_vector(const Floats& x, int64_t i, const T (&values)[W]) {
    static_assert(W == 4 || W == 8);
    if (x.dtype == DF_BF16) {
        bf16* to = static_cast<bf16*>(x.data) + i;
        uint32_t pairs[W / 2];
#pragma unroll
        for (int j = 0; j < W / 2; ++j) pairs[j] = pack_bf16(values[2 * j], values[2 * j + 1]);
        if constexpr (W == 4)
            store_bits(to, uint2{pairs[0], pairs[1]});
        else
            store_bits(to, uint4{pairs[0], pairs[1], pairs[2], pairs[3]});
        return;
    }
#pragma unroll
    for (int k = 0; k < W; k += 4)
        store_bits(static_cast<float*>(x.data) + i + k,
                   uint4{float_to_bits(static_cast<float>(values[k])), float_to_bits(static_cast<float>(values[k + 1])),
                           float_to_bits(static_cast<float>(values[k + 2])), float_to_bits(static_cast<float>(values[k + 3]))});
}

}  // namespace dualform::cuda
