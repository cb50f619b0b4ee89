// Attention and momentum attention, backward. Scores are computed again from q, k and lse, twice: one task per (b, query head, 64 queries)
// for dq, one per (b, key head, 64 keys) for dk and dv. Every gradient has one owner, so sums have a fixed order and need no atomics.
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/attention_widened.h"
#include "cpu/kernels/momentum.h"

namespace dualform::cpu::DF_ISA {

namespace {

template <class A>
inline bool saw_no_key(A lse) { return lse == A(-__builtin_inf()); }

/// exp(score - lse), at most 1 in exact arithmetic: rounding of huge scores must not make it infinite.
template <class A>
inline Vec<A> probability(Vec<A> score, Vec<A> lse) {
    const Vec<A> x = score - lse;
    return vexp<A>(select(x > A(0), Vec<A>{}, x));
}

template <class T>
struct Backward {
    using A = Accumulate<T>;

    explicit Backward(const df_attention_args* args)
        : sizes(args),
          dq(args->dq),
          dk(args->dk),
          dv(args->dv),
          dout(args->dout),
          q(args->q),
          k(args->k),
          v(args->v),
          out(args->eta != nullptr ? args->attn : args->out),
          lse(args->lse),
          scale(args->scale),
          momentum{sizes, v, args->eta, ChunkCarries(sizes, 0)},
          reverse{sizes, dout, args->eta, ChunkCarries(sizes, 0)} {}

    /// A worker's scratch; [HS][lanes] unless said.
    struct Offsets {
        Offsets(const AttentionSizes& sizes, bool with_momentum) {
            Layout layout;
            const int64_t lanes = lanes_for<A>(larger(sizes.T, sizes.S)), tile = sizes.HS * lanes;
            const int64_t n = smaller<int64_t>(kTile, larger(sizes.T, sizes.S)), converted = sizeof(T) == sizeof(A) ? 0 : n * sizes.HS;
            for (size_t& offset : own) offset = layout.add<A>(tile);
            for (size_t& offset : part) offset = layout.add<A>(tile);
            for (size_t& offset : total) offset = layout.add<A>(tile);
            scores = layout.add<A>(n * lanes);   // [n][lanes]
            dscores = layout.add<A>(n * lanes);  // [n][lanes]
            for (size_t& offset : rows) offset = layout.add<A>(converted);
            copy = layout.add<A>(n * sizes.HS);                                  // rows without Inf and NaN [n][HS]
            row = layout.add<A>(sizes.HS);                                       // [HS]
            chunk = layout.add<double>(with_momentum ? kChunk * sizes.HS : 0);  // [kChunk][HS]
            for (size_t& offset : carry) offset = layout.add<double>(with_momentum ? sizes.HS : 0);  // [HS]
            bytes = layout.bytes();
        }
        size_t own[2], part[2], total[2], scores, dscores, rows[2], copy, row, chunk, carry[2], bytes;
    };

    void query_block(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const;
    void key_block(int64_t b, int64_t kv, int64_t s0, char* memory, const Offsets& at) const;
    bool momentum_dv(int64_t b, int64_t kv, int64_t s0, int n, double* sum, double* lambda) const;
    double deta(int64_t b, int64_t h, int64_t j, char* memory, const Offsets& at) const;
    A* array(char* memory, size_t offset) const { return reinterpret_cast<A*>(memory + offset); }
    A* delta_of(int64_t b, int64_t h) const { return delta + (b * sizes.NH + h) * sizes.T; }

    AttentionSizes sizes;
    Heads<T> dq, dk, dv, dout, q, k, v, out;
    RowValues<A> lse;
    Scale scale;
    Momentum<T> momentum;
    ReverseMomentum<T> reverse;
    A* delta = nullptr;  // (B,NH,T) dout_t . (attention part of out_t): written by the pass over queries, read by the one over keys
};

/// dscores [n][lanes] hold dP and become dS = P (dP - delta), for own rows that are queries.
template <class A>
void dscores_of_queries(A* dscores, const A* scores, int lanes, int n, const Seen<A>* seen, const A* lse, const A* delta) {
    for (int lane = 0; lane < lanes; lane += kLanes<A>) {
        const Vec<A> lse_q = load(lse + lane), delta_q = load(delta + lane);
        for (int s = 0; s < n; ++s) {
            A* at = dscores + s * lanes + lane;
            const Vec<A> ds = probability<A>(load(scores + s * lanes + lane), lse_q) * (load(at) - delta_q);
            store(at, seen == nullptr ? ds : select(seen->mask(lane, s), ds, Vec<A>{}));
        }
    }
}

/// The same for own rows that are keys; scores become P. dead[t]: query t has nothing to attend.
template <class A>
void dscores_of_keys(A* dscores, A* scores, int lanes, int n, const Seen<A>* seen, const A* lse, const A* delta, const bool* dead) {
    for (int t = 0; t < n; ++t)
        for (int lane = 0; lane < lanes; lane += kLanes<A>) {
            A *score = scores + t * lanes + lane, *dscore = dscores + t * lanes + lane;
            Vec<A> p = probability<A>(load(score), splat<A>(lse[t])), ds = p * (load(dscore) - delta[t]);
            if (seen != nullptr || dead[t]) {
                typename Seen<A>::IVec used = {};
                if (!dead[t]) used = seen->mask(lane, t);
                p = select(used, p, Vec<A>{});
                ds = select(used, ds, Vec<A>{});
            }
            store(score, p);
            store(dscore, ds);
        }
}

template <class T>
void Backward<T>::query_block(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const {
    const int HS = sizes.HS, nq = int(smaller<int64_t>(kTile, sizes.T - t0)), lanes = lanes_for<A>(nq);
    const int64_t kv = h / sizes.group, length = sizes.length(b);
    const int64_t first_visible = sizes.visible(t0, length), last_visible = sizes.visible(t0 + nq - 1, length);
    A *own_q = array(memory, at.own[0]), *own_dout = array(memory, at.own[1]), *row = array(memory, at.row);
    A *scores = array(memory, at.scores), *dscores = array(memory, at.dscores);

    A lse_q[kTile] = {}, delta_q[kTile] = {};
    for (int i = 0; i < nq; ++i) lse_q[i] = lse.head(b, h)[t0 + i];
    if (last_visible > 0) {
        // delta is rounded as dP is: where all the values that a query sees are equal, dP - delta is exactly 0.
        A* own_out = array(memory, at.part[1]);
        pack_transposed(own_out, lanes, out.row(b, t0, h), out.stride[1], nq, HS, false);
        diagonal_product(delta_q, read_rows(dout.row(b, t0, h), dout.stride[1], nq, HS, array(memory, at.rows[1])), nq, own_out, lanes, HS);
        for (int i = 0; i < nq; ++i) delta_of(b, h)[t0 + i] = delta_q[i];
        pack_transposed(own_dout, lanes, dout.row(b, t0, h), dout.stride[1], nq, HS, false);
        pack_transposed(own_q, lanes, q.row(b, t0, h), q.stride[1], nq, HS, scale.negative);
    }
    Seen<A> seen;
    FoldedSum<A> sum(array(memory, at.part[0]), array(memory, at.total[0]), int64_t(HS) * lanes);
    for (int64_t s0 = 0; s0 < last_visible; s0 += kTile) {
        const int n = int(smaller<int64_t>(kTile, last_visible - s0));
        const bool masked = first_visible < s0 + n;
        if (masked)
            for (int i = 0; i < lanes; ++i) seen.set(i, 0, sizes.visible(t0 + smaller(i, nq - 1), length) - s0);
        const Rows<A> keys = read_rows(k.row(b, s0, kv), k.stride[1], n, HS, array(memory, at.rows[0]));
        const Rows<A> values = read_rows(v.row(b, s0, kv), v.stride[1], n, HS, array(memory, at.rows[1]));
        scaled_scores(scores, lanes, keys, n, own_q, HS, A(scale.magnitude));
        tile_gemm(dscores, lanes, values.first, values.stride, own_dout, lanes, n, lanes, HS, false);
        dscores_of_queries(dscores, scores, lanes, n, masked ? &seen : nullptr, lse_q, delta_q);
        add_product(sum.part(), lanes, keys, n, dscores, HS, sum.adds(), masked ? &seen : nullptr, nullptr, array(memory, at.copy));
        sum.tile_done();
    }
    const A* result = sum.finish();
    const A factor = scale.negative ? -A(scale.magnitude) : A(scale.magnitude);
    for (int i = 0; i < nq; ++i) {
        T* to = dq.row(b, t0 + i, h);
        unpack_row(row, result, lanes, i, HS);
        const bool none = saw_no_key(lse_q[i]);
        for (int c = 0; c < HS; ++c) put(to + c, none ? A(0) : factor * row[c]);
    }
}

/// sum [n][HS] = what the momentum term sends to v_s: eta lambda_{s+1}, over the head group. False: nothing, every eta of it is 0.
template <class T>
bool Backward<T>::momentum_dv(int64_t b, int64_t kv, int64_t s0, int n, double* sum, double* lambda) const {
    const int HS = sizes.HS;
    const int64_t j = s0 / kChunk;
    bool any = false;
    for (int64_t h = kv * sizes.group; h < (kv + 1) * sizes.group; ++h) {
        const double eta = momentum.eta(h);
        if (eta == 0) continue;
        if (!any)
            for (int64_t i = 0; i < int64_t(n) * HS; ++i) sum[i] = 0;
        any = true;
        reverse.start(lambda, b, j, h);
        for (int64_t s = reverse.carries.chunk_end(j) - 1; s >= s0; --s) {
            if (s < s0 + n)
                for (int c = 0; c < HS; ++c) sum[(s - s0) * HS + c] += eta * lambda[c];
            reverse.step(lambda, b, s, h, eta);
        }
    }
    return any;
}

template <class T>
void Backward<T>::key_block(int64_t b, int64_t kv, int64_t s0, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t end = smaller<int64_t>(s0 + kTile, sizes.S);
    const int n = int(larger<int64_t>(0, smaller(end, sizes.length(b)) - s0));
    for (int64_t s = s0 + n; s < end; ++s)
        for (int c = 0; c < HS; ++c) {
            put(dk.row(b, s, kv) + c, A(0));
            put(dv.row(b, s, kv) + c, A(0));
        }
    if (n == 0) return;

    const int lanes = lanes_for<A>(n);
    A *own_k = array(memory, at.own[0]), *own_v = array(memory, at.own[1]), *row = array(memory, at.row);
    A *scores = array(memory, at.scores), *dscores = array(memory, at.dscores);
    pack_transposed(own_k, lanes, k.row(b, s0, kv), k.stride[1], n, HS, scale.negative);
    pack_transposed(own_v, lanes, v.row(b, s0, kv), v.stride[1], n, HS, false);

    Seen<A> seen;
    bool dead[kTile];
    FoldedSum<A> sum_dk(array(memory, at.part[0]), array(memory, at.total[0]), int64_t(HS) * lanes);
    FoldedSum<A> sum_dv(array(memory, at.part[1]), array(memory, at.total[1]), int64_t(HS) * lanes);
    const int64_t offset = sizes.S - sizes.T, first_query = sizes.causal ? larger<int64_t>(0, s0 - offset) : 0;
    for (int64_t h = kv * sizes.group; h < (kv + 1) * sizes.group; ++h)
        for (int64_t t0 = first_query; t0 < sizes.T; t0 += kTile) {
            const int nq = int(smaller<int64_t>(kTile, sizes.T - t0));
            const A *lse_t = lse.head(b, h) + t0, *delta_t = delta_of(b, h) + t0;
            const bool masked = sizes.causal && s0 + n - 1 > sizes.position(t0);
            bool any_dead = false;
            for (int i = 0; i < nq; ++i) any_dead |= dead[i] = saw_no_key(lse_t[i]);
            if (masked || any_dead)
                for (int i = 0; i < lanes; ++i) seen.set(i, masked ? s0 + smaller(i, n - 1) - sizes.position(t0) : 0, nq);
            const Seen<A>* mask = masked || any_dead ? &seen : nullptr;

            const Rows<A> queries = read_rows(q.row(b, t0, h), q.stride[1], nq, HS, array(memory, at.rows[0]));
            const Rows<A> gradients = read_rows(dout.row(b, t0, h), dout.stride[1], nq, HS, array(memory, at.rows[1]));
            scaled_scores(scores, lanes, queries, nq, own_k, HS, A(scale.magnitude));
            tile_gemm(dscores, lanes, gradients.first, gradients.stride, own_v, lanes, nq, lanes, HS, false);
            dscores_of_keys(dscores, scores, lanes, nq, mask, lse_t, delta_t, dead);
            add_product(sum_dv.part(), lanes, gradients, nq, scores, HS, sum_dv.adds(), mask, dead, array(memory, at.copy));
            add_product(sum_dk.part(), lanes, queries, nq, dscores, HS, sum_dk.adds(), mask, dead, array(memory, at.copy));
            sum_dv.tile_done();
            sum_dk.tile_done();
        }

    const A *result_dk = sum_dk.finish(), *result_dv = sum_dv.finish();
    const A factor = scale.negative ? -A(scale.magnitude) : A(scale.magnitude);
    double* momentum_sum = reinterpret_cast<double*>(memory + at.chunk);
    const bool add_momentum =
        momentum.eta_view != nullptr && momentum_dv(b, kv, s0, n, momentum_sum, reinterpret_cast<double*>(memory + at.carry[0]));
    for (int i = 0; i < n; ++i) {
        T *to_dk = dk.row(b, s0 + i, kv), *to_dv = dv.row(b, s0 + i, kv);
        unpack_row(row, result_dk, lanes, i, HS);
        for (int c = 0; c < HS; ++c) put(to_dk + c, factor * row[c]);
        unpack_row(row, result_dv, lanes, i, HS);
        if (add_momentum) {
            for (int c = 0; c < HS; ++c) put(to_dv + c, double(row[c]) + momentum_sum[i * HS + c]);
        } else {
            for (int c = 0; c < HS; ++c) put(to_dv + c, row[c]);
        }
    }
}

/// sum_c a[c] b[c] in eight partial sums.
double dot(const double* a, const double* b, int n) {
    double sum[8] = {};
    int c = 0;
    for (; c + 8 <= n; c += 8)
        for (int i = 0; i < 8; ++i) sum[i] += a[c + i] * b[c + i];
    for (; c < n; ++c) sum[0] += a[c] * b[c];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

/// Chunk j's share of deta_h: the sum of lambda_{s+1} . (m_s + v_s) over its positions s.
template <class T>
double Backward<T>::deta(int64_t b, int64_t h, int64_t j, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const double eta = momentum.eta(h);
    const int64_t begin = momentum.carries.chunk_begin(j), end = momentum.carries.chunk_end(j);
    double* inner = reinterpret_cast<double*>(memory + at.chunk);  // m_s + v_s, [kChunk][HS]
    double *m = reinterpret_cast<double*>(memory + at.carry[0]), *lambda = reinterpret_cast<double*>(memory + at.carry[1]);
    momentum.start(m, b, begin, h, eta);
    for (int64_t s = begin; s < end; ++s) {
        const T* v_s = momentum.value(b, s, h);
        for (int c = 0; c < HS; ++c) inner[(s - begin) * HS + c] = v_s == nullptr ? m[c] : m[c] + double(get(v_s + c));
        momentum.step(m, b, s, h, eta);
    }
    double sum = 0;
    reverse.start(lambda, b, j, h);
    for (int64_t s = end - 1; s >= begin; --s) {
        if (s + 1 < sizes.S) sum += dot(lambda, inner + (s - begin) * HS, HS);
        reverse.step(lambda, b, s, h, eta);
    }
    return sum;
}

template <class T>
int backward(df_queue* queue, const df_attention_args* args, df_error* error) {
    using A = Accumulate<T>;
    Backward<T> pass(args);
    const AttentionSizes& sizes = pass.sizes;
    const bool with_momentum = args->eta != nullptr, with_deta = with_momentum && args->deta != nullptr;
    const int64_t chunks = pass.momentum.carries.chunks, query_blocks = ceil_div(sizes.T, kTile), key_blocks = ceil_div(sizes.S, kTile);
    const typename Backward<T>::Offsets at(sizes, with_momentum);

    const double work = sizes.pairs() * sizes.HS;
    const int64_t most_tasks = sizes.B * sizes.NH * larger(query_blocks, key_blocks);
    Layout layout;
    const size_t workers = layout.add<char>(int64_t(at.bytes) * task_workers(queue, most_tasks, work));
    const size_t delta = layout.add<A>(sizes.B * sizes.NH * sizes.T);
    const size_t reverse_carries = layout.add<double>(with_momentum ? pass.reverse.carries.elements(sizes.B) : 0);
    const size_t carries = layout.add<double>(with_deta ? pass.momentum.carries.elements(sizes.B) : 0);
    const size_t deta_parts = layout.add<double>(with_deta ? sizes.B * sizes.NH * chunks : 0);
    const Scratch scratch(queue, layout.bytes());
    if (!scratch) return out_of_memory(error, with_momentum ? "momentum_attention_backward" : "attention_backward", layout.bytes());
    const auto memory_of = [&](int worker) { return scratch.as<char>(workers) + size_t(worker) * at.bytes; };

    pass.delta = scratch.as<A>(delta);
    if (with_momentum) {
        pass.reverse.carries.first = scratch.as<double>(reverse_carries);
        pass.reverse.compute_carries(queue);
    }
    for_tasks(queue, sizes.B * sizes.NH * query_blocks, work, [&](int64_t i, int worker) {
        const int64_t head = i % (sizes.B * sizes.NH), block = query_blocks - 1 - i / (sizes.B * sizes.NH);  // most keys first
        pass.query_block(head / sizes.NH, head % sizes.NH, block * kTile, memory_of(worker), at);
    });
    for_tasks(queue, sizes.B * sizes.NKV * key_blocks, work, [&](int64_t i, int worker) {
        const int64_t head = i % (sizes.B * sizes.NKV), block = i / (sizes.B * sizes.NKV);  // most queries first
        pass.key_block(head / sizes.NKV, head % sizes.NKV, block * kTile, memory_of(worker), at);
    });
    if (!with_deta) return DF_OK;

    pass.momentum.carries.first = scratch.as<double>(carries);
    pass.momentum.compute_carries(queue, nullptr, Type<A>{});
    double* parts = scratch.as<double>(deta_parts);
    for_tasks(queue, sizes.B * sizes.NH * chunks, double(sizes.B * sizes.NH) * double(sizes.S) * sizes.HS, [&](int64_t i, int worker) {
        parts[i] = pass.deta(i / chunks / sizes.NH, i / chunks % sizes.NH, i % chunks, memory_of(worker), at);
    });
    for (int64_t h = 0; h < sizes.NH; ++h) {
        double sum = args->accumulate ? get_scalar(args->deta, h) : 0;
        for (int64_t b = 0; b < sizes.B; ++b)
            for (int64_t j = 0; j < chunks; ++j) sum += parts[(b * sizes.NH + h) * chunks + j];
        put_scalar(args->deta, h, sum);
    }
    return DF_OK;
}

/// A small call, in float64. What forward saved was rounded, so the forward pass is done again.
int backward_widened(df_queue* queue, const df_attention_args* args, df_error* error) {
    WidenedTensors tensors;
    const int q = tensors.add(args->q), k = tensors.add(args->k), v = tensors.add(args->v), dout = tensors.add(args->dout);
    const int out = tensors.add(args->dout), attn = tensors.add(args->eta != nullptr ? args->dout : nullptr), lse = tensors.add(args->lse);
    const int dq = tensors.add(args->dq), dk = tensors.add(args->dk), dv = tensors.add(args->dv);
    const Scratch scratch(queue, tensors.bytes());
    if (!scratch) return out_of_memory(error, args->eta != nullptr ? "momentum_attention_backward" : "attention_backward", tensors.bytes());
    tensors.place(scratch);
    const int inputs[] = {q, k, v, dout};
    for (int input : inputs) tensors.widen(input);
    df_attention_args wide = *args;
    wide.q = tensors[q];
    wide.k = tensors[k];
    wide.v = tensors[v];
    wide.dout = tensors[dout];
    wide.out = tensors[out];
    wide.attn = tensors[attn];
    wide.lse = tensors[lse];
    int status = attention_forward_f64(queue, &wide, error);
    if (status != DF_OK) return status;
    wide.dq = tensors[dq];
    wide.dk = tensors[dk];
    wide.dv = tensors[dv];
    status = backward<double>(queue, &wide, error);
    if (status != DF_OK) return status;
    const int outputs[] = {dq, dk, dv};
    for (int output : outputs) tensors.narrow(output);
    return DF_OK;
}

}  // namespace

int attention_backward(df_queue* queue, const df_attention_args* args, df_error* error) {
    if (args->q->dtype != DF_F64 && is_widened(AttentionSizes(args))) return backward_widened(queue, args, error);
    return dispatch(args->q->dtype, [&](auto type) { return backward<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
