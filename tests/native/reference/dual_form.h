// Sums of outer products, the dual form and linear attention the plain way: token by token, nothing in chunks.
#pragma once

#include <vector>

#include "reference/arithmetic.h"

namespace dualform::test {

/// (O,I): e^T xp.
template <class A>
std::vector<A> outer_products(const Arithmetic<A>& a, const std::vector<A>& e, const std::vector<A>& xp, int64_t N, int64_t O, int64_t I) {
    std::vector<A> w(static_cast<size_t>(O * I));
    for (int64_t o = 0; o < O; ++o)
        for (int64_t i = 0; i < I; ++i)
            w[static_cast<size_t>(o * I + i)] = a.products(
                0, N, [&](int64_t n) { return e[static_cast<size_t>(n * O + o)]; },
                [&](int64_t n) { return xp[static_cast<size_t>(n * I + i)]; });
    return w;
}

/// (M,N): a (M,K) times b (K,N), or b (N,K) transposed.
template <class A>
std::vector<A> product(const Arithmetic<A>& arithmetic, const std::vector<A>& a, const std::vector<A>& b, int64_t M, int64_t K, int64_t N, bool transposed) {
    std::vector<A> c(static_cast<size_t>(M * N));
    for (int64_t m = 0; m < M; ++m)
        for (int64_t n = 0; n < N; ++n)
            c[static_cast<size_t>(m * N + n)] = arithmetic.products(
                0, K, [&](int64_t k) { return a[static_cast<size_t>(m * K + k)]; },
                [&](int64_t k) { return b[static_cast<size_t>(transposed ? n * K + k : k * N + n)]; });
    return c;
}

template <class A>
struct LinearAttentionResult {
    std::vector<A> out, state_out, dq, dk, dv, ddecay, dstate_in;
};

template <class A>
LinearAttentionResult<A> linear_attention(const Arithmetic<A>& a, int64_t B, int64_t T, int64_t NH, int64_t HS, const std::vector<A>& q, const std::vector<A>& k,
                                          const std::vector<A>& v, const std::vector<A>& decay, const std::vector<A>& state_in,
                                          const std::vector<A>& dout, const std::vector<A>& dstate_out) {
    LinearAttentionResult<A> r;
    const auto n = static_cast<size_t>(B * T * NH * HS), square = static_cast<size_t>(HS * HS);
    r.out.assign(n, 0);
    r.dq.assign(n, 0);
    r.dk.assign(n, 0);
    r.dv.assign(n, 0);
    r.state_out.assign(static_cast<size_t>(B * NH) * square, 0);
    r.dstate_in = r.state_out;
    r.ddecay.assign(decay.size(), 0);
    std::vector<std::vector<A>> S(static_cast<size_t>(T + 1), std::vector<A>(square));  // S[t+1] is the state after token t
    std::vector<A> dS(square);
    const auto one = [&](A x, A y) { return a.products(0, 1, [&](int64_t) { return x; }, [&](int64_t) { return y; }); };
    for (int64_t b = 0; b < B; ++b)
        for (int64_t h = 0; h < NH; ++h) {
            const A keep = decay.empty() ? A(1) : decay[static_cast<size_t>(h)];
            const size_t state = static_cast<size_t>(b * NH + h) * square;
            const auto at = [&](int64_t t) { return static_cast<size_t>(((b * T + t) * NH + h) * HS); };
            for (size_t i = 0; i < square; ++i) S[0][i] = state_in.empty() ? A(0) : state_in[state + i];
            for (int64_t t = 0; t < T; ++t) {
                std::vector<A>& now = S[static_cast<size_t>(t + 1)];
                for (int64_t i = 0; i < HS; ++i) {
                    for (int64_t j = 0; j < HS; ++j)
                        now[static_cast<size_t>(i * HS + j)] =
                            keep * S[static_cast<size_t>(t)][static_cast<size_t>(i * HS + j)] +
                            one(v[at(t) + static_cast<size_t>(i)], k[at(t) + static_cast<size_t>(j)]);
                    r.out[at(t) + static_cast<size_t>(i)] = a.products(
                        0, HS, [&](int64_t j) { return now[static_cast<size_t>(i * HS + j)]; },
                        [&](int64_t j) { return q[at(t) + static_cast<size_t>(j)]; });
                }
            }
            for (size_t i = 0; i < square; ++i) r.state_out[state + i] = S[static_cast<size_t>(T)][i];
            if (dout.empty()) continue;
            for (size_t i = 0; i < square; ++i) dS[i] = dstate_out.empty() ? A(0) : dstate_out[state + i];
            for (int64_t t = T; t-- > 0;) {
                for (int64_t i = 0; i < HS; ++i)
                    for (int64_t j = 0; j < HS; ++j) {
                        A& d = dS[static_cast<size_t>(i * HS + j)];
                        if (t + 1 < T) d *= keep;
                        d += one(dout[at(t) + static_cast<size_t>(i)], q[at(t) + static_cast<size_t>(j)]);
                    }
                const std::vector<A>& now = S[static_cast<size_t>(t + 1)];
                for (int64_t i = 0; i < HS; ++i) {
                    r.dq[at(t) + static_cast<size_t>(i)] = a.products(
                        0, HS, [&](int64_t j) { return now[static_cast<size_t>(j * HS + i)]; },
                        [&](int64_t j) { return dout[at(t) + static_cast<size_t>(j)]; });
                    r.dk[at(t) + static_cast<size_t>(i)] = a.products(
                        0, HS, [&](int64_t j) { return dS[static_cast<size_t>(j * HS + i)]; },
                        [&](int64_t j) { return v[at(t) + static_cast<size_t>(j)]; });
                    r.dv[at(t) + static_cast<size_t>(i)] = a.products(
                        0, HS, [&](int64_t j) { return dS[static_cast<size_t>(i * HS + j)]; },
                        [&](int64_t j) { return k[at(t) + static_cast<size_t>(j)]; });
                }
                if (!decay.empty())
                    r.ddecay[static_cast<size_t>(h)] += pairwise_sum<A>(
                        HS * HS, [&](int64_t i) { return dS[static_cast<size_t>(i)] * S[static_cast<size_t>(t)][static_cast<size_t>(i)]; });
            }
            for (size_t i = 0; i < square; ++i) r.dstate_in[state + i] = keep * dS[i];
        }
    return r;
}

}  // namespace dualform::test
