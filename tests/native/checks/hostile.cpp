#include <algorithm>
#include <cfloat>
#include <cmath>

#include "check.h"

namespace dualform::test {

namespace {

bool finite(const std::vector<double>& x) {
    for (const double e : x)
        if (!std::isfinite(e)) return false;
    return true;
}

double largest(int dtype) { return dtype == DF_F64 ? DBL_MAX : dtype == DF_F32 ? static_cast<double>(FLT_MAX) : 0x1.fep127; }
double denormal(int dtype) { return dtype == DF_F64 ? 0x1p-1070 : dtype == DF_F32 ? 0x1p-140 : 0x1p-130; }

/// HS = 1, scale = 1, q = 1: the keys are the logits.
void attention_logits(df_device* device, int dtype, Report& report) {
    const double huge = largest(dtype) / 2, tiny = denormal(dtype), inf = INFINITY;
    struct Row {
        const char* name;
        std::vector<double> logits;
        int64_t winner;  // the only key with weight, or -1: all that are not -inf weigh the same
    };
    const Row rows[] = {
        {"logits of 1e4 and -1e4", {-1e4, 1e4, -1e4}, 1},
        {"equal logits of 1e4", {1e4, 1e4, 1e4}, -1},
        {"equal logits of -1e4", {-1e4, -1e4}, -1},
        {"logits of half the largest number", {huge, -huge, 0}, 0},
        {"equal logits of minus half the largest number", {-huge, -huge, -huge}, -1},
        {"denormal logits", {tiny, -tiny, tiny, 0}, -1},
        {"zeros of both signs", {0.0, -0.0, 0.0}, -1},
        {"some logits of -inf", {-inf, 0, -inf, 0}, -1},
        {"all but one logit -inf", {-inf, -inf, 3}, 2},
    };
    for (const Row& row : rows) {
        const int64_t S = static_cast<int64_t>(row.logits.size());
        const int acc = accumulation_dtype(dtype);
        if (dtype == DF_F32 && float32_operands() == Operands::kBf16x3 && std::count(row.logits.begin(), row.logits.end(), -inf) > 0) {
            report.skip(row.name, "an infinity has no two parts in bfloat16");
            continue;
        }
        std::vector<double> values;
        double sum = 0;
        int64_t weighing = 0;
        for (int64_t s = 0; s < S; ++s) {
            values.push_back(static_cast<double>(s + 1));
            if (row.logits[static_cast<size_t>(s)] == -inf) continue;
            sum += values.back();
            ++weighing;
        }
        const double expected = row.winner >= 0 ? values[static_cast<size_t>(row.winner)] : sum / static_cast<double>(weighing);
        const Array q(device, dtype, {1, 1, 1, 1}, {1}), k(device, dtype, {1, S, 1, 1}, row.logits), v(device, dtype, {1, S, 1, 1}, values),
            dout(device, dtype, {1, 1, 1, 1}, {1});
        const Array out(device, dtype, {1, 1, 1, 1}), lse(device, acc, {1, 1, 1}), dq(device, dtype, {1, 1, 1, 1}),
            dk(device, dtype, {1, S, 1, 1}), dv(device, dtype, {1, S, 1, 1});
        require_ok(df_attention_forward(out, lse, q, k, v, nullptr, 1, 0), row.name);
        require_ok(df_attention_backward(dq, dk, dv, dout, q, k, v, out, lse, nullptr, 1, 0), row.name);
        const double tolerance = 4 * epsilon(dtype) * expected;
        report.expect(distance(out.read()[0], expected) <= tolerance, std::string(row.name) + ", " + dtype_name(dtype) + ": out " +
                                                                          std::to_string(out.read()[0]) + ", expected " +
                                                                          std::to_string(expected));
        report.expect(std::isfinite(lse.read()[0]), std::string(row.name) + ", " + dtype_name(dtype) + ": lse is not finite");
        // The keys' own size is in dq; with -inf among them 0 times it is NaN in exact terms too.
        report.expect(finite(dk.read()) && finite(dv.read()),
                      std::string(row.name) + ", " + dtype_name(dtype) + ": a gradient is not finite");
        // Backward knows the weights as exp(logit - lse), so they are as exact as lse is: at huge logits only finite.
        double weights = 0;
        for (const double w : dv.read()) weights += w;
        report.expect(distance(weights, 1) <= 4 * operand_epsilon(dtype, dtype == DF_F32 ? float32_operands() : Operands::kFloat32) + epsilon(acc) * std::fabs(lse.read()[0]),
                      std::string(row.name) + ", " + dtype_name(dtype) + ": the weights do not sum to 1");
    }
}

void cross_entropy_logits(df_device* device, int dtype, Report& report) {
    const double huge = largest(dtype) / 2, inf = INFINITY;
    struct Row {
        const char* name;
        std::vector<double> logits;
        double loss;
    };
    const Row rows[] = {{"target far ahead", {1e4, -1e4, 0}, 0},
                        {"equal logits of 1e4", {1e4, 1e4}, std::log(2)},
                        {"target ahead by the largest number", {huge, -huge}, 0},
                        {"others -inf", {-2, -inf, -inf}, 0},
                        {"denormals", {denormal(dtype), 0}, std::log(2)},
                        {"zeros of both signs", {-0.0, 0.0}, std::log(2)}};
    for (const Row& row : rows) {
        const int64_t V = static_cast<int64_t>(row.logits.size());
        const int acc = accumulation_dtype(dtype);
        const Array logits(device, dtype, {1, V}, row.logits), targets(device, DF_I32, {1}, {0}), loss(device, acc, {}),
            losses(device, acc, {1}), dlogits(device, dtype, {1, V});
        require_ok(df_cross_entropy(loss, losses, dlogits, logits, targets, -1), row.name);
        report.expect(distance(loss.read()[0], row.loss) <= 4 * epsilon(acc),
                      std::string("cross-entropy, ") + row.name + ", " + dtype_name(dtype) + ": loss " + std::to_string(loss.read()[0]));
        report.expect(finite(dlogits.read()),
                      std::string("cross-entropy, ") + row.name + ", " + dtype_name(dtype) + ": dlogits is not finite");
    }
}

/// f(x) must be y within an epsilon, for numbers at the edges.
void edges(df_device* device, int dtype, Report& report) {
    const double big = largest(dtype), half = big / 2, tiny = denormal(dtype), inf = INFINITY;
    struct Edge {
        df_unary op;
        double x, y;
    };
    const Edge table[] = {{DF_UNARY_TANH, 1e4, 1},
                          {DF_UNARY_TANH, -half, -1},
                          {DF_UNARY_TANH, inf, 1},
                          {DF_UNARY_TANH, tiny, tiny},
                          {DF_UNARY_SIGMOID, -1e4, 0},
                          {DF_UNARY_SIGMOID, half, 1},
                          {DF_UNARY_SIGMOID, -inf, 0},
                          {DF_UNARY_EXP, -half, 0},
                          {DF_UNARY_EXP, half, inf},
                          {DF_UNARY_EXP, -inf, 0},
                          {DF_UNARY_EXP, tiny, 1},
                          {DF_UNARY_LOG, 0, -inf},
                          {DF_UNARY_LOG, inf, inf},
                          {DF_UNARY_SQRT, 0, 0},
                          {DF_UNARY_SQRT, inf, inf},
                          {DF_UNARY_NEG, tiny, -tiny},
                          {DF_UNARY_ABS, -big, big},
                          {DF_UNARY_RELU, -inf, 0},
                          {DF_UNARY_RELU, tiny, tiny},
                          {DF_UNARY_RECIPROCAL, inf, 0},
                          {DF_UNARY_SQUARE, big, inf},
                          {DF_UNARY_LOG, tiny, std::log(tiny)},
                          {DF_UNARY_SIN, 1e4, std::sin(round_to(dtype, 1e4))},
                          {DF_UNARY_RSQRT, 0, inf}};
    for (const Edge& e : table) {
        // In a vector's body and in its tail.
        const Array x(device, dtype, {19}, std::vector<double>(19, e.x)), out(device, dtype, {19});
        require_ok(df_unary_forward(out, x, e.op), "unary");
        for (const double y : {out.read()[0], out.read()[18]})
            report.expect(distance(y, e.y) <= 2 * epsilon(dtype) * std::fabs(std::isfinite(e.y) ? e.y : 0),
                          std::string("unary ") + std::to_string(e.op) + " of " + std::to_string(e.x) + ", " + dtype_name(dtype) + ": " +
                              std::to_string(y) + ", expected " + std::to_string(e.y));
    }
    const Array nan(device, dtype, {19}, std::vector<double>(19, std::nan(""))), nan_out(device, dtype, {19});
    for (int op = 0; op <= DF_UNARY_COS; ++op) {
        require_ok(df_unary_forward(nan_out, nan, static_cast<df_unary>(op)), "unary");
        const double y = nan_out.read()[op % 19];
        report.expect(y != y,
                      "unary " + std::to_string(op) + " of NaN, " + dtype_name(dtype) + ": " + std::to_string(y) + ", expected NaN");
    }
    for (const df_gelu kind : {DF_GELU_EXACT, DF_GELU_TANH})
        for (const double value : {1e4, -1e4, half, -half, tiny, 0.0}) {
            const Array x(device, dtype, {19}, std::vector<double>(19, value)), one(device, dtype, {19}, std::vector<double>(19, 1)),
                out(device, dtype, {19}), dx(device, dtype, {19});
            require_ok(df_bias_gelu_forward(out, x, nullptr, kind), "gelu");
            require_ok(df_bias_gelu_backward(dx, nullptr, one, x, nullptr, kind, 0), "gelu");
            const double rounded = x.read()[0],
                         y = value > 1    ? rounded
                             : value < -1 ? 0
                                          : rounded / 2,
                         slope = value > 1    ? 1
                                 : value < -1 ? 0
                                              : 0.5;
            const std::string what =
                std::string("gelu ") + std::to_string(kind) + " of " + std::to_string(value) + ", " + dtype_name(dtype);
            report.expect(distance(out.read()[18], y) <= 2 * epsilon(dtype) * std::fabs(y) + (std::fabs(value) < 1 ? tiny : 0),
                          what + ": " + std::to_string(out.read()[18]));
            report.expect(distance(dx.read()[18], slope) <= 2 * epsilon(dtype), what + ": slope " + std::to_string(dx.read()[18]));
        }
}

/// A product that is large enough to be split where products of float32 are: what is infinite, no number, too large or tiny stays in its
/// rows and columns, and the others keep their bits.
void products(df_device* device, int dtype, Report& report) {
    const int64_t M = 200, N = 230, K = 410;
    Random random(11);
    std::vector<double> a, b;
    for (int64_t i = 0; i < M * K; ++i) a.push_back(round_to(dtype, random.normal()));
    for (int64_t i = 0; i < K * N; ++i) b.push_back(round_to(dtype, random.normal()));
    const auto product = [&] {
        const Array x(device, dtype, {M, K}, a), y(device, dtype, {K, N}, b), out(device, dtype, {M, N});
        require_ok(df_matmul(out, x, y, nullptr, 0, 0, 0), "matmul");
        return out.read();
    };
    const std::vector<double> clean = product();

    const auto row = [&](int64_t i, auto&& f) {
        for (auto x = a.begin() + i * K; x != a.begin() + (i + 1) * K; ++x) *x = f(*x);
    };
    const auto column = [&](int64_t j, auto&& f) {
        for (int64_t p = 0; p < K; ++p) b[static_cast<size_t>(p * N + j)] = f(b[static_cast<size_t>(p * N + j)]);
    };
    const double huge = largest(dtype), tiny = denormal(dtype), small = dtype == DF_F64 ? 1e-200 : 1e-25;
    const double least = dtype == DF_F64 ? 0x1p-1074 : 0x1p-149;
    a[static_cast<size_t>(3 * K + 100)] = INFINITY;
    a[static_cast<size_t>(35 * K + 409)] = -INFINITY;
    a[static_cast<size_t>(35 * K + 5)] = INFINITY;
    a[static_cast<size_t>(64 * K + 200)] = NAN;
    a[static_cast<size_t>(7 * K)] = huge;
    row(9, [&](double x) { return round_to(dtype, x * small); });
    row(130, [&](double x) { return x > 0 ? tiny : -3 * tiny; });
    row(199, [&](double) { return 0.0; });
    row(150, [&](double x) { return round_to(dtype, x * huge / 8); });
    row(33, [&](double x) { return x > 2 ? x : tiny; });
    column(4, [&](double x) { return round_to(dtype, x * small); });
    column(229, [&](double x) { return x > 0 ? huge : -huge; });
    column(40, [&](double) { return 0.0; });
    b[static_cast<size_t>(300 * N + 65)] = INFINITY;
    b[static_cast<size_t>(20 * N + 66)] = NAN;
    const std::vector<int64_t> rows = {3, 7, 9, 33, 35, 64, 130, 150, 199}, columns = {4, 40, 65, 66, 229};
    const std::vector<double> out = product();
    int64_t untouched = 0;
    for (int64_t i = 0; i < M; ++i)
        for (int64_t j = 0; j < N; ++j) {
            const size_t at = static_cast<size_t>(i * N + j);
            const std::string where = std::string("matmul ") + dtype_name(dtype) + " at " + std::to_string(i) + "," + std::to_string(j) + ": ";
            if (std::count(rows.begin(), rows.end(), i) == 0 && std::count(columns.begin(), columns.end(), j) == 0) {
                if (out[at] == clean[at]) ++untouched;
                else report.fail("%s%.9g, %.9g beside ordinary rows", where.c_str(), out[at], clean[at]);
                continue;
            }
            long double sum = 0, magnitude = 0;
            for (int64_t p = 0; p < K; ++p) {
                const long double x = static_cast<long double>(a[static_cast<size_t>(i * K + p)]) * b[static_cast<size_t>(p * N + j)];
                sum += x;
                if (std::isfinite(x)) magnitude += std::fabs(x);
            }
            // Terms that come near the largest number may or may not exceed it on the way, and then meet an infinity of the other sign.
            const bool overflows = magnitude > static_cast<long double>(huge) / 2;
            const long double tolerance = static_cast<long double>(K) * (epsilon(dtype) * magnitude + least);
            const bool right = overflows            ? !std::isfinite(out[at]) || std::fabs(out[at] - sum) <= tolerance
                               : std::isfinite(sum) ? std::fabs(out[at] - sum) <= tolerance
                                                    : std::isnan(sum) == std::isnan(out[at]) && (std::isnan(sum) || sum == out[at]);
            report.expect(right, where + std::to_string(out[at]) + ", expected " + std::to_string(static_cast<double>(sum)));
        }
    report.expect(untouched == (M - static_cast<int64_t>(rows.size())) * (N - static_cast<int64_t>(columns.size())),
                  "matmul: rows and columns that keep their bits");
}

/// Attention that is long enough for its products to be split where those of float32 are. Powers of two that scale v and dout come through; NaN
/// stays in its channel and with the queries that see it.
void long_attention(df_device* device, Report& report) {
    const int64_t T = 400, HS = 64, n = T * HS;
    Random random(12);
    struct Numbers {
        std::vector<double> q, k, v, dout;
    };
    Numbers clean;
    for (std::vector<double>* x : {&clean.q, &clean.k, &clean.v, &clean.dout})
        for (int64_t i = 0; i < n; ++i) x->push_back(round_to(DF_F32, random.normal()));
    struct Results {
        std::vector<double> out, dq, dk, dv;
    };
    const auto attend = [&](const Numbers& x, double scale) {
        const Shape shape = {1, T, 1, HS};
        const Array q(device, DF_F32, shape, x.q), k(device, DF_F32, shape, x.k), v(device, DF_F32, shape, x.v), dout(device, DF_F32, shape, x.dout);
        const Array out(device, DF_F32, shape), lse(device, DF_F32, {1, 1, T}), dq(device, DF_F32, shape), dk(device, DF_F32, shape),
            dv(device, DF_F32, shape);
        require_ok(df_attention_forward(out, lse, q, k, v, nullptr, scale, 1), "long attention");
        require_ok(df_attention_backward(dq, dk, dv, dout, q, k, v, out, lse, nullptr, scale, 1), "long attention backward");
        return Results{out.read(), dq.read(), dk.read(), dv.read()};
    };
    const Results expected = attend(clean, 0.125);
    /// The rows from..to, but for channel but, are factor times those of expected.
    const auto compare = [&](const std::vector<double>& got, const std::vector<double>& want, double factor, int64_t from, int64_t to, int64_t but,
                             const std::string& what) {
        double worst = 0;
        for (int64_t i = from * HS; i < to * HS; ++i) {
            if (i % HS == but) continue;
            const double off = distance(got[static_cast<size_t>(i)] / factor, want[static_cast<size_t>(i)]);
            if (!(off <= worst)) worst = off;
        }
        const double tolerance = 4e-6 * largest_magnitude(want);
        report.expect(worst <= tolerance, "long attention: " + what + ": off by " + std::to_string(worst / tolerance) + " tolerances");
    };
    for (const double factor : {0x1p-50, 0x1p-112, 0x1p60}) {
        Numbers x = clean;
        for (double& e : x.dout) e *= factor;
        const Results scaled = attend(x, 0.125);
        compare(scaled.dq, expected.dq, factor, 0, T, -1, "dq of a scaled dout");
        compare(scaled.dk, expected.dk, factor, 0, T, -1, "dk of a scaled dout");
        compare(scaled.dv, expected.dv, factor, 0, T, -1, "dv of a scaled dout");
        x = clean;
        for (double& e : x.v) e *= factor;
        const Results of_v = attend(x, 0.125);
        compare(of_v.out, expected.out, factor, 0, T, -1, "out of a scaled v");
        compare(of_v.dq, expected.dq, factor, 0, T, -1, "dq of a scaled v");
        compare(of_v.dk, expected.dk, factor, 0, T, -1, "dk of a scaled v");
        compare(of_v.dv, expected.dv, 1, 0, T, -1, "dv of a scaled v");
        x = clean;
        for (size_t i = 0; i < x.q.size(); ++i) {
            x.q[i] *= factor;
            x.k[i] /= factor;
        }
        const Results of_qk = attend(x, 0.125);
        compare(of_qk.out, expected.out, 1, 0, T, -1, "out of q and k scaled against each other");
        compare(of_qk.dq, expected.dq, 1 / factor, 0, T, -1, "dq of q and k scaled against each other");
        compare(of_qk.dk, expected.dk, factor, 0, T, -1, "dk of q and k scaled against each other");
    }
    Numbers x = clean;
    for (double& e : x.q) e = -e;
    const Results negative = attend(x, -0.125);
    compare(negative.out, expected.out, 1, 0, T, -1, "out with a negative scale");
    compare(negative.dq, expected.dq, -1, 0, T, -1, "dq with a negative scale");
    compare(negative.dk, expected.dk, 1, 0, T, -1, "dk with a negative scale");
    compare(negative.dv, expected.dv, 1, 0, T, -1, "dv with a negative scale");

    const int64_t row = 300, channel = 5;
    x = clean;
    x.v[static_cast<size_t>(row * HS + channel)] = NAN;
    const Results of_v = attend(x, 0.125);
    compare(of_v.out, expected.out, 1, 0, row, -1, "out before a NaN of v");
    compare(of_v.out, expected.out, 1, row, T, channel, "other channels of out after a NaN of v");
    report.expect(std::isnan(of_v.out[static_cast<size_t>((T - 1) * HS + channel)]), "long attention: a NaN of v is lost");
    compare(of_v.dq, expected.dq, 1, 0, row, -1, "dq before a NaN of v");
    x = clean;
    x.k[static_cast<size_t>(row * HS + channel)] = NAN;
    const Results of_k = attend(x, 0.125);
    compare(of_k.out, expected.out, 1, 0, row, -1, "out before a NaN of k");
    compare(of_k.dq, expected.dq, 1, 0, row, -1, "dq before a NaN of k");
    report.expect(std::isnan(of_k.out[static_cast<size_t>((T - 1) * HS)]), "long attention: a NaN of k is lost");
    x = clean;
    x.q[static_cast<size_t>(row * HS + channel)] = INFINITY;
    const Results of_q = attend(x, 0.125);
    compare(of_q.out, expected.out, 1, 0, row, -1, "out before an infinity of q");
    compare(of_q.out, expected.out, 1, row + 1, T, -1, "out after an infinity of q");
    compare(of_q.dq, expected.dq, 1, row + 1, T, -1, "dq after an infinity of q");
    compare(of_q.dk, expected.dk, 1, row + 1, T, -1, "dk of keys that an infinite query does not see");
}

/// Scores so large that their last place is thousands, of a scale that is no power of two and a call too large for float64: keys that are alike weigh
/// the same, and a key far ahead has all the weight.
void huge_scores(df_device* device, int dtype, Report& report) {
    const int64_t T = 400, HS = 72, n = T * HS;
    const double scale = 1 / std::sqrt(static_cast<double>(HS));
    Random random(14);
    std::vector<double> values, sum(static_cast<size_t>(HS), 0);
    for (int64_t i = 0; i < n; ++i) {
        values.push_back(round_to(dtype, random.normal()));
        sum[static_cast<size_t>(i % HS)] += values.back();
    }
    const Shape shape = {1, T, 1, HS};
    for (const double size : {300.0, 5e4, 65536.0, -3e6})
        for (const int64_t ahead : {int64_t{-1}, int64_t{390}}) {
            std::vector<double> keys(static_cast<size_t>(n), size), expected;
            for (int64_t c = 0; c < HS; ++c) {
                const double mean = sum[static_cast<size_t>(c)] / static_cast<double>(T);
                expected.push_back(ahead < 0 ? mean : values[static_cast<size_t>(ahead * HS + c)]);
                if (ahead >= 0) keys[static_cast<size_t>(ahead * HS + c)] = 2 * size;
            }
            const Array q(device, dtype, shape, std::vector<double>(static_cast<size_t>(n), size)), k(device, dtype, shape, keys), v(device, dtype, shape, values),
                dout(device, dtype, shape, std::vector<double>(static_cast<size_t>(n), 1));
            const Array out(device, dtype, shape), lse(device, DF_F32, {1, 1, T}), dq(device, dtype, shape), dk(device, dtype, shape), dv(device, dtype, shape);
            require_ok(df_attention_forward(out, lse, q, k, v, nullptr, scale, 0), "attention");
            require_ok(df_attention_backward(dq, dk, dv, dout, q, k, v, out, lse, nullptr, scale, 0), "attention");
            const std::string what = std::string("scores of ") + std::to_string(size * size * scale * static_cast<double>(HS)) + (ahead < 0 ? ", all alike, " : ", one twice as large, ") + dtype_name(dtype);
            std::vector<double> rows;
            for (int64_t t = 0; t < T; ++t) rows.insert(rows.end(), expected.begin(), expected.end());
            const double worst = largest_distance(out.read(), rows);  // NaN if there is one
            report.expect(worst <= 4 * epsilon(dtype), what + ": out is off by " + std::to_string(worst));
            report.expect(finite(lse.read()) && finite(dq.read()) && finite(dk.read()) && finite(dv.read()), what + ": not finite");
            if (ahead >= 0 && dtype == DF_F32) {  // bfloat16's lse is the sum of a power of two, whose logarithm is rounded otherwise
                const double weight = dv.read()[static_cast<size_t>(ahead * HS)];
                report.expect(std::fabs(weight - static_cast<double>(T)) <= 4 * epsilon(dtype) * static_cast<double>(T), what + ": its gradient is " + std::to_string(weight));
            }
        }
}

/// The last value of all has no later query whose momentum term it would be part of: deta does not know it, whatever it is.
void momentum_of_the_last_value(df_device* device, int dtype, Report& report) {
    struct Sizes {
        int64_t T, NH;
    };
    // Small; a head that the CPU shares among tasks; many heads, which it does not share.
    for (const Sizes z : {Sizes{5, 2}, Sizes{400, 1}, Sizes{150, 8}}) {
        const int64_t HS = 64, row = z.NH * HS, n = z.T * row;
        const int acc = accumulation_dtype(dtype);
        Random random(13);
        std::vector<double> x[4];
        for (std::vector<double>& of : x)
            for (int64_t i = 0; i < n; ++i) of.push_back(round_to(dtype, random.normal()));
        const Shape shape = {1, z.T, z.NH, HS};
        const Array eta(device, acc, {z.NH}, std::vector<double>(static_cast<size_t>(z.NH), 0.75));
        const auto deta_of = [&](const std::vector<double>& values) {
            const Array q(device, dtype, shape, x[0]), k(device, dtype, shape, x[1]), v(device, dtype, shape, values), dout(device, dtype, shape, x[2]);
            const Array out(device, dtype, shape), attn(device, dtype, shape), lse(device, acc, {1, z.NH, z.T});
            const Array dq(device, dtype, shape), dk(device, dtype, shape), dv(device, dtype, shape), deta(device, acc, {z.NH});
            require_ok(df_momentum_attention_forward(out, attn, lse, nullptr, q, k, v, nullptr, eta, nullptr, 0.125), "momentum attention");
            require_ok(df_momentum_attention_backward(dq, dk, dv, deta, dout, q, k, v, attn, lse, nullptr, eta, 0.125, 0), "momentum attention");
            return deta.read();
        };
        const std::vector<double> expected = deta_of(x[3]);
        for (const double last : {double{INFINITY}, -double{INFINITY}, std::nan("")}) {
            std::vector<double> values = x[3];
            for (int64_t i = n - row; i < n; ++i) values[static_cast<size_t>(i)] = last;
            report.expect(finite(expected) && deta_of(values) == expected,
                          std::string("deta, ") + dtype_name(dtype) + ", " + std::to_string(z.T) + " tokens: a last value of " + std::to_string(last) + " reaches it");
        }
    }
}

/// Moving bits: denormals, zeros' signs and infinities come through.
void passing_through(df_device* device, int dtype, Report& report) {
    const std::vector<double> values = {denormal(dtype), -denormal(dtype), 0.0, -0.0, INFINITY, -INFINITY, largest(dtype), -largest(dtype)};
    const Array x(device, dtype, {8}, values), out(device, dtype, {8}), zero(device, dtype, {1}, {-0.0});
    require_ok(df_copy(out, x), "copy");
    report.expect(out.bits() == x.bits(), std::string("copy changes bits, ") + dtype_name(dtype));
    require_ok(df_affine(out, x, 1, 0), "affine");
    report.expect(largest_distance(out.read(), x.read()) == 0,
                  std::string("affine by one loses denormals or infinities, ") + dtype_name(dtype));
    require_ok(df_binary_forward(out, x, zero, DF_BINARY_ADD), "binary");
    report.expect(largest_distance(out.read(), x.read()) == 0,
                  std::string("adding zero loses denormals or infinities, ") + dtype_name(dtype));
}

void constant_rows(df_device* device, int dtype, Report& report) {
    const int acc = accumulation_dtype(dtype);
    for (const double value : {0.0, -0.0, 3.0, 1e15, denormal(dtype)}) {
        const int64_t C = 33;
        const std::vector<double> ones(static_cast<size_t>(C), 1), same(static_cast<size_t>(C), value);
        const Array x(device, dtype, {1, C}, same), weight(device, dtype, {C}, ones), bias(device, dtype, {C}, ones),
            out(device, dtype, {1, C}), mean(device, acc, {1}), rstd(device, acc, {1});
        const Array dout(device, dtype, {1, C}, ones), dx(device, dtype, {1, C});
        require_ok(df_residual_layernorm_forward(nullptr, out, mean, rstd, x, nullptr, weight, bias, 1e-5), "layernorm");
        require_ok(df_residual_layernorm_backward(dx, nullptr, nullptr, dout, nullptr, x, weight, mean, rstd, 0), "layernorm");
        report.expect(finite(out.read()) && finite(rstd.read()),
                      "layernorm of a constant row of " + std::to_string(value) + ", " + dtype_name(dtype) + ": not finite");
        report.expect(finite(dx.read()),
                      "layernorm backward of a constant row of " + std::to_string(value) + ", " + dtype_name(dtype) + ": not finite");
        if (std::fabs(value) < 10)
            report.expect(largest_distance(out.read(), ones) <= 1e-2,
                          "layernorm of a constant row of " + std::to_string(value) + " is not the bias");
    }
    const Array sumsq(device, acc, {}, {INFINITY}), scale(device, acc, {});
    require_ok(df_clip_scale(scale, sumsq, 1), "clip");
    report.expect(!(scale.read()[0] > 0 && std::isfinite(scale.read()[0])), "clip_scale of an infinite norm passes for a number");
}

}  // namespace

void check_hostile(const Options& options, Report& report) {
    Device device(options);
    for (const int dtype : options.dtypes()) {
        if (dtype == DF_F64 && options.backend != "cpu") {
            report.skip("hostile F64 on " + options.backend, "float64 is served by the cpu");
            continue;
        }
        attention_logits(device, dtype, report);
        cross_entropy_logits(device, dtype, report);
        edges(device, dtype, report);
        passing_through(device, dtype, report);
        momentum_of_the_last_value(device, dtype, report);
        if (dtype != DF_F64 && options.backend == "cpu") huge_scores(device, dtype, report);
        if (dtype != DF_BF16 && options.backend == "cpu") products(device, dtype, report);
        if (dtype == DF_F32 && options.backend == "cpu") long_attention(device, report);
        constant_rows(device, dtype, report);
    }
}

}  // namespace dualform::test
