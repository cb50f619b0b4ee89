// The momentum term m_p = sum_{s<p} eta^(p-s) v_s of momentum attention, in chunks: linear in T, all sums in double.
//
// Positions run from `base` (0, or the first query's position when a state comes in) to S, in chunks of kChunk. A first pass gives every
// chunk's own contribution, a scan over the chunks gives m at each chunk's start, and whoever needs m inside a chunk follows the recurrence
// m_{p+1} = eta (m_p + v_p) from there. Backward does the same from the other end: lambda_p = dout_p + eta lambda_{p+1}.
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

/// m <- eta (m + v). v null: a position without a value.
template <class T>
inline void momentum_step(double* __restrict m, const T* __restrict v, double eta, int HS) {
    if (v == nullptr) {
        for (int c = 0; c < HS; ++c) m[c] *= eta;
    } else {
        for (int c = 0; c < HS; ++c) m[c] = eta * (m[c] + double(get(v + c)));
    }
}
/// lambda <- dout + eta lambda. dout null: a position without a query.
template <class T>
inline void lambda_step(double* __restrict lambda, const T* __restrict dout, double eta, int HS) {
    if (dout == nullptr) {
        for (int c = 0; c < HS; ++c) lambda[c] *= eta;
    } else {
        for (int c = 0; c < HS; ++c) lambda[c] = double(get(dout + c)) + eta * lambda[c];
    }
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
    /// v_s where it counts, else null.
    const T* value(int64_t b, int64_t s, int64_t h) const { return s < sizes.length(b) ? v.row(b, s, h / sizes.group) : nullptr; }
    void fetch(int64_t b, int64_t s, int64_t h) const { fetch_row(v, b, s, h / sizes.group, 0, sizes.length(b), sizes.HS); }
    /// m_s becomes m_{s+1}. Before position 0 there is nothing to sum.
    void step(double* m, int64_t b, int64_t s, int64_t h, double eta_h) const {
        if (s >= 0) momentum_step(m, value(b, s, h), eta_h, sizes.HS);
    }
    /// m = m_p.
    void start(double* m, int64_t b, int64_t p, int64_t h, double eta_h) const {
        if (p < carries.base) {
            for (int c = 0; c < sizes.HS; ++c) m[c] = 0;
            return;
        }
        const int64_t j = (p - carries.base) / kChunk;
        __builtin_memcpy(m, carries.at(b, h, j), size_t(sizes.HS) * sizeof(double));
        for (int64_t s = carries.chunk_begin(j); s < p; ++s) step(m, b, s, h, eta_h);
    }

    /// Fills the carries. state_in (B,NH,HS) may be null.
    template <class A>
    void compute_carries(df_queue* queue, const df_view* state_in, Type<A>) const {
        const ChunkCarries& to = carries;
        const double work = double(sizes.B) * double(sizes.NH) * double(to.end - to.base) * sizes.HS;
        for_tasks(queue, sizes.B * sizes.NH * to.chunks, work, [&](int64_t i, int) {
            const int64_t j = i % to.chunks, h = i / to.chunks % sizes.NH, b = i / to.chunks / sizes.NH;
            const double eta_h = eta(h);
            double* m = to.at(b, h, j + 1);
            for (int c = 0; c < sizes.HS; ++c) m[c] = 0;
            for (int64_t s = to.chunk_begin(j); s < to.chunk_end(j); ++s) {
                fetch(b, s + kRowsAhead, h);
                step(m, b, s, h, eta_h);
            }
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
    /// dout of the query at position p, null where there is none.
    const T* gradient(int64_t b, int64_t p, int64_t h) const {
        const int64_t t = p - (sizes.S - sizes.T);
        return t >= 0 && t < sizes.T ? dout.row(b, t, h) : nullptr;
    }
    void fetch(int64_t b, int64_t p, int64_t h) const { fetch_row(dout, b, p - (sizes.S - sizes.T), h, 0, sizes.T, sizes.HS); }
    /// lambda_{p+1} becomes lambda_p.
    void step(double* lambda, int64_t b, int64_t p, int64_t h, double eta_h) const {
        lambda_step(lambda, gradient(b, p, h), eta_h, sizes.HS);
    }
    /// lambda at the end of chunk j.
    void start(double* lambda, int64_t b, int64_t j, int64_t h) const {
        __builtin_memcpy(lambda, carries.at(b, h, j + 1), size_t(sizes.HS) * sizeof(double));
    }

    void compute_carries(df_queue* queue) const {
        const ChunkCarries& to = carries;
        const double work = double(sizes.B) * double(sizes.NH) * double(to.end) * sizes.HS;
        for_tasks(queue, sizes.B * sizes.NH * (to.chunks + 1), work, [&](int64_t i, int) {
            const int64_t j = i % (to.chunks + 1), h = i / (to.chunks + 1) % sizes.NH, b = i / (to.chunks + 1) / sizes.NH;
            const double eta_h = eta(h);
            double* lambda = to.at(b, h, j);
            for (int c = 0; c < sizes.HS; ++c) lambda[c] = 0;
            for (int64_t p = to.chunk_end(j) - 1; p >= to.chunk_begin(j); --p) {
                fetch(b, p - kRowsAhead, h);
                step(lambda, b, p, h, eta_h);
            }
        });
        for_tasks(queue, sizes.B * sizes.NH, work / kChunk, [&](int64_t i, int) {
            const int64_t h = i % sizes.NH, b = i / sizes.NH;
            const double decay = pow(eta(h), kChunk);
            for (int64_t j = to.chunks - 1; j >= 0; --j) {
                double* lambda = to.at(b, h, j);
                for (int c = 0; c < sizes.HS; ++c) lambda[c] += decay * to.at(b, h, j + 1)[c];
            }
        });
    }

    const AttentionSizes& sizes;
    Heads<T> dout;
    const df_view* eta_view;
    ChunkCarries carries;
};

}  // namespace dualform::cpu::DF_ISA
