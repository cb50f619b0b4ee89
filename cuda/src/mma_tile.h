// Products of tiles in shared memory by tensor cores, in one of three arithmetics; what the *_mma.cu kernels have in common.
//
// A tile has rows of D elements (D a power of two, at least 64) in chunks of 16 bytes, swizzled; elements past the head size up to the
// next multiple of 16, and rows outside the tensor, are 0. Everything works in steps of 16 along the depth, k.
//   kBf16     bfloat16 elements, m16n8k16
//   kTf32     float elements, rounded to tf32 as they are read, two of m16n8k8
//   kBf16x3   float elements, split into hi + lo as they are read: hi hi + hi lo + lo hi by m16n8k16. An operand keeps 16 bits and more:
//             |x - hi - lo| <= 2^-18 |x|, and the product left out is at most 2^-18 |x y|. Infinities are not split: they give NaN.
// The order of k inside a step is free as long as both operands have the same: a_rows goes with b_rows (lane t holds element t of each
// chunk of 4 floats, as ldmatrix deals them out), from_accumulators with b_columns (elements 2t and 2t + 1 of each 8).
#pragma once

#include "mma.h"
#include "views.h"

namespace dualform::cuda {

enum class Products { kBf16, kTf32, kBf16x3 };

#if defined(__CUDACC__) || defined(DF_CUDA_EMULATION)

/// 16 rows by 16 of k, and 16 of k by 16 columns, as a warp holds them.
template <Products>
struct FragmentA;
template <Products>
struct FragmentB;

template <>
struct FragmentA<Products::kBf16> {
    uint32_t a[4];
};
template <>
struct FragmentB<Products::kBf16> {
    uint32_t b[4]; /* columns 0..7: b[0] b[1]; 8..15: b[2] b[3] */
};
template <>
struct FragmentA<Products::kTf32> {
    uint32_t a[2][4]; /* two halves of k */
};
template <>
struct FragmentB<Products::kTf32> {
    uint32_t b[2][4];
};
template <>
struct FragmentA<Products::kBf16x3> {
    uint32_t hi[4], lo[4];
};
template <>
struct FragmentB<Products::kBf16x3> {
    uint32_t hi[4], lo[4];
};

__device__ inline void split_bf16(float x, float y, uint32_t& hi, uint32_t& lo) {
    hi = pack_bf16(x, y);
    lo = pack_bf16(x - low_bf16(hi), y - high_bf16(hi));
}

/// c[0], c[1]: the accumulators of columns 0..7 and 8..15, += a b.
__device__ inline void multiply_add(float (&c0)[4], float (&c1)[4], const FragmentA<Products::kBf16>& a, const FragmentB<Products::kBf16>& b) {
    mma_m16n8k16_bf16(c0, a.a, b.b[0], b.b[1]);
    mma_m16n8k16_bf16(c1, a.a, b.b[2], b.b[3]);
}
__device__ inline void multiply_add(float (&c0)[4], float (&c1)[4], const FragmentA<Products::kTf32>& a, const FragmentB<Products::kTf32>& b) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        mma_m16n8k8_tf32(c0, a.a[half], b.b[half][0], b.b[half][1]);
        mma_m16n8k8_tf32(c1, a.a[half], b.b[half][2], b.b[half][3]);
    }
}
__device__ inline void multiply_add(float (&c0)[4], float (&c1)[4], const FragmentA<Products::kBf16x3>& a,
                                    const FragmentB<Products::kBf16x3>& b) {
    mma_m16n8k16_bf16(c0, a.lo, b.hi[0], b.hi[1]); /* small ones first */
    mma_m16n8k16_bf16(c1, a.lo, b.hi[2], b.hi[3]);
    mma_m16n8k16_bf16(c0, a.hi, b.lo[0], b.lo[1]);
    mma_m16n8k16_bf16(c1, a.hi, b.lo[2], b.lo[3]);
    mma_m16n8k16_bf16(c0, a.hi, b.hi[0], b.hi[1]);
    mma_m16n8k16_bf16(c1, a.hi, b.hi[2], b.hi[3]);
}

/// The same with the products that have a lo in them summed apart, in small0 and small1, to be added at the end: among the large ones each
/// of them would cost the sum another cut. In one part small0 and small1 stay as they are.
template <Products P>
__device__ inline void multiply_add(float (&c0)[4], float (&c1)[4], float (&small0)[4], float (&small1)[4], const FragmentA<P>& a,
                                    const FragmentB<P>& b) {
    if constexpr (P == Products::kBf16x3) {
        mma_m16n8k16_bf16(small0, a.lo, b.hi[0], b.hi[1]);
        mma_m16n8k16_bf16(small1, a.lo, b.hi[2], b.hi[3]);
        mma_m16n8k16_bf16(small0, a.hi, b.lo[0], b.lo[1]);
        mma_m16n8k16_bf16(small1, a.hi, b.lo[2], b.lo[3]);
        mma_m16n8k16_bf16(c0, a.hi, b.hi[0], b.hi[1]);
        mma_m16n8k16_bf16(c1, a.hi, b.hi[2], b.hi[3]);
    } else {
        multiply_add(c0, c1, a, b);
    }
}

/// Rows of elements of P in shared memory.
template <Products P, int D>
struct MmaTile {
    static constexpr int kElement = P == Products::kBf16 ? 2 : 4;
    static constexpr int kPerChunk = 16 / kElement;
    static constexpr int kChunks = D / kPerChunk;
    static constexpr int kRowBytes = D * kElement;
    static_assert(kChunks >= 8 && (kChunks & (kChunks - 1)) == 0, "rows of at least 128 bytes, a power of two");

    SharedAddress base;

    __device__ SharedAddress at(int row, int chunk) const { return base + swizzle<kChunks>(row, chunk); }

    /// Rows row0.. of the tile and 16 of k from k0 as the A operand, to meet b_rows.
    __device__ FragmentA<P> a_rows(int row0, int k0) const {
        const int lane = threadIdx.x % kWarp, chunk0 = k0 / kPerChunk;
        FragmentA<P> f;
        if constexpr (P == Products::kBf16) {
            ldmatrix_x4(f.a, at(row0 + lane % 16, chunk0 + lane / 16));
        } else {
            uint32_t x[2][4]; /* chunks 2 half and 2 half + 1: each of rows 0..7, then of rows 8..15 */
#pragma unroll
            for (int half = 0; half < 2; ++half) ldmatrix_x4(x[half], at(row0 + lane % 16, chunk0 + 2 * half + lane / 16));
            if constexpr (P == Products::kTf32) {
#pragma unroll
                for (int half = 0; half < 2; ++half)
#pragma unroll
                    for (int i = 0; i < 4; ++i) f.a[half][i] = to_tf32(bits_to_float(x[half][i]));
            } else {
#pragma unroll
                for (int half = 0; half < 2; ++half)
#pragma unroll
                    for (int rows = 0; rows < 2; ++rows)
                        split_bf16(bits_to_float(x[half][rows]), bits_to_float(x[half][2 + rows]), f.hi[2 * half + rows],
                                   f.lo[2 * half + rows]);
            }
        }
        return f;
    }

    /// Rows n0.. of the tile as the 16 columns of the B operand, with 16 of k from k0: for a product with the transposed tile.
    __device__ FragmentB<P> b_rows(int n0, int k0) const {
        const int lane = threadIdx.x % kWarp, chunk0 = k0 / kPerChunk;
        FragmentB<P> f;
        if constexpr (P == Products::kBf16) {
            ldmatrix_x4(f.b, at(n0 + lane % 8 + lane / 16 * 8, chunk0 + lane / 8 % 2));
        } else {
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                uint32_t x[4]; /* the four chunks of 8 rows */
                ldmatrix_x4(x, at(n0 + 8 * n + lane % 8, chunk0 + lane / 8));
                if constexpr (P == Products::kTf32) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) f.b[i / 2][2 * n + i % 2] = to_tf32(bits_to_float(x[i]));
                } else {
#pragma unroll
                    for (int half = 0; half < 2; ++half)
                        split_bf16(bits_to_float(x[2 * half]), bits_to_float(x[2 * half + 1]), f.hi[2 * n + half], f.lo[2 * n + half]);
                }
            }
        }
        return f;
    }

    /// Rows k0.. of the tile as 16 of k, with 16 columns from column0, to meet from_accumulators.
    __device__ FragmentB<P> b_columns(int k0, int column0) const {
        const int lane = threadIdx.x % kWarp;
        FragmentB<P> f;
        if constexpr (P == Products::kBf16) {
            ldmatrix_x4_trans(f.b, at(k0 + lane % 16, column0 / kPerChunk + lane / 16));
        } else {
            const int g = lane / 4, t = lane % 4;
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int column = column0 + 8 * n + g, chunk = column / kPerChunk, byte = column % kPerChunk * kElement;
#pragma unroll
                for (int half = 0; half < 2; ++half) { /* rows 2t and 2t + 1 of each 8: no two lanes meet in a bank */
                    const int row = k0 + 8 * half + 2 * t;
                    const float x = bits_to_float(load_shared_4(at(row, chunk) + byte));
                    const float y = bits_to_float(load_shared_4(at(row + 1, chunk) + byte));
                    if constexpr (P == Products::kTf32) {
                        f.b[half][2 * n] = to_tf32(x);
                        f.b[half][2 * n + 1] = to_tf32(y);
                    } else {
                        split_bf16(x, y, f.hi[2 * n + half], f.lo[2 * n + half]);
                    }
                }
            }
        }
        return f;
    }
};

/// The accumulators of two neighbouring tiles of 8 columns as 16 of k of an A operand.
template <Products P>
__device__ inline FragmentA<P> from_accumulators(const float (&c0)[4], const float (&c1)[4]) {
    FragmentA<P> f;
    if constexpr (P == Products::kTf32) {
        /* k: column 2t of c0 is element t, column 2t + 1 element t + 4 */
        const int order[4] = {0, 2, 1, 3};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            f.a[0][i] = to_tf32(c0[order[i]]);
            f.a[1][i] = to_tf32(c1[order[i]]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if constexpr (P == Products::kBf16) {
                f.a[i] = pack_bf16(c0[2 * i], c0[2 * i + 1]);
                f.a[2 + i] = pack_bf16(c1[2 * i], c1[2 * i + 1]);
            } else {
                split_bf16(c0[2 * i], c0[2 * i + 1], f.hi[i], f.lo[i]);
                split_bf16(c1[2 * i], c1[2 * i + 1], f.hi[2 + i], f.lo[2 + i]);
            }
        }
    }
    return f;
}

/// What an operand of a product keeps of x.
template <Products P>
__device__ inline float as_operand(float x) {
    if constexpr (P == Products::kTf32) return bits_to_float(to_tf32(x));
    uint32_t hi, lo;
    split_bf16(x, 0, hi, lo);
    return P == Products::kBf16 ? low_bf16(hi) : low_bf16(hi) + low_bf16(lo);
}

/// A matrix in global memory whose rows lie in a tile: row r at data[r stride], rows outside [0, end) read as 0 and are never touched.
struct MmaRows {
    const unsigned char* data;
    int64_t stride; /* in elements */
    int end;
    bool wide; /* rows start at multiples of 16 bytes */
};

/// Starts to bring rows row0..row0+Rows-1 into the tile, all threads of the block together; the caller commits and waits.
template <int Rows, int Threads, Products P, int D>
__device__ inline void load_tile(const MmaTile<P, D>& tile, const MmaRows& from, int row0, int width) {
    using Tile = MmaTile<P, D>;
    constexpr int kChunks = Tile::kChunks, kPerChunk = Tile::kPerChunk, kElement = Tile::kElement;
    const int chunks = (width + 15) / 16 * (16 / kPerChunk); /* what products read */
#pragma unroll 4
    for (int i = threadIdx.x; i < Rows * kChunks; i += Threads) {
        const int r = i / kChunks, chunk = i % kChunks, row = row0 + r;
        if (chunk >= chunks) continue;
        const int left = width - chunk * kPerChunk, n = row < 0 || row >= from.end || left <= 0 ? 0 : smaller(left, kPerChunk);
        const unsigned char* source = n == 0 ? from.data : from.data + (row * from.stride + chunk * kPerChunk) * kElement;
        const SharedAddress to = tile.at(r, chunk);
        if (from.wide) {
            cp_async_16(to, source, n * kElement);
        } else if constexpr (kElement == 4) {
#pragma unroll
            for (int e = 0; e < 4; ++e) cp_async_4(to + 4 * e, e < n ? source + 4 * e : from.data, e < n ? 4 : 0);
        } else { /* bfloat16 at odd addresses: cp.async moves no 2 bytes */
            uint32_t words[4] = {};
            const auto* elements = reinterpret_cast<const uint16_t*>(source);
#pragma unroll
            for (int e = 0; e < 8; ++e)
                if (e < n) words[e / 2] |= static_cast<uint32_t>(elements[e]) << (16 * (e % 2));
            store_shared_16(to, words[0], words[1], words[2], words[3]);
        }
    }
}

/// Two neighbouring elements of a row, those below width. paired: the address of the first is a multiple of both.
__device__ inline void store_pair(const Floats& to, int64_t at, int column, int width, bool paired, float x, float y) {
    if (paired && column + 1 < width) {
        if (to.dtype == DF_BF16)
            *reinterpret_cast<uint32_t*>(static_cast<bf16*>(to.data) + at + column) = pack_bf16(x, y);
        else
            *reinterpret_cast<uint64_t*>(static_cast<float*>(to.data) + at + column) =
                float_to_bits(x) | static_cast<uint64_t>(float_to_bits(y)) << 32;
        return;
    }
    if (column < width) to.store(at + column, x);
    if (column + 1 < width) to.store(at + column + 1, y);
}

#endif

}  // namespace dualform::cuda
