#include "work.h"

#include <algorithm>
#include <cmath>
#include <memory>

namespace dualform::bench {

namespace {

double product(std::initializer_list<int64_t> sizes) {
    double p = 1;
    for (const int64_t s : sizes) p *= static_cast<double>(s);
    return p;
}

/// The flops of a pass, from those of the forward pass and how many times as many the backward pass has.
double share(double forward, double backward, Pass pass) {
    return forward * ((has_forward(pass) ? 1 : 0) + (has_backward(pass) ? backward : 0));
}

Declared input(const char* name, std::vector<Axis> axes, Draws draws, const char* moves, Type type = Type::kCompute) {
    return {name, std::move(axes), draws, type, moves, Declared::kNo};
}
Declared result(const char* name, std::vector<Axis> axes, const char* moves, Type type = Type::kCompute) {
    return {name, std::move(axes), {}, type, moves, Declared::kForward};
}
Declared gradient(const char* name, std::vector<Axis> axes, Type type = Type::kCompute) {
    return {name, std::move(axes), {}, type, "b", Declared::kBackward};
}

Work attention(const char* name, bool momentum) {
    Work w;
    w.name = name;
    w.layouts = {"B,T,NH,HS", "B,T,S,NH,NKV,HS"};
    w.differentiable = w.saves = true;
    w.normalized = [](const Sizes& s) { return s.size() == 4 ? Sizes{s[0], s[1], s[1], s[2], s[2], s[3]} : s; };
    w.tensors = [momentum](const Sizes& s, Pass pass, const Settings& set) {
        const Axis B{"B", s[0]}, T{"T", s[1]}, S{"S", s[2]}, NH{"NH", s[3]}, NKV{"NKV", s[4]}, HS{"HS", s[5]};
        std::vector<Declared> t = {
            input("q", {B, T, NH, HS}, normal(), "fb"), input("k", {B, S, NKV, HS}, normal(), "fb"), input("v", {B, S, NKV, HS}, normal(), "fb"),
            result("out", {B, T, NH, HS}, momentum ? "f" : "fb"), result("lse", {B, NH, T}, "fb", Type::kSums)};
        if (momentum) t.push_back(input("eta", {NH}, constant(set.eta), "fb", Type::kSums));
        if (!has_backward(pass)) return t;
        if (momentum) t.push_back(result("attn", {B, T, NH, HS}, "fb"));
        t.push_back(input("dout", {B, T, NH, HS}, normal(), "b"));
        t.push_back(gradient("dq", {B, T, NH, HS}));
        t.push_back(gradient("dk", {B, S, NKV, HS}));
        t.push_back(gradient("dv", {B, S, NKV, HS}));
        if (momentum) t.push_back(gradient("deta", {NH}, Type::kSums));
        return t;
    };
    w.calls = [momentum](const Handles& t, const Sizes& s, Pass, const Settings& set) -> Calls {
        df_tensor *out = t["out"], *lse = t["lse"], *q = t["q"], *k = t["k"], *v = t["v"], *dout = t["dout"], *dq = t["dq"], *dk = t["dk"],
                  *dv = t["dv"], *eta = t["eta"], *attn = t["attn"], *deta = t["deta"];
        const double scale = 1 / std::sqrt(static_cast<double>(s[5]));
        const int causal = set.causal;
        if (momentum)
            return {[=] { return df_momentum_attention_forward(out, attn, lse, nullptr, q, k, v, nullptr, eta, nullptr, scale); },
                    [=] { return df_momentum_attention_backward(dq, dk, dv, deta, dout, q, k, v, attn, lse, nullptr, eta, scale, 0); }};
        return {[=] { return df_attention_forward(out, lse, q, k, v, nullptr, scale, causal); },
                [=] { return df_attention_backward(dq, dk, dv, dout, q, k, v, out, lse, nullptr, scale, causal); }};
    };
    // Each query sees the keys up to its own position, counted from the end.
    w.flops = [momentum](const Sizes& s, Pass pass, const Settings& set) {
        const double T = static_cast<double>(s[1]), S = static_cast<double>(s[2]);
        const double seen = !set.causal && !momentum ? T * S : T <= S ? T * (S - T / 2) : S * (S / 2);
        return share(4 * product({s[0], s[3], s[5]}) * seen, 2.5, pass);
    };
    w.cuts = {{"B", "NKV", "T"}};
    w.tied = {{"NKV", "NH"}};
    // The last R keys are seen by the last R queries only.
    w.tails = {{"dk", {"S", "T"}}, {"dv", {"S", "T"}}};
    w.always_causal = momentum;
    return w;
}

Work linear_attention() {
    Work w;
    w.name = "linear-attention";
    w.layouts = {"B,T,NH,HS"};
    w.differentiable = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings& set) {
        const Axis B{"B", s[0]}, T{"T", s[1]}, NH{"NH", s[2]}, HS{"HS", s[3]};
        const std::vector<Axis> whole = {B, T, NH, HS};
        const double deviation = 1 / std::sqrt(static_cast<double>(s[3]));
        std::vector<Declared> t = {input("q", whole, normal(deviation), "fb"), input("k", whole, normal(deviation), "fb"),
                                   input("v", whole, normal(), "fb"), result("out", whole, "f")};
        if (set.decay != 1) t.push_back(input("decay", {NH}, constant(set.decay), "fb", Type::kSums));
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", whole, normal(), "b"));
        for (const char* name : {"dq", "dk", "dv"}) t.push_back(gradient(name, whole));
        if (set.decay != 1) t.push_back(gradient("ddecay", {NH}, Type::kSums));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *q = t["q"], *k = t["k"], *v = t["v"], *dout = t["dout"], *dq = t["dq"], *dk = t["dk"], *dv = t["dv"],
                  *decay = t["decay"], *ddecay = t["ddecay"];
        return {[=] { return df_linear_attention_forward(out, nullptr, q, k, v, decay, nullptr); },
                [=] { return df_linear_attention_backward(dq, dk, dv, ddecay, nullptr, dout, nullptr, q, k, v, decay, nullptr, 0); }};
    };
    w.flops = [](const Sizes& s, Pass pass, const Settings&) { return share(4 * product({s[0], s[1], s[2], s[3], s[3]}), 2.5, pass); };
    w.cuts = {{"B", "NH"}};
    return w;
}

/// One token after a state: what generation does.
Work linear_attention_step() {
    Work w;
    w.name = "linear-attention-step";
    w.layouts = {"B,NH,HS"};
    w.tensors = [](const Sizes& s, Pass, const Settings& set) {
        const Axis B{"B", s[0]}, T{"T", 1}, NH{"NH", s[1]}, HS{"HS", s[2]}, K{"K", s[2]};
        const std::vector<Axis> token = {B, T, NH, HS};
        const double deviation = 1 / std::sqrt(static_cast<double>(s[2]));
        std::vector<Declared> t = {input("q", token, normal(deviation), "f"), input("k", token, normal(deviation), "f"),
                                   input("v", token, normal(), "f"), input("state_in", {B, NH, HS, K}, normal(), "f", Type::kSums),
                                   result("out", token, "f"), result("state_out", {B, NH, HS, K}, "f", Type::kSums)};
        if (set.decay != 1) t.push_back(input("decay", {NH}, constant(set.decay), "f", Type::kSums));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *state_out = t["state_out"], *q = t["q"], *k = t["k"], *v = t["v"], *state_in = t["state_in"],
                  *decay = t["decay"];
        return {[=] { return df_linear_attention_forward(out, state_out, q, k, v, decay, state_in); }, nullptr};
    };
    w.flops = [](const Sizes& s, Pass, const Settings&) { return 4 * product({s[0], s[1], s[2], s[2]}); };
    w.cuts = {{"B", "NH"}};
    return w;
}

Work dual_form() {
    Work w;
    w.name = "dual-form";
    w.layouts = {"N,M,O,I", "P,N,M,O,I"};
    w.differentiable = true;
    w.normalized = [](const Sizes& s) { return s.size() == 4 ? Sizes{1, s[0], s[1], s[2], s[3]} : s; };
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis P{"P", s[0]}, N{"N", s[1]}, M{"M", s[2]}, O{"O", s[3]}, I{"I", s[4]};
        std::vector<Declared> t = {input("w0", {P, O, I}, normal(1 / std::sqrt(static_cast<double>(s[4]))), "fb"),
                                   input("e", {P, N, O}, normal(1 / std::sqrt(static_cast<double>(s[1]))), "fb"),
                                   input("xp", {P, N, I}, normal(), "fb"), input("x", {P, M, I}, normal(), "fb"), result("out", {P, M, O}, "f")};
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {P, M, O}, normal(), "b"));
        t.push_back(gradient("dw0", {P, O, I}));
        t.push_back(gradient("de", {P, N, O}));
        t.push_back(gradient("dxp", {P, N, I}));
        t.push_back(gradient("dx", {P, M, I}));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *w0 = t["w0"], *e = t["e"], *xp = t["xp"], *x = t["x"], *dout = t["dout"], *dw0 = t["dw0"], *de = t["de"],
                  *dxp = t["dxp"], *dx = t["dx"];
        return {[=] { return df_dual_form_forward(out, nullptr, w0, e, xp, x, DF_FORM_AUTO); },
                [=] { return df_dual_form_backward(dw0, de, dxp, dx, dout, w0, e, xp, x, DF_FORM_AUTO, 0); }};
    };
    // Forward in the cheaper of both forms; backward the four products of its formulas, and deltaW once more.
    w.flops = [](const Sizes& s, Pass pass, const Settings&) {
        const double N = static_cast<double>(s[1]), M = static_cast<double>(s[2]), OI = product({s[3], s[4]});
        const double primal = 2 * OI * (N + M), dual = 2 * M * (OI + N * static_cast<double>(s[3]) + N * static_cast<double>(s[4]));
        return static_cast<double>(s[0]) *
               ((has_forward(pass) ? std::min(primal, dual) : 0) + (has_backward(pass) ? 2 * OI * (2 * M + 3 * N) : 0));
    };
    w.cuts = {{"P", "M"}, {"P", "N"}, {"P", "O"}};
    return w;
}

Work delta_accumulate() {
    Work w;
    w.name = "delta-accumulate";
    w.layouts = {"N,O,I"};
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        const Axis N{"N", s[0]}, O{"O", s[1]}, I{"I", s[2]};
        return std::vector<Declared>{input("e", {N, O}, normal(), "f"), input("xp", {N, I}, normal(), "f"),
                                     result("delta_w", {O, I}, "f", Type::kSums)};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *delta_w = t["delta_w"], *e = t["e"], *xp = t["xp"];
        return {[=] { return df_delta_accumulate(delta_w, e, xp, 0); }, nullptr};
    };
    w.flops = [](const Sizes& s, Pass, const Settings&) { return 2 * product({s[0], s[1], s[2]}); };
    w.cuts = {{"O"}};
    return w;
}

Work delta_apply() {
    Work w;
    w.name = "delta-apply";
    w.layouts = {"M,O,I"};
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        const Axis M{"M", s[0]}, O{"O", s[1]}, I{"I", s[2]};
        return std::vector<Declared>{input("x", {M, I}, normal(), "f"), input("w0", {O, I}, normal(), "f"),
                                     input("delta_w", {O, I}, normal(), "f", Type::kSums), result("out", {M, O}, "f")};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *x = t["x"], *w0 = t["w0"], *delta_w = t["delta_w"];
        return {[=] { return df_delta_apply(out, x, w0, delta_w); }, nullptr};
    };
    w.flops = [](const Sizes& s, Pass, const Settings&) { return 2 * product({s[0], s[1], s[2]}); };
    w.cuts = {{"M"}};
    return w;
}

Work matmul() {
    Work w;
    w.name = "matmul";
    w.layouts = {"M,N,K"};
    w.differentiable = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis M{"M", s[0]}, N{"N", s[1]}, K{"K", s[2]};
        std::vector<Declared> t = {input("a", {M, K}, normal(), "fb"), input("b", {K, N}, normal(), "fb"), result("out", {M, N}, "f")};
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {M, N}, normal(), "bb"));
        t.push_back(gradient("da", {M, K}));
        t.push_back(gradient("db", {K, N}));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *a = t["a"], *b = t["b"], *dout = t["dout"], *da = t["da"], *db = t["db"];
        return {[=] { return df_matmul(out, a, b, nullptr, 0, 0, 0); },
                [=] {
                    const df_status status = df_matmul(da, dout, b, nullptr, 0, 1, 0);
                    return status != DF_OK ? status : df_matmul(db, a, dout, nullptr, 1, 0, 0);
                }};
    };
    w.flops = [](const Sizes& s, Pass pass, const Settings&) { return share(2 * product({s[0], s[1], s[2]}), 2, pass); };
    w.cuts = {{"M"}, {"N"}};
    return w;
}

/// A product and the GELU of it; backward the product before which that GELU stands, and its gradient.
Work matmul_gelu() {
    Work w;
    w.name = "matmul-gelu";
    w.layouts = {"M,N,K"};
    w.differentiable = w.saves = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis M{"M", s[0]}, N{"N", s[1]}, K{"K", s[2]};
        std::vector<Declared> t = {input("a", {M, K}, normal(), "f"), input("b", {K, N}, normal(1 / std::sqrt(static_cast<double>(s[2]))), "f"),
                                   input("bias", {N}, normal(), "f"), result("out", {M, N}, "f"), result("pre", {M, N}, "fb")};
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {M, K}, normal(), "b"));
        t.push_back(input("w", {K, N}, normal(1 / std::sqrt(static_cast<double>(s[2]))), "b"));
        t.push_back(gradient("dpre", {M, N}));
        t.push_back(gradient("dbias", {N}));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *pre = t["pre"], *a = t["a"], *b = t["b"], *bias = t["bias"], *dout = t["dout"], *weight = t["w"],
                  *dpre = t["dpre"], *dbias = t["dbias"];
        return {[=] { return df_matmul_gelu_forward(out, pre, a, b, bias, 0, 0, DF_GELU_TANH); },
                [=] { return df_matmul_gelu_backward(dpre, dbias, dout, weight, pre, 0, DF_GELU_TANH, 0); }};
    };
    w.flops = [](const Sizes& s, Pass pass, const Settings&) { return share(2 * product({s[0], s[1], s[2]}), 1, pass); };
    w.cuts = {{"M"}, {"N"}};
    return w;
}

Work bias_backward() {
    Work w;
    w.name = "bias-backward";
    w.layouts = {"N,C"};
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        const Axis N{"N", s[0]}, C{"C", s[1]};
        return std::vector<Declared>{input("dout", {N, C}, normal(), "f"), result("dbias", {C}, "f", Type::kSums)};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *dbias = t["dbias"], *dout = t["dout"];
        return {[=] { return df_bias_backward(dbias, dout, 0); }, nullptr};
    };
    w.cuts = {{"C"}};
    return w;
}

Work layernorm(const char* name, bool residual) {
    Work w;
    w.name = name;
    w.layouts = {"N,C"};
    w.differentiable = w.saves = true;
    w.tensors = [residual](const Sizes& s, Pass pass, const Settings&) {
        const Axis N{"N", s[0]}, C{"C", s[1]};
        std::vector<Declared> t = {input("x", {N, C}, normal(), residual ? "f" : "fb"), input("weight", {C}, normal(), "fb"),
                                   input("bias", {C}, normal(), "f"), result("out", {N, C}, "f"), result("mean", {N}, "fb", Type::kSums),
                                   result("rstd", {N}, "fb", Type::kSums)};
        if (residual) {
            t.push_back(input("residual", {N, C}, normal(), "f"));
            t.push_back(result("sum", {N, C}, "fb"));
        }
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {N, C}, normal(), "b"));
        if (residual) t.push_back(input("dsum", {N, C}, normal(), "b"));
        t.push_back(gradient("dx", {N, C}));
        t.push_back(gradient("dweight", {C}));
        t.push_back(gradient("dbias", {C}));
        return t;
    };
    w.calls = [residual](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *x = t["x"], *weight = t["weight"], *bias = t["bias"], *out = t["out"], *mean = t["mean"], *rstd = t["rstd"],
                  *second = t["residual"], *sum = t["sum"], *dout = t["dout"], *dsum = t["dsum"], *dx = t["dx"], *dweight = t["dweight"],
                  *dbias = t["dbias"], *normalized = residual ? sum : x;
        return {[=] { return df_residual_layernorm_forward(sum, out, mean, rstd, x, second, weight, bias, 1e-5); },
                [=] { return df_residual_layernorm_backward(dx, dweight, dbias, dout, dsum, normalized, weight, mean, rstd, 0); }};
    };
    w.cuts = {{"N"}};
    return w;
}

Work gelu() {
    Work w;
    w.name = "gelu";
    w.layouts = {"N,C"};
    w.differentiable = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis N{"N", s[0]}, C{"C", s[1]};
        std::vector<Declared> t = {input("x", {N, C}, normal(), "fb"), input("bias", {C}, normal(), "fb"), result("out", {N, C}, "f")};
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {N, C}, normal(), "b"));
        t.push_back(gradient("dx", {N, C}));
        t.push_back(gradient("dbias", {C}));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *x = t["x"], *bias = t["bias"], *dout = t["dout"], *dx = t["dx"], *dbias = t["dbias"];
        return {[=] { return df_bias_gelu_forward(out, x, bias, DF_GELU_TANH); },
                [=] { return df_bias_gelu_backward(dx, dbias, dout, x, bias, DF_GELU_TANH, 0); }};
    };
    w.cuts = {{"N"}, {"C"}};
    return w;
}

Work embedding() {
    Work w;
    w.name = "embedding";
    w.layouts = {"B,T,V,C"};
    w.differentiable = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis B{"B", s[0]}, T{"T", s[1]}, V{"V", s[2]}, C{"C", s[3]};
        // Of wte only the rows of the ids are read: they are counted with out, which is as large.
        std::vector<Declared> t = {input("ids", {B, T}, below(s[2]), "fb", Type::kIds), result("out", {B, T, C}, "ff")};
        if (has_forward(pass)) {
            t.push_back(input("wte", {V, C}, normal(), ""));
            t.push_back(input("wpe", {T, C}, normal(), "f"));
        }
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {B, T, C}, normal(), "b"));
        t.push_back(gradient("dwte", {V, C}));
        t.push_back(gradient("dwpe", {T, C}));
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *ids = t["ids"], *wte = t["wte"], *wpe = t["wpe"], *dout = t["dout"], *dwte = t["dwte"], *dwpe = t["dwpe"];
        return {[=] { return df_embedding_forward(out, ids, wte, wpe, 0); }, [=] { return df_embedding_backward(dwte, dwpe, dout, ids, 0, 0); }};
    };
    w.cuts = {{"C"}};
    return w;
}

Work cross_entropy() {
    Work w;
    w.name = "cross-entropy";
    w.layouts = {"N,V"};
    w.differentiable = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis N{"N", s[0]}, V{"V", s[1]};
        // The gradient comes in the same call as the loss: backward and both are one call, and move the same bytes once.
        const char* const moves = pass == Pass::kBackward ? "b" : "f";
        std::vector<Declared> t = {input("logits", {N, V}, normal(), moves), input("targets", {N}, below(s[1]), moves, Type::kIds),
                                   result("loss", {}, moves, Type::kSums), result("losses", {N}, moves, Type::kSums)};
        if (has_backward(pass)) t.push_back({"dlogits", {N, V}, {}, Type::kCompute, moves, Declared::kBackward});
        return t;
    };
    w.calls = [](const Handles& t, const Sizes&, Pass pass, const Settings&) -> Calls {
        df_tensor *loss = t["loss"], *losses = t["losses"], *dlogits = t["dlogits"], *logits = t["logits"], *targets = t["targets"];
        const auto call = [=] { return df_cross_entropy(loss, losses, dlogits, logits, targets, -1); };
        if (pass == Pass::kBoth) return {call, [] { return DF_OK; }};
        return {call, call};
    };
    w.cuts = {{"N"}};
    w.averaged = {{"dlogits", "N"}};
    return w;
}

/// An op on vectors of N.
struct Simple {
    std::string name;
    std::function<std::vector<Declared>(int64_t n)> tensors;
    std::function<Calls(const Handles&)> calls;
    bool differentiable;
};

Work simple(Simple from) {
    Work w;
    w.name = from.name;
    w.layouts = {"N"};
    w.differentiable = from.differentiable;
    w.tensors = [from](const Sizes& s, Pass pass, const Settings&) {
        std::vector<Declared> t = from.tensors(s[0]);
        if (!has_backward(pass))
            t.erase(std::remove_if(t.begin(), t.end(), [](const Declared& d) { return d.moves == "b"; }), t.end());
        return t;
    };
    w.calls = [from](const Handles& t, const Sizes&, Pass, const Settings&) { return from.calls(t); };
    w.cuts = {{"N"}};
    return w;
}

std::vector<Declared> one_in_one_out(int64_t n) { return {input("x", {{"N", n}}, normal(), "f"), result("out", {{"N", n}}, "f")}; }

std::vector<Declared> unary_tensors(int64_t n, bool positive) {
    const Axis N{"N", n};
    return {input("x", {N}, positive ? uniform(0.5, 2) : normal(), "fb"), result("out", {N}, "f"), input("dout", {N}, normal(), "b"),
            gradient("dx", {N})};
}

std::vector<Declared> binary_tensors(int64_t n) {
    const Axis N{"N", n};
    return {input("a", {N}, normal(), "f"), input("b", {N}, uniform(0.5, 2), "f"), result("out", {N}, "f")};
}

Work reduce(const char* name, df_reduction op) {
    Work w;
    w.name = name;
    w.layouts = {"N,C"};
    w.differentiable = w.saves = true;
    w.tensors = [](const Sizes& s, Pass pass, const Settings&) {
        const Axis N{"N", s[0]}, C{"C", s[1]};
        std::vector<Declared> t = {input("x", {N, C}, normal(), "fb"), result("out", {N}, "fb")};
        if (!has_backward(pass)) return t;
        t.push_back(input("dout", {N}, normal(), "b"));
        t.push_back(gradient("dx", {N, C}));
        return t;
    };
    w.calls = [op](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *x = t["x"], *out = t["out"], *dout = t["dout"], *dx = t["dx"];
        return {[=] { return df_reduce_forward(out, x, op, 2); }, [=] { return df_reduce_backward(dx, dout, x, out, op, 2); }};
    };
    w.cuts = {{"N"}};
    return w;
}

Work argmax() {
    Work w;
    w.name = "argmax";
    w.layouts = {"N,C"};
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        const Axis N{"N", s[0]}, C{"C", s[1]};
        return std::vector<Declared>{input("x", {N, C}, normal(), "f"), result("out", {N}, "f", Type::kIds)};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *x = t["x"], *out = t["out"];
        return {[=] { return df_argmax(out, x); }, nullptr};
    };
    w.cuts = {{"N"}};
    return w;
}

Work squared_norm() {
    Work w;
    w.name = "squared-norm";
    w.layouts = {"N"};
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        return std::vector<Declared>{input("x", {{"N", s[0]}}, normal(), "f"), result("sumsq", {}, "f", Type::kSums)};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *sumsq = t["sumsq"], *x = t["x"];
        return {[=] { return df_squared_norm(sumsq, x, 0); }, nullptr};
    };
    return w;
}

/// The norm's whole way: the squares of N numbers and the factor that clips them.
Work clip_scale() {
    Work w = squared_norm();
    w.name = "clip-scale";
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        return std::vector<Declared>{input("x", {{"N", s[0]}}, normal(), "f"), result("sumsq", {}, "f", Type::kSums),
                                     result("scale", {}, "f", Type::kSums)};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *sumsq = t["sumsq"], *scale = t["scale"], *x = t["x"];
        return {[=] {
                    const df_status status = df_squared_norm(sumsq, x, 0);
                    return status != DF_OK ? status : df_clip_scale(scale, sumsq, 1);
                },
                nullptr};
    };
    return w;
}

Declared updated(const char* name, std::vector<Axis> axes, Draws draws, Type type) {
    return {name, std::move(axes), draws, type, "ff", Declared::kForward};
}

/// The same with the decision over the step, which stays on the device.
Work clip_step() {
    Work w = squared_norm();
    w.name = "clip-step";
    w.tensors = [](const Sizes& s, Pass, const Settings&) {
        return std::vector<Declared>{input("x", {{"N", s[0]}}, normal(), "f"), result("sumsq", {}, "f", Type::kSums),
                                     input("loss", {}, constant(3), "f", Type::kSums), input("max_norm", {}, constant(1), "f", Type::kSums),
                                     result("scale", {}, "f", Type::kSums), updated("step", {}, below(4), Type::kIds)};
    };
    w.calls = [](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *sumsq = t["sumsq"], *scale = t["scale"], *step = t["step"], *loss = t["loss"], *max_norm = t["max_norm"], *x = t["x"];
        return {[=] {
                    const df_status status = df_squared_norm(sumsq, x, 0);
                    return status != DF_OK ? status : df_clip_step(scale, step, sumsq, loss, max_norm);
                },
                nullptr};
    };
    return w;
}

enum class Rule { kSgd, kAdamw, kAdamwRanges };

/// Parameters in bfloat16 have a copy in float32, as in training. kAdamwRanges: as many parts as the tensors of a small model, in one call.
Work optimizer(const char* name, Rule rule) {
    Work w;
    w.name = name;
    w.layouts = {"N"};
    w.tensors = [rule](const Sizes& s, Pass, const Settings& set) {
        const Axis N{"N", s[0]};
        std::vector<Declared> t = {updated("param", {N}, normal(), Type::kCompute), updated("m", {N}, uniform(-1, 1), Type::kSums),
                                   input("grad", {N}, normal(), "f")};
        if (set.master) t.push_back(updated("master", {N}, normal(), Type::kSums));
        if (rule != Rule::kSgd) t.push_back(updated("v", {N}, uniform(0.5, 1.5), Type::kSums));
        return t;
    };
    w.calls = [rule](const Handles& t, const Sizes& s, Pass, const Settings&) -> Calls {
        df_tensor *param = t["param"], *m = t["m"], *v = t["v"], *grad = t["grad"], *master = t["master"];
        if (rule == Rule::kSgd) return {[=] { return df_sgd_step(param, m, master, grad, nullptr, 1e-3, 0.9, 0.1); }, nullptr};
        const auto step = std::make_shared<int64_t>(0);
        if (rule == Rule::kAdamwRanges) {
            const int count = static_cast<int>(std::min<int64_t>(75, s[0]));
            std::vector<int64_t> bounds;
            for (int64_t i = 0; i < count; ++i) bounds.insert(bounds.end(), {s[0] * i / count, s[0] * (i + 1) / count});
            const std::vector<double> decays(static_cast<size_t>(count), 0.1);
            return {[=] {
                        return df_adamw_ranges(param, m, v, master, grad, nullptr, nullptr, nullptr, bounds.data(), decays.data(), count, 1e-3, 0.9,
                                               0.95, 1e-8, ++*step);
                    },
                    nullptr};
        }
        return {[=] { return df_adamw_step(param, m, v, master, grad, nullptr, 1e-3, 0.9, 0.95, 1e-8, 0.1, ++*step); }, nullptr};
    };
    w.cuts = {{"N"}};
    return w;
}

/// next: the generator's state is on the device and moves on with each call. Small words, so that one block too few is a large error.
Work random_work(const char* name, bool is_normal, bool next) {
    Work w;
    w.name = name;
    w.layouts = {"N"};
    w.tensors = [next](const Sizes& s, Pass, const Settings&) {
        std::vector<Declared> t = {result("out", {{"N", s[0]}}, "f")};
        if (next) t.push_back(updated("state", {{"words", 4}}, below(4), Type::kIds));
        return t;
    };
    w.calls = [is_normal, next](const Handles& t, const Sizes&, Pass, const Settings&) -> Calls {
        df_tensor *out = t["out"], *state = t["state"];
        if (next)
            return {[=] { return is_normal ? df_random_normal_next(out, state, 0, 1) : df_random_uniform_next(out, state, 0, 1); }, nullptr};
        return {[=] { return is_normal ? df_random_normal(out, 7, 0, 0, 1) : df_random_uniform(out, 7, 0, 0, 1); }, nullptr};
    };
    return w;
}

std::vector<Work> make_works() {
    std::vector<Work> all = {attention("attention", false), attention("momentum-attention", true), linear_attention(), linear_attention_step(),
                             dual_form(), delta_accumulate(), delta_apply(), matmul(), matmul_gelu(), bias_backward(),
                             layernorm("layernorm", false),
                             layernorm("residual-layernorm", true), gelu(), embedding(), cross_entropy(), optimizer("adamw", Rule::kAdamw),
                             optimizer("adamw-ranges", Rule::kAdamwRanges),
                             optimizer("sgd", Rule::kSgd), squared_norm(), clip_scale(), clip_step()};
    const char* const unary[] = {"neg", "exp", "log", "sqrt", "rsqrt", "reciprocal", "square", "abs", "tanh", "sigmoid", "relu", "sin", "cos"};
    for (int i = 0; i <= DF_UNARY_COS; ++i)
        all.push_back(simple({unary[i],
                              // roots, logarithms and reciprocals of numbers away from 0
                              [positive = i >= DF_UNARY_LOG && i <= DF_UNARY_RECIPROCAL](int64_t n) { return unary_tensors(n, positive); },
                              [op = static_cast<df_unary>(i)](const Handles& t) -> Calls {
                                  df_tensor *out = t["out"], *x = t["x"], *dout = t["dout"], *dx = t["dx"];
                                  return {[=] { return df_unary_forward(out, x, op); }, [=] { return df_unary_backward(dx, dout, x, op); }};
                              },
                              true}));
    const char* const binary[] = {"add", "sub", "mul", "div", "max", "min"};
    for (int i = 0; i <= DF_BINARY_MIN; ++i)
        all.push_back(simple({binary[i], binary_tensors,
                              [op = static_cast<df_binary>(i)](const Handles& t) -> Calls {
                                  df_tensor *out = t["out"], *a = t["a"], *b = t["b"];
                                  return {[=] { return df_binary_forward(out, a, b, op); }, nullptr};
                              },
                              false}));
    all.push_back(simple({"affine", one_in_one_out,
                          [](const Handles& t) -> Calls {
                              df_tensor *out = t["out"], *x = t["x"];
                              return {[=] { return df_affine(out, x, 1.5, -0.25); }, nullptr};
                          },
                          false}));
    all.push_back(simple({"copy", one_in_one_out,
                          [](const Handles& t) -> Calls {
                              df_tensor *out = t["out"], *x = t["x"];
                              return {[=] { return df_copy(out, x); }, nullptr};
                          },
                          false}));
    all.push_back(simple({"fill", [](int64_t n) { return std::vector<Declared>{result("out", {{"N", n}}, "f")}; },
                          [](const Handles& t) -> Calls {
                              df_tensor* out = t["out"];
                              return {[=] { return df_fill(out, 0.5); }, nullptr};
                          },
                          false}));
    all.push_back(reduce("reduce-sum", DF_REDUCE_SUM));
    all.push_back(reduce("reduce-mean", DF_REDUCE_MEAN));
    all.push_back(reduce("reduce-max", DF_REDUCE_MAX));
    all.push_back(reduce("reduce-min", DF_REDUCE_MIN));
    all.push_back(argmax());
    for (const bool next : {false, true}) {
        all.push_back(random_work(next ? "random-uniform-next" : "random-uniform", false, next));
        all.push_back(random_work(next ? "random-normal-next" : "random-normal", true, next));
    }
    return all;
}

}  // namespace

void require(df_status status) {
    if (status == DF_OK) return;
    throw Problem(status == DF_INVALID_ARGUMENT ? 2 : status == DF_UNAVAILABLE ? 3 : 1, df_last_error());
}

std::vector<std::string> Work::labels() const {
    std::vector<std::string> words(1);
    for (const char c : layouts.back())
        if (c == ',')
            words.emplace_back();
        else
            words.back() += c;
    return words;
}

const std::vector<Work>& works() {
    static const std::vector<Work> all = make_works();
    return all;
}

const Work& find_work(const std::string& name) {
    std::string known;
    for (const Work& w : works()) {
        if (w.name == name) return w;
        known += (known.empty() ? "" : ", ") + w.name;
    }
    throw Problem(2, name + ": no such work, expected one of " + known);
}

}  // namespace dualform::bench
