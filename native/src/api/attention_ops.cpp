// Argument checks of attention, momentum attention, the dual form and linear attention.
#include <math.h>

#include "api/arguments.h"

namespace {

using namespace dualform;

constexpr int64_t kMaxHeadSize = 256;

double element(const df_view* v, int64_t i) {
    const char* at = static_cast<const char*>(v->data);
    switch (v->dtype) {
        case DF_F32: return reinterpret_cast<const float*>(at)[i];
        case DF_F64: return reinterpret_cast<const double*>(at)[i];
        default: {
            const uint32_t u = static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(at)[i]) << 16;
            float f;
            __builtin_memcpy(&f, &u, sizeof f);
            return f;
        }
    }
}

void check_head_size(const Arguments& call) {
    if (call.dim("HS") > kMaxHeadSize) call.refuse("q: head size %lld, expected 1..%lld", static_cast<long long>(call.dim("HS")), static_cast<long long>(kMaxHeadSize));
}

void check_heads(const Arguments& call) {
    if (call.dim("NH") % call.dim("NKV") != 0)
        call.refuse("k: %lld key heads, expected a divisor of q's %lld heads", static_cast<long long>(call.dim("NKV")), static_cast<long long>(call.dim("NH")));
    check_head_size(call);
}

void check_scale(const Arguments& call, double scale) {
    if (!isfinite(scale)) call.refuse("scale: %g, expected a finite number", scale);
}

// Values in device memory are not read back: on CUDA the kernels clamp lengths and the caller answers for eta and decay. On the CPU they are
// looked at when the op runs, which under capture is at each replay.

/// Which of eta and decay must be below 1.
void check_factors(const char* op, const char* name, const df_view* factors, bool one_allowed) {
    for (int64_t h = 0; factors != nullptr && h < factors->shape[0]; ++h) {
        const double x = element(factors, h);
        if (!(x >= 0 && (one_allowed ? x <= 1 : x < 1)))
            raise(DF_INVALID_ARGUMENT, "%s: %s[%lld]: %g, expected 0 <= %s %s 1", op, name, static_cast<long long>(h), x, name, one_allowed ? "<=" : "<");
    }
}

void check_attention_values(const char* op, const df_attention_args& args) {
    const int64_t s = args.k->shape[1];
    for (int64_t b = 0; args.lengths != nullptr && b < args.lengths->shape[0]; ++b) {
        const int32_t n = static_cast<const int32_t*>(args.lengths->data)[b];
        if (n < 0 || n > s)
            raise(DF_INVALID_ARGUMENT, "%s: lengths[%lld]: %d, expected 0..S=%lld", op, static_cast<long long>(b), n, static_cast<long long>(s));
    }
    check_factors(op, "eta", args.eta, false);
}

void check_linear_attention_values(const char* op, const df_linear_attention_args& args) { check_factors(op, "decay", args.decay, true); }

void queries_and_keys(Arguments& call, df_attention_args& args, const df_tensor* q, const df_tensor* k, const df_tensor* v, const df_tensor* lengths) {
    args.q = call.input("q", q, {"B", "T", "NH", "HS"});
    args.k = call.input("k", k, {"B", "S", "NKV", "HS"});
    args.v = call.input("v", v, {"B", "S", "NKV", "HS"});
    args.lengths = call.input_if("lengths", lengths, {"B"}, Kind::kI32);
    check_heads(call);
}

void gradients_of_queries_and_keys(Arguments& call, df_attention_args& args, df_tensor* dq, df_tensor* dk, df_tensor* dv, const df_tensor* dout,
                                   const df_tensor* lse) {
    args.dout = call.input("dout", dout, {"B", "T", "NH", "HS"});
    args.lse = call.input("lse", lse, {"B", "NH", "T"}, Kind::kAccumulate);
    args.dq = call.output("dq", dq, {"B", "T", "NH", "HS"});
    args.dk = call.output("dk", dk, {"B", "S", "NKV", "HS"});
    args.dv = call.output("dv", dv, {"B", "S", "NKV", "HS"});
}

void check_form(const Arguments& call, df_form form) {
    if (form < DF_FORM_AUTO || form > DF_FORM_DUAL) call.refuse("form: %d, expected auto, primal or dual", static_cast<int>(form));
}

/// One problem, or P of them where e has three dimensions.
void problems(Arguments& call, df_dual_args& args, const df_tensor* w0, const df_tensor* e, const df_tensor* xp, const df_tensor* x) {
    if (e != nullptr && df_tensor_rank(e) == 3) call.leading("P");
    args.w0 = call.input("w0", w0, {"O", "I"});
    args.e = call.input("e", e, {"N", "O"});
    args.xp = call.input("xp", xp, {"N", "I"});
    args.x = call.input("x", x, {"M", "I"});
}

/// Multiply-adds with delta_w merged into w0: forward primal N O I + M O I, dual M N (O + I) + M O I; backward three times the first
/// term of each. A delta_w that is asked for is computed anyway.
df_form resolve(const Arguments& call, df_form form, bool delta_w_wanted) {
    if (form != DF_FORM_AUTO) return form;
    const double o = static_cast<double>(call.dim("O")), i = static_cast<double>(call.dim("I")), m = static_cast<double>(call.dim("M"));
    return delta_w_wanted || o * i <= m * (o + i) ? DF_FORM_PRIMAL : DF_FORM_DUAL;
}

}  // namespace

extern "C" {

df_status df_attention_forward(df_tensor* out, df_tensor* lse, const df_tensor* q, const df_tensor* k, const df_tensor* v, const df_tensor* lengths,
                               double scale, int causal) {
    return guard([&] {
        Arguments call("attention");
        df_attention_args args = {};
        queries_and_keys(call, args, q, k, v, lengths);
        args.out = call.output("out", out, {"B", "T", "NH", "HS"});
        args.lse = call.output("lse", lse, {"B", "NH", "T"}, Kind::kAccumulate);
        check_scale(call, scale);
        call.check_overlap();
        args.scale = scale;
        args.causal = causal != 0;
        run(call, &df_backend_ops::attention_forward, args, check_attention_values);
    });
}

df_status df_attention_backward(df_tensor* dq, df_tensor* dk, df_tensor* dv, const df_tensor* dout, const df_tensor* q, const df_tensor* k,
                                const df_tensor* v, const df_tensor* out, const df_tensor* lse, const df_tensor* lengths, double scale, int causal) {
    return guard([&] {
        Arguments call("attention");
        df_attention_args args = {};
        queries_and_keys(call, args, q, k, v, lengths);
        gradients_of_queries_and_keys(call, args, dq, dk, dv, dout, lse);
        args.out = call.input("out", out, {"B", "T", "NH", "HS"});
        check_scale(call, scale);
        call.check_overlap();
        args.scale = scale;
        args.causal = causal != 0;
        run(call, &df_backend_ops::attention_backward, args, check_attention_values);
    });
}

df_status df_momentum_attention_forward(df_tensor* out, df_tensor* attn, df_tensor* lse, df_tensor* state_out, const df_tensor* q, const df_tensor* k,
                                        const df_tensor* v, const df_tensor* lengths, const df_tensor* eta, const df_tensor* state_in, double scale) {
    return guard([&] {
        Arguments call("momentum-attention");
        df_attention_args args = {};
        queries_and_keys(call, args, q, k, v, lengths);
        args.eta = call.input("eta", eta, {"NH"}, Kind::kCallOrAccumulate);
        args.state_in = call.input_if("state_in", state_in, {"B", "NH", "HS"}, Kind::kAccumulate);
        if (args.state_in != nullptr && call.dim("T") > call.dim("S"))
            call.refuse("state_in: given with T=%lld queries and S=%lld keys, expected T <= S", static_cast<long long>(call.dim("T")), static_cast<long long>(call.dim("S")));
        args.out = call.output("out", out, {"B", "T", "NH", "HS"});
        args.attn = call.output_if("attn", attn, {"B", "T", "NH", "HS"});
        args.lse = call.output("lse", lse, {"B", "NH", "T"}, Kind::kAccumulate);
        args.state_out = call.output_if("state_out", state_out, {"B", "NH", "HS"}, Kind::kAccumulate);
        check_scale(call, scale);
        call.check_overlap();
        args.scale = scale;
        args.causal = 1;
        run(call, &df_backend_ops::attention_forward, args, check_attention_values);
    });
}

df_status df_momentum_attention_backward(df_tensor* dq, df_tensor* dk, df_tensor* dv, df_tensor* deta, const df_tensor* dout, const df_tensor* q,
                                         const df_tensor* k, const df_tensor* v, const df_tensor* attn, const df_tensor* lse, const df_tensor* lengths,
                                         const df_tensor* eta, double scale, int accumulate_deta) {
    return guard([&] {
        Arguments call("momentum-attention");
        df_attention_args args = {};
        queries_and_keys(call, args, q, k, v, lengths);
        gradients_of_queries_and_keys(call, args, dq, dk, dv, dout, lse);
        args.attn = call.input("attn", attn, {"B", "T", "NH", "HS"});
        args.eta = call.input("eta", eta, {"NH"}, Kind::kCallOrAccumulate);
        args.deta = call.output_if("deta", deta, {"NH"}, Kind::kCallOrAccumulate);
        if (args.deta != nullptr && args.deta->dtype != args.eta->dtype)
            call.refuse("deta: dtype %s, expected %s (that of eta)", dtype_name(args.deta->dtype), dtype_name(args.eta->dtype));
        check_scale(call, scale);
        call.check_overlap();
        args.scale = scale;
        args.causal = 1;
        args.accumulate = accumulate_deta != 0;
        run(call, &df_backend_ops::attention_backward, args, check_attention_values);
    });
}

df_status df_delta_accumulate(df_tensor* delta_w, const df_tensor* e, const df_tensor* xp, int accumulate) {
    return guard([&] {
        Arguments call("delta-accumulate");
        df_dual_args args = {};
        args.e = call.input("e", e, {"N", "O"});
        args.xp = call.input("xp", xp, {"N", "I"});
        args.delta_w = call.output("delta_w", delta_w, {"O", "I"}, Kind::kAccumulate);
        call.check_overlap();
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::delta_accumulate, args);
    });
}

df_status df_delta_apply(df_tensor* out, const df_tensor* x, const df_tensor* w0, const df_tensor* delta_w) {
    return guard([&] {
        Arguments call("delta-apply");
        df_dual_args args = {};
        args.x = call.input("x", x, {"M", "I"});
        args.w0 = call.input_if("w0", w0, {"O", "I"});
        args.delta_w = call.input("delta_w", delta_w, {"O", "I"}, Kind::kAccumulate);
        args.out = call.output("out", out, {"M", "O"});
        call.check_overlap();
        run(call, &df_backend_ops::delta_apply, args);
    });
}

df_status df_dual_form_forward(df_tensor* out, df_tensor* delta_w, const df_tensor* w0, const df_tensor* e, const df_tensor* xp, const df_tensor* x,
                               df_form form) {
    return guard([&] {
        Arguments call("dual-form");
        df_dual_args args = {};
        problems(call, args, w0, e, xp, x);
        args.out = call.output("out", out, {"M", "O"});
        args.delta_w = call.output_if("delta_w", delta_w, {"O", "I"}, Kind::kAccumulate);
        check_form(call, form);
        call.check_overlap();
        args.form = resolve(call, form, delta_w != nullptr);
        run(call, &df_backend_ops::dual_form_forward, args);
    });
}

df_status df_dual_form_backward(df_tensor* dw0, df_tensor* de, df_tensor* dxp, df_tensor* dx, const df_tensor* dout, const df_tensor* w0,
                                const df_tensor* e, const df_tensor* xp, const df_tensor* x, df_form form, int accumulate_dw0) {
    return guard([&] {
        Arguments call("dual-form");
        df_dual_args args = {};
        problems(call, args, w0, e, xp, x);
        args.dout = call.input("dout", dout, {"M", "O"});
        args.dw0 = call.output_if("dw0", dw0, {"O", "I"}, Kind::kCallOrAccumulate);
        args.de = call.output_if("de", de, {"N", "O"});
        args.dxp = call.output_if("dxp", dxp, {"N", "I"});
        args.dx = call.output_if("dx", dx, {"M", "I"});
        check_form(call, form);
        call.check_overlap();
        args.form = resolve(call, form, false);
        args.accumulate = accumulate_dw0 != 0;
        run(call, &df_backend_ops::dual_form_backward, args);
    });
}

df_status df_linear_attention_forward(df_tensor* out, df_tensor* state_out, const df_tensor* q, const df_tensor* k, const df_tensor* v,
                                      const df_tensor* decay, const df_tensor* state_in) {
    return guard([&] {
        Arguments call("linear-attention");
        df_linear_attention_args args = {};
        args.q = call.input("q", q, {"B", "T", "NH", "HS"});
        args.k = call.input("k", k, {"B", "T", "NH", "HS"});
        args.v = call.input("v", v, {"B", "T", "NH", "HS"});
        check_head_size(call);
        args.decay = call.input_if("decay", decay, {"NH"}, Kind::kCallOrAccumulate);
        args.state_in = call.input_if("state_in", state_in, {"B", "NH", "HS", "HS"}, Kind::kCallOrAccumulate);
        args.out = call.output("out", out, {"B", "T", "NH", "HS"});
        args.state_out = call.output_if("state_out", state_out, {"B", "NH", "HS", "HS"}, Kind::kAccumulate);
        call.check_overlap();
        run(call, &df_backend_ops::linear_attention_forward, args, check_linear_attention_values);
    });
}

df_status df_linear_attention_backward(df_tensor* dq, df_tensor* dk, df_tensor* dv, df_tensor* ddecay, df_tensor* dstate_in, const df_tensor* dout,
                                       const df_tensor* dstate_out, const df_tensor* q, const df_tensor* k, const df_tensor* v, const df_tensor* decay,
                                       const df_tensor* state_in, int accumulate_ddecay) {
    return guard([&] {
        Arguments call("linear-attention");
        df_linear_attention_args args = {};
        args.q = call.input("q", q, {"B", "T", "NH", "HS"});
        args.k = call.input("k", k, {"B", "T", "NH", "HS"});
        args.v = call.input("v", v, {"B", "T", "NH", "HS"});
        check_head_size(call);
        args.decay = call.input_if("decay", decay, {"NH"}, Kind::kCallOrAccumulate);
        args.state_in = call.input_if("state_in", state_in, {"B", "NH", "HS", "HS"}, Kind::kCallOrAccumulate);
        args.dout = call.input("dout", dout, {"B", "T", "NH", "HS"});
        args.dstate_out = call.input_if("dstate_out", dstate_out, {"B", "NH", "HS", "HS"}, Kind::kCallOrAccumulate);
        args.dq = call.output("dq", dq, {"B", "T", "NH", "HS"});
        args.dk = call.output("dk", dk, {"B", "T", "NH", "HS"});
        args.dv = call.output("dv", dv, {"B", "T", "NH", "HS"});
        args.ddecay = call.output_if("ddecay", ddecay, {"NH"}, Kind::kCallOrAccumulate);
        args.dstate_in = call.output_if("dstate_in", dstate_in, {"B", "NH", "HS", "HS"}, Kind::kCallOrAccumulate);
        if (args.ddecay != nullptr && args.decay == nullptr) call.refuse("ddecay: given without decay");
        if (args.dstate_in != nullptr && args.state_in == nullptr) call.refuse("dstate_in: given without state_in");
        if (args.ddecay != nullptr && args.ddecay->dtype != args.decay->dtype)
            call.refuse("ddecay: dtype %s, expected %s (that of decay)", dtype_name(args.ddecay->dtype), dtype_name(args.decay->dtype));
        if (args.dstate_in != nullptr && args.dstate_in->dtype != args.state_in->dtype)
            call.refuse("dstate_in: dtype %s, expected %s (that of state_in)", dtype_name(args.dstate_in->dtype), dtype_name(args.state_in->dtype));
        call.check_overlap();
        args.accumulate = accumulate_ddecay != 0;
        run(call, &df_backend_ops::linear_attention_backward, args, check_linear_attention_values);
    });
}

}  // extern "C"
