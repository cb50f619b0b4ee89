// Attention and momentum attention the plain way: the T x S matrix is formed, the momentum is a double sum.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reference/arithmetic.h"

namespace dualform::test {

struct AttentionSizes {
    int64_t B, T, S, NH, NKV, HS;
    double scale;
    bool causal;
    std::vector<double> lengths;  // empty: all S
    int64_t length(int64_t b) const { return lengths.empty() ? S : static_cast<int64_t>(lengths[static_cast<size_t>(b)]); }
};

template <class A>
struct AttentionResult {
    std::vector<A> out, lse, attn, state_out, dq, dk, dv, deta;
};

/// eta empty: plain attention. dout empty: no backward.
template <class A>
AttentionResult<A> attention(const Arithmetic<A>& a, const AttentionSizes& z, const std::vector<A>& q, const std::vector<A>& k,
                             const std::vector<A>& v, const std::vector<A>& dout, const std::vector<A>& eta,
                             const std::vector<A>& state_in) {
    const int64_t T = z.T, S = z.S, HS = z.HS, group = z.NH / z.NKV, first = S - T;
    const A scale = static_cast<A>(z.scale);
    AttentionResult<A> r;
    const auto queries = static_cast<size_t>(z.B * T * z.NH * HS), keys = static_cast<size_t>(z.B * S * z.NKV * HS);
    r.out.assign(queries, 0);
    r.attn.assign(queries, 0);
    r.lse.assign(static_cast<size_t>(z.B * z.NH * T), 0);
    r.state_out.assign(static_cast<size_t>(z.B * z.NH * HS), 0);
    r.dq.assign(queries, 0);
    r.dk.assign(keys, 0);
    r.dv.assign(keys, 0);
    r.deta.assign(eta.size(), 0);
    const auto matrix = static_cast<size_t>(group * T * S);
    std::vector<A> P(matrix), dS(matrix), raw(static_cast<size_t>(S)), power(static_cast<size_t>(S + T + 1));
    std::vector<std::vector<A>> powers(static_cast<size_t>(group));

    for (int64_t b = 0; b < z.B; ++b)
        for (int64_t g = 0; g < z.NKV; ++g) {
            const int64_t length = z.length(b);
            const A* k_b = &k[static_cast<size_t>((b * S * z.NKV + g) * HS)];
            const A* v_b = &v[static_cast<size_t>((b * S * z.NKV + g) * HS)];
            const int64_t row = z.NKV * HS;
            std::fill(P.begin(), P.end(), A(0));
            std::fill(dS.begin(), dS.end(), A(0));
            for (int64_t j = 0; j < group; ++j) {
                const int64_t h = g * group + j;
                A* P_h = &P[static_cast<size_t>(j * T * S)];
                A* dS_h = &dS[static_cast<size_t>(j * T * S)];
                if (!eta.empty()) {
                    for (size_t n = 0; n < power.size(); ++n) power[n] = std::pow(eta[static_cast<size_t>(h)], static_cast<A>(n));
                    powers[static_cast<size_t>(j)] = power;
                }
                for (int64_t t = 0; t < T; ++t) {
                    const size_t at = static_cast<size_t>(((b * T + t) * z.NH + h) * HS);
                    const int64_t n = std::max<int64_t>(0, z.causal ? std::min(length, t + first + 1) : length);
                    A highest = -std::numeric_limits<A>::infinity(), raw_highest = highest;
                    for (int64_t s = 0; s < n; ++s) {
                        const A dot = a.products(
                            0, HS, [&](int64_t i) { return q[at + static_cast<size_t>(i)]; }, [&](int64_t i) { return k_b[s * row + i]; });
                        raw[static_cast<size_t>(s)] = scale * dot;
                        P_h[t * S + s] = a.stored(scale * dot);
                        highest = std::max(highest, P_h[t * S + s]);
                        raw_highest = std::max(raw_highest, raw[static_cast<size_t>(s)]);
                    }
                    A& lse = r.lse[static_cast<size_t>((b * z.NH + h) * T + t)];
                    if (n == 0) {
                        lse = -std::numeric_limits<A>::infinity();
                    } else {
                        lse = raw_highest +
                              std::log(pairwise_sum<A>(n, [&](int64_t s) { return std::exp(raw[static_cast<size_t>(s)] - raw_highest); }));
                        const A sum = pairwise_sum<A>(n, [&](int64_t s) { return std::exp(P_h[t * S + s] - highest); });
                        // Tensor cores multiply the weights before they are divided: rounding comes first.
                        const bool divides_last = a.operands != Operands::kFloat32;
                        for (int64_t s = 0; s < n; ++s)
                            P_h[t * S + s] = a.stored(std::exp(P_h[t * S + s] - highest) / (divides_last ? 1 : sum));
                        for (int64_t i = 0; i < HS; ++i) {
                            const A total = a.products(
                                0, n, [&](int64_t s) { return P_h[t * S + s]; }, [&](int64_t s) { return v_b[s * row + i]; });
                            r.attn[at + static_cast<size_t>(i)] = a.stored(total / (divides_last ? sum : 1));
                        }
                    }
                    for (int64_t i = 0; i < HS; ++i) r.out[at + static_cast<size_t>(i)] = r.attn[at + static_cast<size_t>(i)];
                    if (!dout.empty()) {
                        const A delta = pairwise_sum<A>(
                            HS, [&](int64_t i) { return dout[at + static_cast<size_t>(i)] * r.attn[at + static_cast<size_t>(i)]; });
                        for (int64_t s = 0; s < n; ++s) {
                            // As the op is declared, backward has the weights from the saved lse.
                            P_h[t * S + s] = a.stored(std::exp(raw[static_cast<size_t>(s)] - lse));
                            const A dP = a.stored(a.products(
                                0, HS, [&](int64_t i) { return dout[at + static_cast<size_t>(i)]; },
                                [&](int64_t i) { return v_b[s * row + i]; }));
                            dS_h[t * S + s] = a.stored(P_h[t * S + s] * (dP - delta));
                        }
                        for (int64_t i = 0; i < HS; ++i)
                            r.dq[at + static_cast<size_t>(i)] =
                                scale * a.products(
                                            0, n, [&](int64_t s) { return dS_h[t * S + s]; },
                                            [&](int64_t s) { return k_b[s * row + i]; });
                    }
                }
            }
            if (!dout.empty())
                for (int64_t s = 0; s < S; ++s)
                    for (int64_t i = 0; i < HS; ++i) {
                        const size_t at = static_cast<size_t>(((b * S + s) * z.NKV + g) * HS + i);
                        const auto query = [&](int64_t n) {
                            return static_cast<size_t>(((b * T + n % T) * z.NH + g * group + n / T) * HS + i);
                        };
                        r.dk[at] =
                            scale * a.products(
                                        0, group * T, [&](int64_t n) { return dS[static_cast<size_t>(n * S + s)]; },
                                        [&](int64_t n) { return q[query(n)]; });
                        r.dv[at] =
                            a.products(
                                0, group * T, [&](int64_t n) { return P[static_cast<size_t>(n * S + s)]; },
                                [&](int64_t n) { return dout[query(n)]; });
                    }
            if (eta.empty()) continue;

            for (int64_t j = 0; j < group; ++j) {
                const int64_t h = g * group + j;
                const std::vector<A>& eta_to = powers[static_cast<size_t>(j)];
                // m at position p, element i: with a state, only the keys from the first query's position on are summed. At eta = 0
                // nothing is added, whatever the state.
                const auto momentum = [&](int64_t p, int64_t i) {
                    if (eta[static_cast<size_t>(h)] == 0) return A(0);
                    const int64_t from = state_in.empty() ? 0 : first, to = std::min(p, length);
                    A m = to > from ? a.products(
                                          from, to - from, [&](int64_t s) { return eta_to[static_cast<size_t>(p - s)]; },
                                          [&](int64_t s) { return v_b[s * row + i]; })
                                    : A(0);
                    if (!state_in.empty())
                        m += eta_to[static_cast<size_t>(p - first)] * state_in[static_cast<size_t>((b * z.NH + h) * HS + i)];
                    return m;
                };
                for (int64_t i = 0; i < HS; ++i) {
                    for (int64_t t = 0; t < T; ++t) {
                        A& out = r.out[static_cast<size_t>(((b * T + t) * z.NH + h) * HS + i)];
                        if (t + first > 0 || !state_in.empty()) out += a.stored(momentum(t + first, i));
                    }
                    r.state_out[static_cast<size_t>((b * z.NH + h) * HS + i)] = momentum(S, i);
                }
                if (dout.empty()) continue;
                const auto dout_at = [&](int64_t t) { return &dout[static_cast<size_t>(((b * T + t) * z.NH + h) * HS)]; };
                r.deta[static_cast<size_t>(h)] += pairwise_sum<A>(T, [&](int64_t t) {
                    const int64_t p = t + first, n = std::max<int64_t>(0, std::min(p, length));
                    return pairwise_sum<A>(n, [&](int64_t s) {
                        const A dot = pairwise_sum<A>(HS, [&](int64_t i) { return dout_at(t)[i] * v_b[s * row + i]; });
                        return static_cast<A>(p - s) * eta_to[static_cast<size_t>(p - s - 1)] * dot;
                    });
                });
                for (int64_t s = 0; s < length; ++s) {
                    const int64_t t0 = std::max<int64_t>(0, s + 1 - first);  // queries after key s
                    for (int64_t i = 0; i < HS && t0 < T; ++i)
                        r.dv[static_cast<size_t>(((b * S + s) * z.NKV + g) * HS + i)] += a.products(
                            t0, T - t0, [&](int64_t t) { return eta_to[static_cast<size_t>(t + first - s)]; },
                            [&](int64_t t) { return dout_at(t)[i]; });
                }
            }
        }
    return r;
}

}  // namespace dualform::test
