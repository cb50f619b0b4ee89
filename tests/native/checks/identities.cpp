#include <cmath>
#include <cstdio>

#include "check.h"

namespace dualform::test {

namespace {

constexpr int64_t kShapes = 60;

struct Identity {
    Identity(Report& r, const char* n) : report(r), name(n) {}
    ~Identity() { std::printf("%-60s %4lld times  worst relative difference %.2e\n", name, static_cast<long long>(times), worst); }
    void equal(const std::vector<double>& a, const std::vector<double>& b) {
        const double scale = std::max(largest_magnitude(a), largest_magnitude(b)), error = largest_distance(a, b);
        const Verdict v = judge(error, kIdentityTolerance * scale);
        if (scale > 0 && !(error / scale <= worst)) worst = error / scale;
        ++times;
        if (v.pass)
            report.pass();
        else
            report.fail("%s: %.3g apart, at most %.3g allowed", name, error, v.tolerance);
    }
    Report& report;
    const char* const name;
    double worst = 0;
    int64_t times = 0;
};

const Distribution kNormal = [](Random& r) { return r.normal(); };

/// The first T tokens of (B,S,...) data whose rows have `width` numbers.
std::vector<double> tokens(const std::vector<double>& x, int64_t B, int64_t S, int64_t width, int64_t from, int64_t to) {
    std::vector<double> y;
    for (int64_t b = 0; b < B; ++b) y.insert(y.end(), x.begin() + (b * S + from) * width, x.begin() + (b * S + to) * width);
    return y;
}

/// W_i = W_{i-1} + e_i (x) x'_i with e_i = rate (y_i - W_{i-1} x'_i), the error at the weights before step i of a squared loss: the
/// weights after all steps, applied, are the dual form of these e_i.
void dual_is_sequential(const Options& options, Report& report) {
    Device device(options);
    Identity primal(report, "dual form, primal = sequential gradient steps"), dual(report, "dual form, dual = sequential gradient steps");
    Identity split(report, "accumulate and apply = dual form");
    for (int64_t i = 0; i < options.number(kShapes); ++i) {
        Random random(options.seed + static_cast<uint64_t>(i));
        const int64_t N = random.one_of({1, 2, 3, 17, 33, 64}), O = random.one_of({1, 2, 5, 31, 65}), I = random.one_of({1, 3, 16, 33}),
                      M = random.one_of({1, 2, 7, 40});
        std::vector<double> w(static_cast<size_t>(O * I)), xp(static_cast<size_t>(N * I)), e(static_cast<size_t>(N * O)), expected;
        for (double& v : w) v = random.normal();
        for (double& v : xp) v = random.normal();
        const Array w0(device, DF_F64, {O, I}, w), x(device, DF_F64, {M, I}, kNormal, random);
        const double rate = 0.1 / static_cast<double>(I);
        for (int64_t n = 0; n < N; ++n) {
            const double* x_n = &xp[static_cast<size_t>(n * I)];
            for (int64_t o = 0; o < O; ++o) {
                double out = 0;
                for (int64_t c = 0; c < I; ++c) out += w[static_cast<size_t>(o * I + c)] * x_n[c];
                e[static_cast<size_t>(n * O + o)] = rate * (random.normal() - out);
            }
            for (int64_t o = 0; o < O; ++o)
                for (int64_t c = 0; c < I; ++c) w[static_cast<size_t>(o * I + c)] += e[static_cast<size_t>(n * O + o)] * x_n[c];
        }
        const std::vector<double> xs = x.read();
        for (int64_t m = 0; m < M; ++m)
            for (int64_t o = 0; o < O; ++o) {
                double out = 0;
                for (int64_t c = 0; c < I; ++c) out += w[static_cast<size_t>(o * I + c)] * xs[static_cast<size_t>(m * I + c)];
                expected.push_back(out);
            }
        const Array te(device, DF_F64, {N, O}, e), txp(device, DF_F64, {N, I}, xp), out(device, DF_F64, {M, O}),
            delta(device, DF_F64, {O, I});
        require_ok(df_dual_form_forward(out, nullptr, w0, te, txp, x, DF_FORM_PRIMAL), "primal");
        primal.equal(out.read(), expected);
        require_ok(df_dual_form_forward(out, nullptr, w0, te, txp, x, DF_FORM_DUAL), "dual");
        dual.equal(out.read(), expected);
        require_ok(df_delta_accumulate(delta, te, txp, 0), "accumulate");
        require_ok(df_delta_apply(out, x, w0, delta), "apply");
        split.equal(out.read(), expected);
    }
}

/// Linear attention is a gradient step on the tokens so far: out_t = (sum_{s<=t} v_s (x) k_s) q_t.
void linear_attention_is_gradient_form(const Options& options, Report& report) {
    Device device(options);
    Identity form(report, "linear attention = sum of outer products, applied");
    Identity chunks(report, "linear attention in two chunks = whole"), state(report, "linear attention, state after two chunks = whole");
    for (int64_t i = 0; i < options.number(kShapes); ++i) {
        Random random(options.seed + static_cast<uint64_t>(i));
        const int64_t T = random.one_of({2, 3, 17, 33, 65, 129, 200}), HS = random.one_of({1, 2, 5, 16, 33, 64}),
                      NH = random.one_of({1, 2, 3}), B = random.one_of({1, 2});
        const Shape shape = {B, T, NH, HS}, states = {B, NH, HS, HS};
        const Array q(device, DF_F64, shape, kNormal, random), k(device, DF_F64, shape, kNormal, random),
            v(device, DF_F64, shape, kNormal, random);
        const Array out(device, DF_F64, shape), state_out(device, DF_F64, states);
        require_ok(df_linear_attention_forward(out, nullptr, q, k, v, nullptr, nullptr), "linear attention");
        const std::vector<double> whole = out.read(), qs = q.read(), ks = k.read(), vs = v.read();
        for (const int64_t t : {int64_t{0}, T / 2, T - 1}) {
            const int64_t h = random.below(NH), b = random.below(B);
            std::vector<double> e, xp, x, expected;
            for (int64_t s = 0; s <= t; ++s)
                for (int64_t c = 0; c < HS; ++c) {
                    const size_t at = static_cast<size_t>(((b * T + s) * NH + h) * HS + c);
                    e.push_back(vs[at]);
                    xp.push_back(ks[at]);
                    if (s == t) x.push_back(qs[at]), expected.push_back(whole[at]);
                }
            const Array te(device, DF_F64, {t + 1, HS}, e), txp(device, DF_F64, {t + 1, HS}, xp), tx(device, DF_F64, {1, HS}, x);
            const Array delta(device, DF_F64, {HS, HS}), applied(device, DF_F64, {1, HS});
            require_ok(df_delta_accumulate(delta, te, txp, 0), "accumulate");
            require_ok(df_delta_apply(applied, tx, nullptr, delta), "apply");
            form.equal(applied.read(), expected);
        }
        const Array decay(
            device, DF_F64, {NH}, [](Random& r) { return r.chance(0.2) ? 1 : r.uniform(0, 1); }, random),
            state_in(device, DF_F64, states, kNormal, random);
        const bool with_decay = random.chance(0.7), with_state = random.chance(0.5);
        df_tensor* const d = with_decay ? static_cast<df_tensor*>(decay) : nullptr;
        df_tensor* const s0 = with_state ? static_cast<df_tensor*>(state_in) : nullptr;
        require_ok(df_linear_attention_forward(out, state_out, q, k, v, d, s0), "linear attention");
        const std::vector<double> expected = out.read(), expected_state = state_out.read();
        for (int n = 0; n < 4; ++n) {
            const int64_t cut = 1 + random.below(T - 1);
            const Array again(device, DF_F64, shape), middle(device, DF_F64, states), end(device, DF_F64, states);
            const Array first = again.slice(0, cut), second = again.slice(cut, T);
            require_ok(df_linear_attention_forward(first, middle, q.slice(0, cut), k.slice(0, cut), v.slice(0, cut), d, s0), "first chunk");
            require_ok(df_linear_attention_forward(second, end, q.slice(cut, T), k.slice(cut, T), v.slice(cut, T), d, middle),
                       "second chunk");
            chunks.equal(again.read(), expected);
            state.equal(end.read(), expected_state);
        }
    }
}

struct Sequence {
    Sequence(df_device* device, Random& random, int dtype, bool self)
        : B(random.one_of({1, 2, 3})),
          S(random.one_of({2, 3, 17, 33, 65, 129, 150})),
          T(self ? S : 1 + random.below(S)),
          NKV(random.one_of({1, 2})),
          group(random.one_of({1, 2, 3})),
          HS(random.one_of({1, 2, 5, 16, 33, 64})),
          NH(NKV * group),
          acc(accumulation_dtype(dtype)),
          queries{B, T, NH, HS},
          keys{B, S, NKV, HS},
          scale(1 / std::sqrt(static_cast<double>(HS))),
          q(device, dtype, queries, kNormal, random),
          k(device, dtype, keys, kNormal, random),
          v(device, dtype, keys, kNormal, random),
          dout(device, dtype, queries, kNormal, random),
          out(device, dtype, queries),
          attn(device, dtype, queries),
          lse(device, acc, {B, NH, T}),
          dq(device, dtype, queries),
          dk(device, dtype, keys),
          dv(device, dtype, keys) {}
    const int64_t B, S, T, NKV, group, HS, NH;
    const int acc;
    const Shape queries, keys;
    const double scale;
    const Array q, k, v, dout, out, attn, lse, dq, dk, dv;
};

/// A prompt and then single tokens, or any split, through the carried state.
void momentum_decoding(const Options& options, Report& report) {
    Device device(options);
    Identity decoding(report, "momentum attention decoded in chunks with a state = whole"),
        state(report, "momentum state after chunks = whole");
    for (int64_t i = 0; i < options.number(kShapes); ++i) {
        Random random(options.seed + static_cast<uint64_t>(i));
        const Sequence z(device, random, DF_F64, true);
        const Array eta(
            device, DF_F64, {z.NH}, [](Random& r) { return r.chance(0.2) ? 0.99 : r.uniform(0, 1); }, random),
            m_all(device, DF_F64, {z.B, z.NH, z.HS});
        require_ok(df_momentum_attention_forward(z.out, nullptr, z.lse, m_all, z.q, z.k, z.v, nullptr, eta, nullptr, z.scale), "whole");
        const std::vector<double> expected = z.out.read();
        const Array again(device, DF_F64, z.queries);
        Array m(device, DF_F64, {z.B, z.NH, z.HS}, std::vector<double>(static_cast<size_t>(z.B * z.NH * z.HS), 0));
        const bool single = random.chance(0.3);
        for (int64_t at = 0; at < z.T;) {
            const int64_t end = single && at > 0 ? at + 1 : std::min(z.T, at + 1 + random.below(z.T));
            Array next(device, DF_F64, {z.B, z.NH, z.HS});
            const Array lse(device, DF_F64, {z.B, z.NH, end - at}), out = again.slice(at, end);
            require_ok(df_momentum_attention_forward(out, nullptr, lse, next, z.q.slice(at, end), z.k.slice(0, end), z.v.slice(0, end),
                                                     nullptr, eta, m, z.scale),
                       "chunk");
            require_ok(df_copy(m, next), "copy");
            at = end;
        }
        decoding.equal(again.read(), expected);
        state.equal(m.read(), m_all.read());
    }
}

/// eta = 0 is attention, bit for bit, forward and backward, in every dtype.
void no_momentum_is_attention(const Options& options, Report& report) {
    Device device(options);
    for (const int dtype : options.dtypes())
        for (int64_t i = 0; i < options.number(kShapes) / 2; ++i) {
            const auto run = [&](bool momentum) {
                Random random(options.seed + static_cast<uint64_t>(i));
                const Sequence z(device, random, dtype, random.chance(0.5));
                const Array eta(device, z.acc, {z.NH}, std::vector<double>(static_cast<size_t>(z.NH), 0));
                if (momentum) {
                    require_ok(df_momentum_attention_forward(z.out, z.attn, z.lse, nullptr, z.q, z.k, z.v, nullptr, eta, nullptr, z.scale),
                               "forward");
                    require_ok(df_momentum_attention_backward(z.dq, z.dk, z.dv, nullptr, z.dout, z.q, z.k, z.v, z.attn, z.lse, nullptr, eta,
                                                              z.scale, 0),
                               "backward");
                } else {
                    require_ok(df_attention_forward(z.out, z.lse, z.q, z.k, z.v, nullptr, z.scale, 1), "forward");
                    require_ok(df_attention_backward(z.dq, z.dk, z.dv, z.dout, z.q, z.k, z.v, z.out, z.lse, nullptr, z.scale, 1),
                               "backward");
                }
                std::vector<unsigned char> bits;
                for (const Array* a : {&z.out, &z.lse, &z.dq, &z.dk, &z.dv}) {
                    const auto b = a->bits();
                    bits.insert(bits.end(), b.begin(), b.end());
                }
                return bits;
            };
            report.expect(run(true) == run(false), std::string("momentum attention with eta = 0 is not attention bit for bit, ") +
                                                       dtype_name(dtype) + " --seed " +
                                                       std::to_string(options.seed + static_cast<uint64_t>(i)));
        }
}

void grouped_heads_and_tails(const Options& options, Report& report) {
    Device device(options);
    Identity grouped(report, "grouped query heads = repeated key heads"),
        gradients(report, "gradients of grouped heads = sums over the group");
    Identity tail(report, "causal attention of the last queries = tail of the whole");
    for (int64_t i = 0; i < options.number(kShapes); ++i) {
        Random random(options.seed + static_cast<uint64_t>(i));
        const Sequence z(device, random, DF_F64, true);
        require_ok(df_attention_forward(z.out, z.lse, z.q, z.k, z.v, nullptr, z.scale, 1), "forward");
        require_ok(df_attention_backward(z.dq, z.dk, z.dv, z.dout, z.q, z.k, z.v, z.out, z.lse, nullptr, z.scale, 1), "backward");
        const auto repeated = [&](const std::vector<double>& x) {
            std::vector<double> y;
            for (size_t row = 0; row < x.size(); row += static_cast<size_t>(z.HS))
                for (int64_t n = 0; n < z.group; ++n)
                    y.insert(y.end(), x.begin() + static_cast<int64_t>(row), x.begin() + static_cast<int64_t>(row) + z.HS);
            return y;
        };
        const Shape all = {z.B, z.S, z.NH, z.HS};
        const Array k(device, DF_F64, all, repeated(z.k.read())), v(device, DF_F64, all, repeated(z.v.read())),
            out(device, DF_F64, z.queries), lse(device, DF_F64, {z.B, z.NH, z.T});
        const Array dq(device, DF_F64, z.queries), dk(device, DF_F64, all), dv(device, DF_F64, all);
        require_ok(df_attention_forward(out, lse, z.q, k, v, nullptr, z.scale, 1), "forward");
        require_ok(df_attention_backward(dq, dk, dv, z.dout, z.q, k, v, out, lse, nullptr, z.scale, 1), "backward");
        grouped.equal(out.read(), z.out.read());
        gradients.equal(dq.read(), z.dq.read());
        for (const auto& [many, few] : {std::make_pair(&dk, &z.dk), std::make_pair(&dv, &z.dv)}) {
            const std::vector<double> x = many->read();
            std::vector<double> sums(x.size() / static_cast<size_t>(z.group));
            for (size_t n = 0; n < x.size(); ++n)
                sums[n / static_cast<size_t>(z.group * z.HS) * static_cast<size_t>(z.HS) + n % static_cast<size_t>(z.HS)] += x[n];
            gradients.equal(sums, few->read());
        }
        const int64_t from = random.below(z.T);
        const Array last(device, DF_F64, {z.B, z.T - from, z.NH, z.HS}), last_lse(device, DF_F64, {z.B, z.NH, z.T - from});
        require_ok(df_attention_forward(last, last_lse, z.q.slice(from, z.T), z.k, z.v, nullptr, z.scale, 1), "tail");
        tail.equal(last.read(), tokens(z.out.read(), z.B, z.T, z.NH * z.HS, from, z.T));
    }
}

/// A product and its GELU, forward and backward, have the bits of the two ops.
void product_and_gelu_are_two_ops(const Options& options, Report& report) {
    Device device(options);
    for (int64_t i = 0; i < options.number(kShapes); ++i) {
        Random random(options.seed + static_cast<uint64_t>(i));
        const int64_t M = random.one_of({1, 3, 17, 40}), N = random.one_of({1, 2, 33, 65}), K = random.one_of({1, 5, 31, 64});
        const df_gelu kind = random.below(2) != 0 ? DF_GELU_TANH : DF_GELU_EXACT;
        const Array a(device, DF_BF16, {M, K}, kNormal, random), b(device, DF_BF16, {N, K}, kNormal, random), bias(device, DF_BF16, {N}, kNormal, random),
            dout(device, DF_BF16, {M, K}, kNormal, random);
        const Array out(device, DF_BF16, {M, N}), pre(device, DF_BF16, {M, N}), dpre(device, DF_BF16, {M, N}), dbias(device, DF_F32, {N}),
            alone(device, DF_BF16, {M, N});
        require_ok(df_matmul_gelu_forward(out, pre, a, b, bias, 0, 1, kind), "forward");
        require_ok(df_matmul_gelu_forward(alone, nullptr, a, b, bias, 0, 1, kind), "forward without pre");
        require_ok(df_matmul_gelu_backward(dpre, dbias, dout, b, pre, 1, kind, 0), "backward");
        const Array u(device, DF_BF16, {M, N}), g(device, DF_BF16, {M, N}), arrives(device, DF_BF16, {M, N}), du(device, DF_BF16, {M, N}),
            sum(device, DF_F32, {N});
        require_ok(df_matmul(u, a, b, bias, 0, 1, 0), "matmul");
        require_ok(df_bias_gelu_forward(g, u, nullptr, kind), "gelu");
        require_ok(df_matmul(arrives, dout, b, nullptr, 0, 1, 0), "matmul");
        require_ok(df_bias_gelu_backward(du, sum, arrives, u, nullptr, kind, 0), "gelu");
        report.expect(pre.read() == u.read() && out.read() == g.read() && alone.read() == g.read() && dpre.read() == du.read() &&
                          dbias.read() == sum.read(),
                      "a product and its GELU have other bits than the two ops");
    }
}

}  // namespace

void check_identities(const Options& options, Report& report) {
    if (options.backend != "cpu") return report.skip("identities on " + options.backend, "they are in float64, which the cpu serves");
    dual_is_sequential(options, report);
    linear_attention_is_gradient_form(options, report);
    momentum_decoding(options, report);
    no_momentum_is_attention(options, report);
    grouped_heads_and_tails(options, report);
    product_and_gelu_are_two_ops(options, report);
}

}  // namespace dualform::test
