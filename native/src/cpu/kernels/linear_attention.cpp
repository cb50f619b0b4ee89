// Causal linear attention in chunks: inside a chunk an attention without softmax, between chunks a running state.
//
// All four passes are one recurrence with the roles of the tensors exchanged (out_i = sum_{j<=i} decay^(i-j) (query_i . key_j) value_j):
//   out: q k v forward in time;  dq: dout v k forward;  dk: v dout q backward;  dv: k q dout backward.
// Time is cut into segments that depend on the shape alone; their initial states come from a first walk over keys and values and a scan,
// so a single long head occupies every thread. States are kept in double and rounded once per chunk for the products.
#include "cpu/kernels.h"
#include "cpu/kernels/gemm.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int kChunk = 64;
constexpr int64_t kMinSegment = 1024;          // tokens: below, the first walk costs more than the threads win
constexpr int64_t kTasks = 8;                  // (batch, head, segment) triples wanted: each further segment is walked twice
constexpr int64_t kTaskWork = int64_t{1} << 17;  // multiply-adds worth a task of its own
constexpr int64_t kSmallWork = int64_t{1} << 23;  // multiply-adds up to which everything is computed in double: such calls cost little
constexpr int64_t kStreamBytes = int64_t{1} << 25;  // of the four tensors of a sweep, from which out is written past the caches
constexpr int kStateRows = 32;                 // rows of a state updated at once
// Rows of a chunk at a time, between which what comes next is fetched: of the scores, so that little is computed above the diagonal; of query
// times state; and of scores times values.
constexpr int kScoreRows = 16, kStateOutRows = 12, kLowerRows = 4;

struct Sweep {
    const df_view *out, *query, *key, *value;  // (B,T,NH,HS); out null: only the state is wanted
    const df_view* decay;                      // null: 1
    const df_view *initial, *final_state;      // (B,NH,HS,HS), each null or as stored
    bool key_first;                            // how the stored state is laid out in this sweep's roles
    bool reverse;                              // walks from the last token to the first
    // The derivative by decay, when ddecay is wanted: partner . d out / d decay, and dfinal . d final_state / d decay.
    const df_view *ddecay, *partner, *dfinal;
    bool accumulate;
};

double scalar(const df_view* v, int64_t i) {
    double x = 0;
    dispatch(v->dtype, [&](auto type) {
        x = double(get(data<const typename decltype(type)::type>(v) + i));
        return 0;
    });
    return x;
}

/// x^n with 0^0 = 1.
double power(double x, int64_t n) {
    double y = 1;
    for (; n > 0; n /= 2, x *= x)
        if (n % 2 != 0) y *= x;
    return y;
}

/// decay^n and its derivative n decay^(n-1) for n = 0..kChunk; falling[kChunk - n] = decay^n, so that a row of the mask is contiguous.
template <class A>
struct Powers {
    double exact[kChunk + 1], exact_slope[kChunk + 1];
    A rising[kChunk + 1], slope[kChunk + 1], falling[kChunk + 1], falling_slope[kChunk + 1];

    Powers(double decay, int64_t length) {
        const int last = int(smaller(length, int64_t{kChunk}));
        for (int n = 0; n <= last; ++n) {
            exact[n] = n == 0 ? 1 : exact[n - 1] * decay;
            exact_slope[n] = n == 0 ? 0 : n * exact[n - 1];
            rising[n] = falling[kChunk - n] = A(exact[n]);
            slope[n] = falling_slope[kChunk - n] = A(exact_slope[n]);
        }
    }
};

/// Sizes, and how time is cut.
struct Plan {
    int64_t batch, time, heads, size, padded, segments, segment;

    explicit Plan(const df_view* q, int lanes) : batch(q->shape[0]), time(q->shape[1]), heads(q->shape[2]), size(q->shape[3]) {
        padded = round_up(size, lanes);
        const int64_t wanted = smaller(ceil_div(kTasks, batch * heads), ceil_div(time, kMinSegment));
        segment = round_up(ceil_div(time, wanted), kChunk);
        segments = ceil_div(time, segment);
    }
    int64_t state() const { return size * padded; }
};

/// One thread's tiles.
template <class A>
struct Tiles {
    A *query, *value, *key, *scaled_key, *scores, *slope_scores, *out, *out_slope, *change, *change_slope, *rounded, *rounded_slope;
    double *state, *state_slope;  // key index before value index

    static size_t layout(Tiles* t, char* memory, const Plan& plan) {
        size_t at = 0;
        const auto take = [&](auto*& p, int64_t elements) {
            p = reinterpret_cast<decltype(p + 0)>(memory + at);
            at = size_t(round_up(int64_t(at) + elements * int64_t(sizeof *p), 64));
        };
        const int64_t rows = smaller(plan.time, int64_t{kChunk}) * plan.padded;
        const int64_t change = smaller(plan.size, int64_t{kStateRows}) * plan.padded;
        Tiles x;
        take(x.query, rows);
        take(x.value, rows);
        take(x.out, rows);
        take(x.out_slope, rows);
        take(x.key, plan.size * kChunk);
        take(x.scaled_key, plan.size * kChunk);
        take(x.scores, kChunk * kChunk);
        take(x.slope_scores, kChunk * kChunk);
        take(x.change, change);
        take(x.change_slope, change);
        take(x.rounded, plan.state());
        take(x.rounded_slope, plan.state());
        take(x.state, plan.state());
        take(x.state_slope, plan.state());
        if (t != nullptr) *t = x;
        return at;
    }
};

/// The rows of one head, in the order of the sweep.
Matrix head_rows(const df_view* v, int64_t b, int64_t h, bool reverse) {
    Matrix x;
    x.data = v->data;
    x.dtype = v->dtype;
    x.row = reverse ? -v->stride[1] : v->stride[1];
    x.col = 1;
    return offset(x, b * v->stride[0] + h * v->stride[2] + (reverse ? (v->shape[1] - 1) * v->stride[1] : 0));
}

/// A stored state as (key, value) in the sweep's roles.
Matrix head_state(const df_view* v, int64_t b, int64_t h, bool key_first) {
    const Matrix x = offset(matrix(v), b * v->stride[0] + h * v->stride[1]);
    return key_first ? x : transposed(x);
}

/// o (c,n) += lower triangle of s (c,c), ld kChunk, times v (c,n). What lies above the diagonal is never multiplied: a token does not
/// reach the ones before it, not even as NaN. between() is called before each kLowerRows rows.
template <class A, class Between>
void add_lower(A* o, const A* s, const A* v, int64_t ld, int c, int n, Between&& between) {
    for (int i = 0; i < c; i += kLowerRows) {
        between();
        const int rows = smaller(kLowerRows, c - i);
        if (i > 0) tile_gemm(o + i * ld, ld, s + i * kChunk, kChunk, v, ld, rows, n, i, true);
        for (int r = i; r < i + rows; ++r)
            for (int x = 0; x < n; x += kLanes<A>) {
                Vec<A> sum = load(o + r * ld + x);
                for (int j = i; j <= r; ++j) sum += s[r * kChunk + j] * load(v + j * ld + x);
                store(o + r * ld + x, sum);
            }
    }
}

template <class A>
void scale_row(A* x, A by, int64_t n) {
    for (int64_t j = 0; j < n; j += kLanes<A>) store(x + j, load(x + j) * by);
}

/// Whether out's rows, in storage of A, are written past the caches: they are whole lines, and a sweep's four tensors too large for a cache.
template <class A>
bool streams_out(const Sweep& sweep, const Plan& plan) {
    constexpr int64_t kLine = 64 / int64_t(sizeof(A));
    if (sweep.out == nullptr || sweep.out->dtype != kDtypeOf<A>) return false;
    bool whole = plan.size % kLine == 0 && reinterpret_cast<uintptr_t>(sweep.out->data) % 64 == 0;
    for (int i = 0; i < 3; ++i) whole = whole && (sweep.out->shape[i] == 1 || sweep.out->stride[i] % kLine == 0);
    return whole && 4 * numel(sweep.out) * int64_t(sizeof(A)) >= kStreamBytes;
}

/// Rows to fetch while the processor is busy with others: they lie too far apart for the hardware to guess, and more than a few at a time
/// would only wait for each other.
class Fetch {
public:
    void start() { blocks_ = at_ = row_ = lines_ = 0; }
    void add(const Matrix& x, int64_t rows, int64_t cols) {
        const int64_t bytes = int64_t(element_size(x.dtype));
        block_[blocks_++] = {static_cast<const char*>(x.data), x.row * bytes, rows, cols * bytes};
        lines_ += rows * ceil_div(cols * bytes, 64);
    }
    /// All is to be fetched within so many calls of some().
    void spread(int64_t calls) { lines_ = ceil_div(lines_, larger(int64_t{1}, calls)); }
    /// The next few rows.
    void some() {
        for (int64_t lines = lines_; lines > 0 && at_ < blocks_;) {
            const Block& x = block_[at_];
            for (int64_t byte = 0; byte < x.bytes; byte += 64, --lines) __builtin_prefetch(x.data + row_ * x.stride + byte);
            if (++row_ == x.rows) {
                row_ = 0;
                ++at_;
            }
        }
    }

private:
    struct Block {
        const char* data;
        int64_t stride, rows, bytes;
    } block_[4];
    int64_t blocks_ = 0, at_ = 0, row_ = 0, lines_ = 0;
};

template <class A>
class Walk {
public:
    Walk(const Sweep& sweep, const Plan& plan, const Tiles<A>& tiles, int64_t b, int64_t h)
        : sweep_(sweep), plan_(plan), t_(tiles), n_(int(plan.padded)), lag_(sweep.reverse ? 0 : 1),
          decays_(sweep.decay != nullptr), slopes_(sweep.ddecay != nullptr),
          powers_(decays_ ? scalar(sweep.decay, h * sweep.decay->stride[0]) : 1.0, plan.time),
          key_(head_rows(sweep.key, b, h, sweep.reverse)),
          value_(head_rows(sweep.value, b, h, sweep.reverse)), b_(b), h_(h),
          streams_(streams_out<A>(sweep, plan)) {}

    /// The state as it enters the next chunk; live = false means zero (and its contents undefined).
    void set_live(bool live) {
        live_ = live;
        if (live) round_state();
    }
    bool live() const { return live_; }

    /// Tokens [begin, end): outputs when asked for, and the state behind them unless nobody needs it. Returns partner . d out / d decay.
    double run(int64_t begin, int64_t end, bool outputs, bool needs_state) {
        double ddecay = 0;
        for (int64_t i = begin; i < end; i += kChunk) {
            const int c = int(smaller(int64_t{kChunk}, end - i));
            const bool update = needs_state || i + c < end;
            const int columns = int(round_up(c, kLanes<A>));
            fetch_.start();
            if (outputs && sweep_.out != nullptr && !streams_) fetch_.add(block(head_rows(sweep_.out, b_, h_, sweep_.reverse), i, 0), c, plan_.size);
            if (i + c < end) {
                const int64_t ahead = smaller(int64_t{kChunk}, end - i - c);
                fetch_.add(block(key_, i + c, 0), ahead, plan_.size);
                fetch_.add(block(value_, i + c, 0), ahead, plan_.size);
                if (outputs) fetch_.add(block(head_rows(sweep_.query, b_, h_, sweep_.reverse), i + c, 0), ahead, plan_.size);
            }
            fetch_.spread((outputs ? ceil_div(c, kScoreRows) + (live_ ? ceil_div(c, kStateOutRows) : 0) + ceil_div(c, kLowerRows) : 0) +
                          (update ? 2 * ceil_div(plan_.size, kStateRows) : 0));
            gather(t_.key, kChunk, transposed(block(key_, i, 0)), plan_.size, c, columns);
            gather(t_.value, n_, block(value_, i, 0), c, plan_.size, n_);
            if (outputs) ddecay += write_chunk(i, c);
            if (update) update_state(c);
        }
        if (outputs && streams_) streamed();
        return ddecay;
    }

private:
    /// Rows i..i+c of out.
    double write_chunk(int64_t i, int c) {
        const int size = int(plan_.size);
        gather(t_.query, n_, block(head_rows(sweep_.query, b_, h_, sweep_.reverse), i, 0), c, size, n_);
        for (int r = 0; r < c; r += kScoreRows) {
            fetch_.some();
            tile_gemm(t_.scores + r * kChunk, kChunk, t_.query + r * n_, n_, t_.key, kChunk, smaller(kScoreRows, c - r),
                      smaller(c, r + kScoreRows), size, false);
        }
        if (slopes_) mask(t_.slope_scores, powers_.falling_slope, c);
        if (decays_) mask(t_.scores, powers_.falling, c);
        if (live_) {
            for (int r = 0; r < c; r += kStateOutRows) {
                fetch_.some();
                tile_gemm(t_.out + r * n_, n_, t_.query + r * n_, n_, t_.rounded, n_, smaller(kStateOutRows, c - r), n_, size, false);
            }
        } else {
            for (int x = 0; x < c * n_; ++x) t_.out[x] = 0;
        }
        const double ddecay = slopes_ ? decay_gradient(i, c) : 0;
        if (live_ && decays_)
            for (int r = 0; r < c; ++r) scale_row(t_.out + r * n_, powers_.rising[r + lag_], n_);
        add_lower(t_.out, t_.scores, t_.value, n_, c, n_, [&] { fetch_.some(); });
        if (sweep_.out != nullptr) {
            const Matrix to = block(head_rows(sweep_.out, b_, h_, sweep_.reverse), i, 0);
            if (streams_) stream_rows(static_cast<A*>(to.data), to.row, c);
            else scatter(to, t_.out, n_, c, size, false);
        }
        return ddecay;
    }

    void stream_rows(A* to, int64_t stride, int c) {
        for (int r = 0; r < c; ++r)
            for (int x = 0; x < n_; x += kLanes<A>) stream(to + r * stride + x, load(t_.out + r * n_ + x));
    }

    /// to[r][j] = scores[r][j] * falling[kChunk - (r - j)] for j <= r.
    void mask(A* to, const A* falling, int c) {
        for (int r = 0; r < c; ++r)
            for (int j = 0; j <= r; ++j) to[r * kChunk + j] = t_.scores[r * kChunk + j] * falling[kChunk - r + j];
    }

    /// Sum over the chunk of partner . d out / d decay, where t_.out still holds query times state.
    double decay_gradient(int64_t i, int c) {
        const int size = int(plan_.size);
        if (live_) {
            tile_gemm(t_.out_slope, n_, t_.query, n_, t_.rounded_slope, n_, c, n_, size, false);
            for (int r = 0; r < c; ++r)
                for (int x = 0; x < n_; x += kLanes<A>)
                    store(t_.out_slope + r * n_ + x,
                          load(t_.out_slope + r * n_ + x) * powers_.rising[r + lag_] + load(t_.out + r * n_ + x) * powers_.slope[r + lag_]);
        } else {
            for (int x = 0; x < c * n_; ++x) t_.out_slope[x] = 0;
        }
        add_lower(t_.out_slope, t_.slope_scores, t_.value, n_, c, n_, [&] { fetch_.some(); });
        gather(t_.query, n_, block(head_rows(sweep_.partner, b_, h_, sweep_.reverse), i, 0), c, size, n_);
        double sum = 0;
        for (int r = 0; r < c; ++r) {
            const A *slope = t_.out_slope + r * n_, *partner = t_.query + r * n_;
            Vec<double> row = {};
            int x = 0;
            for (; x + kLanes<double> <= size; x += kLanes<double>) row += load_as<double>(slope + x) * load_as<double>(partner + x);
            sum += lane_sum<double>(row);
            for (; x < size; ++x) sum += double(slope[x]) * double(partner[x]);
        }
        return sum;
    }

    /// to[d][j] = key_j[d] weight[c - lag - j].
    void scale_keys(A* to, const A* falling, int c) {
        const A* weight = falling + kChunk - (c - lag_);
        for (int64_t d = 0; d < plan_.size; ++d)
            for (int j = 0; j < c; ++j) to[d * kChunk + j] = t_.key[d * kChunk + j] * weight[j];
    }

    /// state = decay^c state + sum_j decay^(c - lag - j) key_j (x) value_j, and its derivative.
    void update_state(int c) {
        if (slopes_) scale_keys(t_.scaled_key, powers_.falling_slope, c);
        if (decays_) scale_keys(t_.key, powers_.falling, c);
        const double keep = powers_.exact[c], keep_slope = powers_.exact_slope[c];
        for (int64_t d = 0; d < plan_.size; d += kStateRows) {
            const int rows = int(smaller(int64_t{kStateRows}, plan_.size - d));
            fetch_.some();
            tile_gemm(t_.change, n_, t_.key + d * kChunk, kChunk, t_.value, n_, rows, n_, c, false);
            fetch_.some();
            double* state = t_.state + d * n_;
            if (slopes_) {
                tile_gemm(t_.change_slope, n_, t_.scaled_key + d * kChunk, kChunk, t_.value, n_, rows, n_, c, false);
                double* slope = t_.state_slope + d * n_;
                for (int x = 0; x < rows * n_; ++x)
                    slope[x] = live_ ? keep * slope[x] + keep_slope * state[x] + double(t_.change_slope[x]) : double(t_.change_slope[x]);
            }
            if (!live_)
                for (int x = 0; x < rows * n_; ++x) state[x] = double(t_.change[x]);
            else if (decays_)
                for (int x = 0; x < rows * n_; ++x) state[x] = keep * state[x] + double(t_.change[x]);
            else
                for (int x = 0; x < rows * n_; ++x) state[x] += double(t_.change[x]);
        }
        live_ = true;
        round_state();
    }

    void round_state() {
        const int64_t n = plan_.state();
        for (int64_t x = 0; x < n; ++x) t_.rounded[x] = A(t_.state[x]);
        if (slopes_)
            for (int64_t x = 0; x < n; ++x) t_.rounded_slope[x] = A(t_.state_slope[x]);
    }

    const Sweep& sweep_;
    const Plan& plan_;
    const Tiles<A>& t_;
    const int n_, lag_;
    const bool decays_, slopes_;
    const Powers<A> powers_;
    const Matrix key_, value_;
    const int64_t b_, h_;
    const bool streams_;  // out goes past the caches
    bool live_ = false;
    Fetch fetch_;
};

template <class A>
int run_sweep(df_queue* queue, const char* op, const Sweep& sweep, df_error* error) {
    const Plan plan(sweep.query, kLanes<A>);
    if constexpr (sizeof(A) < sizeof(double))
        if (numel(sweep.query) * 2 * (plan.size + kChunk / 2) <= kSmallWork) return run_sweep<double>(queue, op, sweep, error);
    const int64_t state = plan.state(), size = plan.size, n = plan.padded, heads = plan.batch * plan.heads, inner = plan.segments - 1;
    const bool slopes = sweep.ddecay != nullptr;
    const size_t tile_bytes = Tiles<A>::layout(nullptr, nullptr, plan);
    const int64_t work = smaller(plan.segment, plan.time) * 2 * size * (n + kChunk / 2);
    const int64_t group = larger(int64_t{1}, kTaskWork / work), indices = ceil_div(heads * plan.segments, group);
    const int64_t workers = indices == 1 && inner == 0 ? 1 : thread_count(queue);
    // After the tiles: initial states of the inner segments with their slopes, then partial sums of ddecay.
    const size_t states_at = tile_bytes * size_t(workers);
    const size_t sums_at = states_at + size_t(heads * inner * state * (slopes ? 2 : 1)) * sizeof(double);
    const size_t bytes = sums_at + size_t(heads * plan.segments) * sizeof(double);
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, op, bytes);
    double *states = scratch.as<double>(states_at), *sums = scratch.as<double>(sums_at);
    const auto slot = [&](int64_t head, int64_t segment) { return states + (head * inner + segment - 1) * state * (slopes ? 2 : 1); };
    const auto tiles_of = [&](int worker) {
        Tiles<A> tiles;
        Tiles<A>::layout(&tiles, scratch.as<char>(tile_bytes * size_t(worker)), plan);
        return tiles;
    };
    const auto load_initial = [&](double* to, int64_t head) {
        if (sweep.initial == nullptr) return false;
        gather(to, n, head_state(sweep.initial, head / plan.heads, head % plan.heads, sweep.key_first), size, size, n);
        return true;
    };

    if (inner > 0) {
        parallel_for(queue, heads * inner, [&](int64_t task, int worker) {
            const int64_t head = task / inner, segment = task % inner;
            const Tiles<A> tiles = tiles_of(worker);
            Walk<A> walk(sweep, plan, tiles, head / plan.heads, head % plan.heads);
            walk.run(segment * plan.segment, (segment + 1) * plan.segment, false, true);
            double* to = slot(head, segment + 1);
            __builtin_memcpy(to, tiles.state, size_t(state) * sizeof(double));
            if (slopes) __builtin_memcpy(to + state, tiles.state_slope, size_t(state) * sizeof(double));
        });
        parallel_for(queue, heads, [&](int64_t head, int worker) {
            const double decay = sweep.decay != nullptr ? scalar(sweep.decay, head % plan.heads * sweep.decay->stride[0]) : 1.0;
            const double keep = power(decay, plan.segment), keep_slope = double(plan.segment) * power(decay, plan.segment - 1);
            const Tiles<A> tiles = tiles_of(worker);
            double* before = load_initial(tiles.state, head) ? tiles.state : nullptr;
            double* slope_before = nullptr;  // the initial state does not depend on decay
            for (int64_t s = 1; s <= inner; ++s) {
                double *here = slot(head, s), *slope = here + state;
                if (before != nullptr) {
                    if (slopes)
                        for (int64_t x = 0; x < state; ++x)
                            slope[x] += keep_slope * before[x] + (slope_before != nullptr ? keep * slope_before[x] : 0);
                    for (int64_t x = 0; x < state; ++x) here[x] += keep * before[x];
                }
                before = here;
                slope_before = slope;
            }
        });
    }

    parallel_for(queue, indices, [&](int64_t index, int worker) {
        const Tiles<A> tiles = tiles_of(worker);
        for (int64_t task = index * group; task < smaller(heads * plan.segments, (index + 1) * group); ++task) {
            const int64_t head = task / plan.segments, segment = task % plan.segments, b = head / plan.heads, h = head % plan.heads;
            const bool last = segment == inner;
            Walk<A> walk(sweep, plan, tiles, b, h);
            if (segment == 0) {
                const bool live = load_initial(tiles.state, head);
                if (live && slopes)
                    for (int64_t x = 0; x < state; ++x) tiles.state_slope[x] = 0;
                walk.set_live(live);
            } else {
                __builtin_memcpy(tiles.state, slot(head, segment), size_t(state) * sizeof(double));
                if (slopes) __builtin_memcpy(tiles.state_slope, slot(head, segment) + state, size_t(state) * sizeof(double));
                walk.set_live(true);
            }
            const bool needs_state = last && (sweep.final_state != nullptr || (slopes && sweep.dfinal != nullptr));
            double ddecay = walk.run(segment * plan.segment, smaller(plan.time, (segment + 1) * plan.segment), true, needs_state);
            if (last && sweep.final_state != nullptr)
                scatter(head_state(sweep.final_state, b, h, sweep.key_first), tiles.state, n, size, size, false);
            if (last && slopes && sweep.dfinal != nullptr) {
                gather(tiles.state, n, head_state(sweep.dfinal, b, h, sweep.key_first), size, size, n);
                for (int64_t d = 0; d < size; ++d)
                    for (int64_t x = 0; x < size; ++x) ddecay += tiles.state[d * n + x] * tiles.state_slope[d * n + x];
            }
            sums[task] = ddecay;
        }
    });
    if (!slopes) return DF_OK;
    for (int64_t h = 0; h < plan.heads; ++h) {
        double sum = 0;
        for (int64_t b = 0; b < plan.batch; ++b)
            for (int64_t s = 0; s < plan.segments; ++s) sum += sums[(b * plan.heads + h) * plan.segments + s];
        Matrix to;
        to.data = sweep.ddecay->data;
        to.dtype = sweep.ddecay->dtype;
        scatter(offset(to, h * sweep.ddecay->stride[0]), &sum, 1, 1, 1, sweep.accumulate);
    }
    return DF_OK;
}

template <class A>
int forward(df_queue* queue, const df_linear_attention_args* a, df_error* error) {
    // S_t maps keys to values and is stored value first.
    return run_sweep<A>(queue, "linear_attention_forward",
                        {a->out, a->q, a->k, a->v, a->decay, a->state_in, a->state_out, false, false, nullptr, nullptr, nullptr, false},
                        error);
}

template <class A>
int backward(df_queue* queue, const df_linear_attention_args* a, df_error* error) {
    const char* op = "linear_attention_backward";
    int status = DF_OK;
    if (a->dq != nullptr || a->ddecay != nullptr)
        status = run_sweep<A>(queue, op,
                              {a->dq, a->dout, a->v, a->k, a->decay, a->state_in, nullptr, true, false, a->ddecay, a->q, a->dstate_out,
                               a->accumulate != 0},
                              error);
    if (status == DF_OK && (a->dk != nullptr || a->dstate_in != nullptr))
        status = run_sweep<A>(queue, op,
                              {a->dk, a->v, a->dout, a->q, a->decay, a->dstate_out, a->dstate_in, true, true, nullptr, nullptr,
                               nullptr, false},
                              error);
    if (status == DF_OK && a->dv != nullptr)
        status = run_sweep<A>(queue, op,
                              {a->dv, a->k, a->q, a->dout, a->decay, a->dstate_out, nullptr, false, true, nullptr, nullptr, nullptr, false},
                              error);
    return status;
}

}  // namespace

int linear_attention_forward(df_queue* queue, const df_linear_attention_args* args, df_error* error) {
    return dispatch(args->q->dtype, [&](auto type) { return forward<Accumulate<typename decltype(type)::type>>(queue, args, error); });
}

int linear_attention_backward(df_queue* queue, const df_linear_attention_args* args, df_error* error) {
    return dispatch(args->q->dtype, [&](auto type) { return backward<Accumulate<typename decltype(type)::type>>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
