// What attention's forward and backward share: sizes and masks, strided rows, and products of tiles.
//
// Work goes by blocks of 64 rows of one head (queries in forward, keys in backward): own rows. They are packed transposed, one row per vector
// lane, and what is computed for them has the layout [.][lane]. The other side's rows stream past 64 at a time as the left operand of a
// product, so a softmax over keys runs down the lanes. Lanes never mix: whatever a masked or padded lane holds stays in it.
#pragma once

#include "cpu/bf16_tile.h"
#include "cpu/kernels.h"
#include "cpu/split_tile.h"
#include "cpu/vector_math.h"

namespace dualform::cpu::DF_ISA {

constexpr int kTile = 64;       // own rows of a task, and rows streamed at a time
constexpr int kFoldTiles = 16;  // tiles added to one float sum before it joins the total: keeps long sums near pairwise accuracy
constexpr float kStaleness = 4;  // what scores may exceed the subtracted maximum by before it moves and sums are rescaled
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

/// Fetches n rows ahead of their use: they lie too far apart for the hardware to guess.
template <class T>
inline void prefetch_rows(const T* first, int64_t stride, int n, int HS) {
    for (int r = 0; r < n; ++r)
        for (int c = 0; c < HS; c += int(64 / sizeof(T))) __builtin_prefetch(first + r * stride + c);
}

constexpr int64_t kRowsAhead = 16;  // rows that are read or written in turn are fetched so many ahead: each may lie on a page of its own

/// Fetches row t of head h, if begin <= t < end.
template <class T>
inline void fetch_row(const Heads<T>& x, int64_t b, int64_t t, int64_t h, int64_t begin, int64_t end, int HS) {
    if (begin <= t && t < end) prefetch_rows(x.row(b, t, h), 0, 1, HS);
}

/// Rows of memory to fetch into the L2 cache a few at a time, between other work: a burst of fetches waits for itself.
class Fetches {
public:
    /// Forgets what waits.
    void clear() { waiting_ = 0; }
    /// n rows of head h from t on, if n is above 0. No more than kMost such wait; what is added then is not fetched.
    template <class T>
    void add(const Heads<T>& x, int64_t b, int64_t t, int64_t h, int64_t n, int HS) {
        if (n <= 0 || waiting_ == kMost) return;
        queue_[waiting_++] = {reinterpret_cast<const char*>(x.row(b, t, h)), ptrdiff_t(x.stride[1]) * ptrdiff_t(sizeof(T)), n, HS * int(sizeof(T))};
    }
    /// What waits is to be fetched within so many calls of next.
    void spread(int64_t steps) {
        int64_t rows = 0;
        for (int i = 0; i < waiting_; ++i) rows += queue_[i].rows;
        at_once_ = int(ceil_div(rows, steps));
    }
    inline __attribute__((always_inline)) void next() {
        for (int i = 0; i < at_once_ && waiting_ > 0; ++i) {
            Rows& now = queue_[0];
            for (int c = 0; c < now.bytes; c += 64) __builtin_prefetch(now.row + c, 0, 2);
            now.row += now.stride;
            if (--now.rows > 0) continue;
            --waiting_;
            for (int j = 0; j < waiting_; ++j) queue_[j] = queue_[j + 1];
        }
    }

private:
    struct Rows {
        const char* row;
        ptrdiff_t stride;
        int64_t rows;
        int bytes;
    };
    static constexpr int kMost = 8;
    Rows queue_[kMost] = {};
    int waiting_ = 0, at_once_ = 0;
};

/// to[c] = from[c], rounded.
template <class T, class A>
inline void put_row(T* to, const A* from, int n) {
    int c = 0;
    for (; c + kLanes<A> <= n; c += kLanes<A>) store(to + c, load(from + c));
    for (; c < n; ++c) put(to + c, from[c]);
}

/// n rows of a head [n][HS] in the accumulation type, copied to scratch unless they lie so already: rows of (B,T,NH,HS) are far apart, and
/// a product that reads them there meets the same few sets of the cache.
template <class T>
inline Rows<Accumulate<T>> dense_rows(const T* first, int64_t stride, int n, int HS, Accumulate<T>* scratch) {
    if constexpr (sizeof(T) == sizeof(Accumulate<T>))
        if (stride == HS) return {first, HS};
    for (int r = 0; r < n; ++r) convert_row(scratch + r * HS, first + r * stride, HS);
    return {scratch, HS};
}

/// to[c][r] = from[r][c]: rows x cols becomes cols x rows.
inline void transpose_rows(float* to, ptrdiff_t to_stride, const float* from, ptrdiff_t from_stride, int rows, int cols) {
    bf16_tile::transpose_words(reinterpret_cast<uint32_t*>(to), to_stride, reinterpret_cast<const uint32_t*>(from), from_stride, rows, cols);
}
inline void transpose_rows(double* to, ptrdiff_t to_stride, const double* from, ptrdiff_t from_stride, int rows, int cols) {
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

/// to[c][r] = +-row r: own rows, one per lane; zeros in the lanes beyond n. rows: n x HS of scratch.
template <class T, class A>
inline void pack_transposed(A* to, int lanes, const T* first, int64_t stride, int n, int HS, bool negate, A* rows) {
    if constexpr (sizeof(T) == sizeof(A)) {
        transpose_rows(to, lanes, first, stride, n, HS);
    } else {
        for (int r = 0; r < n; ++r) convert_row(rows + r * HS, first + r * stride, HS);
        transpose_rows(to, lanes, rows, HS, n, HS);
    }
    for (int c = 0; c < HS && negate; ++c)
        for (int r = 0; r < n; ++r) to[c * lanes + r] = -to[c * lanes + r];
    for (int c = 0; c < HS && n < lanes; ++c)
        for (int r = n; r < lanes; ++r) to[c * lanes + r] = 0;
}

using bf16_tile::pack_columns;
using bf16_tile::pack_row_pairs;
using bf16_tile::pack_rows;
using bf16_tile::pair_rows;

/// Which streamed rows a lane may use: first <= p < last.
template <class A>
struct Seen {
    using I = typename BitsOf<A>::i;
    typedef I IVec __attribute__((vector_size(kVectorBytes)));

    void set(int lane, int64_t from, int64_t to) {
        first[lane] = I(larger<int64_t>(0, smaller<int64_t>(from, kTile)));
        last[lane] = I(larger<int64_t>(0, smaller<int64_t>(to, kTile)));
    }
    /// What the lanes from lane on may use, to be asked row by row.
    struct Lanes {
        /// All ones in the lanes that may use row p.
        IVec mask(int p) const {
            const IVec at = IVec{} + I(p);
            return (first <= at) & (at < last);
        }
        IVec first, last;
    };
    Lanes lanes(int lane) const {
        Lanes x;
        __builtin_memcpy(&x.first, first + lane, sizeof x.first);
        __builtin_memcpy(&x.last, last + lane, sizeof x.last);
        return x;
    }
    IVec mask(int lane, int p) const { return lanes(lane).mask(p); }
    /// The first vector of lanes of which one may use row p or a later one, where no lane's last row is before that of the lane below it.
    int reached_from(int lanes, int p) const {
        int lane = 0;
        while (lane < lanes && last[lane + kLanes<A> - 1] <= p) lane += kLanes<A>;
        return lane;
    }
    /// Lanes, in whole vectors, up to the last one that may use a row before end, where first rows grow with the lanes.
    int reaches_to(int lanes, int end) const {
        while (lanes > 0 && first[lanes - kLanes<A>] >= end) lanes -= kLanes<A>;
        return lanes;
    }

    bool uses(int lane, int p) const { return first[lane] <= p && p < last[lane]; }

    I first[kTile], last[kTile];
};

constexpr int kReach = 16;       // rows of a masked tile that are looked at together: lanes that reach none of them are left out
constexpr int kScoreChain = 16;  // terms of a score added in a chain: its error grows into that of its exponential
/// Where a sum goes over so many rows (keys in forward, the fewer of queries and keys in backward), whole tiles add to it in chains of
/// kLongSumChain terms: joining the sum, whose last bits are larger, costs more accuracy than adding more terms of a chain does.
constexpr int64_t kLongSum = 512;
constexpr int kLongSumChain = 2 * tile::kChain;

/// From here on a score's last place is so large that exponentials must be taken of rounded scores: product * scale - shift, where shift is a rounded
/// score, would be as far from 0 as that rounding, not 0 or some other number that both have.
constexpr float kHugeScore = 1048576;
/// Whether some of n scores are.
template <class A>
inline bool any_huge(const A* scores, int n) {
    bool any = false;
    for (int i = 0; i < n; ++i) any |= (scores[i] > A(kHugeScore)) | (scores[i] < -A(kHugeScore));
    return any;
}

/// products[r][lane] = row r . own row, the same bits forward and backward. They are scaled on the way to an exponential, product * scale - shift,
/// which is one rounding where there is FMA; where scores are huge, they are rounded first.
/// reach (optional): what lies outside it need not be there.
template <class A>
inline void score_products(A* products, int lanes, Rows<A> rows, int n, const A* own, int HS, const Seen<A>* reach = nullptr) {
    const int step = reach == nullptr ? n : kReach;
    for (int r = 0; r < n; r += step) {
        const int from = reach == nullptr ? 0 : reach->reached_from(lanes, r);
        tile_gemm<A, kScoreChain>(products + r * lanes + from, lanes, rows.first + r * rows.stride, rows.stride, own + from, lanes,
                                  smaller(step, n - r), lanes - from, HS, false);
    }
}

#if defined(__AVX512F__)
/// Whether products of T's rows may be formed of bfloat16 parts (split_tile.h).
template <class T>
constexpr bool kSplits = sizeof(T) == 4;
#else
template <class T>
constexpr bool kSplits = false;
#endif
constexpr int64_t kSplitLength = 384;  // queries and keys that pay for the splitting
constexpr int64_t kSplitElements = int64_t{1} << 20;  // of a head's keys: in parts, they and its values take 12 bytes for each
/// Whether they are: the same for forward and backward, which take the exponential of the same bits.
template <class T>
inline bool splits_products(df_queue* queue, const AttentionSizes& sizes) {
    return kSplits<T> && bf16_products(queue) == Bf16Products::kTiles && sizes.HS % split_tile::kStep == 0 && sizes.T >= kSplitLength &&
           sizes.S >= kSplitLength && sizes.S * sizes.HS <= kSplitElements;
}
/// n rows of a head as a split operand of padded lines (a multiple of 32), whose terms are the channels. Returns whether all is ordinary.
template <bool Left>
inline bool split_rows(bf16* to, const float* first, int64_t stride, int n, int padded, int HS) {
    const bool ordinary = split_tile::pack_lines<Left>(to, first, stride, n, HS / split_tile::kStep);
    split_tile::clear_rest(to, n, padded, HS / split_tile::kStep);
    return ordinary;
}
/// The same with the channels as lines and padded rows as terms. rows: padded x HS of scratch.
template <bool Left>
inline bool split_channels(bf16* to, const float* first, int64_t stride, int n, int padded, int HS, float* rows) {
    if (n < padded) {
        for (int r = 0; r < n; ++r) convert_row(rows + r * HS, first + r * stride, HS);
        __builtin_memset(rows + n * HS, 0, size_t(padded - n) * size_t(HS) * sizeof(float));
        first = rows;
        stride = HS;
    }
    return split_tile::pack_terms<Left>(to, first, stride, HS, padded / split_tile::kStep);
}
/// Elements of a split operand of so many lines and terms, which are multiples of 32.
inline int64_t split_elements(int64_t lines, int64_t terms) { return lines * terms * 3; }

template <class A>
inline bool is_finite(A x) { return x * A(0) == A(0); }
template <class A>
inline bool all_finite(Rows<A> rows, int n, int HS) {
    constexpr int kSums = 4;  // side by side: one would wait for itself
    Vec<A> zeros[kSums] = {};
    A zero = 0;
    for (int r = 0; r < n; ++r) {
        const A* row = rows.first + r * rows.stride;
        int c = 0;
        for (; c + kSums * kLanes<A> <= HS; c += kSums * kLanes<A>)
            for (int i = 0; i < kSums; ++i) zeros[i] += load(row + c + i * kLanes<A>) * A(0);
        for (; c + kLanes<A> <= HS; c += kLanes<A>) zeros[0] += load(row + c) * A(0);
        for (; c < HS; ++c) zero += row[c] * A(0);
    }
    return zero + lane_sum<A>((zeros[0] + zeros[1]) + (zeros[2] + zeros[3])) == 0;
}

template <class A>
inline bool all_finite(const A* first, int64_t stride, int n, int HS) {
    return all_finite(Rows<A>{first, ptrdiff_t(stride)}, n, HS);
}
inline bool all_finite(const bf16* first, int64_t stride, int n, int HS) {
    constexpr uint16_t kExponent = 0x7f80;
    uint16_t most = 0;
    for (int r = 0; r < n; ++r)
        for (int c = 0; c < HS; ++c) most = larger<uint16_t>(most, first[r * stride + c].bits & kExponent);
    return most != kExponent;
}

/// Weights [n][lanes] from their pairs.
inline void widen_pairs(float* weights, const bf16* pairs, int lanes, int n) {
    for (int r = 0; r < n; ++r)
        for (int i = 0; i < lanes; ++i) weights[r * lanes + i] = get(pairs + (r / 2 * lanes + i) * 2 + r % 2);
}

/// sum[c][lane] (+)= sum_p rows[p][c] weights[p][lane].
/// Where seen is given, a row that a lane must not use has weight 0 there. An Inf or a NaN in such a tile, 0 times which would reach
/// the lane, is taken out (copy: n x HS of scratch) and added to the lanes that use it alone; the bits of the others stay the same.
/// dead[p]: no lane uses row p. reaches: seen grows with the lanes, so that their first ones can be left out, kReach rows at a time.
template <int kChain = tile::kChain, class A>
inline void add_product(A* sum, int lanes, Rows<A> rows, int n, const A* weights, int HS, bool add, const Seen<A>* seen, const bool* dead,
                        A* copy, bool reaches = false) {
    const bool finite = seen == nullptr || all_finite(rows, n, HS);
    if (finite && reaches && seen != nullptr) {
        for (int p = 0; p < n; p += kReach) {
            const int from = p == 0 && !add ? 0 : seen->reached_from(lanes, p);
            tile_gemm(sum + from, lanes, rows.first + p * rows.stride, 1, weights + p * lanes + from, lanes, HS, lanes - from,
                      smaller(kReach, n - p), add || p > 0, rows.stride);
        }
        return;
    }
    if (finite) {
        tile_gemm<A, kChain>(sum, lanes, rows.first, 1, weights, lanes, HS, lanes, n, add, rows.stride);
        return;
    }
    for (int p = 0; p < n; ++p)
        for (int c = 0; c < HS; ++c) {
            const A x = rows.first[p * rows.stride + c];
            copy[p * HS + c] = is_finite(x) ? x : A(0);
        }
    static_assert(kReach == tile::kChain, "the bits are those of what reaches");
    if (reaches) tile_gemm(sum, lanes, copy, 1, weights, lanes, HS, lanes, n, add, HS);
    else tile_gemm<A, kChain>(sum, lanes, copy, 1, weights, lanes, HS, lanes, n, add, HS);
    for (int p = 0; p < n; ++p)
        for (int c = 0; c < HS; ++c) {
            const A x = rows.first[p * rows.stride + c];
            if (is_finite(x) || (dead != nullptr && dead[p])) continue;
            for (int lane = 0; lane < lanes; ++lane)
                if (seen->uses(lane, p)) sum[c * lanes + lane] += x * weights[p * lanes + lane];
        }
}

/// A sum over many tiles in two levels: `part` takes kFoldTiles tiles, then joins `total`.
template <class A>
class FoldedSum {
public:
    FoldedSum(A* part, A* total) : part_(part), total_(total) {}
    /// Empties it. n: elements, a multiple of kLanes<A>.
    void start(int64_t n) {
        n_ = n;
        tiles_ = 0;
        folded_ = false;
    }
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
    int64_t n_ = 0;
    int tiles_ = 0;
    bool folded_ = false;
};

// ---- the end of a forward pass ----

template <class A>
A log_sum_exp(double shift, double sum) {
    return sum == 0 ? A(-__builtin_inf()) : A(shift + log(sum));
}

/// lse[i] = log_sum_exp(shift[i] unit, sum[i]) for n rows.
template <class A>
void log_sum_exps(A* lse, const A* shift, const double* sum, double unit, int n) {
    for (int i = 0; i < n; i += kLanes<double>) {
        double logs[kLanes<double>];
        store(logs, log_of_normal(load(sum + i)));
        for (int j = 0; j < smaller(kLanes<double>, n - i); ++j) {
            const bool ordinary = sum[i + j] > 1e-300 && sum[i + j] < 1e300;
            const double shift_ij = double(shift[i + j]) * unit;
            lse[i + j] = ordinary ? A(shift_ij + logs[j]) : log_sum_exp<A>(shift_ij, sum[i + j]);
        }
    }
}

/// attention_forward in bfloat16 where the processor multiplies it, for a scale whose product with log2 e is neither 0 nor infinite.
int attention_forward_bf16(df_queue* queue, const df_attention_args* args, df_error* error);

}  // namespace dualform::cpu::DF_ISA
