// The dual form: a sum of outer products applied as a weight (primal) or as an attention without softmax (dual).
#include "cpu/kernels.h"
#include "cpu/kernels/gemm.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int64_t kRowsAtOnce = 64;         // of an elementwise pass
constexpr int64_t kInner = 2048;            // of the dual form's scores (rows, inner): the other dimension is walked in pieces
constexpr int64_t kMaxRows = 512;
constexpr int64_t kPanelElements = int64_t{1} << 21;
constexpr int64_t kSmallWork = int64_t{1} << 18;  // multiply-adds up to which scores are kept in double: such calls cost little
constexpr int64_t kSmallWeight = 256;       // rows and columns of a weight that a thread keeps in its cache

/// out (m,n) (+)= from, where from is row-major in S.
template <class S>
void copy_rows(df_queue* queue, const Matrix& out, const S* from, int64_t ld, int64_t m, int64_t n, bool add) {
    parallel_for(queue, ceil_div(m, kRowsAtOnce), [&](int64_t t, int) {
        const int64_t i = t * kRowsAtOnce;
        scatter(block(out, i, 0), from + i * ld, ld, smaller(kRowsAtOnce, m - i), n, add);
    });
}

/// to (m,n) row-major = x.
template <class A>
void widen_rows(df_queue* queue, A* to, const Matrix& x, int64_t m, int64_t n) {
    parallel_for(queue, ceil_div(m, kRowsAtOnce), [&](int64_t t, int) {
        const int64_t i = t * kRowsAtOnce;
        gather(to + i * n, n, block(x, i, 0), smaller(kRowsAtOnce, m - i), n, n);
    });
}

/// out (m,n) = base_a base_b + (p q^T) r, where p (m,d) q (l,d) r (l,n) and base_a (m,base_depth), base_b (base_depth,n) if
/// base_depth > 0.
/// The scores p q^T exist for kMaxRows x kInner at a time; out is summed in double and rounded once.
struct Chain {
    Matrix out, p, q, r, base_a, base_b;
    int64_t m, n, l, d, base_depth;
};

template <class A>
int chained_product(df_queue* queue, const char* op, const Chain& c, df_error* error) {
    if constexpr (sizeof(A) < sizeof(double))
        if (c.m * c.l * (c.d + c.n) <= kSmallWork) return chained_product<double>(queue, op, c, error);
    const int64_t rows = smaller(c.m, larger(int64_t{16}, smaller(kMaxRows, kPanelElements / c.n))), inner = smaller(c.l, kInner);
    const size_t sum_bytes = size_t(round_up(rows * c.n * 8, 64)), bytes = sum_bytes + size_t(rows * inner) * sizeof(A);
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, op, bytes);
    double* sum = scratch.as<double>();
    A* scores = scratch.as<A>(sum_bytes);
    for (int64_t i = 0; i < c.m; i += rows) {
        const int64_t tall = smaller(rows, c.m - i);
        bool add = false;
        if (c.base_depth > 0) {
            const Matrix base_a = block(c.base_a, i, 0);
            const int status = gemm<A>(queue, op, matrix(sum, c.n), base_a, c.base_b, tall, c.n, c.base_depth, false, error);
            if (status != DF_OK) return status;
            add = true;
        }
        for (int64_t j = 0; j < c.l; j += inner) {
            const int64_t deep = smaller(inner, c.l - j);
            const Matrix p = block(c.p, i, 0), q = block(c.q, j, 0);
            int status = gemm<A>(queue, op, matrix(scores, inner), p, transposed(q), tall, deep, c.d, false, error);
            if (status != DF_OK) return status;
            status = gemm<A>(queue, op, matrix(sum, c.n), matrix(scores, inner), block(c.r, j, 0), tall, c.n, deep, add, error);
            if (status != DF_OK) return status;
            add = true;
        }
        copy_rows(queue, block(c.out, i, 0), sum, c.n, tall, c.n, false);
    }
    return DF_OK;
}

/// weight (O,I) row-major in A = w0 + e^T xp.
template <class A>
int updated_weight(df_queue* queue, const char* op, A* weight, const df_dual_args* args, df_error* error) {
    const int64_t n = args->e->shape[0], o = args->e->shape[1], i = args->xp->shape[1];
    widen_rows(queue, weight, matrix(args->w0), o, i);
    return gemm<A>(queue, op, matrix(weight, i), transposed(matrix(args->e)), matrix(args->xp), o, i, n, true, error);
}

template <class A>
int apply(df_queue* queue, const char* op, const df_view* out, const df_view* x, const Matrix& weight, df_error* error) {
    return gemm<A>(queue, op, matrix(out), matrix(x), transposed(weight), out->shape[0], out->shape[1], x->shape[1], false, error);
}

/// out = x (w0 + delta_w)^T with delta_w given in A.
template <class A>
int apply_sum(df_queue* queue, const char* op, const df_dual_args* args, df_error* error) {
    if (args->w0 == nullptr) return apply<A>(queue, op, args->out, args->x, matrix(args->delta_w), error);
    const int64_t o = args->w0->shape[0], i = args->w0->shape[1];
    const size_t bytes = size_t(o * i) * sizeof(A);
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, op, bytes);
    A* weight = scratch.as<A>();
    widen_rows(queue, weight, matrix(args->w0), o, i);
    copy_rows(queue, matrix(weight, i), data<const A>(args->delta_w), matrix(args->delta_w).row, o, i, true);
    return apply<A>(queue, op, args->out, args->x, matrix(weight, i), error);
}

template <class A>
int accumulate_delta(df_queue* queue, const char* op, const df_dual_args* args, bool accumulate, df_error* error) {
    const int64_t n = args->e->shape[0], o = args->e->shape[1], i = args->xp->shape[1];
    return gemm<A>(queue, op, matrix(args->delta_w), transposed(matrix(args->e)), matrix(args->xp), o, i, n, accumulate, error);
}

template <class A>
int forward(df_queue* queue, const df_dual_args* args, df_error* error) {
    const char* op = "dual_form_forward";
    const int64_t m = args->x->shape[0], i = args->x->shape[1], n = args->e->shape[0], o = args->e->shape[1];
    if (args->delta_w != nullptr) {
        const int status = accumulate_delta<A>(queue, op, args, false, error);
        if (status != DF_OK) return status;
    }
    if (args->form == DF_FORM_DUAL) {
        const Matrix out = matrix(args->out), x = matrix(args->x), xp = matrix(args->xp), e = matrix(args->e), w0 = matrix(args->w0);
        return chained_product<A>(queue, op, {out, x, xp, e, x, transposed(w0), m, o, n, i, i}, error);
    }
    if (args->delta_w != nullptr) return apply_sum<A>(queue, op, args, error);
    const size_t bytes = size_t(o * i) * sizeof(A);
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, op, bytes);
    const int status = updated_weight(queue, op, scratch.as<A>(), args, error);
    if (status != DF_OK) return status;
    return apply<A>(queue, op, args->out, args->x, matrix(scratch.as<A>(), i), error);
}

/// dw0 (+)= dout^T x.
template <class A>
int weight_gradient(df_queue* queue, const char* op, const Matrix& out, const df_dual_args* args, bool accumulate, df_error* error) {
    const int64_t m = args->x->shape[0], o = args->dout->shape[1], i = args->x->shape[1];
    return gemm<A>(queue, op, out, transposed(matrix(args->dout)), matrix(args->x), o, i, m, accumulate, error);
}

template <class A>
int backward_primal(df_queue* queue, const df_dual_args* args, df_error* error) {
    const char* op = "dual_form_backward";
    const int64_t m = args->x->shape[0], i = args->x->shape[1], o = args->dout->shape[1];
    const bool accumulate = args->accumulate != 0;
    int status = DF_OK;
    if (args->de == nullptr && args->dxp == nullptr) {
        if (args->dw0 != nullptr) status = weight_gradient<A>(queue, op, matrix(args->dw0), args, accumulate, error);
        if (status != DF_OK || args->dx == nullptr) return status;
    }
    const size_t bytes = size_t(o * i) * sizeof(A);
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, op, bytes);
    A* square = scratch.as<A>();  // first G, then w0 + e^T xp
    if (args->de != nullptr || args->dxp != nullptr) {
        const int64_t n = args->e->shape[0];
        status = weight_gradient<A>(queue, op, matrix(square, i), args, false, error);
        if (status == DF_OK && args->de != nullptr)
            status = gemm<A>(queue, op, matrix(args->de), matrix(args->xp), transposed(matrix(square, i)), n, o, i, false, error);
        if (status == DF_OK && args->dxp != nullptr)
            status = gemm<A>(queue, op, matrix(args->dxp), matrix(args->e), matrix(square, i), n, i, o, false, error);
        if (status == DF_OK && args->dw0 != nullptr) copy_rows(queue, matrix(args->dw0), square, i, o, i, accumulate);
    }
    if (status != DF_OK || args->dx == nullptr) return status;
    status = updated_weight(queue, op, square, args, error);
    if (status != DF_OK) return status;
    return gemm<A>(queue, op, matrix(args->dx), matrix(args->dout), matrix(square, i), m, i, o, false, error);
}

template <class A>
int backward_dual(df_queue* queue, const df_dual_args* args, df_error* error) {
    const char* op = "dual_form_backward";
    const int64_t m = args->x->shape[0], i = args->x->shape[1], o = args->dout->shape[1];
    const int64_t n = args->e->shape[0];
    const Matrix x = matrix(args->x), dout = matrix(args->dout), e = matrix(args->e), xp = matrix(args->xp);
    int status = DF_OK;
    if (args->dw0 != nullptr) status = weight_gradient<A>(queue, op, matrix(args->dw0), args, args->accumulate != 0, error);
    if (status == DF_OK && args->de != nullptr)
        status = chained_product<A>(queue, op, {matrix(args->de), xp, x, dout, {}, {}, n, o, m, i, 0}, error);
    if (status == DF_OK && args->dxp != nullptr)
        status = chained_product<A>(queue, op, {matrix(args->dxp), e, dout, x, {}, {}, n, i, m, o, 0}, error);
    if (status == DF_OK && args->dx != nullptr)
        status = chained_product<A>(queue, op, {matrix(args->dx), dout, e, xp, dout, matrix(args->w0), m, i, n, o, o}, error);
    return status;
}

int form_forward(df_queue* queue, const df_dual_args* args, df_error* error) {
    return dispatch(args->x->dtype, [&](auto type) { return forward<Accumulate<typename decltype(type)::type>>(queue, args, error); });
}

int form_backward(df_queue* queue, const df_dual_args* args, df_error* error) {
    return dispatch(args->x->dtype, [&](auto type) {
        using A = Accumulate<typename decltype(type)::type>;
        return args->form == DF_FORM_DUAL ? backward_dual<A>(queue, args, error) : backward_primal<A>(queue, args, error);
    });
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
        df_view& one = views_[count_++];
        one.data = static_cast<char*>(view->data) + p_ * view->stride[0] * int64_t(element_size(view->dtype));
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

Gemm product(const Matrix& out, const Matrix& a, const Matrix& b, int64_t m, int64_t n, int64_t k, bool accumulate) {
    Gemm g;
    g.out = out;
    g.a = a;
    g.b = b;
    g.m = m;
    g.n = n;
    g.k = k;
    g.accumulate = accumulate;
    return g;
}

/// The primal form of a problem for one thread, whose weight stays in its cache: run(before, product) in order, the last one perhaps
/// without a product.
template <class A, class F>
void primal_products(const df_dual_args* args, A* weight, bool backward, F&& run) {
    const int64_t m = args->x->shape[0], i = args->x->shape[1], n = args->e->shape[0], o = args->e->shape[1];
    const Matrix w = matrix(weight, i), e = matrix(args->e), xp = matrix(args->xp), x = matrix(args->x);
    const auto start_from_w0 = [&] { gather(weight, i, matrix(args->w0), o, i, i); };
    const auto nothing = [] {};
    if (!backward) {
        if (args->delta_w != nullptr) {
            const Matrix delta_w = matrix(args->delta_w);
            run(nothing, product(delta_w, transposed(e), xp, o, i, n, false));
            run([&] { start_from_w0(), scatter(w, static_cast<const A*>(delta_w.data), delta_w.row, o, i, true); },
                product(matrix(args->out), x, transposed(w), m, o, i, false));
            return;
        }
        run(start_from_w0, product(w, transposed(e), xp, o, i, n, true));
        run(nothing, product(matrix(args->out), x, transposed(w), m, o, i, false));
        return;
    }
    const Matrix dout = matrix(args->dout);
    if (args->dw0 != nullptr || args->de != nullptr || args->dxp != nullptr) run(nothing, product(w, transposed(dout), x, o, i, m, false));
    if (args->de != nullptr) run(nothing, product(matrix(args->de), xp, transposed(w), n, o, i, false));
    if (args->dxp != nullptr) run(nothing, product(matrix(args->dxp), e, w, n, i, o, false));
    if (args->dx == nullptr && args->dw0 == nullptr) return;
    const auto keep = [&] {
        if (args->dw0 != nullptr) scatter(matrix(args->dw0), weight, i, o, i, args->accumulate != 0);
        start_from_w0();
    };
    if (args->dx == nullptr) return run(keep, Gemm{});
    run(keep, product(w, transposed(e), xp, o, i, n, true));
    run(nothing, product(matrix(args->dx), dout, w, m, i, o, false));
}

/// Small problems: each by one thread.
template <class A>
int small_problems(df_queue* queue, const char* op, const df_dual_args* args, bool backward, df_error* error) {
    const int64_t problems = args->e->shape[0], o = args->e->shape[2], i = args->x->shape[2];
    const size_t weight_bytes = size_t(round_up(o * i * int64_t(sizeof(A)), 64));
    size_t product_bytes = 0;
    primal_products<A>(Problem(args, 0).args(), nullptr, backward, [&](auto&&, const Gemm& g) {
        if (g.m > 0) product_bytes = larger(product_bytes, gemm_alone_bytes<A>(queue, g));
    });
    const size_t each = weight_bytes + product_bytes, bytes = each * size_t(problems == 1 ? 1 : thread_count(queue));
    Scratch scratch(queue, bytes);
    if (!scratch) return out_of_memory(error, op, bytes);
    parallel_for(queue, problems, [&](int64_t p, int worker) {
        char* memory = scratch.as<char>(each * size_t(worker));
        primal_products<A>(Problem(args, p).args(), reinterpret_cast<A*>(memory), backward, [&](auto&& before, const Gemm& g) {
            before();
            if (g.m > 0) gemm_alone<A>(queue, g, memory + weight_bytes);
        });
    });
    return DF_OK;
}

int batched(df_queue* queue, const df_dual_args* args, bool backward, df_error* error) {
    const int64_t problems = args->e->shape[0], o = args->e->shape[2], i = args->x->shape[2];
    if (args->form == DF_FORM_PRIMAL && problems > 1 && o <= kSmallWeight && i <= kSmallWeight)
        return dispatch(args->x->dtype, [&](auto type) {
            return small_problems<Accumulate<typename decltype(type)::type>>(queue, backward ? "dual_form_backward" : "dual_form_forward", args,
                                                                             backward, error);
        });
    int status = DF_OK;
    for (int64_t p = 0; p < problems && status == DF_OK; ++p) {
        const Problem problem(args, p);
        status = backward ? form_backward(queue, problem.args(), error) : form_forward(queue, problem.args(), error);
    }
    return status;
}

}  // namespace

int delta_accumulate(df_queue* queue, const df_dual_args* args, df_error* error) {
    return dispatch(args->e->dtype, [&](auto type) {
        return accumulate_delta<Accumulate<typename decltype(type)::type>>(queue, "delta_accumulate", args, args->accumulate != 0, error);
    });
}

int delta_apply(df_queue* queue, const df_dual_args* args, df_error* error) {
    return dispatch(args->x->dtype,
                    [&](auto type) { return apply_sum<Accumulate<typename decltype(type)::type>>(queue, "delta_apply", args, error); });
}

int dual_form_forward(df_queue* queue, const df_dual_args* args, df_error* error) {
    return args->e->rank == 3 ? batched(queue, args, false, error) : form_forward(queue, args, error);
}

int dual_form_backward(df_queue* queue, const df_dual_args* args, df_error* error) {
    return args->e->rank == 3 ? batched(queue, args, true, error) : form_backward(queue, args, error);
}

}  // namespace dualform::cpu::DF_ISA
