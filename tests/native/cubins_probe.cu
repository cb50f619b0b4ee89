// Kernels whose machine code df_cubins must recognise: one that is plain, one with local memory, one with each kind of tensor-core product.
// Compiled, never run.
#include <cstdint>

enum class Kind { kFirst, kSecond };

template <int N, Kind K>
__global__ void probe_plain(float* out) {
    __shared__ float values[100];
    if (threadIdx.x < 100) values[threadIdx.x] = out[threadIdx.x] + (K == Kind::kSecond ? N : 0);
    __syncthreads();
    if (threadIdx.x < 100) out[threadIdx.x] = values[99 - threadIdx.x];
}
template __global__ void probe_plain<7, Kind::kSecond>(float*);

__global__ void probe_local(float* out, const int* index) {
    float values[64];
    for (int i = 0; i < 64; ++i) values[i] = out[i];
    for (int i = 0; i < 7; ++i) values[index[i] & 63] += 1.0f;
    for (int i = 0; i < 64; ++i) out[i] = values[i];
}

__global__ void probe_registers(float* out) {
    float values[160];
#pragma unroll
    for (int i = 0; i < 160; ++i) values[i] = out[i * 32 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 160; ++i) out[(159 - i) * 32 + threadIdx.x] = values[i];
}

__global__ void probe_mma(float* out, const uint32_t* in) {
    float d[4] = {};
    for (int i = 0; i < 2; ++i)
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(in[0]), "r"(in[1]), "r"(in[2]), "r"(in[3]), "r"(in[4]), "r"(in[5]));
    for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = d[i];
}

__global__ void probe_wgmma(float* out, uint64_t a, uint64_t b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    float d[4] = {};
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "l"(a), "l"(b));
    const uint32_t bits = threadIdx.x;
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, {%5,%5,%5,%5}, %4, 1, 1, 1, 0;"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "l"(b), "r"(bits));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = d[i];
#else
    out[threadIdx.x] = static_cast<float>(a + b);
#endif
}
