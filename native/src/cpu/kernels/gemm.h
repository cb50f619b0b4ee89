// Matrix products over strided operands: what matmul and the dual form are made of.
#pragma once

#include "cpu/simd.h"

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

template <class A, class T>
inline void widen(A* to, const T* from, int64_t n) {
    int64_t j = 0;
    if constexpr (sizeof(A) == sizeof(Accumulate<T>))
        for (; j + kLanes<A> <= n; j += kLanes<A>) store(to + j, load(from + j));
    for (; j < n; ++j) to[j] = A(get(from + j));
}

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

typedef float Quad __attribute__((vector_size(16)));
inline Quad load_quad(const float* p) {
    Quad v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
inline Quad load_quad(const bf16* p) {
    typedef uint16_t Halves __attribute__((vector_size(8)));
    typedef uint32_t Wholes __attribute__((vector_size(16)));
    Halves h;
    __builtin_memcpy(&h, p, sizeof h);
    return bit_cast<Quad>(__builtin_convertvector(h, Wholes) << 16);
}

/// to[r ld + c] = from[r + c stride], in squares of four where the type allows.
template <class A, class T>
inline void transpose(A* to, int64_t ld, const T* from, int64_t stride, int64_t rows, int64_t cols) {
    int64_t c = 0;
    if constexpr (sizeof(A) == 4 && sizeof(T) <= 4) {
        typedef int32_t Picks __attribute__((vector_size(16)));
        const Picks low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
        for (; c + 4 <= cols; c += 4) {
            const T* f = from + c * stride;
            int64_t r = 0;
            for (; r + 4 <= rows; r += 4) {
                const Quad x0 = load_quad(f + r), x1 = load_quad(f + stride + r);
                const Quad x2 = load_quad(f + 2 * stride + r), x3 = load_quad(f + 3 * stride + r);
                const Quad a = __builtin_shuffle(x0, x1, low), b = __builtin_shuffle(x2, x3, low);
                const Quad d = __builtin_shuffle(x0, x1, high), e = __builtin_shuffle(x2, x3, high);
                const Quad y[4] = {__builtin_shuffle(a, b, first), __builtin_shuffle(a, b, second), __builtin_shuffle(d, e, first),
                                   __builtin_shuffle(d, e, second)};
                for (int i = 0; i < 4; ++i) __builtin_memcpy(to + (r + i) * ld + c, &y[i], sizeof y[i]);
            }
            for (; r < rows; ++r)
                for (int i = 0; i < 4; ++i) to[r * ld + c + i] = get(f + i * stride + r);
        }
    }
    for (; c < cols; ++c)
        for (int64_t r = 0; r < rows; ++r) to[r * ld + c] = A(get(from + c * stride + r));
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
constexpr int kDepth = 128;                     // terms packed at a time
constexpr int kRows = 192, kCols = 256;        // largest block of out: with its panels it fits a 1 MB L2
constexpr int kMinRows = 48, kMinCols = 64;    // smallest, when a product has few blocks
constexpr int64_t kTasks = 16;                 // blocks wanted, so that threads share the work evenly
constexpr int64_t kTaskWork = int64_t{1} << 18;  // multiply-adds below which a task is not worth another thread
constexpr int kGroup = 1024;       // terms summed in A; groups are added in double, so that long sums stay accurate
constexpr int64_t kFewOutputs = 256;           // up to this many float outputs are summed in double: it costs little and rounds once
constexpr int kThin = 8;                       // up to this many rows, b is read in place when its columns are contiguous
constexpr size_t kOnStack = 8192;              // scratch below this needs no allocation

struct Sizes {
    int64_t rows, cols, row_blocks, col_blocks;
};

/// Block sizes from the shape alone: results never depend on the number of threads.
inline Sizes choose(const Gemm& g, int64_t batches) {
    int64_t rows = kRows, cols = kCols;
    while (batches * ceil_div(g.m, rows) * ceil_div(g.n, cols) < kTasks && smaller(rows, g.m) * smaller(cols, g.n) * g.k > kTaskWork) {
        if (cols > kMinCols && smaller(cols, g.n) >= smaller(rows, g.m)) cols /= 2;
        else if (rows > kMinRows) rows /= 2;
        else if (cols > kMinCols) cols /= 2;
        else break;
    }
    Sizes s;
    s.row_blocks = ceil_div(g.m, rows);
    s.col_blocks = ceil_div(g.n, cols);
    s.rows = smaller(g.m, round_up(ceil_div(g.m, s.row_blocks), tile::kRows));
    s.row_blocks = ceil_div(g.m, s.rows);
    s.cols = cols;
    return s;
}
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

/// One thread's panels: a row-major, b in panels two vectors wide, so that each streams through the L1 cache.
template <class A>
struct GemmPanels {
    static constexpr int kWidth = tile::kVectors * kLanes<A>;
    int64_t lda, ldc, rows;
    A *a, *b, *c;
    double* total;  // null when k fits one group

    static size_t layout(GemmPanels* p, char* memory, const Gemm& g, const gemm_blocks::Sizes& s) {
        const int64_t depth = smaller(g.k, int64_t{gemm_blocks::kDepth});
        const int64_t lda = depth + kLanes<A>;  // not a power of two: rows of a must not share cache sets
        const int64_t ldc = round_up(smaller(s.cols, g.n), kLanes<A>);
        size_t at = 0;
        const auto take = [&](auto*& x, int64_t elements) {
            x = reinterpret_cast<decltype(x + 0)>(memory + at);
            at = size_t(round_up(int64_t(at) + elements * int64_t(sizeof *x), 64));
        };
        A *a, *b, *c;
        double* total = nullptr;
        take(a, s.rows * lda);
        take(b, ldc * depth);
        take(c, s.rows * ldc);
        if (g.k > gemm_blocks::kGroup) take(total, s.rows * ldc);
        if (p != nullptr) *p = GemmPanels{lda, ldc, s.rows, a, b, c, total};
        return at;
    }
};

/// out block (rows, cols) at (i, j): packs 128 terms of both operands at a time and adds them to c.
template <class A>
inline void gemm_block(const Gemm& g, const GemmPanels<A>& p, int64_t i, int64_t j, int64_t rows, int64_t cols) {
    constexpr int kWidth = GemmPanels<A>::kWidth;
    for (int64_t group = 0; group < g.k; group += gemm_blocks::kGroup) {
        const int64_t end = smaller(g.k, group + gemm_blocks::kGroup);
        for (int64_t at = group; at < end; at += gemm_blocks::kDepth) {
            const int depth = int(smaller(int64_t{gemm_blocks::kDepth}, end - at));
            gather(p.a, p.lda, block(g.a, i, at), rows, depth, depth);
            for (int64_t x = 0; x < cols; x += kWidth) {
                const int64_t wide = smaller(int64_t{kWidth}, cols - x), padded = round_up(wide, kLanes<A>);
                A* panel = p.b + x * depth;
                gather(panel, padded, block(g.b, at, j + x), depth, wide, padded);
                tile_gemm(p.c + x, p.ldc, p.a, p.lda, panel, padded, int(rows), int(padded), depth, at > group);
            }
        }
        if (p.total != nullptr)
            for (int64_t x = 0; x < rows * p.ldc; ++x) p.total[x] = group == 0 ? double(p.c[x]) : p.total[x] + double(p.c[x]);
    }
    if (p.total != nullptr) finish(g, p.total, p.ldc, i, j, rows, cols);
    else finish(g, p.c, p.ldc, i, j, rows, cols);
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

/// Runs g with sums in A or better (A is float for f32 and bf16 operands, double for f64). op names the caller in errors.
template <class A>
inline int gemm(df_queue* queue, const char* op, const Gemm& wanted, df_error* error) {
    if constexpr (sizeof(A) < sizeof(double))
        if (wanted.m * wanted.n <= gemm_blocks::kFewOutputs) return gemm<double>(queue, op, wanted, error);
    const bool swap = wanted.n < wanted.m && wanted.n <= gemm_blocks::kThin;  // few columns would leave most lanes idle
    const Gemm g = swap ? swapped(wanted) : wanted;
    if (g.m <= gemm_blocks::kThin && g.b.row == 1 && g.k >= 2 * kLanes<A>) return gemm_thin<A>(queue, op, g, error);
    const int64_t batches = batch_count(g);
    const gemm_blocks::Sizes s = gemm_blocks::choose(g, batches);
    const int64_t blocks = s.row_blocks * s.col_blocks, tasks = batches * blocks;
    const int64_t group = larger(int64_t{1}, gemm_blocks::kTaskWork / (2 * smaller(s.rows, g.m) * smaller(s.cols, g.n) * g.k));
    const int64_t indices = ceil_div(tasks, group);
    const size_t bytes = GemmPanels<A>::layout(nullptr, nullptr, g, s);
    const auto run = [&](char* memory) {
        parallel_for(queue, indices, [&](int64_t index, int worker) {
            GemmPanels<A> panels;
            GemmPanels<A>::layout(&panels, memory + size_t(worker) * bytes, g, s);
            for (int64_t t = index * group; t < smaller(tasks, (index + 1) * group); ++t) {
                const int64_t i = t % s.row_blocks * s.rows, j = t / s.row_blocks % s.col_blocks * s.cols;
                gemm_block<A>(batch_element(g, t / blocks), panels, i, j, smaller(s.rows, g.m - i), smaller(s.cols, g.n - j));
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
