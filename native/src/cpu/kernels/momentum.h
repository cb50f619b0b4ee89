// The momentum term m_p = sum_{s<p} eta^(p-s) v_s of momentum attention, in chunks: linear in T, all sums in double.
//
// Positions run from `base` (0, or the first query's position when a state comes in) to S, in chunks of kChunk. A first pass gives every
// chunk's own contribution, a scan over the chunks gives m at each chunk's start, and whoever needs m inside a chunk follows the recurrence
// m_{p+1} = eta (m_p + v_p) from there. Backward does the same from the other end: lambda_p = dout_p + eta lambda_{p+1}; where it passes all
// chunks of a head in order, m comes along instead.
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
    /// Channels from c on: m = m_begin becomes m_end. each(m_s, m_s + v_s, s, i) before each step, for each vector i. Values count from position 0
    /// up to the length.
    template <class M, class Each>
    inline __attribute__((always_inline)) void follow(M& m, int c, int64_t b, int64_t begin, int64_t end, int64_t h, double eta_h, Each&& each) const {
        using V = typename M::Vector;
        const T* const values = v.row(b, 0, h / sizes.group);
        const int64_t stride = v.stride[1], length = sizes.length(b);
        const auto counts = [&](int64_t s) { return s >= 0 && s < length; };
        for (int64_t s = begin; s < end; ++s) {
            if (c == 0 && counts(s + kRowsAhead)) prefetch_rows(values + (s + kRowsAhead) * stride, 0, 1, sizes.HS);
            const T* const v_s = counts(s) ? values + s * stride + c : nullptr;
            for (int i = 0; i < M::kCount; ++i) {
                const V inner = v_s == nullptr ? m.x[i] : m.x[i] + load_as<V>(v_s + i * M::kStep);
                each(m.x[i], inner, s, i);
                m.x[i] = eta_h * inner;
            }
        }
    }
    void follow(double* m, int64_t b, int64_t begin, int64_t end, int64_t h, double eta_h) const {
        by_channels(sizes.HS, [&](auto state, int c) __attribute__((always_inline)) {
            state.load(m + c);
            follow(state, c, b, begin, end, h, eta_h, [](auto, auto, int64_t, int) {});
            state.store(m + c);
        });
    }
    /// rows [n][HS] += m_p, m_{p+1}, ...; m = m_p becomes m_{p+n}.
    template <class A>
    void add(A* rows, int n, double* m, int64_t b, int64_t p, int64_t h, double eta_h) const {
        by_channels(sizes.HS, [&](auto state, int c) __attribute__((always_inline)) {
            state.load(m + c);
            follow(state, c, b, p, p + n, h, eta_h, [&](auto m_s, auto, int64_t s, int i) __attribute__((always_inline)) {
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

    /// Fills the carries. state_in (B,NH,HS) may be null.
    template <class A>
    void compute_carries(df_queue* queue, const df_view* state_in, Type<A>) const {
        const ChunkCarries& to = carries;
        const double work = double(sizes.B) * double(sizes.NH) * double(to.end - to.base) * sizes.HS;
        for_tasks(queue, sizes.B * sizes.NH * to.chunks, work, [&](int64_t i, int) {
            const int64_t j = i % to.chunks, h = i / to.chunks % sizes.NH, b = i / to.chunks / sizes.NH;
            double* m = to.at(b, h, j + 1);
            for (int c = 0; c < sizes.HS; ++c) m[c] = 0;
            follow(m, b, to.chunk_begin(j), to.chunk_end(j), h, eta(h));
        });
        for_tasks(queue, sizes.B * sizes.NH, work / kChunk, [&](int64_t i, int) {
            const int64_t h = i % sizes.NH, b = i / sizes.NH;
            double* m = to.at(b, h, 0);
            const A* state = state_in == nullptr ? nullptr : data<A>(state_in) + b * state_in->stride[0] + h * state_in->stride[1];
            for (int c = 0; c < sizes.HS; ++c) m[c] = state == nullptr ? 0 : double(state[c]);
            const double whole = pow(eta(h), kChunk);
            for (int64_t j = 0; j < to.chunks; ++j) {
                const int64_t length = to.chunk_end(j) - to.chunk_begin(j);
                const double decay = length == kChunk ? whole : pow(eta(h), double(length));
                double* next = to.at(b, h, j + 1);
                for (int c = 0; c < sizes.HS; ++c) next[c] += decay * to.at(b, h, j)[c];
            }
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
    /// Channels from c on: lambda = lambda_end becomes lambda_begin. each(lambda_{p+1}, p, i) before each step, for each vector i. There are
    /// queries, and so gradients, at the last T positions.
    template <class L, class Each>
    inline __attribute__((always_inline)) void follow(L& lambda, int c, int64_t b, int64_t begin, int64_t end, int64_t h, double eta_h, Each&& each) const {
        using V = typename L::Vector;
        const T* const gradients = dout.row(b, 0, h);
        const int64_t stride = dout.stride[1], first = sizes.S - sizes.T;
        const auto exists = [&](int64_t p) { return p >= first && p < sizes.S; };
        for (int64_t p = end - 1; p >= begin; --p) {
            if (c == 0 && exists(p - kRowsAhead)) prefetch_rows(gradients + (p - kRowsAhead - first) * stride, 0, 1, sizes.HS);
            const T* const dout_p = exists(p) ? gradients + (p - first) * stride + c : nullptr;
            for (int i = 0; i < L::kCount; ++i) {
                each(lambda.x[i], p, i);
                const V decayed = eta_h * lambda.x[i];
                lambda.x[i] = dout_p == nullptr ? decayed : load_as<V>(dout_p + i * L::kStep) + decayed;
            }
        }
    }

    /// Carry j of what chunk j's gradients add.
    void chunk_carry(int64_t b, int64_t h, int64_t j) const {
        const double eta_h = eta(h);
        by_channels(sizes.HS, [&](auto lambda, int c) __attribute__((always_inline)) {
            follow(lambda, c, b, carries.chunk_begin(j), carries.chunk_end(j), h, eta_h, [](auto, int64_t, int) {});
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
            chunk_carry(i / to.chunks / sizes.NH, i / to.chunks % sizes.NH, i % to.chunks);
        });
        for_tasks(queue, sizes.B * sizes.NH, work / kChunk, [&](int64_t i, int) { join_carries(i / sizes.NH, i % sizes.NH); });
    }

    const AttentionSizes& sizes;
    Heads<T> dout;
    const df_view* eta_view;
    ChunkCarries carries;
};

}  // namespace dualform::cpu::DF_ISA
