// What attention's forward and backward share: sizes and masks, strided rows, and products of tiles.
//
// A task owns up to 64 rows of one head (queries in forward and dq, keys in dk and dv): its own rows. They are packed transposed, one
// row per vector lane, and everything computed for them has the layout [.][lane]. The other side's rows stream past 64 at a time and are
// read in place as the broadcast operand of tile_gemm, so nothing else is packed and a softmax over keys runs down the lanes. Lanes never
// mix: whatever a masked or padded lane holds stays in it.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace dualform::cpu::DF_ISA {

constexpr int kTile = 64;       // own rows of a task, and rows streamed at a time
constexpr int kFoldTiles = 16;  // tiles added to one float sum before it joins the total: keeps long sums near pairwise accuracy
constexpr int64_t kInlineWork = 32768;  // multiply-adds below which waking other threads costs more than it saves

/// Whether n tasks of so many multiply-adds in all are worth other threads.
inline bool runs_parallel(int64_t n, double work) { return n > 1 && work > kInlineWork; }
/// Workers whose scratch for_tasks may touch.
inline int64_t task_workers(df_queue* queue, int64_t n, double work) { return runs_parallel(n, work) ? thread_count(queue) : 1; }
/// f(i, worker) for i in [0, n), on this thread alone when all of it is little work.
template <class F>
inline void for_tasks(df_queue* queue, int64_t n, double work, F&& f) {
    if (runs_parallel(n, work)) return parallel_for(queue, n, static_cast<F&&>(f));
    for (int64_t i = 0; i < n; ++i) f(i, 0);
}

/// Offsets of the arrays that share one block of scratch.
class Layout {
public:
    template <class X>
    size_t add(int64_t n) {
        const size_t at = bytes_;
        bytes_ += size_t(round_up(n * int64_t(sizeof(X)), 64));
        return at;
    }
    size_t bytes() const { return bytes_; }

private:
    size_t bytes_ = 0;
};

/// A (B,T,NH,HS) tensor.
template <class T>
struct Heads {
    explicit Heads(const df_view* v) {
        if (v == nullptr) return;
        first = data<T>(v);
        for (int i = 0; i < 3; ++i) stride[i] = v->stride[i];
    }
    T* row(int64_t b, int64_t t, int64_t h) const { return first + b * stride[0] + t * stride[1] + h * stride[2]; }
    explicit operator bool() const { return first != nullptr; }

    T* first = nullptr;
    int64_t stride[3] = {};
};

/// A (B,NH,T) tensor: lse.
template <class A>
struct RowValues {
    explicit RowValues(const df_view* v) : first(data<A>(v)), stride{v->stride[0], v->stride[1]} {}
    A* head(int64_t b, int64_t h) const { return first + b * stride[0] + h * stride[1]; }

    A* first;
    int64_t stride[2];
};

/// Sizes of a call, and which keys a query sees.
struct AttentionSizes {
    explicit AttentionSizes(const df_attention_args* args)
        : B(args->q->shape[0]),
          T(args->q->shape[1]),
          S(args->k->shape[1]),
          NH(args->q->shape[2]),
          NKV(args->k->shape[2]),
          HS(int(args->q->shape[3])),
          group(NH / NKV),
          causal(args->causal != 0 || args->eta != nullptr),
          lengths(args->lengths) {}

    /// Keys of batch row b.
    int64_t length(int64_t b) const {
        if (lengths == nullptr) return S;
        return smaller<int64_t>(S, larger<int64_t>(0, data<int32_t>(lengths)[b * lengths->stride[0]]));
    }
    /// Position of query t among the keys.
    int64_t position(int64_t t) const { return t + S - T; }
    /// Query t sees the first visible(t, length) keys.
    int64_t visible(int64_t t, int64_t length) const {
        return causal ? larger<int64_t>(0, smaller(length, position(t) + 1)) : length;
    }
    double pairs() const { return double(B) * double(NH) * double(T) * double(S); }

    int64_t B, T, S, NH, NKV;
    int HS;
    int64_t group;
    bool causal;
    const df_view* lengths;
};

/// Own rows rounded up to whole vectors.
template <class A>
inline int lanes_for(int64_t rows) {
    return int(round_up(smaller<int64_t>(rows, kTile), kLanes<A>));
}

/// scale >= 0 of the scores, and the sign that moves into the packed rows: the largest score is then that of the largest product.
struct Scale {
    explicit Scale(double s) : magnitude(s < 0 ? -s : s), negative(s < 0) {}
    double magnitude;
    bool negative;
};

/// Rows [row][HS] in the accumulation type, as the broadcast operand of a product.
template <class A>
struct Rows {
    const A* first;
    ptrdiff_t stride;
};

template <class T>
inline void convert_row(Accumulate<T>* to, const T* from, int n) {
    using A = Accumulate<T>;
    int c = 0;
    for (; c + kLanes<A> <= n; c += kLanes<A>) store(to + c, load(from + c));
    for (; c < n; ++c) to[c] = get(from + c);
}

/// n rows of a head: in place where storage is the accumulation type, else converted into scratch (n x HS).
template <class T>
inline Rows<Accumulate<T>> read_rows(const T* first, int64_t stride, int n, int HS, Accumulate<T>* scratch) {
    if constexpr (sizeof(T) == sizeof(Accumulate<T>)) {
        return {first, ptrdiff_t(stride)};
    } else {
        for (int r = 0; r < n; ++r) convert_row(scratch + r * HS, first + r * stride, HS);
        return {scratch, HS};
    }
}

/// to[c][r] = +-row r: own rows, one per lane; zeros in the lanes beyond n.
template <class T, class A>
inline void pack_transposed(A* to, int lanes, const T* first, int64_t stride, int n, int HS, bool negate) {
    for (int r = 0; r < n; ++r) {
        const T* row = first + r * stride;
        for (int c = 0; c < HS; ++c) to[c * lanes + r] = negate ? -get(row + c) : get(row + c);
    }
    for (int c = 0; c < HS; ++c)
        for (int r = n; r < lanes; ++r) to[c * lanes + r] = 0;
}

/// to[r] = lane r of from [HS][lanes].
template <class A>
inline void unpack_row(A* to, const A* from, int lanes, int r, int HS) {
    for (int c = 0; c < HS; ++c) to[c] = from[c * lanes + r];
}

/// Which streamed rows a lane may use: first <= p < last.
template <class A>
struct Seen {
    using I = typename BitsOf<A>::i;
    typedef I IVec __attribute__((vector_size(kVectorBytes)));

    void set(int lane, int64_t from, int64_t to) {
        first[lane] = I(larger<int64_t>(0, smaller<int64_t>(from, kTile)));
        last[lane] = I(larger<int64_t>(0, smaller<int64_t>(to, kTile)));
    }
    /// All ones in the lanes, from lane on, that may use row p.
    IVec mask(int lane, int p) const {
        IVec f, l;
        __builtin_memcpy(&f, first + lane, sizeof f);
        __builtin_memcpy(&l, last + lane, sizeof l);
        const IVec at = IVec{} + I(p);
        return (f <= at) & (at < l);
    }

    bool uses(int lane, int p) const { return first[lane] <= p && p < last[lane]; }

    I first[kTile], last[kTile];
};

/// scores[r][lane] = scale (row r . own row). Never inlined: the scaled score is rounded to A in one place, so forward and backward
/// take the exponential of the same bits.
template <class A>
__attribute__((noinline)) void scaled_scores(A* scores, int lanes, Rows<A> rows, int n, const A* own, int HS, A scale) {
    tile_gemm(scores, lanes, rows.first, rows.stride, own, lanes, n, lanes, HS, false);
    for (int i = 0; i < n * lanes; i += kLanes<A>) store(scores + i, load(scores + i) * scale);
}

template <class A>
inline bool is_finite(A x) { return x * A(0) == A(0); }
template <class A>
inline bool all_finite(Rows<A> rows, int n, int HS) {
    Vec<A> zeros = {};
    A zero = 0;
    for (int r = 0; r < n; ++r) {
        const A* row = rows.first + r * rows.stride;
        int c = 0;
        for (; c + kLanes<A> <= HS; c += kLanes<A>) zeros += load(row + c) * A(0);
        for (; c < HS; ++c) zero += row[c] * A(0);
    }
    return zero + lane_sum<A>(zeros) == 0;
}

/// sum[c][lane] (+)= sum_p rows[p][c] weights[p][lane].
/// Where seen is given, a row that a lane must not use has weight 0 there. An Inf or a NaN in such a tile, 0 times which would reach
/// the lane, is taken out (copy: n x HS of scratch) and added to the lanes that use it alone; the bits of the others stay the same.
/// dead[p]: no lane uses row p.
template <class A>
inline void add_product(A* sum, int lanes, Rows<A> rows, int n, const A* weights, int HS, bool add, const Seen<A>* seen, const bool* dead,
                        A* copy) {
    if (seen == nullptr || all_finite(rows, n, HS)) {
        tile_gemm(sum, lanes, rows.first, 1, weights, lanes, HS, lanes, n, add, rows.stride);
        return;
    }
    for (int p = 0; p < n; ++p)
        for (int c = 0; c < HS; ++c) {
            const A x = rows.first[p * rows.stride + c];
            copy[p * HS + c] = is_finite(x) ? x : A(0);
        }
    tile_gemm(sum, lanes, copy, 1, weights, lanes, HS, lanes, n, add, HS);
    for (int p = 0; p < n; ++p)
        for (int c = 0; c < HS; ++c) {
            const A x = rows.first[p * rows.stride + c];
            if (is_finite(x) || (dead != nullptr && dead[p])) continue;
            for (int lane = 0; lane < lanes; ++lane)
                if (seen->uses(lane, p)) sum[c * lanes + lane] += x * weights[p * lanes + lane];
        }
}

/// to[r] = row r . own row r, for n rows: the diagonal of a product, so that it is rounded exactly as tile_gemm rounds it.
template <class A>
inline void diagonal_product(A* to, Rows<A> rows, int n, const A* own, int lanes, int HS) {
    A block[kLanes<A> * kLanes<A>];
    for (int r = 0; r < n; r += kLanes<A>) {
        const int m = smaller(kLanes<A>, n - r);
        tile_gemm(block, kLanes<A>, rows.first + r * rows.stride, rows.stride, own + r, lanes, m, kLanes<A>, HS, false);
        for (int i = 0; i < m; ++i) to[r + i] = block[i * kLanes<A> + i];
    }
}

/// A sum over many tiles in two levels: `part` takes kFoldTiles tiles, then joins `total`.
template <class A>
class FoldedSum {
public:
    FoldedSum(A* part, A* total, int64_t n) : part_(part), total_(total), n_(n) {}
    /// Where the next tile goes, and whether it adds to what is there.
    A* part() { return part_; }
    bool adds() const { return tiles_ != 0; }
    void tile_done() {
        if (++tiles_ == kFoldTiles) fold();
    }
    /// Multiplies lane vectors of everything summed so far.
    void scale_lanes(const A* factor, int lanes) {
        if (tiles_ != 0) scale_lanes(part_, factor, lanes);
        if (folded_) scale_lanes(total_, factor, lanes);
    }
    /// The sum; zeros if there was no tile.
    A* finish() {
        if (tiles_ != 0) fold();
        if (!folded_)
            for (int64_t i = 0; i < n_; ++i) total_[i] = 0;
        return total_;
    }

private:
    void scale_lanes(A* sum, const A* factor, int lanes) {
        for (int64_t i = 0; i < n_; i += lanes)
            for (int lane = 0; lane < lanes; lane += kLanes<A>) store(sum + i + lane, load(sum + i + lane) * load(factor + lane));
    }
    void fold() {
        if (folded_) {
            for (int64_t i = 0; i < n_; i += kLanes<A>) store(total_ + i, load(total_ + i) + load(part_ + i));
        } else {
            A* const other = total_;
            total_ = part_;
            part_ = other;
            folded_ = true;
        }
        tiles_ = 0;
    }

    A *part_, *total_;
    int64_t n_;  // elements, a multiple of kLanes<A>
    int tiles_ = 0;
    bool folded_ = false;
};

}  // namespace dualform::cpu::DF_ISA
