// The dual form of a gradient step as matrix products: primal forms delta_w = e^T xp once in float, dual chains (x xp^T) e in tiles.
#include "dual_form.h"

#include "choice.h"
#include "kernels.h"
#include "matmul.h"

namespace dualform::cuda {

namespace {

int64_t float_bytes(int64_t a, int64_t b) { return a * b * static_cast<int64_t>(sizeof(float)); }

Product product(const Matrix& out, const Matrix& a, const Matrix& b, int64_t m, int64_t n, int64_t k) {
    Product p;
    p.out = out;
    p.a = a;
    p.b = b;
    p.m = m;
    p.n = n;
    p.k = k;
    return p;
}

/// out (+)= left^T right.   left (N,R)  right (N,C)  out (R,C)
int outer_sum(const Call& call, const Matrix& out, const df_view* left, const df_view* right, bool accumulate) {
    Product p = product(out, matrix(left, true), matrix(right), left->shape[1], right->shape[1], left->shape[0]);
    if (accumulate) p.addend = out;
    return multiply(call, p);
}

/// out = x (w0 + delta_w)^T, or x (delta_w)^T without w0.   transposed: out = x (w0 + delta_w).
int apply(const Call& call, const df_view* out, const df_view* x, const df_view* w0, const Matrix& delta_w, bool transposed) {
    Matrix w = delta_w, plus;
    if (w0 != nullptr) {
        w = matrix(w0);
        plus = delta_w;
    }
    if (!transposed) {
        const Matrix straight = w, straight_plus = plus;
        w.row = straight.column;
        w.column = straight.row;
        plus.row = straight_plus.column;
        plus.column = straight_plus.row;
    }
    Product p = product(matrix(out), matrix(x), w, x->shape[0], out->shape[1], x->shape[1]);
    p.b_plus = plus;
    return multiply(call, p);
}

/// The first of the kernels that serves, where kernels other than plain are chosen.
int on_tensor_cores(const Call& call, const df_dual_args* args, bool* served,
                    std::initializer_list<int (*)(const Call&, const df_dual_args*, bool*)> kernel) {
    if (kernels() == Kernels::kPlain) return DF_OK;
    for (const auto serve : kernel) {
        const int status = serve(call, args, served);
        if (status != DF_OK || *served) return status;
    }
    return DF_OK;
}

}  // namespace

int delta_accumulate(const Call& call, const df_dual_args* args) {
    if (const int status = call.require_device_floats({args->delta_w, args->e, args->xp})) return status;
    bool served = false;
    if (const int status = on_tensor_cores(call, args, &served, {delta_accumulate_mma})) return status;
    if (served) return DF_OK;
    return outer_sum(call, matrix(args->delta_w), args->e, args->xp, args->accumulate != 0);
}

int delta_apply(const Call& call, const df_dual_args* args) {
    if (const int status = call.require_device_floats({args->out, args->x, args->w0, args->delta_w})) return status;
    bool served = false;
    if (const int status = on_tensor_cores(call, args, &served, {delta_apply_mma})) return status;
    if (served) return DF_OK;
    return apply(call, args->out, args->x, args->w0, matrix(args->delta_w), false);
}

int dual_form_forward(const Call& call, const df_dual_args* args) {
    if (const int status = call.require_device_floats({args->out, args->delta_w, args->w0, args->e, args->xp, args->x})) return status;
    bool served = false;
    if (const int status = on_tensor_cores(call, args, &served, {dual_form_forward_step, dual_form_forward_mma})) return status;
    if (served) return DF_OK;
    const int64_t m = args->x->shape[0], n = args->e->shape[0], i = args->x->shape[1], o = args->e->shape[1];
    if (args->form == DF_FORM_DUAL) {
        if (args->delta_w != nullptr)
            if (const int status = outer_sum(call, matrix(args->delta_w), args->e, args->xp, false)) return status;
        Scratch update(call, float_bytes(m, o));
        if (!update) return update.failure();
        const Matrix u = matrix(update.as<float>(), o);
        if (const int status = multiply_chain(call, u, matrix(args->x), matrix(args->xp), matrix(args->e), m, n, i, o)) return status;
        Product p = product(matrix(args->out), matrix(args->x), matrix(args->w0, true), m, o, i);
        p.addend = u;
        return multiply(call, p);
    }
    Scratch own(call, args->delta_w == nullptr ? float_bytes(o, i) : 1);
    if (!own) return own.failure();
    const Matrix delta_w = args->delta_w != nullptr ? matrix(args->delta_w) : matrix(own.as<float>(), i);
    if (const int status = outer_sum(call, delta_w, args->e, args->xp, false)) return status;
    return apply(call, args->out, args->x, args->w0, delta_w, false);
}

int dual_form_backward(const Call& call, const df_dual_args* args) {
    if (const int status =
            call.require_device_floats({args->dw0, args->de, args->dxp, args->dx, args->dout, args->w0, args->e, args->xp, args->x}))
        return status;
    bool served = false;
    if (const int status = on_tensor_cores(call, args, &served, {dual_form_backward_mma})) return status;
    if (served) return DF_OK;
    const int64_t m = args->x->shape[0], n = args->e->shape[0], i = args->x->shape[1], o = args->e->shape[1];
    if (args->dw0 != nullptr)
        if (const int status = outer_sum(call, matrix(args->dw0), args->dout, args->x, args->accumulate != 0)) return status;
    if (args->form == DF_FORM_DUAL) {
        if (args->de != nullptr)
            if (const int status = multiply_chain(call, matrix(args->de), matrix(args->xp), matrix(args->x), matrix(args->dout), n, m, i,
                                                  o))
                return status;
        if (args->dxp != nullptr)
            if (const int status = multiply_chain(call, matrix(args->dxp), matrix(args->e), matrix(args->dout), matrix(args->x), n, m, o,
                                                  i))
                return status;
        if (args->dx == nullptr) return DF_OK;
        Scratch update(call, float_bytes(m, i));
        if (!update) return update.failure();
        const Matrix u = matrix(update.as<float>(), i);
        if (const int status = multiply_chain(call, u, matrix(args->dout), matrix(args->e), matrix(args->xp), m, n, o, i)) return status;
        Product p = product(matrix(args->dx), matrix(args->dout), matrix(args->w0), m, i, o);
        p.addend = u;
        return multiply(call, p);
    }
    if (args->de != nullptr || args->dxp != nullptr) {
        Scratch gradient(call, float_bytes(o, i)); /* G = dout^T x in float, whatever dw0's dtype */
        if (!gradient) return gradient.failure();
        if (const int status = outer_sum(call, matrix(gradient.as<float>(), i), args->dout, args->x, false)) return status;
        if (args->de != nullptr)
            if (const int status =
                    multiply(call, product(matrix(args->de), matrix(args->xp), matrix(gradient.as<float>(), i, true), n, o, i)))
                return status;
        if (args->dxp != nullptr)
            if (const int status = multiply(call, product(matrix(args->dxp), matrix(args->e), matrix(gradient.as<float>(), i), n, i, o)))
                return status;
    }
    if (args->dx == nullptr) return DF_OK;
    Scratch delta_w(call, float_bytes(o, i));
    if (!delta_w) return delta_w.failure();
    const Matrix d = matrix(delta_w.as<float>(), i);
    if (const int status = outer_sum(call, d, args->e, args->xp, false)) return status;
    return apply(call, args->dx, args->dout, args->w0, d, true);
}

}  // namespace dualform::cuda
