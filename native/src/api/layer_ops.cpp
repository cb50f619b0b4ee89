// Argument checks of the ops around attention: products, norms, activations, embedding, loss.
#include <math.h>

#include "api/arguments.h"

namespace {

using namespace dualform;

long long ll(int64_t x) { return static_cast<long long>(x); }

/// "(..,C)": everything but the last dimension is rows.
int64_t last_dim(const Arguments& call, const char* name, const df_view* v) {
    if (v->rank < 1) call.refuse("%s: a scalar, expected at least one dimension", name);
    return v->shape[v->rank - 1];
}

int64_t rows(const df_view* v) {
    int64_t n = 1;
    for (int i = 0; i + 1 < v->rank; ++i) n *= v->shape[i];
    return n;
}

void vector_of(const Arguments& call, const char* name, const df_view* v, int64_t c) {
    if (v == nullptr) return;
    if (v->rank != 1 || v->shape[0] != c) call.refuse("%s: %d dimensions%s, expected (%lld)", name, v->rank, v->rank == 1 ? " of another size" : "", ll(c));
}

/// mean, rstd, losses: as many elements as there are rows, contiguous, any rank.
void one_per_row(const Arguments& call, const char* name, const df_view* v, int64_t n) {
    int64_t count = 1;
    for (int i = 0; i < v->rank; ++i) count *= v->shape[i];
    if (count != n || !is_contiguous(*v)) call.refuse("%s: %lld elements, expected %lld (one per row), contiguous", name, ll(count), ll(n));
}

const df_view* optional_output(Arguments& call, const char* name, df_tensor* t, Kind kind) { return t == nullptr ? nullptr : call.output(name, t, kind); }
const df_view* optional_input(Arguments& call, const char* name, const df_tensor* t, Kind kind) { return t == nullptr ? nullptr : call.input(name, t, kind); }

void check_gelu(const Arguments& call, df_gelu kind) {
    if (kind != DF_GELU_EXACT && kind != DF_GELU_TANH) call.refuse("kind: %d, expected exact or tanh", static_cast<int>(kind));
}

struct Factor {
    const char* name;
    const df_view* view;
    bool transposed = false;
};

/// out = op(a) op(b), alike in their batch. Returns N.
int64_t check_product(const Arguments& call, const Factor& out, const Factor& a, const Factor& b) {
    const df_view &va = *a.view, &vb = *b.view, &vo = *out.view;
    if (va.rank < 2) call.refuse("%s: rank %d, expected at least 2", a.name, va.rank);
    if (vb.rank != 2 && vb.rank != va.rank) call.refuse("%s: rank %d, expected 2 or %d (that of %s)", b.name, vb.rank, va.rank, a.name);
    if (vo.rank != va.rank) call.refuse("%s: rank %d, expected %d (that of %s)", out.name, vo.rank, va.rank, a.name);
    const int64_t m = va.shape[va.rank - (a.transposed ? 1 : 2)], k = va.shape[va.rank - (a.transposed ? 2 : 1)];
    const int64_t kb = vb.shape[vb.rank - (b.transposed ? 1 : 2)], n = vb.shape[vb.rank - (b.transposed ? 2 : 1)];
    if (k != kb) call.refuse("%s: K is %lld, expected %lld (that of %s)", b.name, ll(kb), ll(k), a.name);
    if (vo.shape[vo.rank - 2] != m || vo.shape[vo.rank - 1] != n)
        call.refuse("%s: (%lld,%lld) in its last two dimensions, expected (%lld,%lld)", out.name, ll(vo.shape[vo.rank - 2]), ll(vo.shape[vo.rank - 1]),
                    ll(m), ll(n));
    for (int i = 0; i + 2 < va.rank; ++i) {
        if (vo.shape[i] != va.shape[i])
            call.refuse("%s: dimension %d is %lld, expected %lld (that of %s)", out.name, i, ll(vo.shape[i]), ll(va.shape[i]), a.name);
        if (vb.rank == va.rank && vb.shape[i] != va.shape[i])
            call.refuse("%s: dimension %d is %lld, expected %lld (that of %s)", b.name, i, ll(vb.shape[i]), ll(va.shape[i]), a.name);
    }
    return n;
}

/// Whether the backend did two ops in one.
bool in_one(const Arguments& call, Op<df_matmul_gelu_args> op, df_matmul_gelu_args& args) {
    if (call.device()->backend->ops.*op == nullptr) return false;
    int served = 0;
    args.served = &served;
    run(call, op, args);
    return served != 0;
}

}  // namespace

extern "C" {

df_status df_matmul(df_tensor* out, const df_tensor* a, const df_tensor* b, const df_tensor* bias, int trans_a, int trans_b, int accumulate) {
    return guard([&] {
        Arguments call("matmul");
        df_matmul_args args = {};
        args.a = call.input("a", a);
        args.b = call.input("b", b);
        args.bias = optional_input(call, "bias", bias, Kind::kCallOrAccumulate);
        args.out = call.output("out", out, Kind::kCallOrAccumulate);
        const int64_t n = check_product(call, {"out", args.out}, {"a", args.a, trans_a != 0}, {"b", args.b, trans_b != 0});
        vector_of(call, "bias", args.bias, n);
        call.check_overlap();
        args.trans_a = trans_a != 0;
        args.trans_b = trans_b != 0;
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::matmul, args);
    });
}

df_status df_bias_backward(df_tensor* dbias, const df_tensor* dout, int accumulate) {
    return guard([&] {
        Arguments call("bias-backward");
        df_bias_args args = {};
        args.dout = call.input("dout", dout);
        args.dbias = call.output("dbias", dbias, Kind::kCallOrAccumulate);
        vector_of(call, "dbias", args.dbias, last_dim(call, "dout", args.dout));
        call.check_overlap();
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::bias_backward, args);
    });
}

df_status df_residual_layernorm_forward(df_tensor* sum, df_tensor* out, df_tensor* mean, df_tensor* rstd, const df_tensor* x, const df_tensor* residual,
                                        const df_tensor* weight, const df_tensor* bias, double eps) {
    return guard([&] {
        Arguments call("residual-layernorm");
        df_layernorm_args args = {};
        args.x = call.input("x", x);
        const int64_t c = last_dim(call, "x", args.x);
        args.residual = optional_input(call, "residual", residual, Kind::kCall);
        call.same_shape("residual", args.residual, "x", args.x);
        args.weight = call.input("weight", weight);
        args.bias = call.input("bias", bias);
        vector_of(call, "weight", args.weight, c);
        vector_of(call, "bias", args.bias, c);
        args.sum = optional_output(call, "sum", sum, Kind::kCall);
        if (args.sum == nullptr && args.residual != nullptr) call.refuse("sum: null, expected a tensor when residual is given");
        call.same_shape("sum", args.sum, "x", args.x);
        args.out = call.output("out", out);
        call.same_shape("out", args.out, "x", args.x);
        args.mean = call.output("mean", mean, Kind::kAccumulate);
        args.rstd = call.output("rstd", rstd, Kind::kAccumulate);
        one_per_row(call, "mean", args.mean, rows(args.x));
        one_per_row(call, "rstd", args.rstd, rows(args.x));
        if (!(eps >= 0) || isinf(eps)) call.refuse("eps: %g, expected a finite number >= 0", eps);
        call.check_overlap();
        args.eps = eps;
        run(call, &df_backend_ops::residual_layernorm_forward, args);
    });
}

df_status df_residual_layernorm_backward(df_tensor* dx, df_tensor* dweight, df_tensor* dbias, const df_tensor* dout, const df_tensor* dsum,
                                         const df_tensor* sum, const df_tensor* weight, const df_tensor* mean, const df_tensor* rstd, int accumulate) {
    return guard([&] {
        Arguments call("residual-layernorm");
        df_layernorm_args args = {};
        args.sum = call.input("sum", sum);
        const int64_t c = last_dim(call, "sum", args.sum);
        args.dout = call.input("dout", dout);
        call.same_shape("dout", args.dout, "sum", args.sum);
        args.dsum = optional_input(call, "dsum", dsum, Kind::kCall);
        call.same_shape("dsum", args.dsum, "sum", args.sum);
        args.weight = call.input("weight", weight);
        vector_of(call, "weight", args.weight, c);
        args.mean = call.input("mean", mean, Kind::kAccumulate);
        args.rstd = call.input("rstd", rstd, Kind::kAccumulate);
        one_per_row(call, "mean", args.mean, rows(args.sum));
        one_per_row(call, "rstd", args.rstd, rows(args.sum));
        args.dx = call.output("dx", dx);
        call.same_shape("dx", args.dx, "sum", args.sum);
        if ((dweight == nullptr) != (dbias == nullptr)) call.refuse("%s: null, expected dweight and dbias both or neither", dweight == nullptr ? "dweight" : "dbias");
        args.dweight = optional_output(call, "dweight", dweight, Kind::kCallOrAccumulate);
        args.dbias = optional_output(call, "dbias", dbias, Kind::kCallOrAccumulate);
        vector_of(call, "dweight", args.dweight, c);
        vector_of(call, "dbias", args.dbias, c);
        call.may_be(args.dx, args.dsum);
        call.check_overlap();
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::residual_layernorm_backward, args);
    });
}

df_status df_bias_gelu_forward(df_tensor* out, const df_tensor* x, const df_tensor* bias, df_gelu kind) {
    return guard([&] {
        Arguments call("bias-gelu");
        df_gelu_args args = {};
        args.x = call.input("x", x);
        args.bias = optional_input(call, "bias", bias, Kind::kCall);
        if (args.bias != nullptr) vector_of(call, "bias", args.bias, last_dim(call, "x", args.x));
        args.out = call.output("out", out);
        call.same_shape("out", args.out, "x", args.x);
        check_gelu(call, kind);
        call.may_be(args.out, args.x);
        call.check_overlap();
        args.kind = kind;
        run(call, &df_backend_ops::bias_gelu_forward, args);
    });
}

df_status df_bias_gelu_backward(df_tensor* dx, df_tensor* dbias, const df_tensor* dout, const df_tensor* x, const df_tensor* bias, df_gelu kind,
                                int accumulate) {
    return guard([&] {
        Arguments call("bias-gelu");
        df_gelu_args args = {};
        args.x = call.input("x", x);
        args.dout = call.input("dout", dout);
        call.same_shape("dout", args.dout, "x", args.x);
        args.bias = optional_input(call, "bias", bias, Kind::kCall);
        args.dbias = optional_output(call, "dbias", dbias, Kind::kCallOrAccumulate);
        if (args.bias != nullptr || args.dbias != nullptr) {
            const int64_t c = last_dim(call, "x", args.x);
            vector_of(call, "bias", args.bias, c);
            vector_of(call, "dbias", args.dbias, c);
        }
        args.dx = call.output("dx", dx);
        call.same_shape("dx", args.dx, "x", args.x);
        check_gelu(call, kind);
        call.may_be(args.dx, args.dout);
        call.check_overlap();
        args.kind = kind;
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::bias_gelu_backward, args);
    });
}

df_status df_matmul_gelu_forward(df_tensor* out, df_tensor* pre, const df_tensor* a, const df_tensor* b, const df_tensor* bias, int trans_a, int trans_b,
                                 df_gelu kind) {
    return guard([&] {
        Arguments call("matmul-gelu");
        df_matmul_gelu_args args = {};
        args.a = call.input("a", a);
        args.b = call.input("b", b);
        args.bias = optional_input(call, "bias", bias, Kind::kCallOrAccumulate);
        args.out = call.output("out", out);
        args.pre = optional_output(call, "pre", pre, Kind::kCall);
        vector_of(call, "bias", args.bias, check_product(call, {"out", args.out}, {"a", args.a, trans_a != 0}, {"b", args.b, trans_b != 0}));
        call.same_shape("pre", args.pre, "out", args.out);
        check_gelu(call, kind);
        call.check_overlap();
        args.trans_a = trans_a != 0;
        args.trans_b = trans_b != 0;
        args.kind = kind;
        if (in_one(call, &df_backend_ops::matmul_gelu_forward, args)) return;
        df_matmul_args product = {};
        product.out = args.pre != nullptr ? args.pre : args.out;
        product.a = args.a;
        product.b = args.b;
        product.bias = args.bias;
        product.trans_a = args.trans_a;
        product.trans_b = args.trans_b;
        run(call, &df_backend_ops::matmul, product);
        df_gelu_args gelu = {};
        gelu.out = args.out;
        gelu.x = product.out;
        gelu.kind = kind;
        run(call, &df_backend_ops::bias_gelu_forward, gelu);
    });
}

df_status df_matmul_gelu_backward(df_tensor* dpre, df_tensor* dbias, const df_tensor* dout, const df_tensor* w, const df_tensor* pre, int trans_w,
                                  df_gelu kind, int accumulate) {
    return guard([&] {
        Arguments call("matmul-gelu");
        df_matmul_gelu_args args = {};
        args.a = call.input("dout", dout);
        args.b = call.input("w", w);
        args.pre = call.input("pre", pre);
        args.out = call.output("dpre", dpre);
        args.dbias = optional_output(call, "dbias", dbias, Kind::kCallOrAccumulate);
        vector_of(call, "dbias", args.dbias, check_product(call, {"dpre", args.out}, {"dout", args.a}, {"w", args.b, trans_w != 0}));
        call.same_shape("pre", args.pre, "dpre", args.out);
        check_gelu(call, kind);
        call.check_overlap();
        args.trans_b = trans_w != 0;
        args.kind = kind;
        args.accumulate = accumulate != 0;
        if (in_one(call, &df_backend_ops::matmul_gelu_backward, args)) return;
        df_matmul_args product = {};
        product.out = args.out;
        product.a = args.a;
        product.b = args.b;
        product.trans_b = args.trans_b;
        run(call, &df_backend_ops::matmul, product);
        df_gelu_args gelu = {};
        gelu.dx = gelu.dout = args.out; /* in place */
        gelu.dbias = args.dbias;
        gelu.x = args.pre;
        gelu.kind = kind;
        gelu.accumulate = args.accumulate;
        run(call, &df_backend_ops::bias_gelu_backward, gelu);
    });
}

df_status df_embedding_forward(df_tensor* out, const df_tensor* ids, const df_tensor* wte, const df_tensor* wpe, int64_t position) {
    return guard([&] {
        Arguments call("embedding");
        df_embedding_args args = {};
        args.wte = call.input("wte", wte, {"V", "C"});
        args.wpe = call.input_if("wpe", wpe, {"P", "C"});
        args.ids = call.input("ids", ids, {"B", "T"}, Kind::kI32);
        args.out = call.output("out", out, {"B", "T", "C"});
        if (position < 0) call.refuse("position: %lld, expected at least 0", ll(position));
        if (args.wpe != nullptr && call.dim("T") > call.dim("P") - position)
            call.refuse("position: %lld with T=%lld, expected position + T <= P=%lld", ll(position), ll(call.dim("T")), ll(call.dim("P")));
        call.check_overlap();
        args.position = position;
        run(call, &df_backend_ops::embedding_forward, args);
    });
}

df_status df_embedding_backward(df_tensor* dwte, df_tensor* dwpe, const df_tensor* dout, const df_tensor* ids, int64_t position, int accumulate) {
    return guard([&] {
        Arguments call("embedding");
        df_embedding_args args = {};
        args.dout = call.input("dout", dout, {"B", "T", "C"});
        args.ids = call.input("ids", ids, {"B", "T"}, Kind::kI32);
        args.dwte = call.output_if("dwte", dwte, {"V", "C"}, Kind::kCallOrAccumulate);
        args.dwpe = call.output_if("dwpe", dwpe, {"P", "C"}, Kind::kCallOrAccumulate);
        if (position < 0) call.refuse("position: %lld, expected at least 0", ll(position));
        if (args.dwpe != nullptr && call.dim("T") > call.dim("P") - position)
            call.refuse("position: %lld with T=%lld, expected position + T <= P=%lld", ll(position), ll(call.dim("T")), ll(call.dim("P")));
        call.check_overlap();
        args.position = position;
        args.accumulate = accumulate != 0;
        run(call, &df_backend_ops::embedding_backward, args);
    });
}

df_status df_cross_entropy(df_tensor* loss, df_tensor* losses, df_tensor* dlogits, const df_tensor* logits, const df_tensor* targets, int ignore_index) {
    return guard([&] {
        Arguments call("cross-entropy");
        df_cross_entropy_args args = {};
        args.logits = call.input("logits", logits, {"N", "V"});
        args.targets = call.input("targets", targets, {"N"}, Kind::kI32);
        args.loss = call.output("loss", loss, Kind::kAccumulate);
        call.scalar("loss", args.loss);
        args.losses = call.output("losses", losses, {"N"}, Kind::kAccumulate);
        args.dlogits = call.output_if("dlogits", dlogits, {"N", "V"});
        call.may_be(args.dlogits, args.logits);
        call.check_overlap();
        args.ignore_index = ignore_index;
        run(call, &df_backend_ops::cross_entropy, args);
    });
}

}  // extern "C"
