// The parts of sm_90a that our kernels use: mbarriers, TMA copies, wgmma on 128-byte-swizzled shared memory, setmaxnreg, named barriers.
//
// Layout. A tile of R rows by C bfloat16 columns lies in shared memory as C / 64 panels, each R rows of 128 bytes, starting at multiples
// of 1024 bytes; within a panel the 16-byte unit u of row r lies at unit u ^ (r % 8) (the 128-byte swizzle, which TMA writes and wgmma
// reads). Read along a row such a tile is a K-major operand; read down a column it is an MN-major one. Both need no copy.
//
// Under nvcc the wrappers are PTX where __CUDA_ARCH_FEAT_SM90_ALL is defined; a kernel that uses them keeps its body inside
// #if DF_HOPPER_CODE, so that the other architectures compile an empty one which is never launched. Under DF_CUDA_EMULATION they are
// emulated (emulation/hopper_on_host.h says what that proves and what not); no test without a device can prove that the hardware agrees
// with how we read the ISA.
#pragma once

#include <stdint.h>

#include "launch.h"
#include "views.h"

#ifdef DF_CUDA_EMULATION
#include "emulation/hopper_on_host.h"
#else
#include <cuda.h> /* CUtensorMap; nothing of the driver is linked */
#endif

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define DF_HOPPER_CODE 1
#else
#define DF_HOPPER_CODE 0
#endif

namespace dualform::cuda::hopper {

constexpr int kWarpgroup = 128;
constexpr int kPanelColumns = 64;              /* bfloat16 columns of a panel: 128 bytes */
constexpr uint32_t kRowBytes = 128;            /* of a panel */
constexpr uint32_t kAtomBytes = 8 * kRowBytes; /* eight rows: after them the swizzle repeats, and tiles start at multiples of it */
constexpr size_t kSharedBytes = 227 * 1024;    /* of a block on compute capability 9.0 */

// ---- index logic, on host and device ----

/// Byte offset inside a panel of column `column` (of bfloat16) of row `row`.
__host__ __device__ constexpr uint32_t panel_offset(uint32_t row, uint32_t column) {
    return row * kRowBytes + ((column / 8 ^ row % 8) << 4) + column % 8 * 2;
}

/// Which index runs along a 128-byte row: k, or the row of A (column of B). The numbers are the immediates of the instruction.
enum class Major { kK = 0, kMN = 1 };

/// The matrix descriptor: start address, leading and stride byte offsets in units of 16 bytes, no base offset, 128-byte swizzle.
__host__ __device__ constexpr uint64_t descriptor(uint32_t address, uint32_t leading, uint32_t stride) {
    return static_cast<uint64_t>((address & 0x3ffffu) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
           static_cast<uint64_t>(stride >> 4) << 32 | static_cast<uint64_t>(1) << 62;
}

/// K-major operand of 16 k's from k = 16 step on: rows of the tile at `tile` from the row at its start (a multiple of 8 rows).
/// The 64 k's of a panel are 4 steps of 32 bytes inside the swizzled row; eight rows are 1024 bytes apart; the leading offset is unused.
__host__ __device__ constexpr uint64_t k_major(uint32_t tile, uint32_t panel_bytes, int step) {
    return descriptor(tile + step / 4 * panel_bytes + step % 4 * 32, 16, kAtomBytes);
}

/// MN-major operand of 16 k's from k = 16 step on: k runs down the rows, 16 rows are 2048 bytes. Its M or N begins at the first column of
/// the panel at `tile`; every 64 columns are one panel further (leading offset).
__host__ __device__ constexpr uint64_t mn_major(uint32_t tile, uint32_t panel_bytes, int step) {
    return descriptor(tile + step * 2 * kAtomBytes, panel_bytes, kAtomBytes);
}

/// First row (of 64) and column that a thread of a warpgroup owns in an accumulator: d[4 n + 2 i + j] is row first_row + 8 i, column
/// 8 n + first_column + j.
__host__ __device__ constexpr int first_row(int thread) { return thread % kWarpgroup / kWarp * 16 + thread % kWarp / 4; }
__host__ __device__ constexpr int first_column(int thread) { return thread % 4 * 2; }

// ---- tensor maps, on the host (hopper.cu) ----

/// Whether TMA can read and write the view (B, rows, heads, HS) of BF16: base and strides in units of 16 bytes, HS a multiple of 64.
bool tensor_map_fits(const df_view* view);

/// The map of such a view with boxes of `rows` rows by 64 columns of one head, swizzled. For load_rows and store_rows.
int rows_map(const Call& call, CUtensorMap* map, const df_view* view, int rows);

/// Whether this device runs the kernels: compute capability 9.0.
bool device_fits(const Call& call);

/// kRising: a block may wait for one of a smaller number. Devices start blocks in the order of their numbers, which CUDA does not promise.
enum class BlockOrder { kAny, kRising };

/// launch() for kernels that use this header.
template <BlockOrder Order = BlockOrder::kAny, class... Parameters, class... Arguments>
int launch_block(const Call& call, const char* name, int64_t blocks, int threads, size_t shared, void (*kernel)(Parameters...),
                 const Arguments&... arguments) {
#ifdef DF_CUDA_EMULATION
    if (blocks == 0) return DF_OK;
    count_launch(name);
    return call.check(emulation::enqueue(call.stream, [=] {
                          return emulation::run(blocks, threads, shared, [&] { kernel(arguments...); }, kSharedBytes,
                                                Order == BlockOrder::kRising);
                      }), name);
#else
    return launch(call, name, blocks, threads, shared, kernel, arguments...);
#endif
}

#if DF_HOPPER_CODE && (defined(__CUDACC__) || defined(DF_CUDA_EMULATION))

// ---- on the device ----

#ifdef DF_CUDA_EMULATION
#define DF_HOPPER_PTX(...)
#define DF_HOPPER_HOST(...) __VA_ARGS__
#else
#define DF_HOPPER_PTX(...) __VA_ARGS__
#define DF_HOPPER_HOST(...)
#endif

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    DF_HOPPER_PTX(return static_cast<uint32_t>(__cvta_generic_to_shared(p));)
    DF_HOPPER_HOST(return emulation::shared_address(p);)
}

/// Dynamic shared memory from its first multiple of 1024 on: ask for 1024 bytes more than are used.
__device__ __forceinline__ char* aligned_shared() {
#ifdef DF_CUDA_EMULATION
    char* const memory = static_cast<char*>(emulation::dynamic_shared());
#else
    extern __shared__ __align__(1024) char memory[];
#endif
    return memory + ((kAtomBytes - shared_address(memory) % kAtomBytes) % kAtomBytes);
}

// mbarriers: 8 bytes of dynamic shared memory. A phase ends when all arrivals and all expected bytes have come. A wait for parity 0 returns
// once the first phase has ended, for parity 1 the second, and so on in turn.

__device__ __forceinline__ void barrier_init(uint64_t* barrier, int arrivals) {
    DF_HOPPER_PTX(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");)
    DF_HOPPER_HOST(emulation::barrier_init(barrier, arrivals);)
}
/// After the inits, before the __syncthreads that publishes them.
__device__ __forceinline__ void barrier_init_fence() {
    DF_HOPPER_PTX(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");)
}
__device__ __forceinline__ void barrier_arrive(uint64_t* barrier) {
    DF_HOPPER_PTX(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");)
    DF_HOPPER_HOST(emulation::barrier_arrive(barrier, 0);)
}
/// Arrives, and makes the phase wait for so many bytes of copies too.
__device__ __forceinline__ void barrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
    DF_HOPPER_PTX(asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                               : "memory");)
    DF_HOPPER_HOST(emulation::barrier_arrive(barrier, bytes);)
}
__device__ __forceinline__ void barrier_wait(uint64_t* barrier, uint32_t parity) {
#ifdef DF_CUDA_EMULATION
    emulation::barrier_wait(barrier, static_cast<int>(parity));
#else
    uint32_t done;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (!done);
#endif
}

// TMA. One thread issues a copy for all. Coordinates count elements and may lie outside of the tensor: there a load gives zeros and a
// store writes nothing.

__device__ __forceinline__ void load_rows(void* to, const CUtensorMap* map, uint64_t* barrier, int column, int row, int head, int batch) {
#ifdef DF_CUDA_EMULATION
    emulation::tensor_load(to, map, barrier, {column, head, row, batch});
#else
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
            shared_address(to)),
        "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(head), "r"(row), "r"(batch)
        : "memory");
#endif
}
__device__ __forceinline__ void store_rows(const CUtensorMap* map, const void* from, int column, int row, int head, int batch) {
#ifdef DF_CUDA_EMULATION
    emulation::tensor_store(map, from, {column, head, row, batch});
#else
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map),
                 "r"(shared_address(from)), "r"(column), "r"(head), "r"(row), "r"(batch)
                 : "memory");
#endif
}
/// A contiguous run; addresses and size in units of 16 bytes.
__device__ __forceinline__ void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
    DF_HOPPER_PTX(asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                                   shared_address(to)),
                               "l"(from), "r"(bytes), "r"(shared_address(barrier))
                               : "memory");)
    DF_HOPPER_HOST(emulation::bulk_load(to, from, bytes, barrier);)
}
/// to[i] += from[i], float by float, in no fixed order between threads.
__device__ __forceinline__ void bulk_add(float* to, const float* from, uint32_t bytes) {
    DF_HOPPER_PTX(asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to),
                               "r"(shared_address(from)), "r"(bytes)
                               : "memory");)
    DF_HOPPER_HOST(emulation::bulk_add(to, from, bytes);)
}
/// Copies from shared memory form groups of the thread that issued them.
__device__ __forceinline__ void bulk_commit() {
    DF_HOPPER_PTX(asm volatile("cp.async.bulk.commit_group;" ::: "memory");)
    DF_HOPPER_HOST(emulation::bulk_commit();)
}
/// All but the last `Pending` groups have read shared memory, which may be written again. What they write may still be on its way.
template <int Pending>
__device__ __forceinline__ void bulk_wait_read() {
    DF_HOPPER_PTX(asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");)
    DF_HOPPER_HOST(emulation::bulk_wait(Pending);)
}
/// All but the last `Pending` groups are done.
template <int Pending>
__device__ __forceinline__ void bulk_wait() {
    DF_HOPPER_PTX(asm volatile("cp.async.bulk.wait_group %0;" ::"n"(Pending) : "memory");)
    DF_HOPPER_HOST(emulation::bulk_wait(Pending);)
}

/// Between this thread's ordinary writes to shared memory and TMA or wgmma reading them (then a barrier, if other threads issue those).
__device__ __forceinline__ void async_proxy_fence() { DF_HOPPER_PTX(asm volatile("fence.proxy.async.shared::cta;" ::: "memory");) }

/// Barriers 1..15 (0 is __syncthreads) between `Threads` threads, of which some may only arrive. The id is a constant: for one known at
/// run time ptxas reserves all sixteen.
template <int Id, int Threads>
__device__ __forceinline__ void named_sync() {
    static_assert(Id >= 1 && Id <= 15 && Threads % kWarp == 0, "a named barrier");
    DF_HOPPER_PTX(asm volatile("bar.sync %0, %1;" ::"n"(Id), "n"(Threads) : "memory");)
    DF_HOPPER_HOST(emulation::named_barrier(Id, Threads, true);)
}
template <int Id, int Threads>
__device__ __forceinline__ void named_arrive() {
    static_assert(Id >= 1 && Id <= 15 && Threads % kWarp == 0, "a named barrier");
    DF_HOPPER_PTX(asm volatile("bar.arrive %0, %1;" ::"n"(Id), "n"(Threads) : "memory");)
    DF_HOPPER_HOST(emulation::named_barrier(Id, Threads, false);)
}

/// setmaxnreg: a warpgroup gives registers back, or takes some that others gave.
template <int Registers>
__device__ __forceinline__ void registers_decrease() {
    static_assert(Registers % 8 == 0 && Registers >= 24 && Registers <= 256, "setmaxnreg");
    DF_HOPPER_PTX(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));)
}
template <int Registers>
__device__ __forceinline__ void registers_increase() {
    static_assert(Registers % 8 == 0 && Registers >= 24 && Registers <= 256, "setmaxnreg");
    DF_HOPPER_PTX(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));)
}

/// Four 8 x 8 matrices of bfloat16 from fragments (r[i]: row lane / 4, columns 2 (lane % 4) and the next) to shared memory: lane 8 i + j
/// passes the address of row j of matrix i.
__device__ __forceinline__ void stmatrix_x4(uint32_t row, const uint32_t (&r)[4]) {
    DF_HOPPER_PTX(asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]),
                               "r"(r[2]), "r"(r[3])
                               : "memory");)
    DF_HOPPER_HOST(emulation::stmatrix(row, r);)
}

// wgmma: a warpgroup's product of 64 rows, N columns and 16 k's, bfloat16 in, float sums. Asynchronous: between the issue and wgmma_wait
// neither the accumulators nor the registers of A may be touched, nor shared memory be given back.

/// Before the first wgmma, and after the registers of an accumulator or of A were written.
__device__ __forceinline__ void wgmma_fence() { DF_HOPPER_PTX(asm volatile("wgmma.fence.sync.aligned;" ::: "memory");) }
__device__ __forceinline__ void wgmma_commit() {
    DF_HOPPER_PTX(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");)
    DF_HOPPER_HOST(emulation::wgmma_commit();)
}
/// All but the last `Pending` groups are done.
template <int Pending>
__device__ __forceinline__ void wgmma_wait() {
    DF_HOPPER_PTX(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");)
    DF_HOPPER_HOST(emulation::wgmma_wait(Pending);)
}

#ifdef DF_CUDA_EMULATION

/// d (64 x N) = a b, plus d where accumulate. a and b are descriptors.
template <Major A, Major B, int Half>
inline void wgmma(float (&d)[Half], uint64_t a, uint64_t b, bool accumulate) {
    emulation::wgmma(d, 2 * Half, a, A == Major::kMN, b, B == Major::kMN, accumulate);
}
/// The same with A from registers: row g, k 2t; row g + 8; row g, k 2t + 8; row g + 8.
template <Major B, int Half>
inline void wgmma(float (&d)[Half], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b, bool accumulate) {
    emulation::wgmma(d, 2 * Half, {a0, a1, a2, a3}, b, B == Major::kMN, accumulate);
}

#else
#include "hopper_wgmma.h"
#endif

#undef DF_HOPPER_PTX
#undef DF_HOPPER_HOST

#endif

}  // namespace dualform::cuda::hopper
