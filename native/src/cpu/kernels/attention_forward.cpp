// Attention and momentum attention, forward. One task per (b, query head, 64 queries); the keys stream past with an online softmax. A lone
// query (cached decoding) has a path of its own, vectorised along the head size.
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/attention_widened.h"
#include "cpu/kernels/momentum.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int64_t kLoneQueryKeys = 256;  // keys from which a lone query is faster off the tiles
constexpr int64_t kPrefetchKeys = 16;    // keys fetched ahead for a lone query: a head's rows lie too far apart for the hardware to guess

template <class A>
constexpr A kMinusInfinity = A(-__builtin_inf());

template <class T>
struct Forward {
    using A = Accumulate<T>;

    explicit Forward(const df_attention_args* args)
        : sizes(args),
          q(args->q),
          k(args->k),
          v(args->v),
          out(args->out),
          attn(args->attn),
          lse(args->lse),
          scale(args->scale),
          momentum{sizes, v, args->eta, ChunkCarries(sizes, args->state_in == nullptr ? 0 : sizes.S - sizes.T)} {}

    /// A worker's scratch; [HS][lanes] unless said.
    struct Offsets {
        Offsets(const AttentionSizes& sizes, bool with_momentum) {
            Layout layout;
            const int64_t tile = sizes.HS * int64_t(lanes_for<A>(sizes.T)), n = smaller<int64_t>(kTile, sizes.S);
            const int64_t HSp = round_up(sizes.HS, kLanes<A>);
            own = layout.add<A>(tile);
            part = layout.add<A>(larger(tile, HSp));
            total = layout.add<A>(larger(tile, HSp));
            scores = layout.add<A>(larger<int64_t>(kTile, n * lanes_for<A>(sizes.T)));
            rows = layout.add<A>(HSp * n);       // keys, then values [n][HS], where they cannot be read in place
            copy = layout.add<A>(n * sizes.HS);  // values without Inf and NaN [n][HS]
            row = layout.add<A>(HSp);            // [HS]
            m = layout.add<double>(with_momentum ? sizes.HS : 0);
            bytes = layout.bytes();
        }
        size_t own, part, total, scores, rows, copy, row, m, bytes;
    };

    void query_block(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const;
    void lone_query(int64_t b, int64_t h, char* memory, const Offsets& at) const;
    void write_row(int64_t b, int64_t h, int64_t t, const A* row, const double* m) const;
    A* array(char* memory, size_t offset) const { return reinterpret_cast<A*>(memory + offset); }

    AttentionSizes sizes;
    Heads<T> q, k, v, out, attn;
    RowValues<A> lse;
    Scale scale;
    Momentum<T> momentum;
};

/// scores [n][lanes] become exp(score - max), max and sum take the tile in. factor: what earlier sums are multiplied by. Returns whether
/// some factor is not 1.
template <class A>
bool softmax_tile(A* scores, int lanes, int n, const Seen<A>* seen, A* max, A* factor, double* sum) {
    bool changed = false;
    for (int lane = 0; lane < lanes; lane += kLanes<A>) {
        const Vec<A> old_max = load(max + lane);
        Vec<A> new_max = old_max;
        for (int s = 0; s < n; ++s) {
            A* at = scores + s * lanes + lane;
            if (seen != nullptr) store(at, select(seen->mask(lane, s), load(at), splat<A>(kMinusInfinity<A>)));
            new_max = vmax(new_max, load(at));
        }
        // A row that has met nothing but -inf subtracts 0: its weights are exp(-inf) = 0.
        const Vec<A> shift = select(new_max == kMinusInfinity<A>, Vec<A>{}, new_max);
        Vec<A> tile_sum = {};
        for (int s = 0; s < n;) {
            Vec<A> chain = {};  // short chains of additions, as in tile_gemm
            for (const int end = smaller(n, s + tile::kChain); s < end; ++s) {
                A* at = scores + s * lanes + lane;
                const Vec<A> weight = vexp<A>(load(at) - shift);
                store(at, weight);
                chain += weight;
            }
            tile_sum += chain;
        }
        store(max + lane, new_max);
        store(factor + lane, vexp<A>(old_max - shift));
        A sums[kLanes<A>];
        store(sums, tile_sum);
        for (int i = 0; i < kLanes<A>; ++i) {
            sum[lane + i] = sum[lane + i] * double(factor[lane + i]) + double(sums[i]);
            changed |= !(factor[lane + i] == A(1));
        }
    }
    return changed;
}

template <class A>
A log_sum_exp(A max, double sum) {
    return sum == 0 ? kMinusInfinity<A> : A(double(max) + log(sum));
}

/// Stores row t of the attention part, and of the output: that plus m (null: nothing is added).
template <class T>
void Forward<T>::write_row(int64_t b, int64_t h, int64_t t, const A* row, const double* m) const {
    T* out_t = out.row(b, t, h);
    if (m == nullptr) {
        for (int c = 0; c < sizes.HS; ++c) put(out_t + c, row[c]);
    } else {
        for (int c = 0; c < sizes.HS; ++c) put(out_t + c, double(row[c]) + m[c]);
    }
    if (!attn) return;
    T* attn_t = attn.row(b, t, h);
    for (int c = 0; c < sizes.HS; ++c) put(attn_t + c, row[c]);
}

template <class T>
void Forward<T>::query_block(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const {
    const int HS = sizes.HS, nq = int(smaller<int64_t>(kTile, sizes.T - t0)), lanes = lanes_for<A>(nq);
    const int64_t kv = h / sizes.group, length = sizes.length(b);
    const int64_t first_visible = sizes.visible(t0, length), last_visible = sizes.visible(t0 + nq - 1, length);
    A *own = array(memory, at.own), *scores = array(memory, at.scores), *rows = array(memory, at.rows), *row = array(memory, at.row);

    A max[kTile], factor[kTile];
    double sum[kTile];
    for (int i = 0; i < lanes; ++i) {
        max[i] = kMinusInfinity<A>;
        sum[i] = 0;
    }
    Seen<A> seen;
    FoldedSum<A> weighted(array(memory, at.part), array(memory, at.total), int64_t(HS) * lanes);
    if (last_visible > 0) pack_transposed(own, lanes, q.row(b, t0, h), q.stride[1], nq, HS, scale.negative);
    for (int64_t s0 = 0; s0 < last_visible; s0 += kTile) {
        const int n = int(smaller<int64_t>(kTile, last_visible - s0));
        scaled_scores(scores, lanes, read_rows(k.row(b, s0, kv), k.stride[1], n, HS, rows), n, own, HS, A(scale.magnitude));
        const bool masked = first_visible < s0 + n;
        if (masked)
            for (int i = 0; i < lanes; ++i) seen.set(i, 0, sizes.visible(t0 + smaller(i, nq - 1), length) - s0);
        if (softmax_tile(scores, lanes, n, masked ? &seen : nullptr, max, factor, sum)) weighted.scale_lanes(factor, lanes);
        add_product(weighted.part(), lanes, read_rows(v.row(b, s0, kv), v.stride[1], n, HS, rows), n, scores, HS, weighted.adds(),
                    masked ? &seen : nullptr, nullptr, array(memory, at.copy));
        weighted.tile_done();
    }

    A* result = weighted.finish();
    for (int lane = 0; lane < lanes; lane += kLanes<A>) {
        A sums[kLanes<A>];
        for (int i = 0; i < kLanes<A>; ++i) sums[i] = A(sum[lane + i]);
        const Vec<A> divisor = load(sums);
        for (int i = lane; i < HS * lanes; i += lanes) store(result + i, select(divisor == A(0), Vec<A>{}, load(result + i) / divisor));
    }

    A* lse_h = lse.head(b, h);
    const double eta = momentum.eta_view == nullptr ? 0 : momentum.eta(h);
    double* m = eta == 0 ? nullptr : reinterpret_cast<double*>(memory + at.m);
    if (m != nullptr) momentum.start(m, b, sizes.position(t0), h, eta);
    for (int i = 0; i < nq; ++i) {
        lse_h[t0 + i] = log_sum_exp(max[i], sum[i]);
        unpack_row(row, result, lanes, i, HS);
        write_row(b, h, t0 + i, row, m);
        if (m != nullptr && i + 1 < nq) momentum.step(m, b, sizes.position(t0 + i), h, eta);
    }
}

template <class T>
inline void prefetch_row(const T* row, int HS) {
    for (int c = 0; c < HS; c += int(64 / sizeof(T))) __builtin_prefetch(row + c);
}

/// T = 1: the query sees every key within length.
template <class T>
void Forward<T>::lone_query(int64_t b, int64_t h, char* memory, const Offsets& at) const {
    const int HS = sizes.HS, HSp = int(round_up(HS, kLanes<A>)), whole = HS / kLanes<A> * kLanes<A>;
    const int64_t kv = h / sizes.group, length = sizes.length(b);
    A *row = array(memory, at.row), *scores = array(memory, at.scores), *rows = array(memory, at.rows);
    convert_row(row, q.row(b, 0, h), HS);
    const A factor_of_score = A(scale.negative ? -scale.magnitude : scale.magnitude);

    A max = kMinusInfinity<A>;
    double sum = 0;
    FoldedSum<A> weighted(array(memory, at.part), array(memory, at.total), HSp);
    for (int64_t s0 = 0; s0 < length; s0 += kTile) {
        const int n = int(smaller<int64_t>(kTile, length - s0));
        for (int s = 0; s < n; ++s) {
            const T* k_s = k.row(b, s0 + s, kv);
            prefetch_row(v.row(b, s0 + s, kv), HS);
            if (s0 + s + kPrefetchKeys < length) prefetch_row(k.row(b, s0 + s + kPrefetchKeys, kv), HS);
            Vec<A> products = {};
            for (int c = 0; c < whole; c += kLanes<A>) products += load(row + c) * load(k_s + c);
            A score = lane_sum<A>(products);
            for (int c = whole; c < HS; ++c) score += row[c] * get(k_s + c);
            scores[s] = score * factor_of_score;
        }
        for (int s = n; s < kTile; ++s) scores[s] = kMinusInfinity<A>;
        Vec<A> maxima = splat<A>(max);
        for (int s = 0; s < kTile; s += kLanes<A>) maxima = vmax(maxima, load(scores + s));
        const A new_max = lane_max<A>(maxima), shift = new_max == kMinusInfinity<A> ? A(0) : new_max;
        Vec<A> sums = {};
        for (int s = 0; s < kTile; s += kLanes<A>) {
            const Vec<A> weights = vexp<A>(load(scores + s) - shift);
            store(scores + s, weights);
            sums += weights;
        }
        A factor[kLanes<A>];
        store(factor, vexp<A>(splat<A>(max - shift)));
        for (int i = 1; i < kLanes<A>; ++i) factor[i] = factor[0];
        if (!(factor[0] == A(1))) weighted.scale_lanes(factor, kLanes<A>);
        sum = sum * double(factor[0]) + double(lane_sum<A>(sums));
        max = new_max;

        Rows<A> values{nullptr, 0};
        if (sizeof(T) == sizeof(A) && HS == HSp) {
            values = read_rows(v.row(b, s0, kv), v.stride[1], n, HS, rows);
        } else {
            for (int s = 0; s < n; ++s) convert_row(rows + s * HSp, v.row(b, s0 + s, kv), HS);
            values = {rows, HSp};
        }
        tile_gemm(weighted.part(), HSp, scores, kTile, values.first, values.stride, 1, HS, n, weighted.adds());
        weighted.tile_done();
    }

    const A* result = weighted.finish();
    for (int c = 0; c < HS; ++c) row[c] = sum == 0 ? A(0) : result[c] / A(sum);
    lse.head(b, h)[0] = log_sum_exp(max, sum);
    const double eta = momentum.eta_view == nullptr ? 0 : momentum.eta(h);
    double* m = eta == 0 ? nullptr : reinterpret_cast<double*>(memory + at.m);
    if (m != nullptr) momentum.start(m, b, sizes.position(0), h, eta);
    write_row(b, h, 0, row, m);
}

/// state_out = m_S.
template <class T>
void write_state(const Momentum<T>& momentum, const df_view* state_out) {
    using A = Accumulate<T>;
    const AttentionSizes& sizes = momentum.sizes;
    for (int64_t b = 0; b < sizes.B; ++b)
        for (int64_t h = 0; h < sizes.NH; ++h) {
            A* state = data<A>(state_out) + b * state_out->stride[0] + h * state_out->stride[1];
            const double* m = momentum.carries.at(b, h, momentum.carries.chunks);
            for (int c = 0; c < sizes.HS; ++c) state[c] = momentum.eta(h) == 0 ? A(0) : A(m[c]);
        }
}

template <class T>
int forward(df_queue* queue, const df_attention_args* args, df_error* error) {
    using A = Accumulate<T>;
    Forward<T> pass(args);
    const AttentionSizes& sizes = pass.sizes;
    const bool with_momentum = args->eta != nullptr;
    const int64_t blocks = ceil_div(sizes.T, kTile), tasks = sizes.B * sizes.NH * blocks;
    const double work = sizes.pairs() * sizes.HS;
    const typename Forward<T>::Offsets at(sizes, with_momentum);

    Layout layout;
    const size_t workers = layout.add<char>(int64_t(at.bytes) * task_workers(queue, tasks, work));
    const size_t carries = layout.add<double>(with_momentum ? pass.momentum.carries.elements(sizes.B) : 0);
    const Scratch scratch(queue, layout.bytes());
    if (!scratch) return out_of_memory(error, with_momentum ? "momentum_attention_forward" : "attention_forward", layout.bytes());

    if (with_momentum) {
        pass.momentum.carries.first = scratch.as<double>(carries);
        pass.momentum.compute_carries(queue, args->state_in, Type<A>{});
        if (args->state_out != nullptr) write_state(pass.momentum, args->state_out);
    }
    for_tasks(queue, tasks, work, [&](int64_t i, int worker) {
        const int64_t head = i % (sizes.B * sizes.NH), b = head / sizes.NH, h = head % sizes.NH;
        const int64_t block = blocks - 1 - i / (sizes.B * sizes.NH);  // the last queries see the most keys: they go first
        char* memory = scratch.as<char>(workers) + size_t(worker) * at.bytes;
        if (sizes.T == 1 && sizes.S >= kLoneQueryKeys) return pass.lone_query(b, h, memory, at);
        pass.query_block(b, h, block * kTile, memory, at);
    });
    return DF_OK;
}

/// A small call, in float64.
int forward_widened(df_queue* queue, const df_attention_args* args, df_error* error) {
    WidenedTensors tensors;
    const int q = tensors.add(args->q), k = tensors.add(args->k), v = tensors.add(args->v), state_in = tensors.add(args->state_in);
    const int out = tensors.add(args->out), attn = tensors.add(args->attn), lse = tensors.add(args->lse);
    const int state_out = tensors.add(args->state_out);
    const Scratch scratch(queue, tensors.bytes());
    if (!scratch) return out_of_memory(error, args->eta != nullptr ? "momentum_attention_forward" : "attention_forward", tensors.bytes());
    tensors.place(scratch);
    const int inputs[] = {q, k, v, state_in};
    for (int input : inputs) tensors.widen(input);
    df_attention_args wide = *args;
    wide.q = tensors[q];
    wide.k = tensors[k];
    wide.v = tensors[v];
    wide.state_in = tensors[state_in];
    wide.out = tensors[out];
    wide.attn = tensors[attn];
    wide.lse = tensors[lse];
    wide.state_out = tensors[state_out];
    const int status = attention_forward_f64(queue, &wide, error);
    if (status != DF_OK) return status;
    const int outputs[] = {out, attn, lse, state_out};
    for (int output : outputs) tensors.narrow(output);
    return DF_OK;
}

}  // namespace

int attention_forward_f64(df_queue* queue, const df_attention_args* args, df_error* error) { return forward<double>(queue, args, error); }

int attention_forward(df_queue* queue, const df_attention_args* args, df_error* error) {
    if (args->q->dtype != DF_F64 && is_widened(AttentionSizes(args))) return forward_widened(queue, args, error);
    return dispatch(args->q->dtype, [&](auto type) { return forward<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
