// The momentum term m_p = sum_{s<p} eta^(p-s) v_s of momentum attention, in chunks: linear in T, all sums in double.
//
// Positions run from `base` (0, or the first query's position when a state comes in) to S, in chunks of kChunk. Every chunk's own
// contribution and then m at each chunk's start, the carries, come from two passes over all heads or, as it goes, from who has a head to
// itself; whoever needs m inside a chunk follows the recurrence m_{p+1} = eta (m_p + v_p) from there. Backward does the same from the other
// end: lambda_p = dout_p + eta lambda_{p+1}; where it passes all chunks of a head in order, m comes along instead.
#pragma once

#include "cpu/kernels/attention_tile.h"

namespace dualform::cpu::DF_ISA {

constexpr int kChunk = kTile;

/// Element i of a (NH) tensor of any floating type: eta, deta.
inline double get_scalar(const df_view* v, int64_t i) {
    i *= v->stride[0];
    switch (v->dtype) {
        case DF_F32: return double(get(data<float>(v) + i));
        case DF_BF16: return double(get(data<bf16>(v) + i));
        default: return get(data<double>(v) + i);
    }
}
inline void put_scalar(const df_view* v, int64_t i, double x) {
    i *= v->stride[0];
    switch (v->dtype) {
        case DF_F32: return put(data<float>(v) + i, x);
        case DF_BF16: return put(data<bf16>(v) + i, x);
        default: return put(data<double>(v) + i, x);
    }
}

template <class V, class T>
inline V load_as(const T* p) {
    if constexpr (sizeof(V) == sizeof(double)) return double(get(p));
    else return load_doubles(p);
}
template <class T>
inline void store_as(T* p, double x) { put(p, x); }
template <class T>
inline void store_as(T* p, Vec<double> x) { store_doubles(p, x); }

/// What a recurrence knows of the channels that it follows at once, in registers: N times V, a double or a vector of them.
template <class V, int N>
struct Channels {
    using Vector = V;
    static constexpr int kCount = N, kStep = int(sizeof(V) / sizeof(double)), kWidth = kCount * kStep;

    void load(const double* p) {
        for (int i = 0; i < kCount; ++i) x[i] = load_as<V>(p + i * kStep);
    }
    void store(double* p) const {
        for (int i = 0; i < kCount; ++i) store_as(p + i * kStep, x[i]);
    }
    V x[N] = {};
};
constexpr int kMostVectors = 4;
/// f(zeros, c) for all channels of HS, those from c on at once.
template <class F>
inline __attribute__((always_inline)) void by_channels(int HS, F&& f) {
    using Most = Channels<Vec<double>, kMostVectors>;
    int c = 0;
    for (; c + Most::kWidth <= HS; c += Most::kWidth) f(Most{}, c);
    for (; c + kLanes<double> <= HS; c += kLanes<double>) f(Channels<Vec<double>, 1>{}, c);
    for (; c < HS; ++c) f(Channels<double, 1>{}, c);
}

/// Rows of a head at positions begin <= p < end, where a tensor has them or in a copy; a recurrence goes on without any elsewhere.
template <class X>
struct PositionRows {
    const X* at(int64_t p) const { return begin <= p && p < end ? first + (p - begin) * stride : nullptr; }
    /// Fetches row p, unless the rows lie one after another.
    void fetch(int64_t p, int HS) const {
        if (stride != HS && begin <= p && p < end) prefetch_rows(at(p), 0, 1, HS);
    }

    const X* first;
    int64_t stride, begin, end;
};

/// One vector per (b, query head, chunk boundary), in scratch: (B,NH,chunks+1,HS).
struct ChunkCarries {
    ChunkCarries(const AttentionSizes& sizes, int64_t first_position)
        : base(first_position), end(sizes.S), chunks(ceil_div(sizes.S - first_position, kChunk)), NH(sizes.NH), HS(sizes.HS) {}
    int64_t elements(int64_t B) const { return B * NH * (chunks + 1) * HS; }
    double* at(int64_t b, int64_t h, int64_t j) const { return first + ((b * NH + h) * (chunks + 1) + j) * HS; }
    int64_t chunk_begin(int64_t j) const { return base + j * kChunk; }
    int64_t chunk_end(int64_t j) const { return smaller(end, base + (j + 1) * kChunk); }

    int64_t base, end, chunks, NH;
    int HS;
    double* first = nullptr;
};

/// The term itself: m at any position, from v and the carries.
template <class T>
struct Momentum {
    double eta(int64_t h) const { return get_scalar(eta_view, h); }
    /// The values of query head h.
    PositionRows<T> values(int64_t b, int64_t h) const { return {v.row(b, 0, h / sizes.group), v.stride[1], 0, sizes.length(b)}; }
    /// Channels from c on: m = m_begin becomes m_end. each(m_s, m_s + v_s, s, i) before each step, for each vector i.
    template <class M, class X, class Each>
    inline __attribute__((always_inline)) void follow(M& m, int c, const PositionRows<X>& values, int64_t begin, int64_t end, double eta_h, Each&& each) const {
        using V = typename M::Vector;
        for (int64_t s = begin; s < end; ++s) {
            if (c == 0) values.fetch(s + kRowsAhead, sizes.HS);
            const X* const v_s = values.at(s);
            for (int i = 0; i < M::kCount; ++i) {
                const V inner = v_s == nullptr ? m.x[i] : m.x[i] + load_as<V>(v_s + c + i * M::kStep);
                each(m.x[i], inner, s, i);
                m.x[i] = eta_h * inner;
            }
        }
    }
    void follow(double* m, int64_t b, int64_t begin, int64_t end, int64_t h, double eta_h) const {
        by_channels(sizes.HS, [&](auto state, int c) __attribute__((always_inline)) {
            state.load(m + c);
            follow(state, c, values(b, h), begin, end, eta_h, [](auto, auto, int64_t, int) {});
            state.store(m + c);
        });
    }
    /// rows [n][HS] += m_p, m_{p+1}, ...; m = m_p becomes m_{p+n}. values: of the head, at these positions.
    template <class A, class X>
    void add(A* rows, int n, double* m, const PositionRows<X>& values, int64_t p, double eta_h) const {
        by_channels(sizes.HS, [&](auto state, int c) __attribute__((always_inline)) {
            state.load(m + c);
            follow(state, c, values, p, p + n, eta_h, [&](auto m_s, auto, int64_t s, int i) __attribute__((always_inline)) {
                A* const x = rows + (s - p) * sizes.HS + c + i * decltype(state)::kStep;
                store_as(x, load_as<decltype(m_s)>(x) + m_s);
            });
            state.store(m + c);
        });
    }
    /// m = m_p.
    void start(double* m, int64_t b, int64_t p, int64_t h, double eta_h) const {
        if (p < carries.base) {
            for (int c = 0; c < sizes.HS; ++c) m[c] = 0;
            return;
        }
        const int64_t j = (p - carries.base) / kChunk;
        __builtin_memcpy(m, carries.at(b, h, j), size_t(sizes.HS) * sizeof(double));
        follow(m, b, carries.chunk_begin(j), p, h, eta_h);
    }

    /// Carry j + 1 of what chunk j's values add.
    template <class X>
    void chunk_carry(int64_t b, int64_t h, int64_t j, const PositionRows<X>& values) const {
        const double eta_h = eta(h);
        by_channels(sizes.HS, [&](auto m, int c) __attribute__((always_inline)) {
            follow(m, c, values, carries.chunk_begin(j), carries.chunk_end(j), eta_h, [](auto, auto, int64_t, int) {});
            m.store(carries.at(b, h, j + 1) + c);
        });
    }
    /// Carry j + 1 from that and carry j.
    void join_carry(int64_t b, int64_t h, int64_t j) const {
        const double decay = pow(eta(h), double(carries.chunk_end(j) - carries.chunk_begin(j)));
        double* next = carries.at(b, h, j + 1);
        for (int c = 0; c < sizes.HS; ++c) next[c] += decay * carries.at(b, h, j)[c];
    }
    /// Carry 0. state_in (B,NH,HS) may be null.
    template <class A>
    void start_carries(int64_t b, int64_t h, const df_view* state_in, Type<A>) const {
        double* m = carries.at(b, h, 0);
        const A* state = state_in == nullptr ? nullptr : data<A>(state_in) + b * state_in->stride[0] + h * state_in->stride[1];
        for (int c = 0; c < sizes.HS; ++c) m[c] = state == nullptr ? 0 : double(state[c]);
    }
    /// Fills the carries of (b, key head) pairs from first_head on, in the order of these. state_in may be null.
    template <class A>
    void compute_carries(df_queue* queue, int64_t first_head, const df_view* state_in, Type<A> type) const {
        const ChunkCarries& to = carries;
        const int64_t first = first_head * sizes.group, heads = sizes.B * sizes.NH - first;
        const double work = double(heads) * double(to.end - to.base) * sizes.HS;
        for_tasks(queue, heads * to.chunks, work, [&](int64_t i, int) {
            const int64_t j = i % to.chunks, head = first + i / to.chunks, h = head % sizes.NH, b = head / sizes.NH;
            chunk_carry(b, h, j, values(b, h));
        });
        for_tasks(queue, heads, work / kChunk, [&](int64_t i, int) {
            const int64_t h = (first + i) % sizes.NH, b = (first + i) / sizes.NH;
            start_carries(b, h, state_in, type);
            for (int64_t j = 0; j < to.chunks; ++j) join_carry(b, h, j);
        });
    }

    /// state_out = m_S, from the carries.
    void put_state(const df_view* state_out) const {
        using A = Accumulate<T>;
        for (int64_t b = 0; b < sizes.B; ++b)
            for (int64_t h = 0; h < sizes.NH; ++h) {
                A* state = data<A>(state_out) + b * state_out->stride[0] + h * state_out->stride[1];
                const double* m = carries.at(b, h, carries.chunks);
                for (int c = 0; c < sizes.HS; ++c) state[c] = eta(h) == 0 ? A(0) : A(m[c]);
            }
    }

    const AttentionSizes& sizes;
    Heads<T> v;
    const df_view* eta_view;
    ChunkCarries carries;
};

/// lambda at any position >= 0, from dout and its own carries: carry j is lambda at the start of chunk j, the last one 0.
template <class T>
struct ReverseMomentum {
    double eta(int64_t h) const { return get_scalar(eta_view, h); }
    /// The gradients of query head h: there are queries at the last T positions.
    PositionRows<T> gradients(int64_t b, int64_t h) const { return {dout.row(b, 0, h), dout.stride[1], sizes.S - sizes.T, sizes.S}; }
    /// Channels from c on: lambda = lambda_end becomes lambda_begin. each(lambda_{p+1}, p, i) before each step, for each vector i.
    template <class L, class X, class Each>
    inline __attribute__((always_inline)) void follow(L& lambda, int c, const PositionRows<X>& gradients, int64_t begin, int64_t end, double eta_h, Each&& each) const {
        using V = typename L::Vector;
        for (int64_t p = end - 1; p >= begin; --p) {
            if (c == 0) gradients.fetch(p - kRowsAhead, sizes.HS);
            const X* const dout_p = gradients.at(p);
            for (int i = 0; i < L::kCount; ++i) {
                each(lambda.x[i], p, i);
                const V decayed = eta_h * lambda.x[i];
                lambda.x[i] = dout_p == nullptr ? decayed : load_as<V>(dout_p + c + i * L::kStep) + decayed;
            }
        }
    }

    /// Carry j of what chunk j's gradients add.
    template <class X>
    void chunk_carry(int64_t b, int64_t h, int64_t j, const PositionRows<X>& gradients) const {
        const double eta_h = eta(h);
        by_channels(sizes.HS, [&](auto lambda, int c) __attribute__((always_inline)) {
            follow(lambda, c, gradients, carries.chunk_begin(j), carries.chunk_end(j), eta_h, [](auto, int64_t, int) {});
            lambda.store(carries.at(b, h, j) + c);
        });
    }
    /// The carries of a head, from what each chunk's gradients add.
    void join_carries(int64_t b, int64_t h) const {
        const double decay = pow(eta(h), kChunk);
        for (int c = 0; c < sizes.HS; ++c) carries.at(b, h, carries.chunks)[c] = 0;
        for (int64_t j = carries.chunks - 1; j >= 0; --j) {
            double* lambda = carries.at(b, h, j);
            for (int c = 0; c < sizes.HS; ++c) lambda[c] += decay * carries.at(b, h, j + 1)[c];
        }
    }
    void compute_carries(df_queue* queue) const {
        const ChunkCarries& to = carries;
        const double work = double(sizes.B) * double(sizes.NH) * double(to.end) * sizes.HS;
        for_tasks(queue, sizes.B * sizes.NH * to.chunks, work, [&](int64_t i, int) {
            const int64_t h = i / to.chunks % sizes.NH, b = i / to.chunks / sizes.NH;
            chunk_carry(b, h, i % to.chunks, gradients(b, h));
        });
        for_tasks(queue, sizes.B * sizes.NH, work / kChunk, [&](int64_t i, int) { join_carries(i / sizes.NH, i % sizes.NH); });
    }

    const AttentionSizes& sizes;
    Heads<T> dout;
    const df_view* eta_view;
    ChunkCarries carries;
};

}  // namespace dualform::cpu::DF_ISA
