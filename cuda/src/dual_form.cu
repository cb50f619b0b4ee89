// The dual form of a gradient step as matrix products: primal forms delta_w = e^T xp once in float, dual chains (x xp^T) e in tiles.
//
// Where kernels other than plain are chosen, a head's sizes and one row go to the kernels of dual_form.h, and larger ones are put so that
// cuBLASLt takes every product: a float32 weight or score that meets bfloat16 becomes two bfloat16 (the nearest, and the nearest to what
// is left) and two products into one float32 sum, and x xp^T is formed for as many rows at a time as fit in kScoreBytes.
#include "dual_form.h"

#include "choice.h"
#include "kernels.h"
#include "launch.h"
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

constexpr int64_t kScoreBytes = 64 << 20;
constexpr int kElementThreads = 256;

/// first + second (optional) to `high` and, where there is one, the rest to `low`. One thread per element of rows x columns.
__global__ void __launch_bounds__(kElementThreads) split_sum(Matrix high, Matrix low, Matrix first, Matrix second, int64_t rows,
                                                             int64_t columns) {
    for (int64_t e = first_element(); e < rows * columns; e += element_stride()) {
        const int64_t r = e / columns, c = e % columns;
        float value = first.data.load(r * first.row + c * first.column);
        if (second.data) value += second.data.load(r * second.row + c * second.column);
        high.data.store(r * high.row + c * high.column, value);
        if (!low.data) continue;
        const float rest = value - to_float(to_bf16(value));
        low.data.store(r * low.row + c * low.column, rest == rest ? rest : 0.0f);
    }
}

int split(const Call& call, const Matrix& high, const Matrix& low, const Matrix& first, const Matrix& second, int64_t rows,
          int64_t columns) {
    return launch(call, "split_sum", element_blocks(rows * columns, kElementThreads), kElementThreads, 0, split_sum, high, low, first,
                  second, rows, columns);
}

/// Dense scratch rows as a matrix of a dtype.
Matrix dense(void* data, int dtype, int64_t columns) {
    Matrix m;
    m.data.data = data;
    m.data.dtype = dtype;
    m.row = columns;
    m.column = 1;
    return m;
}

Matrix transpose(const Matrix& m) {
    Matrix t = m;
    t.row = m.column;
    t.column = m.row;
    return t;
}

Matrix from_row(Matrix m, int64_t row) {
    const int64_t size = m.data.dtype == DF_BF16 ? 2 : 4;
    m.data.data = static_cast<char*>(m.data.data) + row * m.row * size;
    return m;
}

/// sum += a b, or = where it starts.
int add_product(const Call& call, const Matrix& sum, const Matrix& a, const Matrix& b, int64_t m, int64_t n, int64_t k, bool starts) {
    Product p = product(sum, a, b, m, n, k);
    if (!starts) p.addend = sum;
    return multiply(call, p);
}

/// out (M,O) = x (M,I) b (I,O), b = first + second in float32: of the weights w (O,I), which `second` may add to.
int apply_in_parts(const Call& call, const Matrix& out, const Matrix& x, const Matrix& w, const Matrix& plus, bool transposed, int64_t m,
                   int64_t rows, int64_t columns) {
    const bool half = x.data.dtype == DF_BF16;
    const int64_t o = transposed ? columns : rows, inner = transposed ? rows : columns, part = rows * columns * (half ? 2 : 4);
    const int64_t aligned = ceil_div(part, 256) * 256;
    Scratch parts(call, half ? 2 * aligned : aligned), sums(call, half ? float_bytes(m, o) : 1);
    if (!parts) return parts.failure();
    if (!sums) return sums.failure();
    const Matrix high = dense(parts.as<void>(), x.data.dtype, columns);
    const Matrix low = half ? dense(parts.as<void>(aligned), DF_BF16, columns) : Matrix();
    if (const int status = split(call, high, low, w, plus, rows, columns)) return status;
    const Matrix sum = half ? matrix(sums.as<float>(), o) : out;
    if (const int status = add_product(call, sum, x, transposed ? high : transpose(high), m, o, inner, true)) return status;
    if (!half) return DF_OK;
    if (const int status = add_product(call, sum, x, transposed ? low : transpose(low), m, o, inner, false)) return status;
    return split(call, out, Matrix(), sum, Matrix(), m, o);
}

/// out (M,O) = (x y^T) z + x w, w (I,O) optional, the scores x y^T of some rows at a time.
int chain_in_blocks(const Call& call, const Matrix& out, const Matrix& x, const Matrix& y, const Matrix& z, const Matrix& w, int64_t m,
                    int64_t n, int64_t inner, int64_t o) {
    const bool half = x.data.dtype == DF_BF16;
    const int64_t block = smaller(m, larger<int64_t>(64, kScoreBytes / float_bytes(1, larger<int64_t>(n, 1))));
    const int64_t part = ceil_div(block * n * 2, 256) * 256;
    Scratch scores(call, float_bytes(block, n)), parts(call, half ? 2 * part : 1), sums(call, half ? float_bytes(block, o) : 1);
    if (!scores) return scores.failure();
    if (!parts) return parts.failure();
    if (!sums) return sums.failure();
    const Matrix score = matrix(scores.as<float>(), n);
    const Matrix high = half ? dense(parts.as<void>(), DF_BF16, n) : score, low = half ? dense(parts.as<void>(part), DF_BF16, n) : Matrix();
    for (int64_t row = 0; row < m; row += block) {
        const int64_t rows = smaller(block, m - row);
        const Matrix x_rows = from_row(x, row), out_rows = from_row(out, row), sum = half ? matrix(sums.as<float>(), o) : out_rows;
        if (const int status = add_product(call, score, x_rows, transpose(y), rows, n, inner, true)) return status;
        if (half)
            if (const int status = split(call, high, low, score, Matrix(), rows, n)) return status;
        if (const int status = add_product(call, sum, high, z, rows, o, n, true)) return status;
        if (half)
            if (const int status = add_product(call, sum, low, z, rows, o, n, false)) return status;
        if (w.data)
            if (const int status = add_product(call, sum, x_rows, w, rows, o, inner, false)) return status;
        if (half)
            if (const int status = split(call, out_rows, Matrix(), sum, Matrix(), rows, o)) return status;
    }
    return DF_OK;
}

/// out = (x y^T) z + x w, w (I,O) optional.
int chain(const Call& call, const df_view* out, const df_view* x, const df_view* y, const df_view* z, const Matrix& w) {
    const int64_t m = x->shape[0], n = y->shape[0], inner = x->shape[1], o = z->shape[1];
    if (kernels() != Kernels::kPlain)
        return chain_in_blocks(call, matrix(out), matrix(x), matrix(y), matrix(z), w, m, n, inner, o);
    if (!w.data) return multiply_chain(call, matrix(out), matrix(x), matrix(y), matrix(z), m, n, inner, o);
    Scratch update(call, float_bytes(m, o));
    if (!update) return update.failure();
    const Matrix u = matrix(update.as<float>(), o);
    if (const int status = multiply_chain(call, u, matrix(x), matrix(y), matrix(z), m, n, inner, o)) return status;
    Product p = product(matrix(out), matrix(x), w, m, o, inner);
    p.addend = u;
    return multiply(call, p);
}

/// out = x (w0 + delta_w)^T, or x (delta_w)^T without w0.   transposed: out = x (w0 + delta_w).
int apply(const Call& call, const df_view* out, const df_view* x, const df_view* w0, const Matrix& delta_w, bool transposed) {
    Matrix w = delta_w, plus;
    if (w0 != nullptr) {
        w = matrix(w0);
        plus = delta_w;
    }
    if (kernels() != Kernels::kPlain && (x->dtype == DF_BF16 || plus.data)) {
        const int64_t rows = transposed ? x->shape[1] : out->shape[1], columns = transposed ? out->shape[1] : x->shape[1];
        return apply_in_parts(call, matrix(out), matrix(x), w, plus, transposed, x->shape[0], rows, columns);
    }
    if (!transposed) {
        w = transpose(w);
        plus = transpose(plus);
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

/// The arguments of problem p of a batch.
class Problem {
public:
    Problem(const df_dual_args* batch, int64_t p) : args_(*batch), p_(p) {
        const df_view** const views[] = {&args_.out,  &args_.delta_w, &args_.dw0, &args_.de, &args_.dxp, &args_.dx,
                                         &args_.dout, &args_.w0,      &args_.e,   &args_.xp, &args_.x};
        for (const df_view** view : views) take(*view);
    }
    const df_dual_args* args() const { return &args_; }

private:
    void take(const df_view*& view) {
        if (view == nullptr) return;
        const int64_t size = view->dtype == DF_F64 ? 8 : view->dtype == DF_BF16 ? 2 : 4;
        df_view& one = views_[count_++];
        one.data = static_cast<char*>(view->data) + p_ * view->stride[0] * size;
        one.dtype = view->dtype;
        one.rank = 2;
        for (int d = 0; d < 2; ++d) {
            one.shape[d] = view->shape[d + 1];
            one.stride[d] = view->stride[d + 1];
        }
        view = &one;
    }

    df_dual_args args_;
    int64_t p_;
    int count_ = 0;
    df_view views_[11];
};

/// Problem after problem.
int each_problem(const Call& call, const df_dual_args* batch, int (*op)(const Call&, const df_dual_args*)) {
    for (int64_t p = 0; p < batch->e->shape[0]; ++p)
        if (const int status = op(call, Problem(batch, p).args())) return status;
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
    if (args->e->rank == 3) return each_problem(call, args, dual_form_forward);
    const int64_t i = args->x->shape[1], o = args->e->shape[1];
    if (args->form == DF_FORM_DUAL) {
        if (args->delta_w != nullptr)
            if (const int status = outer_sum(call, matrix(args->delta_w), args->e, args->xp, false)) return status;
        return chain(call, args->out, args->x, args->xp, args->e, matrix(args->w0, true));
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
    if (args->e->rank == 3) return each_problem(call, args, dual_form_backward);
    const int64_t i = args->x->shape[1], o = args->e->shape[1];
    if (args->dw0 != nullptr)
        if (const int status = outer_sum(call, matrix(args->dw0), args->dout, args->x, args->accumulate != 0)) return status;
    if (args->form == DF_FORM_DUAL) {
        if (args->de != nullptr)
            if (const int status = chain(call, args->de, args->xp, args->x, args->dout, Matrix())) return status;
        if (args->dxp != nullptr)
            if (const int status = chain(call, args->dxp, args->e, args->dout, args->x, Matrix())) return status;
        return args->dx == nullptr ? DF_OK : chain(call, args->dx, args->dout, args->e, args->xp, matrix(args->w0));
    }
    if (args->de != nullptr || args->dxp != nullptr) {
        Scratch gradient(call, float_bytes(o, i)); /* G = dout^T x in float, whatever dw0's dtype */
        if (!gradient) return gradient.failure();
        if (const int status = outer_sum(call, matrix(gradient.as<float>(), i), args->dout, args->x, false)) return status;
        const Matrix g = matrix(gradient.as<float>(), i);
        if (args->de != nullptr)
            if (const int status = apply(call, args->de, args->xp, nullptr, g, false)) return status;
        if (args->dxp != nullptr)
            if (const int status = apply(call, args->dxp, args->e, nullptr, g, true)) return status;
    }
    if (args->dx == nullptr) return DF_OK;
    Scratch delta_w(call, float_bytes(o, i));
    if (!delta_w) return delta_w.failure();
    const Matrix d = matrix(delta_w.as<float>(), i);
    if (const int status = outer_sum(call, d, args->e, args->xp, false)) return status;
    return apply(call, args->dx, args->dout, args->w0, d, true);
}

}  // namespace dualform::cuda
