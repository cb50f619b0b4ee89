// One tile through each building block of hopper.h, against a plain product: every form of wgmma descriptor, TMA loads and stores at and
// beyond the edges, stmatrix, bulk copies. The same source runs emulated (always) and on a device of compute capability 9.0 (when there is
// one: else exit code 77), where it shows whether the hardware agrees with the emulation.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "hopper.h"

namespace dualform::cuda {

int fail(df_error* error, int status, const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error->text, sizeof error->text, format, list);
    va_end(list);
    return status;
}

int Call::check(cudaError_t code, const char* what) const {
    return code == cudaSuccess ? DF_OK : fail(error, DF_INTERNAL, "%s: %s", what, cudaGetErrorString(code));
}

}  // namespace dualform::cuda

namespace {

using namespace dualform::cuda;
using namespace dualform::cuda::hopper;

int failures = 0;
df_queue queue;
df_error error;
const Call call = {&queue, nullptr, "tiles", &error};

void require(bool ok, const char* what) {
    if (ok) return;
    printf("FAILED: %s: %s\n", what, error.text);
    ++failures;
}

/// Memory that the device sees, with a copy on the host.
template <class T>
struct Memory {
    explicit Memory(size_t n) : host(n) {
        void* p = nullptr;
        require(cudaMalloc(&p, n * sizeof(T)) == cudaSuccess, "cudaMalloc");
        device = static_cast<T*>(p);
    }
    ~Memory() { cudaFree(device); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    void up() {
        require(cudaMemcpyAsync(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, nullptr) == cudaSuccess &&
                    cudaStreamSynchronize(nullptr) == cudaSuccess, "up");
    }
    void down() {
        require(cudaMemcpyAsync(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost, nullptr) == cudaSuccess &&
                    cudaStreamSynchronize(nullptr) == cudaSuccess, "down");
    }
    std::vector<T> host;
    T* device;
};

/// A (2, rows, 3, columns) tensor of BF16 with a gap behind each row; the tests use head 1 of batch 1.
struct Matrix {
    Matrix(int64_t r, int64_t c, unsigned seed) : rows(r), columns(c), stride(3 * c + 8), memory(static_cast<size_t>(2 * r * stride)) {
        unsigned state = seed * 2654435761u + 1;
        for (bf16& x : memory.host) {
            state = state * 1664525u + 1013904223u;
            x = to_bf16(static_cast<float>(static_cast<int>(state >> 24) - 128) / 64);
        }
        memory.up();
        view = {};
        view.data = memory.device;
        view.dtype = DF_BF16;
        view.rank = 4;
        const int64_t shape[4] = {2, r, 3, c}, strides[4] = {r * stride, stride, c, 1};
        for (int i = 0; i < 4; ++i) {
            view.shape[i] = shape[i];
            view.stride[i] = strides[i];
        }
    }
    size_t index(int64_t r, int64_t c) const { return static_cast<size_t>(rows * stride + r * stride + columns + c); }
    /// Zero outside.
    float at(int64_t r, int64_t c) const { return r < 0 || r >= rows || c >= columns ? 0 : to_float(memory.host[index(r, c)]); }
    CUtensorMap map(int box) const {
        CUtensorMap m = {};
        require(rows_map(call, &m, &view, box) == DF_OK, "rows_map");
        return m;
    }
    int64_t rows, columns, stride;
    Memory<bf16> memory;
    df_view view;
};

constexpr int kDepth = 128; /* k of the products */

struct Tile {
    CUtensorMap a, b;
    int a_row, b_row; /* where the tiles begin: may lie outside */
    const bf16* registers; /* A (64, kDepth), when it comes from registers */
    float* d; /* (64, N) */
};

/// d = A B by one warpgroup. Tiles: A (64, k) K-major or (k, 64) MN-major; B (N, k) K-major or (k, N) MN-major.
template <Major A, Major B, bool FromRegisters, int N>
__global__ void __launch_bounds__(kWarpgroup) tile_product(const __grid_constant__ Tile p) {
#if DF_HOPPER_CODE
    constexpr int kRowsA = A == Major::kK ? 64 : kDepth, kPanelsA = A == Major::kK ? kDepth / 64 : 1;
    constexpr int kRowsB = B == Major::kK ? N : kDepth, kPanelsB = B == Major::kK ? kDepth / 64 : (N + 63) / 64;
    /* a panel starts at a multiple of eight rows */
    constexpr uint32_t kPanelA = kRowsA * kRowBytes, kPanelB = kRowsB * kRowBytes;
    char* const shared = aligned_shared();
    char *const a = shared, *const b = shared + kPanelsA * kPanelA;
    uint64_t* const full = reinterpret_cast<uint64_t*>(b + kPanelsB * kPanelB);
    if (threadIdx.x == 0) {
        barrier_init(full, 1);
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        barrier_arrive_expect(full, (FromRegisters ? 0 : kPanelsA * kPanelA) + kPanelsB * kPanelB);
        if (!FromRegisters)
            for (int i = 0; i < kPanelsA; ++i) load_rows(a + i * kPanelA, &p.a, full, 64 * i, p.a_row, 1, 1);
        for (int i = 0; i < kPanelsB; ++i) load_rows(b + i * kPanelB, &p.b, full, 64 * i, p.b_row, 1, 1);
    }
    barrier_wait(full, 0);
    const int row = first_row(threadIdx.x), column = first_column(threadIdx.x);
    float d[N / 2];
    uint32_t fragments[FromRegisters ? kDepth / 4 : 1];
    if (FromRegisters)
        for (int step = 0; step < kDepth / 16; ++step)
            for (int i = 0; i < 4; ++i) {
                const bf16* const x = p.registers + (row + i % 2 * 8) * kDepth + 16 * step + column + i / 2 * 8;
                fragments[4 * step + i] = x[0].bits | static_cast<uint32_t>(x[1].bits) << 16;
            }
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {
        const uint64_t b_at = B == Major::kK ? k_major(shared_address(b), kPanelB, step) : mn_major(shared_address(b), kPanelB, step);
        if constexpr (FromRegisters) {
            wgmma<B>(d, fragments[4 * step], fragments[4 * step + 1], fragments[4 * step + 2], fragments[4 * step + 3], b_at, step > 0);
        } else {
            const uint64_t a_at = A == Major::kK ? k_major(shared_address(a), kPanelA, step) : mn_major(shared_address(a), kPanelA, step);
            wgmma<A, B>(d, a_at, b_at, step > 0);
        }
    }
    wgmma_commit();
    wgmma_wait<0>();
#pragma unroll
    for (int n = 0; n < N / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
            for (int j = 0; j < 2; ++j) p.d[(row + 8 * i) * N + 8 * n + column + j] = d[4 * n + 2 * i + j];
#endif
}

/// Numbers are multiples of 1/64 below 2 in magnitude, so every sum is exact and the products must agree bit for bit.
template <Major A, Major B, bool FromRegisters, int N>
void product(const char* name, int a_rows, int a_row, int b_rows, int b_row) {
    const int64_t a_columns = A == Major::kK ? kDepth : 64, b_columns = B == Major::kK ? kDepth : (N + 63) / 64 * 64;
    const Matrix a(a_rows, a_columns, 1), b(b_rows, b_columns, 2);
    Memory<bf16> registers(64 * kDepth);
    Memory<float> d(64 * N);
    std::vector<double> expected(64 * N);
    for (int64_t m = 0; m < 64; ++m) {
        for (int64_t k = 0; k < kDepth; ++k)
            registers.host[static_cast<size_t>(m * kDepth + k)] = to_bf16(A == Major::kK ? a.at(a_row + m, k) : a.at(a_row + k, m));
        for (int64_t n = 0; n < N; ++n)
            for (int64_t k = 0; k < kDepth; ++k)
                expected[static_cast<size_t>(m * N + n)] += static_cast<double>(A == Major::kK ? a.at(a_row + m, k) : a.at(a_row + k, m)) *
                                                            static_cast<double>(B == Major::kK ? b.at(b_row + n, k) : b.at(b_row + k, n));
    }
    registers.up();
    Tile p;
    p.a = a.map(A == Major::kK ? 64 : kDepth);
    p.b = b.map(B == Major::kK ? N : kDepth);
    p.a_row = a_row;
    p.b_row = b_row;
    p.registers = registers.device;
    p.d = d.device;
    const size_t shared = kAtomBytes + 128 * kDepth + 2 * static_cast<size_t>((N + 63) / 64 * 64) * kDepth + 64;
    require(launch_block(call, name, 1, kWarpgroup, shared, tile_product<A, B, FromRegisters, N>, p) == DF_OK, name);
    d.down();
    for (size_t i = 0; i < expected.size(); ++i)
        if (static_cast<double>(d.host[i]) != expected[i]) {
            printf("FAILED: %s N=%d: d[%zu][%zu] = %g, expected %g\n", name, N, i / N, i % N, static_cast<double>(d.host[i]), expected[i]);
            ++failures;
            return;
        }
}

struct Copies {
    CUtensorMap from, to, fragments;
    const float* addend; /* 64 */
    float* sums;         /* 64 */
    int row, to_row;
    bool waits;
};

constexpr int kCopied = 48; /* rows of the box */

/// What stmatrix stores in row r and column c: below 2^8, which bfloat16 has exactly.
__host__ __device__ constexpr float stored(int r, int c) { return static_cast<float>((32 * r + c) % 251); }

/// A panel in and out again, 16 x 16 numbers by stmatrix, 64 sums by bulk reduction.
__global__ void __launch_bounds__(kWarpgroup) tile_copies(const __grid_constant__ Copies p) {
#if DF_HOPPER_CODE
    char* const panel = aligned_shared();
    char* const written = panel + kCopied * kRowBytes;
    float* const sums = reinterpret_cast<float*>(written + 16 * kRowBytes);
    uint64_t* const full = reinterpret_cast<uint64_t*>(sums + 64);
    if (threadIdx.x == 0) {
        barrier_init(full, 1);
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        barrier_arrive_expect(full, kCopied * kRowBytes + 256);
        load_rows(panel, &p.from, full, 0, p.row, 1, 1);
        bulk_load(sums, p.addend, 256, full);
    }
    if (p.waits) barrier_wait(full, 0);
    if (threadIdx.x < 64) sums[threadIdx.x] += static_cast<float>(threadIdx.x);
    for (int i = threadIdx.x; i < 16 * 64; i += kWarpgroup)
        *reinterpret_cast<uint16_t*>(written + panel_offset(i / 64, i % 64)) = 0;
    __syncthreads();
    if (threadIdx.x < kWarp) {
        // Matrices i = 0..3 are rows 8 (i % 2).. and columns 8 (i / 2)..
        const int lane = threadIdx.x, i = lane / 8, j = lane % 8;
        uint32_t r[4];
        for (int m = 0; m < 4; ++m) {
            const int row = 8 * (m % 2) + lane / 4, column = 8 * (m / 2) + 2 * (lane % 4);
            r[m] = pack_bf16(stored(row, column), stored(row, column + 1));
        }
        const uint32_t row = 8 * (i % 2) + j;
        stmatrix_x4(shared_address(written + panel_offset(row, 8 * (i / 2))), r);
    }
    async_proxy_fence();
    named_sync<1, kWarpgroup>();
    if (threadIdx.x == 0) {
        store_rows(&p.to, panel, 0, p.to_row, 1, 1);
        store_rows(&p.fragments, written, 0, 0, 1, 1);
        bulk_add(p.sums, sums, 256);
        bulk_commit();
        bulk_wait<0>();
    }
#endif
}

void copies(int rows, int row, int to_rows, int to_row) {
    const Matrix from(rows, 64, 3);
    Matrix to(to_rows, 64, 4), fragments(16, 64, 5);
    Memory<float> addend(64), sums(64);
    for (int i = 0; i < 64; ++i) {
        addend.host[static_cast<size_t>(i)] = static_cast<float>(100 * i);
        sums.host[static_cast<size_t>(i)] = static_cast<float>(10000 * i);
    }
    addend.up();
    sums.up();
    Copies p;
    p.from = from.map(kCopied);
    p.to = to.map(kCopied);
    p.fragments = fragments.map(16);
    p.addend = addend.device;
    p.sums = sums.device;
    p.row = row;
    p.to_row = to_row;
    p.waits = true;
    std::vector<bf16> expected = to.memory.host; /* what lies around the box stays */
    for (int r = 0; r < kCopied; ++r)
        for (int c = 0; c < 64; ++c)
            if (to_row + r >= 0 && to_row + r < to_rows) expected[to.index(to_row + r, c)] = to_bf16(from.at(row + r, c));
    require(launch_block(call, "tile_copies", 1, kWarpgroup, 16 * 1024, tile_copies, p) == DF_OK, "tile_copies");
    to.memory.down();
    fragments.memory.down();
    sums.down();
    for (size_t i = 0; i < expected.size(); ++i)
        if (to.memory.host[i].bits != expected[i].bits) {
            printf("FAILED: copy of rows %d.. to %d..: element %zu\n", row, to_row, i);
            ++failures;
            break;
        }
    for (int r = 0; r < 16; ++r)
        for (int c = 0; c < 64; ++c)
            if (fragments.at(r, c) != (c < 16 ? stored(r, c) : 0)) {
                printf("FAILED: stmatrix: row %d column %d is %g\n", r, c, static_cast<double>(fragments.at(r, c)));
                ++failures;
                return;
            }
    for (int i = 0; i < 64; ++i)
        require(sums.host[static_cast<size_t>(i)] == static_cast<float>(10101 * i), "bulk reduction");
#ifdef DF_CUDA_EMULATION
    // A forgotten wait must show.
    p.waits = false;
    sums.up();
    require(launch_block(call, "tile_copies", 1, kWarpgroup, 16 * 1024, tile_copies, p) != DF_OK || [&] {
        sums.down();
        return sums.host[1] != 10101.0f;
    }(), "a forgotten wait is not seen");
#endif
}

void index_logic() {
    static_assert(descriptor(0x12340, 0x2000, 1024) == (0x1234ull | 0x200ull << 16 | 0x40ull << 32 | 1ull << 62), "fields");
    static_assert(panel_offset(0, 8) == 16 && panel_offset(1, 0) == 128 + 16 && panel_offset(9, 8) == 9 * 128, "swizzle");
    std::vector<bool> taken(16 * kRowBytes / 2);
    for (uint32_t r = 0; r < 16; ++r)
        for (uint32_t c = 0; c < 64; ++c) {
            require(!taken[panel_offset(r, c) / 2], "panel_offset meets itself");
            taken[panel_offset(r, c) / 2] = true;
        }
    bool owned[64][8] = {};
    for (int thread = 0; thread < kWarpgroup; ++thread)
        for (int i = 0; i < 2; ++i)
            for (int j = 0; j < 2; ++j) {
                bool& once = owned[first_row(thread) + 8 * i][first_column(thread) + j];
                require(!once, "an accumulator with two owners");
                once = true;
            }
}

}  // namespace

int main() {
    int devices = 0;
    cudaDeviceProp properties = {};
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 || cudaGetDeviceProperties(&properties, 0) != cudaSuccess ||
        properties.major != 9 || properties.minor != 0) {
        printf("SKIPPED: no device of compute capability 9.0\n");
        return 77;
    }
    index_logic();
    constexpr Major kK = Major::kK, kMN = Major::kMN;
    product<kK, kK, false, 64>("A K-major, B K-major", 64, 0, 64, 0);
    product<kK, kK, false, 128>("A K-major, B K-major", 100, 40, 200, 128);
    product<kK, kK, false, 128>("A K-major, B K-major", 100, -20, 200, -9);
    product<kK, kMN, false, 64>("A K-major, B MN-major", 64, 0, 128, 0);
    product<kK, kMN, false, 128>("A K-major, B MN-major", 64, 0, 150, 64);
    product<kK, kMN, false, 128>("A K-major, B MN-major", 64, 0, 150, -3);
    product<kMN, kK, false, 64>("A MN-major, B K-major", 128, 0, 64, 0);
    product<kMN, kMN, false, 64>("A MN-major, B MN-major", 128, 0, 128, 0);
    product<kMN, kMN, false, 128>("A MN-major, B MN-major", 100, -5, 300, 250);
    product<kK, kK, true, 64>("A in registers, B K-major", 64, 0, 96, 0);
    product<kK, kMN, true, 64>("A in registers, B MN-major", 64, 0, 128, 0);
    product<kK, kMN, true, 128>("A in registers, B MN-major", 64, 0, 140, 30);
    copies(48, 0, 48, 0);
    copies(100, 80, 100, -7);
    copies(100, -30, 60, 40);
    copies(30, 5, 47, 1);
    if (failures == 0) printf("tiles: all agree on %s\n", properties.name);
    return failures != 0;
}
