// Tensor-core products and asynchronous copies of sm_80 and newer: PTX under nvcc, the same by hand under DF_CUDA_EMULATION.
//
// Fragments, with g = lane / 4 and t = lane % 4 (PTX ISA, "Matrix Fragments for mma"):
//   accumulator 16 x 8, float       c[0] c[1] at row g, columns 2t and 2t + 1;   c[2] c[3] at row g + 8
//   A 16 x 16, bf16 (row-major)     a[0] row g, columns 2t..;  a[1] row g + 8;  a[2] row g, columns 2t + 8..;  a[3] row g + 8, 2t + 8..
//   B 16 x 8, bf16                  b[0] rows k = 2t.., column g;  b[1] rows k = 2t + 8..
//   A 16 x 8, tf32                  a[0] (g, t)  a[1] (g + 8, t)  a[2] (g, t + 4)  a[3] (g + 8, t + 4)
//   B 8 x 8, tf32                   b[0] (k = t, g)  b[1] (k = t + 4, g)
// So the accumulators of two neighbouring 8-column tiles, packed in pairs, are the A operand of a bf16 product over those 16 columns.
// tests/native/emulated/mma.cpp holds the layouts against plain products.
#pragma once

#include "numbers.h"

namespace dualform::cuda {

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// An address in shared memory, in bytes.
#ifdef DF_CUDA_EMULATION
using SharedAddress = unsigned char*;
inline SharedAddress shared_address(void* memory) { return static_cast<unsigned char*>(memory); }
#else
using SharedAddress = uint32_t;
__device__ inline SharedAddress shared_address(void* memory) { return static_cast<uint32_t>(__cvta_generic_to_shared(memory)); }
#endif

/// Where 16-byte chunk `chunk` of row `row` lies, in bytes, in a tile whose rows are Chunks chunks: eight rows of one column, which
/// ldmatrix reads at once, touch all 32 banks once. Chunks is a power of two.
template <int Chunks>
__host__ __device__ constexpr int swizzle(int row, int chunk) {
    static_assert(Chunks > 0 && (Chunks & (Chunks - 1)) == 0, "a power of two");
    if constexpr (Chunks >= 8)
        return (row * Chunks + (chunk ^ (row & 7))) * 16;
    else
        return (row * Chunks + (chunk ^ ((row / (8 / Chunks)) & (Chunks - 1)))) * 16;
}

/// The nearest tf32, ties away from zero, as the float it equals.
__device__ inline uint32_t to_tf32(float value) {
#ifdef DF_CUDA_EMULATION
    const uint32_t bits = float_to_bits(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return value != value ? bits | 0x00400000u : bits;
    return (bits + 0x1000u) & ~0x1fffu;
#else
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
#endif
}

/// c += a b, 16 x 8 x 16. All lanes of the warp together, as in everything below.
__device__ inline void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef DF_CUDA_EMULATION
    emulation::mma_bf16(c, a, b0, b1);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// c += a b, 16 x 8 x 8. Operands through to_tf32: the hardware drops the lower bits of what was not.
__device__ inline void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef DF_CUDA_EMULATION
    emulation::mma_tf32(c, a, b0, b1);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// Four 8 x 8 matrices of 16-bit elements: lane 8 i + j gives the address of row j (16 bytes, aligned) of matrix i; r[i] receives of
/// matrix i the elements (g, 2t) and (g, 2t + 1).
__device__ inline void ldmatrix_x4(uint32_t (&r)[4], SharedAddress row) {
#ifdef DF_CUDA_EMULATION
    emulation::ldmatrix(r, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
#endif
}

/// The same, each matrix transposed: r[i] receives the elements (2t, g) and (2t + 1, g).
__device__ inline void ldmatrix_x4_trans(uint32_t (&r)[4], SharedAddress row) {
#ifdef DF_CUDA_EMULATION
    emulation::ldmatrix(r, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
#endif
}

/// Starts a copy of `bytes` (0..16) bytes from global memory into 16 bytes of shared memory, the rest of which become 0. Both addresses
/// are multiples of 16; with 0 bytes `from` is not read but must still be a valid address.
__device__ inline void cp_async_16(SharedAddress to, const void* from, int bytes = 16) {
#ifdef DF_CUDA_EMULATION
    emulation::async_copy(to, from, 16, bytes);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#endif
}
/// The same for 4 bytes: all or, with 0 bytes, none.
__device__ inline void cp_async_4(SharedAddress to, const void* from, int bytes = 4) {
#ifdef DF_CUDA_EMULATION
    emulation::async_copy(to, from, 4, bytes);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
#endif
}
/// The copies this thread started since the last commit become one group.
__device__ inline void cp_async_commit() {
#ifdef DF_CUDA_EMULATION
    emulation::async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most Pending of this thread's groups are under way. Other threads see the data after a barrier.
template <int Pending>
__device__ inline void cp_async_wait() {
#ifdef DF_CUDA_EMULATION
    emulation::async_wait(Pending);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

__device__ inline void store_shared_16(SharedAddress to, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
#ifdef DF_CUDA_EMULATION
    const uint32_t words[4] = {a, b, c, d};
    memcpy(to, words, sizeof words);
#else
    asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
#endif
}
__device__ inline void store_shared_4(SharedAddress to, uint32_t a) {
#ifdef DF_CUDA_EMULATION
    memcpy(to, &a, sizeof a);
#else
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(a) : "memory");
#endif
}
__device__ inline uint32_t load_shared_4(SharedAddress from) {
    uint32_t a;
#ifdef DF_CUDA_EMULATION
    memcpy(&a, from, sizeof a);
#else
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(a) : "r"(from) : "memory");
#endif
    return a;
}

/// Dynamic shared memory of the block, 128-byte aligned.
__device__ inline unsigned char* dynamic_shared() {
#ifdef DF_CUDA_EMULATION
    return static_cast<unsigned char*>(emulation::dynamic_shared());
#else
    extern __shared__ __align__(128) unsigned char dynamic_shared_memory[];
    return dynamic_shared_memory;
#endif
}

#endif

}  // namespace dualform::cuda
