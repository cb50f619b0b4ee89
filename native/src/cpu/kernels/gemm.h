// Matrix products over strided operands: what matmul and the dual form are made of.
#pragma once

#include "cpu/bf16_tile.h"
#include "cpu/copy.h"
#include "cpu/simd.h"
#include "cpu/split_tile.h"

namespace dualform::cpu::DF_ISA {

/// A matrix of any floating dtype; element (i,j) lies row i + col j elements after data.
struct Matrix {
    void* data = nullptr;
    int dtype = DF_F32;
    int64_t row = 0, col = 0;
};

constexpr size_t element_size(int dtype) { return dtype == DF_F64 ? 8 : dtype == DF_BF16 ? 2 : 4; }

template <class A>
constexpr int kDtypeOf = sizeof(A) == 8 ? int(DF_F64) : int(DF_F32);

inline Matrix offset(Matrix x, int64_t elements) {
    x.data = static_cast<char*>(x.data) + elements * int64_t(element_size(x.dtype));
    return x;
}
inline Matrix block(const Matrix& x, int64_t i, int64_t j) { return offset(x, i * x.row + j * x.col); }
inline Matrix transposed(Matrix x) {
    const int64_t row = x.row;
    x.row = x.col;
    x.col = row;
    return x;
}
/// The last two dimensions of a view. A dimension of size 1 may have any stride: 1 lets the contiguous paths take it.
inline Matrix matrix(const df_view* v) {
    Matrix x;
    x.data = v->data;
    x.dtype = v->dtype;
    x.row = v->rank < 2 || v->shape[v->rank - 2] == 1 ? 1 : v->stride[v->rank - 2];
    x.col = v->rank < 1 || v->shape[v->rank - 1] == 1 ? 1 : v->stride[v->rank - 1];
    return x;
}
/// Row-major scratch.
template <class A>
inline Matrix matrix(A* data, int64_t ld) {
    Matrix x;
    x.data = data;
    x.dtype = kDtypeOf<A>;
    x.row = ld;
    x.col = 1;
    return x;
}

// ---- between tensors and tiles ----

/// to = from, or to += from in the wider type, rounded once.
template <class T, class S>
inline void narrow(T* to, const S* from, int64_t n, bool add) {
    int64_t j = 0;
    if constexpr (sizeof(S) == sizeof(Accumulate<T>))
        for (; j + kLanes<S> <= n; j += kLanes<S>) store(to + j, add ? load(from + j) + load(to + j) : load(from + j));
    if (add)
        for (; j < n; ++j) put(to + j, from[j] + get(to + j));
    else
        for (; j < n; ++j) put(to + j, from[j]);
}

/// Copies rows x cols of x into a row-major tile, clearing columns cols..padded.
template <class A>
inline void gather(A* to, int64_t ld, const Matrix& x, int64_t rows, int64_t cols, int64_t padded) {
    dispatch(x.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const T* from = static_cast<const T*>(x.data);
        if (x.col == 1) {
            for (int64_t i = 0; i < rows; ++i) widen(to + i * ld, from + i * x.row, cols);
        } else if (x.row == 1) {
            transpose(to, ld, from, x.col, rows, cols);
        } else {
            for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < cols; ++j) to[i * ld + j] = A(get(from + i * x.row + j * x.col));
        }
        return 0;
    });
    for (int64_t i = 0; i < rows && cols < padded; ++i)
        for (int64_t j = cols; j < padded; ++j) to[i * ld + j] = A(0);
}

/// Writes (or adds) a row-major tile to out.
template <class S>
inline void scatter(const Matrix& out, const S* from, int64_t ld, int64_t rows, int64_t cols, bool add) {
    dispatch(out.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        T* to = static_cast<T*>(out.data);
        for (int64_t i = 0; i < rows; ++i) {
            if (out.col == 1) {
                narrow(to + i * out.row, from + i * ld, cols, add);
            } else {
                for (int64_t j = 0; j < cols; ++j) {
                    T* p = to + i * out.row + j * out.col;
                    put(p, add ? from[i * ld + j] + get(p) : from[i * ld + j]);
                }
            }
        }
        return 0;
    });
}

/// tile += x, for a bias: strides of x may be 0.
template <class S>
inline void add_to_tile(S* tile, int64_t ld, const Matrix& x, int64_t rows, int64_t cols) {
    dispatch(x.dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        const T* from = static_cast<const T*>(x.data);
        for (int64_t i = 0; i < rows; ++i) {
            const T* x_i = from + i * x.row;
            if (x.col == 1)
                for (int64_t j = 0; j < cols; ++j) tile[i * ld + j] += S(get(x_i + j));
            else
                for (int64_t j = 0; j < cols; ++j) tile[i * ld + j] += S(get(x_i + j * x.col));
        }
        return 0;
    });
}

// ---- the product ----

/// out (m,n) (+)= a (m,k) b (k,n) + bias, for every element of a batch. Sums in A; out is rounded once, after bias and old value.
struct Gemm {
    Matrix out, a, b, bias;  // bias.data null: none; else read at strides (bias.row, bias.col), one of them 0
    int64_t m = 0, n = 0, k = 0;
    bool accumulate = false;
    int batch_rank = 0;
    int64_t batch_shape[DF_MAX_RANK] = {}, out_stride[DF_MAX_RANK] = {}, a_stride[DF_MAX_RANK] = {}, b_stride[DF_MAX_RANK] = {};
};

namespace gemm_blocks {
constexpr int kGroup = 512;  // terms that join one sum; groups are added in turn, so that long sums stay accurate
template <class P>
constexpr int64_t kDeep = 16 * P::kGroup;  // terms whose groups are added in A; from there on in double
constexpr int kSlice = kWideVectors ? 32 : 16384 / (tile::kVectors * kVectorBytes);  // terms that a tile takes at a time, a panel of b being so wide
constexpr int64_t kTallRows = 2048;  // of a task that packs b for itself, so that this is done rarely
constexpr int64_t kTasksPerThread = 8;
constexpr int64_t kTaskWork = int64_t{1} << 18;  // multiply-adds below which a task is not worth another thread
constexpr int64_t kShareWork = int64_t{1} << 23;  // multiply-adds from which operands are packed once, before the product begins
constexpr int64_t kShareBytes = int64_t{1} << 26;
constexpr int64_t kFewOutputs = 256;  // up to this many float outputs are summed in double: it costs little and rounds once
constexpr int64_t kPartsDepth = 256;  // terms that pay for an out written by columns
constexpr int64_t kPackedColumns = 192;  // columns that pay for packing a left operand that could be read in place
constexpr int kThin = 8;              // up to this many rows, b is read in place when its columns are contiguous
constexpr int64_t kUnitColumns = 128;  // of a right operand, packed together where its rows are contiguous: panel by panel each row is a page away
constexpr int64_t kUnitTerms = 16;     // and so many rows at a time
constexpr int64_t kUnits = 16;         // wanted: there are threads to share them
constexpr int kInPlaceRows = 64;      // up to this many rows, b is read in place when its rows are contiguous
constexpr size_t kOnStack = 8192;     // scratch below this needs no allocation
}  // namespace gemm_blocks

inline int64_t batch_count(const Gemm& g) {
    int64_t n = 1;
    for (int d = 0; d < g.batch_rank; ++d) n *= g.batch_shape[d];
    return n;
}

/// The product of batch element i alone.
inline Gemm batch_element(const Gemm& g, int64_t i) {
    Gemm one = g;
    for (int d = g.batch_rank - 1; d >= 0; --d) {
        const int64_t at = i % g.batch_shape[d];
        i /= g.batch_shape[d];
        one.out = offset(one.out, at * g.out_stride[d]);
        one.a = offset(one.a, at * g.a_stride[d]);
        one.b = offset(one.b, at * g.b_stride[d]);
    }
    return one;
}

/// out^T = b^T a^T.
inline Gemm swapped(const Gemm& g) {
    Gemm s = g;
    s.out = transposed(g.out);
    s.a = transposed(g.b);
    s.b = transposed(g.a);
    s.bias = transposed(g.bias);
    s.m = g.n;
    s.n = g.m;
    for (int d = 0; d < g.batch_rank; ++d) {
        s.a_stride[d] = g.b_stride[d];
        s.b_stride[d] = g.a_stride[d];
    }
    return s;
}

/// Adds bias to a finished tile and writes it.
template <class S>
inline void finish(const Gemm& g, S* tile, int64_t ld, int64_t i, int64_t j, int64_t rows, int64_t cols) {
    if (g.bias.data != nullptr) add_to_tile(tile, ld, block(g.bias, i, j), rows, cols);
    scatter(block(g.out, i, j), tile, ld, rows, cols, g.accumulate);
}

/// left (m,k) times right (k,n), n whole vectors, added to what total holds when joins; to out, or to total where out is null. c holds sums
/// on the way; it may be total unless joins.
template <class A>
struct TileProduct {
    A *c, *total, *out;  // rows of c are a panel apart, and those of total where it is c
    int64_t ldt, ldo;
    bool joins;
    const A *a, *b;
    int64_t lda, ldb;  // lda: from row to row of a, from column to column, or the columns of a panel
    int m, n, k;
    const A* bias;    // of these columns, or null: only with out
    bool accumulate;  // only with out
    bool fetches_a, fetches_b;
};

constexpr int kFewTerms = 128;  // up to this many, chains are short: a plain sum of few terms is more accurate, too
constexpr int kShortChain = tile::kChain, kLongChain = 2 * tile::kChain;

/// Each chain's sums join c; the last ones leave it. Meanwhile what is not in a cache yet is fetched: a slice's terms are too few for the
/// processor to see the pattern.
template <class A, int V, int Ldb, Major M>
inline void tile_vectors(const TileProduct<A>& t) {
    constexpr int kLine = 64 / int(sizeof(A)), kStride = larger(1, kLine / kLanes<A>), kHeight = tile::kHeight<V, M>;
    constexpr ptrdiff_t kLdc = tile::kVectors * kLanes<A>;
    const int chain = t.k <= kFewTerms ? kShortChain : kLongChain;
    const int slice = Ldb == 0 ? chain : gemm_blocks::kSlice;
    static_assert(gemm_blocks::kSlice % kLongChain == 0, "a slice has whole chains");
    const ptrdiff_t step = tile::step_of<M>(t.lda);
    const int ahead = (slice * kHeight + t.m - 1) / t.m;  // rows of the next terms to fetch with each block of rows
    for (int p = 0; p < t.k; p += slice) {
        const int depth = smaller(slice, t.k - p), left = t.k - p - depth;
        const A *a = t.a + p * step, *b = t.b + p * t.ldb, *b_next = b + depth * t.ldb, *a_next = a + depth * t.lda;
        const bool leaves_soon = t.out != nullptr && (left == 0 ? depth > chain : left <= chain);
        tile::blocks<kHeight>(t.m, [&](auto height, int i) __attribute__((always_inline)) {
            constexpr int R = decltype(height)::value;
            if (t.fetches_b)
                for (int x = 0; x < ahead; ++x, b_next += t.ldb)
#pragma GCC unroll 4
                    for (int v = 0; v < V; v += kStride) __builtin_prefetch(b_next + v * kLanes<A>);
            if (t.fetches_a && M == Major::kRow)
                for (int r = i; r < i + R; ++r)
                    for (int x = depth; x < 2 * depth; x += kLine) __builtin_prefetch(a + r * t.lda + x);
            if (t.fetches_a && M == Major::kColumn)
                for (int x = 0; x < ahead; ++x, a_next += t.lda)
                    for (int r = 0; r < t.m; r += kLine) __builtin_prefetch(a_next + r);
            if (leaves_soon)
                for (int r = i; r < i + R; ++r)
#pragma GCC unroll 4
                    for (int v = 0; v < V; v += kStride) __builtin_prefetch(t.out + r * t.ldo + v * kLanes<A>, 1);

            const A *a_q = tile::left_at<M>(a, t.lda, i), *b_q = b;
            bool joins = p > 0;
            for (int q = 0; q < depth; q += chain) {
                Vec<A> sum[R][V];
                tile::sums<A, R, V, Ldb, M>(sum, a_q, t.lda, b_q, t.ldb, smaller(chain, depth - q));
                a_q += chain * step;
                b_q += chain * t.ldb;
                A* const c = tile::somewhere(t.c + i * kLdc);
                if (left > 0 || q + chain < depth) {
                    tile::join<A, R, V>(c, kLdc, sum, joins);
                    joins = true;
                    continue;
                }
                const auto add = [&](const A* x, ptrdiff_t ld) __attribute__((always_inline)) {
                    tile::each<R, V>([&](int r, int v) { sum[r][v] += load(x + r * ld + v * kLanes<A>); });
                };
                if (joins) add(c, kLdc);
                if (t.joins) add(t.total + i * t.ldt, t.ldt);
                if (t.bias != nullptr) add(t.bias, 0);
                A* const to = t.out != nullptr ? t.out + i * t.ldo : t.total + i * t.ldt;
                const ptrdiff_t ld = t.out != nullptr ? t.ldo : t.ldt;
                if (t.accumulate) add(to, ld);
                tile::join<A, R, V>(to, ld, sum, false);
            }
        });
    }
}

template <class A, int Ldb, Major M>
inline void tile_product(TileProduct<A> t) {
    constexpr int kWidth = tile::kVectors * kLanes<A>;
    for (; t.n >= kWidth; t.n -= kWidth) {
        tile_vectors<A, tile::kVectors, Ldb, M>(t);
        t.b += kWidth;
        t.c += kWidth;
        t.total += kWidth;
        if (t.out != nullptr) t.out += kWidth;
        if (t.bias != nullptr) t.bias += kWidth;
    }
    if (t.n == kLanes<A>) return tile_vectors<A, 1, Ldb, M>(t);
    if constexpr (tile::kVectors > 2) {
        if (t.n == 2 * kLanes<A>) return tile_vectors<A, 2, Ldb, M>(t);
        if (t.n == 3 * kLanes<A>) return tile_vectors<A, 3, Ldb, M>(t);
    }
}

/// A tile of out and what a task has for it.
template <class A>
struct GemmTile {
    int64_t i, j, rows, cols;
    int64_t p;  // the first term
    A *c, *total;
    int64_t ld;  // of total
    bool joins;  // total holds sums of earlier terms
    bool fetches_a, fetches_b;  // they are not in a cache yet
    const void* next_right;     // packed, what follows b; or null
};

/// The product of operands widened to A.
template <class A>
struct WidenedProduct {
    using Element = A;
    using Sum = A;
    static constexpr int kPanel = tile::kVectors * kLanes<A>;  // columns of a panel of b
    static constexpr int kRowStep = kPanelRows, kColumnStep = kLanes<A>, kDepthStep = 1;
    static constexpr int kSpeed = 1;  // multiply-adds in the time of one
    static constexpr int kTileRows = kWideVectors ? 64 : 96;  // a tile of out: it stays in the L1 cache with a slice of b, and one of a where vectors are wide
    static constexpr int64_t kTaskRows = kWideVectors ? 128 : 96;  // rows of a task: as many as keep their part of a in the L2 cache
    static constexpr int kLeftParts = 1, kParts = 1;  // of a and b
    static constexpr int kGroup = gemm_blocks::kGroup;
    struct Session {};

    struct Left {
        const A* data;
        ptrdiff_t ld;  // as TileProduct has it
        Major major;
    };
    static bool left_in_place(const Gemm& g) { return g.a.dtype == kDtypeOf<A> && (g.a.row == 1 || g.a.col == 1); }
    /// Packed it is read a tenth faster, but where vectors are wide, which leave more time for each number that is broadcast.
    static constexpr bool kPrefersPanels = !kWideVectors;
    static constexpr bool kPacksRows = true;  // a packed panel is its rows one after another
    static Left left(const Matrix& a) {
        const A* data = static_cast<const A*>(a.data);
        return a.col == 1 ? Left{data, a.row, Major::kRow} : Left{data, a.col, Major::kColumn};
    }
    static void pack_left(const Gemm&, A* to, const Matrix& a, int64_t rows, int64_t depth) {
        dispatch(a.dtype, [&](auto type) {
            using T = typename decltype(type)::type;
            const T* from = static_cast<const T*>(a.data);
            if (a.col == 1) {
                pack_panels(to, from, a.row, rows, depth);
            } else if (a.row == 1) {
                pack_column_panels(to, depth, from, a.col, depth, rows);
            } else {
                for (int64_t r = 0; r < rows; ++r)
                    for (int64_t p = 0; p < depth; ++p)
                        to[(r / kPanelRows * depth + p) * kPanelRows + r % kPanelRows] = A(get(from + r * a.row + p * a.col));
            }
            return 0;
        });
    }
    static Left packed_left(const Gemm&, const A* from, int64_t, int64_t depth) { return {from, depth, Major::kPanel}; }
    static bool right_in_place(const Gemm& g) { return g.b.dtype == kDtypeOf<A> && g.b.col == 1; }
    static void pack_right(A* to, const Matrix& b, int64_t depth, int64_t cols) {
        gather(to, kPanel, b, depth, cols, round_up(cols, kColumnStep));
    }
    /// True where a tile can be written without conversion.
    static bool writes_out(const Gemm& g, int64_t cols) {
        return g.out.dtype == kDtypeOf<A> && g.out.col == 1 && cols % kColumnStep == 0 &&
               (g.bias.data == nullptr || (g.bias.dtype == kDtypeOf<A> && g.bias.row == 0 && g.bias.col == 1));
    }
    /// left times right, whose rows are ldb elements apart, for the tile of out at (i, j): added to total when joins, then left there or,
    /// when done, written to out.
    static void multiply(const Gemm& g, const GemmTile<A>& t, const Left& a, const A* b, int64_t ldb, int64_t depth, bool done) {
        A* out = done ? static_cast<A*>(block(g.out, t.i, t.j).data) : nullptr;
        const A* bias = done && g.bias.data != nullptr ? static_cast<const A*>(block(g.bias, t.i, t.j).data) : nullptr;
        const TileProduct<A> product = {t.c, t.total, out, t.ld, g.out.row, t.joins, a.data, b, a.ld, ldb, int(t.rows),
                                        int(round_up(t.cols, kColumnStep)), int(depth), bias, done && g.accumulate, t.fetches_a, t.fetches_b};
        const auto run = [&](auto apart) {
            constexpr int kLdb = decltype(apart)::value;
            if (a.major == Major::kPanel) tile_product<A, kLdb, Major::kPanel>(product);
            else if (a.major == Major::kRow) tile_product<A, kLdb, Major::kRow>(product);
            else tile_product<A, kLdb, Major::kColumn>(product);
        };
        if (ldb == kPanel) run(Constant<kPanel>{});
        else run(Constant<0>{});
    }
};

/// The product of bfloat16 operands where the processor multiplies them itself. With two parts b is float32, taken as the sum of two
/// bfloat16 (16 bits of its 24): a weight plus a small change keeps the change.
template <bool Tiles, int Parts>
struct Bf16Product {
    using Element = bf16;
    using Sum = float;
    static constexpr int kPanel = Tiles ? 32 : 64;
    static constexpr int kRowStep = bf16_tile::kBlock, kColumnStep = bf16_tile::kBlock, kDepthStep = bf16_tile::kStep;
    static constexpr int kSpeed = Tiles ? 8 : 1;
    static constexpr int kTileRows = 64;
    static constexpr int64_t kTaskRows = 128;
    static constexpr int kGroup = gemm_blocks::kGroup;
    static constexpr bool kPrefersPanels = false, kPacksRows = false;
    static constexpr int kLeftParts = 1, kParts = Parts;
    struct Session {
        TileSession tiles{Tiles};
    };

    struct Left {
        const bf16* data;
        ptrdiff_t row;
    };
    static bool left_in_place(const Gemm& g) {
        const bool same_sets = g.a.row * 2 % 2048 == 0;  // the rows of a tile would push each other out of the L1 cache
        return g.a.col == 1 && g.k % kDepthStep == 0 && g.m % kRowStep == 0 && !same_sets;
    }
    static Left left(const Matrix& a) { return {static_cast<const bf16*>(a.data), a.row}; }
    static void pack_left(const Gemm&, bf16* to, const Matrix& a, int64_t rows, int64_t depth) {
        bf16_tile::pack_left(to, round_up(depth, kDepthStep), static_cast<const bf16*>(a.data), a.row, a.col, int(rows),
                             int(round_up(rows, kRowStep)), int(depth), int(round_up(depth, kDepthStep)));
    }
    static Left packed_left(const Gemm&, const bf16* from, int64_t, int64_t depth) { return {from, round_up(depth, kDepthStep)}; }
    static bool right_in_place(const Gemm&) { return false; }
    static void pack_right(bf16* to, const Matrix& b, int64_t depth, int64_t cols) {
        const int64_t padded_depth = round_up(depth, kDepthStep), padded_cols = round_up(cols, kColumnStep);
        if constexpr (Parts == 1) {
            bf16_tile::pack_right(to, kPanel, static_cast<const bf16*>(b.data), b.row, b.col, int(depth), int(padded_depth), int(cols),
                                  int(padded_cols));
        } else {
            constexpr int kRows = 32;
            float rows[kRows * kPanel];
            for (int64_t p = 0; p < padded_depth; p += kRows) {
                const int64_t deep = smaller(int64_t{kRows}, depth - p);
                gather(rows, kPanel, block(b, p, 0), deep, cols, padded_cols);
                for (int64_t x = deep * kPanel; x < kRows * kPanel; ++x) rows[x] = 0;
                bf16_tile::split_pairs(to + p * kPanel, to + (padded_depth + p) * kPanel, rows, kPanel, kRows, int(padded_cols));
            }
        }
    }
    static bool writes_out(const Gemm&, int64_t) { return false; }
    static void multiply(const Gemm&, const GemmTile<float>& t, const Left& a, const bf16* b, int64_t ldb, int64_t depth, bool) {
        const int rows = int(round_up(t.rows, kRowStep)), cols = int(round_up(t.cols, kColumnStep));
        float* to = t.joins ? t.c : t.total;
        const int64_t ld = t.joins ? int64_t{kPanel} : t.ld;
        const int padded = int(round_up(depth, kDepthStep));
        for (int part = 0; part < Parts; ++part)
            bf16_tile::gemm(Tiles, to, ld, a.data, a.row, b + part * padded * kPanel, ldb, rows, cols, padded, part > 0);
        if (!t.joins) return;
        for (int64_t r = 0; r < t.rows; ++r)
            for (int64_t x = 0; x < cols; x += kLanes<float>) {
                float* total = t.total + r * t.ld + x;
                store(total, load(total) + load(t.c + r * kPanel + x));
            }
    }
};

#if defined(__AVX512F__)

/// The product of float32 operands where AMX forms it from bfloat16 parts: see split_tile.h.
struct SplitProduct {
    using Element = bf16;
    using Sum = float;
    static constexpr int kPanel = split_tile::kBlock;
    static constexpr int kRowStep = split_tile::kBlock, kColumnStep = split_tile::kBlock, kDepthStep = split_tile::kStep;
    static constexpr int kSpeed = 2;
    static constexpr int kTileRows = 128;  // they stay in the L2 cache, a slice of b in the L1 cache
    static constexpr int64_t kTaskRows = kTileRows;
    static constexpr int kGroup = 384;
    static constexpr bool kPrefersPanels = false, kPacksRows = false;
    static constexpr int kLeftParts = split_tile::kParts, kParts = split_tile::kParts;
    struct Session {
        TileSession tiles{true};
    };
    using Left = const bf16*;

    /// Splitting an operand costs what 80 multiply-adds of each element save, and leaving the sums what 20 do; measured.
    static bool pays(const Gemm& g) {
        return g.a.dtype == DF_F32 && g.b.dtype == DF_F32 && 80 * g.k * (g.m + g.n) + 20 * g.m * g.n < g.m * g.n * g.k;
    }
    static bool left_in_place(const Gemm&) { return false; }
    static Left left(const Matrix&) { return nullptr; }
    static void pack_left(const Gemm&, bf16* to, const Matrix& a, int64_t rows, int64_t depth) { pack<true>(to, a, rows, depth); }
    static Left packed_left(const Gemm&, const bf16* from, int64_t, int64_t) { return from; }
    static bool right_in_place(const Gemm&) { return false; }
    static void pack_right(bf16* to, const Matrix& b, int64_t depth, int64_t cols) { pack<false>(to, transposed(b), cols, depth); }
    static bool writes_out(const Gemm& g, int64_t cols) { return WidenedProduct<float>::writes_out(g, cols) && cols == kPanel; }

    static void multiply(const Gemm& g, const GemmTile<float>& t, Left a, const bf16* b, int64_t, int64_t depth, bool done) {
        using namespace split_tile;
        const int64_t steps = ceil_div(depth, int64_t{kStep}), blocks = ceil_div(t.rows, int64_t{kBlock});
        const float* bias = done && g.bias.data != nullptr ? static_cast<const float*>(block(g.bias, t.i, t.j).data) : nullptr;
        // The panel after this one comes nearer with each step.
        const char* next = reinterpret_cast<const char*>(t.next_right);
        const int lines = next == nullptr ? 0 : int(ceil_div(int64_t{kStepElements} * 2, blocks * 64 * 5));
        for (int64_t s = 0; s < steps; s += kSlice) {
            const int64_t count = smaller(int64_t{kSlice}, steps - s);
            const bool leaves = done && s + kSlice >= steps;
            for (int64_t r = 0; r < t.rows; r += kBlock, next += lines * 64 * 5 * count) {
                alignas(64) float sum[kBlock * kBlock];
                split_tile::block(sum, kBlock, a + (r / kBlock * steps + s) * kStepElements, b + s * kStepElements, int(count), next, lines);
                const int64_t rows = smaller(int64_t{kBlock}, t.rows - r);
                if (!is_finite(sum)) repeat(sum, g, t, r, rows, s * kStep, smaller(depth - s * kStep, count * kStep));
                float* total = t.total + r * t.ld;
                const float* before = t.joins || s > 0 ? total : nullptr;
                if (leaves)
                    join(static_cast<float*>(block(g.out, t.i + r, t.j).data), g.out.row, sum, int(rows), before, t.ld, bias, g.accumulate);
                else
                    join(total, t.ld, sum, int(rows), before, t.ld, nullptr, false);
            }
        }
    }

private:
    /// Lines of x, terms along its columns.
    template <bool Left>
    static void pack(bf16* to, const Matrix& x, int64_t lines, int64_t depth) {
        using namespace split_tile;
        const int64_t steps = ceil_div(depth, int64_t{kStep});
        const float* from = static_cast<const float*>(x.data);
        if (x.col == 1 && depth % kStep == 0) {
            pack_lines<Left>(to, from, x.row, lines, steps);
        } else if (x.row == 1 && depth % kStep == 0 && lines % 16 == 0) {
            pack_terms<Left>(to, from, x.col, lines, steps);
        } else {
            float rows[16 * kGroup];
            for (int64_t line = 0; line < lines; line += 16) {
                const int64_t tall = smaller(int64_t{16}, lines - line);
                gather(rows, steps * kStep, block(x, line, 0), tall, depth, steps * kStep);
                pack_lines<Left>(line_at<true>(to, line, steps), rows, steps * kStep, tall, steps);
            }
        }
        clear_rest(to, lines, round_up(lines, int64_t{split_tile::kBlock}), steps);
    }
    /// What of sum is not finite, by float32's own instructions: the terms from p on, depth of them.
    __attribute__((noinline, cold)) static void repeat(float* sum, const Gemm& g, const GemmTile<float>& t, int64_t r, int64_t rows, int64_t p,
                                                       int64_t depth) {
        constexpr int kDepth = split_tile::kSlice * split_tile::kStep, kBlock = split_tile::kBlock, kWide = WidenedProduct<float>::kPanel;
        alignas(64) float a[kBlock * kDepth], b[kDepth * kWide], c[kBlock * kWide];
        gather(a, kDepth, block(g.a, t.i + r, t.p + p), rows, depth, depth);
        gather(b, kWide, block(g.b, t.p + p, t.j), depth, t.cols, kBlock);
        tile_product<float, kWide, Major::kRow>({c, c, nullptr, kWide, 0, false, a, b, kDepth, kWide, int(rows), kBlock, int(depth), nullptr,
                                                 false, false, false});
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < kBlock; ++j) {
                float& x = sum[i * kBlock + j];
                if (!(x - x == 0)) x = c[i * kWide + j];
            }
    }
};

#endif

/// How a product is cut into tasks and where its operands are packed: in place (not at all), by the task, or once for all tasks. None of
/// this touches the order of a sum, so it may depend on the number of threads.
struct GemmPlan {
    enum Packing { kInPlace, kByTask, kShared };
    Packing left = kInPlace, right = kInPlace;
    int64_t rows, cols, row_blocks, col_blocks;

    template <class P>
    static GemmPlan choose(const Gemm& g, int64_t batches, int threads) {
        using namespace gemm_blocks;
        GemmPlan plan;
        bool one_right = true;
        for (int d = 0; d < g.batch_rank; ++d) one_right = one_right && (g.b_stride[d] == 0 || g.batch_shape[d] == 1);
        const int64_t work = batches * g.m * g.n * g.k;
        const bool packs_right = g.m > kInPlaceRows || !P::right_in_place(g);
        const int64_t right_bytes = g.n * g.k * P::kParts * int64_t(sizeof(typename P::Element));
        const bool shares = work >= kShareWork * P::kSpeed && g.m > P::kTaskRows, shares_right = shares && one_right && right_bytes <= kShareBytes;
        const int64_t wanted = larger(int64_t{1}, smaller(kTasksPerThread * threads, work / (kTaskWork * P::kSpeed)));
        const int64_t most_rows = packs_right && !shares_right ? kTallRows : P::kTaskRows;
        plan.row_blocks = ceil_div(g.m, most_rows);
        plan.rows = smaller(g.m, round_up(ceil_div(g.m, plan.row_blocks), 4));
        if (plan.rows > P::kTileRows || plan.row_blocks > 1) plan.rows = round_up(plan.rows, P::kTileRows);
        plan.row_blocks = ceil_div(g.m, plan.rows);
        const int64_t panels = ceil_div(g.n, int64_t{P::kPanel});
        const int64_t per_task = larger(int64_t{1}, panels / larger(int64_t{1}, ceil_div(wanted, batches * plan.row_blocks)));
        plan.cols = per_task * P::kPanel;
        plan.col_blocks = ceil_div(panels, per_task);
        if (packs_right) plan.right = shares_right && plan.row_blocks > 1 ? kShared : kByTask;
        const bool shares_left = shares && batches == 1 && plan.col_blocks > 1;
        const int64_t left_bytes = g.m * g.k * P::kLeftParts * int64_t(sizeof(typename P::Element));
        if (!P::left_in_place(g) || plan.pays<P>(g, shares_left, left_bytes)) plan.left = shares_left ? kShared : kByTask;
        return plan;
    }
    /// One task.
    template <class P>
    static GemmPlan alone(const Gemm& g) {
        GemmPlan plan;
        plan.right = g.m <= gemm_blocks::kInPlaceRows && P::right_in_place(g) ? kInPlace : kByTask;
        plan.rows = g.m;
        plan.cols = round_up(g.n, P::kPanel);
        plan.row_blocks = plan.col_blocks = 1;
        if (!P::left_in_place(g) || plan.pays<P>(g, false, 0)) plan.left = kByTask;
        return plan;
    }

private:
    /// Whether packing a left operand that could be read in place is worth its time and memory.
    template <class P>
    bool pays(const Gemm& g, bool shared, int64_t bytes) const {
        using namespace gemm_blocks;
        if (!P::kPrefersPanels) return false;
        return shared ? g.n >= kPackedColumns && bytes <= kShareBytes : smaller(cols, g.n) >= kPackedColumns && rows <= kTallRows;
    }
};

/// Carves arrays out of one block of memory; with memory null it only measures.
class Carver {
public:
    explicit Carver(char* memory) : memory_(memory) {}
    template <class T>
    T* take(int64_t elements) {
        T* x = reinterpret_cast<T*>(memory_ + size_);
        size_ = size_t(round_up(int64_t(size_) + elements * int64_t(sizeof(T)), 64));
        return x;
    }
    size_t size() const { return size_; }

private:
    char* memory_;
    size_t size_ = 0;
};

/// Rows that m rows of a packed left operand take, tile after tile.
template <class P>
inline int64_t tiled_rows(int64_t m) {
    return m / P::kTileRows * round_up(int64_t{P::kTileRows}, P::kRowStep) + round_up(m % P::kTileRows, P::kRowStep);
}

/// One thread's memory.
template <class P>
struct GemmTiles {
    typename P::Element *left, *right;  // null unless the task packs them
    typename P::Sum *c, *total;  // total is null when k fits one group
    double* deep;                // null unless k is larger than kDeep<P>
    size_t size;

    GemmTiles(char* memory, const Gemm& g, const GemmPlan& plan) {
        using namespace gemm_blocks;
        Carver carver(memory);
        const int64_t depth = round_up(smaller(g.k, int64_t{P::kGroup}), P::kDepthStep);
        const int64_t rows = tiled_rows<P>(smaller(plan.rows, g.m));
        left = plan.left == GemmPlan::kByTask ? carver.take<typename P::Element>(rows * depth * P::kLeftParts) : nullptr;
        right = plan.right != GemmPlan::kShared ? carver.take<typename P::Element>(P::kPanel * depth * P::kParts) : nullptr;
        c = carver.take<typename P::Sum>(smaller(rows, int64_t{P::kTileRows}) * P::kPanel);
        total = g.k > P::kGroup ? carver.take<typename P::Sum>(rows * plan.cols) : nullptr;
        deep = g.k > kDeep<P> ? carver.take<double>(rows * plan.cols) : nullptr;
        size = carver.size();
    }
};

/// Both operands as packed for all tasks: left in blocks of P::kTileRows rows, right in panels, each in groups of P::kGroup terms.
template <class P>
struct GemmShared {
    using Element = typename P::Element;
    Element *left, *right;
    int64_t left_units, right_units, groups;
    int64_t right_columns;  // of a unit of the right operand: whole panels
    size_t size;

    GemmShared(char* memory, const Gemm& g, const GemmPlan& plan) {
        using namespace gemm_blocks;
        Carver carver(memory);
        const int64_t depth = round_up(g.k, P::kDepthStep);
        groups = ceil_div(g.k, P::kGroup);
        left_units = plan.left == GemmPlan::kShared ? ceil_div(g.m, P::kTileRows) * groups : 0;
        right_columns = P::kPanel;
        while (packs_rows(g) && 2 * right_columns <= kUnitColumns && ceil_div(g.n, 2 * right_columns) * groups >= kUnits) right_columns *= 2;
        right_units = plan.right == GemmPlan::kShared ? ceil_div(g.n, right_columns) * groups : 0;
        left = left_units > 0 ? carver.take<Element>(tiled_rows<P>(g.m) * depth * P::kLeftParts) : nullptr;
        right = right_units > 0 ? carver.take<Element>(round_up(g.n, P::kPanel) * depth * P::kParts) : nullptr;
        size = carver.size();
    }
    static bool packs_rows(const Gemm& g) { return P::kPacksRows && g.b.col == 1; }
    Element* left_at(const Gemm& g, int64_t i, int64_t p) const {
        const int64_t rows = tiled_rows<P>(smaller(g.m - i, int64_t{P::kTileRows}));
        return left + (tiled_rows<P>(i) * round_up(g.k, P::kDepthStep) + p * rows) * P::kLeftParts;
    }
    Element* right_at(const Gemm& g, int64_t j, int64_t p) const {
        return right + (j * round_up(g.k, P::kDepthStep) + p * P::kPanel) * P::kParts;
    }
    void pack(const Gemm& g, int64_t unit) const {
        using namespace gemm_blocks;
        const int64_t p = unit % groups * P::kGroup, depth = smaller(g.k - p, int64_t{P::kGroup});
        if (unit < right_units) {
            const int64_t first = unit / groups * right_columns, end = smaller(g.n, first + right_columns);
            const int64_t terms = packs_rows(g) ? kUnitTerms : depth;
            for (int64_t r = 0; r < depth; r += terms)
                for (int64_t j = first; j < end; j += P::kPanel)
                    P::pack_right(right_at(g, j, p) + r * P::kPanel, block(g.b, p + r, j), smaller(terms, depth - r),
                                  smaller(end - j, int64_t{P::kPanel}));
        } else {
            const int64_t i = (unit - right_units) / groups * P::kTileRows;
            P::pack_left(g, left_at(g, i, p), block(g.a, i, p), smaller(g.m - i, int64_t{P::kTileRows}), depth);
        }
    }
};

/// out block (rows, cols) at (i, j). A panel of b stays in the L2 cache while tiles of rows pass it.
template <class P>
inline void gemm_task(const Gemm& g, const GemmPlan& plan, const GemmShared<P>& shared, const GemmTiles<P>& t, int64_t i, int64_t j,
                      int64_t rows, int64_t cols) {
    using namespace gemm_blocks;
    for (int64_t p = 0; p < g.k; p += P::kGroup) {
        const int64_t depth = smaller(g.k - p, int64_t{P::kGroup}), padded_depth = round_up(depth, P::kDepthStep);
        const bool last = p + depth == g.k;
        for (int64_t x = 0; x < cols; x += P::kPanel) {
            const int64_t wide = smaller(int64_t{P::kPanel}, cols - x), padded = round_up(wide, P::kColumnStep);
            const bool done = last && t.deep == nullptr && P::writes_out(g, wide);
            const typename P::Element* right = t.right;
            int64_t ldb = P::kPanel;
            if (plan.right == GemmPlan::kShared) {
                right = shared.right_at(g, j + x, p);
            } else if (plan.right == GemmPlan::kInPlace && padded == wide) {
                right = static_cast<const typename P::Element*>(block(g.b, p, j + x).data);
                ldb = g.b.row;
            } else {
                P::pack_right(t.right, block(g.b, p, j + x), depth, wide);
            }
            const bool more = plan.right == GemmPlan::kShared && x + P::kPanel < cols;
            const typename P::Element* next_right = more ? shared.right_at(g, j + x + P::kPanel, p) : nullptr;
            for (int64_t y = 0; y < rows; y += P::kTileRows) {
                const int64_t tall = smaller(int64_t{P::kTileRows}, rows - y);
                const Matrix a = block(g.a, i + y, p);
                typename P::Left left;
                if (plan.left == GemmPlan::kInPlace) {
                    left = P::left(a);
                } else if (plan.left == GemmPlan::kShared) {
                    left = P::packed_left(g, shared.left_at(g, i + y, p), tall, depth);
                } else {
                    typename P::Element* own = t.left + tiled_rows<P>(y) * padded_depth * P::kLeftParts;
                    if (x == 0) P::pack_left(g, own, a, tall, depth);
                    left = P::packed_left(g, own, tall, depth);
                }
                const bool one = t.total == nullptr;
                typename P::Sum* total = one ? t.c : t.total + y * plan.cols + x;
                const int64_t ld = one ? int64_t{P::kPanel} : plan.cols;
                P::multiply(g, {i + y, j + x, tall, wide, p, t.c, total, ld, p % kDeep<P> != 0, x == 0 && plan.left == GemmPlan::kInPlace,
                             y == 0 && plan.right == GemmPlan::kShared, next_right}, left, right, ldb, depth, done);
                if (done) continue;
                if (t.deep != nullptr && ((p + depth) % kDeep<P> == 0 || last)) {
                    for (int64_t r = 0; r < tall; ++r) {
                        double* deep = t.deep + (y + r) * plan.cols + x;
                        for (int64_t z = 0; z < wide; ++z) deep[z] = (p < kDeep<P> ? 0 : deep[z]) + double(total[r * ld + z]);
                    }
                    if (last) finish(g, t.deep + y * plan.cols + x, plan.cols, i + y, j + x, tall, wide);
                } else if (last) {
                    finish(g, total, ld, i + y, j + x, tall, wide);
                }
            }
        }
    }
}

template <class P>
inline int gemm_blocked(df_queue* queue, const char* op, const Gemm& g, df_error* error) {
    using namespace gemm_blocks;
    const int64_t batches = batch_count(g);
    const GemmPlan plan = GemmPlan::choose<P>(g, batches, thread_count(queue));
    const int64_t blocks = plan.row_blocks * plan.col_blocks, tasks = batches * blocks;
    const int64_t group = larger(int64_t{1}, kTaskWork * P::kSpeed / (2 * smaller(plan.rows, g.m) * smaller(plan.cols, g.n) * g.k));
    const int64_t indices = ceil_div(tasks, group);
    const size_t shared_bytes = GemmShared<P>(nullptr, g, plan).size, own_bytes = GemmTiles<P>(nullptr, g, plan).size;
    const auto run = [&](char* memory) {
        const GemmShared<P> shared(memory, g, plan);
        const int64_t units = shared.left_units + shared.right_units;
        if (units > 0) parallel_for(queue, units, [&](int64_t unit, int) { shared.pack(g, unit); });
        parallel_for(queue, indices, [&](int64_t index, int worker) {
            [[maybe_unused]] const typename P::Session session;
            const GemmTiles<P> tiles(memory + shared_bytes + size_t(worker) * own_bytes, g, plan);
            for (int64_t t = index * group; t < smaller(tasks, (index + 1) * group); ++t) {
                const int64_t i = t % plan.row_blocks * plan.rows, j = t / plan.row_blocks % plan.col_blocks * plan.cols;
                gemm_task<P>(batch_element(g, t / blocks), plan, shared, tiles, i, j, smaller(plan.rows, g.m - i),
                             smaller(plan.cols, g.n - j));
            }
        });
    };
    if (indices == 1 && shared_bytes + own_bytes <= kOnStack) {
        alignas(64) char memory[kOnStack];
        run(memory);
        return DF_OK;
    }
    const size_t all = shared_bytes + own_bytes * size_t(indices == 1 ? 1 : thread_count(queue));
    Scratch scratch(queue, all);
    if (!scratch) return out_of_memory(error, op, all);
    run(scratch.as<char>());
    return DF_OK;
}

/// kLanes<A> elements in A, where A may be wider than T's accumulation type.
template <class A, class T>
inline Vec<A> load_as(const T* p) {
    if constexpr (sizeof(A) == sizeof(Accumulate<T>)) {
        return load(p);
    } else {
        typedef float HalfFloats __attribute__((vector_size(kVectorBytes / 2)));
        HalfFloats h;
        if constexpr (sizeof(T) == 4) {
            __builtin_memcpy(&h, p, sizeof h);
        } else {
            typedef uint16_t QuarterWords __attribute__((vector_size(kVectorBytes / 4)));
            typedef uint32_t Wide __attribute__((vector_size(kVectorBytes / 2)));
            QuarterWords q;
            __builtin_memcpy(&q, p, sizeof q);
            h = bit_cast<HalfFloats>(__builtin_convertvector(q, Wide) << 16);
        }
        return __builtin_convertvector(h, Vec<A>);
    }
}

/// c[r][j] = a_r . b_j for R rows of a and J contiguous columns of b, which are read once and not copied.
template <class A, class T, int R, int J>
inline void dot_products(A* c, int64_t ldc, const A* a, int64_t lda, const T* b, int64_t ldb, int64_t k) {
    constexpr int64_t chain_terms = tile::kChain * kLanes<A>, sum_terms = 16 * chain_terms;
    double total[R][J] = {};
    const int64_t even = k / kLanes<A> * kLanes<A>;
    for (int64_t at = 0; at < even; at += sum_terms) {
        const int64_t sum_end = smaller(even, at + sum_terms);
        Vec<A> sum[R][J] = {};
        for (int64_t p = at; p < sum_end;) {
            const int64_t end = smaller(sum_end, p + chain_terms);
            Vec<A> chain[R][J] = {};
            for (; p < end; p += kLanes<A>) {
                Vec<A> b_p[J];
                for (int j = 0; j < J; ++j) b_p[j] = load_as<A>(b + j * ldb + p);
                for (int r = 0; r < R; ++r) {
                    const Vec<A> a_p = load(a + r * lda + p);
                    for (int j = 0; j < J; ++j) chain[r][j] += a_p * b_p[j];
                }
            }
            for (int r = 0; r < R; ++r)
                for (int j = 0; j < J; ++j) sum[r][j] += chain[r][j];
        }
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < J; ++j) total[r][j] += double(lane_sum<A>(sum[r][j]));
    }
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < J; ++j) {
            A tail = A(0);
            for (int64_t p = even; p < k; ++p) tail += a[r * lda + p] * A(get(b + j * ldb + p));
            c[r * ldc + j] = A(total[r][j] + double(tail));
        }
}

template <class A, class T, int R>
inline void dot_rows(A* c, int64_t ldc, const A* a, int64_t lda, const T* b, int64_t ldb, int64_t cols, int64_t k) {
    constexpr int J = R <= 2 ? 4 : 2;
    int64_t j = 0;
    for (; j + J <= cols; j += J) dot_products<A, T, R, J>(c + j, ldc, a, lda, b + j * ldb, ldb, k);
    for (; j < cols; ++j) dot_products<A, T, R, 1>(c + j, ldc, a, lda, b + j * ldb, ldb, k);
}

/// A product of few rows with a b whose columns are contiguous: bound by reading b.
template <class A>
inline int gemm_thin(df_queue* queue, const char* op, const Gemm& g, df_error* error) {
    const int64_t batches = batch_count(g);
    const int64_t cols = smaller(g.n, larger(int64_t{16}, smaller(int64_t{1024}, gemm_blocks::kTaskWork / (2 * g.k * g.m))));
    const int64_t blocks = ceil_div(g.n, cols), tasks = batches * blocks;
    const int64_t group = larger(int64_t{1}, gemm_blocks::kTaskWork / (2 * cols * g.k * g.m));
    const int64_t indices = ceil_div(tasks, group);
    const int64_t lda = round_up(g.k, kLanes<A>), ldc = round_up(cols, kLanes<A>);
    const size_t bytes = size_t(round_up(g.m * (lda + ldc) * int64_t(sizeof(A)), 64));
    const auto run = [&](char* memory) {
        parallel_for(queue, indices, [&](int64_t index, int worker) {
            A* a = reinterpret_cast<A*>(memory + size_t(worker) * bytes);
            A* c = a + g.m * lda;
            int64_t packed = -1;
            for (int64_t t = index * group; t < smaller(tasks, (index + 1) * group); ++t) {
                const Gemm one = batch_element(g, t / blocks);
                if (packed != t / blocks) gather(a, lda, one.a, g.m, g.k, g.k);
                packed = t / blocks;
                const int64_t j = t % blocks * cols, wide = smaller(cols, g.n - j);
                const Matrix b = block(one.b, 0, j);
                dispatch(b.dtype, [&](auto type) {
                    using T = typename decltype(type)::type;
                    if constexpr (sizeof(Accumulate<T>) <= sizeof(A)) {
                        const T* from = static_cast<const T*>(b.data);
                        for (int64_t r = 0; r < g.m; r += 4) {
                            switch (smaller(int64_t{4}, g.m - r)) {
                                case 1: dot_rows<A, T, 1>(c + r * ldc, ldc, a + r * lda, lda, from, b.col, wide, g.k); break;
                                case 2: dot_rows<A, T, 2>(c + r * ldc, ldc, a + r * lda, lda, from, b.col, wide, g.k); break;
                                case 3: dot_rows<A, T, 3>(c + r * ldc, ldc, a + r * lda, lda, from, b.col, wide, g.k); break;
                                default: dot_rows<A, T, 4>(c + r * ldc, ldc, a + r * lda, lda, from, b.col, wide, g.k); break;
                            }
                        }
                    }
                    return 0;
                });
                finish(one, c, ldc, 0, j, g.m, wide);
            }
        });
    };
    if (indices == 1 && bytes <= gemm_blocks::kOnStack) {
        alignas(64) char memory[gemm_blocks::kOnStack];
        run(memory);
        return DF_OK;
    }
    const size_t all = bytes * size_t(indices == 1 ? 1 : thread_count(queue));
    Scratch scratch(queue, all);
    if (!scratch) return out_of_memory(error, op, all);
    run(scratch.as<char>());
    return DF_OK;
}

/// f(Type<P>) with the way to form g's products.
template <class A, class F>
inline int with_product(df_queue* queue, const Gemm& g, F&& f) {
    if constexpr (bf16_tile::kCompiled && sizeof(A) == 4) {
        const Bf16Products products = bf16_products(queue);
        const bool whole = g.b.dtype == DF_BF16;
        if (g.a.dtype == DF_BF16 && products == Bf16Products::kTiles)
            return whole ? f(Type<Bf16Product<true, 1>>{}) : f(Type<Bf16Product<true, 2>>{});
        if (g.a.dtype == DF_BF16 && products == Bf16Products::kDot && whole) return f(Type<Bf16Product<false, 1>>{});
#if defined(__AVX512F__)
        if (products == Bf16Products::kTiles && SplitProduct::pays(g)) return f(Type<SplitProduct>{});
#endif
    }
    return f(Type<WidenedProduct<A>>{});
}
/// The same for gemm_alone: few outputs are summed in double there too.
template <class A, class F>
inline int alone(df_queue* queue, const Gemm& g, F&& f) {
    if (g.m * g.n <= gemm_blocks::kFewOutputs) return f(Type<WidenedProduct<double>>{});
    return with_product<A>(queue, g, f);
}

/// Runs g with sums in A or better (A is float for f32 and bf16 operands, double for f64). op names the caller in errors.
template <class A>
inline int gemm(df_queue* queue, const char* op, const Gemm& wanted, df_error* error) {
    if constexpr (sizeof(A) < sizeof(double))
        if (wanted.m * wanted.n <= gemm_blocks::kFewOutputs) return gemm<double>(queue, op, wanted, error);
    // Few columns would leave most lanes idle; a float32 operand may be taken in parts on the right only.
    const bool few = wanted.n < wanted.m && wanted.n <= gemm_blocks::kThin;
    const bool in_parts = wanted.a.dtype == DF_F32 && wanted.b.dtype == DF_BF16 && wanted.k >= gemm_blocks::kPartsDepth &&
                          bf16_products(queue) == Bf16Products::kTiles;
    const Gemm g = few || in_parts ? swapped(wanted) : wanted;
    if (g.m <= gemm_blocks::kThin && g.b.row == 1 && g.k >= 2 * kLanes<A>) return gemm_thin<A>(queue, op, g, error);
    return with_product<A>(queue, g, [&](auto product) { return gemm_blocked<typename decltype(product)::type>(queue, op, g, error); });
}

/// A product for one thread, in memory of its caller: what many small problems are made of.
template <class A>
inline size_t gemm_alone_bytes(df_queue* queue, const Gemm& g) {
    size_t bytes = 0;
    alone<A>(queue, g, [&](auto product) {
        using P = typename decltype(product)::type;
        bytes = GemmTiles<P>(nullptr, g, GemmPlan::alone<P>(g)).size;
        return 0;
    });
    return bytes;
}
template <class A>
inline void gemm_alone(df_queue* queue, const Gemm& g, char* memory) {
    alone<A>(queue, g, [&](auto product) {
        using P = typename decltype(product)::type;
        const GemmPlan plan = GemmPlan::alone<P>(g);
        [[maybe_unused]] const typename P::Session session;
        gemm_task<P>(g, plan, GemmShared<P>(nullptr, g, plan), GemmTiles<P>(memory, g, plan), 0, 0, g.m, g.n);
        return 0;
    });
}

/// out (m,n) (+)= a b.
template <class A>
inline int gemm(df_queue* queue, const char* op, const Matrix& out, const Matrix& a, const Matrix& b, int64_t m, int64_t n, int64_t k,
                bool accumulate, df_error* error) {
    Gemm g;
    g.out = out;
    g.a = a;
    g.b = b;
    g.m = m;
    g.n = n;
    g.k = k;
    g.accumulate = accumulate;
    return gemm<A>(queue, op, g, error);
}

}  // namespace dualform::cpu::DF_ISA
