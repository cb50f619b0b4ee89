// The parts of sm_90a that the Hopper kernels use, on the host: mbarriers, TMA copies, wgmma, named barriers. See hopper.h for what each
// is; here is what the emulation makes of it.
//
// Proved: index logic as we read the PTX ISA. A tensor map copies its box with the 128-byte swizzle and zeros outside the tensor; a wgmma
// finds every element of its operands through the descriptor's fields in the swizzled memory and leaves each thread its fragment, so a
// wrong descriptor, swizzle, panel or coordinate gives wrong numbers.
// Asynchronous work is done as late as the rules allow, so that a missing wait, or a stage given back too early, shows: a copy to shared
// memory spoils its destination with NaN when it is issued and lands rounds later, in no order; a wgmma reads shared memory and touches its
// accumulators when its group is waited for, after some rounds; so does a copy from shared memory. Or all that as early as they allow
// (Schedule), so that what is read before it was written shows: when it is issued.
// A wait for wgmma is for the products of the whole warpgroup, but its warps do not meet there: who waits may go on before others have come.
// Not proved: that we read the ISA rightly, the proxy fences, wgmma.fence, memory ordering between threads beyond the barriers, that a
// reduction of which only the reading was waited for has landed, register budgets, speed.
#pragma once

#include <stdint.h>

/// What cuTensorMapEncodeTiled makes an opaque copy of.
struct alignas(64) CUtensorMap {
    char* data;
    int element_bytes;
    bool swizzled; /* 128 bytes, else not at all */
    int64_t size[4], stride[4]; /* stride in bytes; of dimension 0 the element */
    int box[4];
};

namespace dualform::cuda::emulation {

void barrier_init(uint64_t* barrier, int arrivals);
void barrier_arrive(uint64_t* barrier, uint32_t bytes); /* expects bytes first */
void barrier_wait(uint64_t* barrier, int parity);
void named_barrier(int id, int threads, bool waits);

void tensor_load(void* to, const CUtensorMap* map, uint64_t* barrier, const int (&at)[4]);
void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier);
void tensor_store(const CUtensorMap* map, const void* from, const int (&at)[4]);
void bulk_add(float* to, const void* from, uint32_t bytes);
void bulk_commit();
/// Waits until at most `pending` groups of this thread's copies from shared memory are left.
void bulk_wait(int pending);

/// One m64 n k16 product of the calling thread's warpgroup; d has n/2 numbers. mn: the operand is MN-major, else K-major.
void wgmma(float* d, int n, uint64_t a, bool a_mn, uint64_t b, bool b_mn, bool accumulate);
void wgmma(float* d, int n, const uint32_t (&a)[4], uint64_t b, bool b_mn, bool accumulate);
void wgmma_commit();
void wgmma_wait(int pending);

void stmatrix(uint32_t row, const uint32_t (&r)[4]);

}  // namespace dualform::cuda::emulation
