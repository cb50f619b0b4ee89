// Softmax cross-entropy and its gradient: one thread per block of rows, three passes over a row in the cache (maximum, sum, gradient).
#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

/// Copies the targets and counts those that are not ignored; one out of range is an error. Logits are indexed with the copies alone: each
/// target is read once (volatile), so what another thread writes to targets after its check is never an index.
int copy_targets(int32_t* copies, int64_t* count, const df_view* targets, int64_t V, int ignore_index, df_error* error) {
    const Rows<const volatile int32_t> each(targets, 0);
    const int64_t N = numel(targets);
    *count = 0;
    for (int64_t n = 0; n < N; ++n) {
        const int32_t target = *each[n];
        copies[n] = target;
        if (target == ignore_index) continue;
        if (target < 0 || target >= V)
            return fail(error, DF_INVALID_ARGUMENT, "targets[%lld]: %d, expected 0..%lld or ignore_index %d", static_cast<long long>(n),
                        target, static_cast<long long>(V - 1), ignore_index);
        ++*count;
    }
    return DF_OK;
}

/// The largest logit; NaN may be missed. Four chains of comparisons.
template <class T, class A>
A row_max(const T* logits, int64_t V) {
    constexpr int kChains = 4;
    Vec<A> most[kChains];
    for (Vec<A>& m : most) m = splat<A>(-A(INFINITY));
    int64_t i = 0;
    for (; i + kChains * kLanes<A> <= V; i += kChains * kLanes<A>)
        for (int c = 0; c < kChains; ++c) most[c] = vmax(most[c], load(logits + i + c * kLanes<A>));
    for_vectors<A>(V - i, [&](int64_t j, int lanes) { most[0] = vmax(most[0], load_lanes<A>(logits + i + j, lanes, -A(INFINITY))); });
    return lane_max<A>(vmax(vmax(most[0], most[1]), vmax(most[2], most[3])));
}

/// The loss of one row, and its gradient when dlogits is not null. dlogits may be logits. Where dlogits holds what the sum is taken of, it
/// keeps the terms until the sum is known; bfloat16 computes them again.
template <class T>
double row_loss(T* dlogits, const T* logits, int64_t V, int32_t target, double count) {
    using A = Accumulate<T>;
    constexpr bool kKept = kSame<T, A>;
    const A lowest = -A(INFINITY);  // adds nothing to the sum
    const A top = row_max<T, A>(logits, V), at = A(get(logits + target)) - top;
    const auto term = [&](int64_t i, int lanes) { return vexp_below(load_lanes<A>(logits + i, lanes, lowest) - top); };
    double sum[1];
    if (kKept && dlogits != nullptr) {
        row_sums<A, 1, 16>(sum, V, [&](int64_t i, int lanes, Vec<A>* t) {
            t[0] = term(i, lanes);
            store_lanes<A>(dlogits + i, t[0], lanes);
        });
    } else {
        row_sums<A, 1, 16>(sum, V, [&](int64_t i, int lanes, Vec<A>* t) { t[0] = term(i, lanes); });
    }
    const double loss = log(sum[0]) - double(at);
    if (dlogits != nullptr) {
        const A scale = A(1.0 / (sum[0] * count));
        const double at_target = (double(vexp_below(splat<A>(at))[0]) / sum[0] - 1.0) / count;
        for_vectors<A>(V, [&](int64_t i, int lanes) {
            store_lanes<A>(dlogits + i, (kKept ? load_lanes<A>(dlogits + i, lanes) : term(i, lanes)) * scale, lanes);
        });
        put_rounded(dlogits + target, at_target);
    }
    return loss;
}

template <class T>
int run(df_queue* queue, const df_cross_entropy_args* args, df_error* error) {
    using A = Accumulate<T>;
    const int64_t V = args->logits->shape[args->logits->rank - 1], N = numel(args->logits) / V;
    const Rows<const T> logits(args->logits);
    const Rows<T> dlogits(args->dlogits);
    const Rows<A> losses(args->losses, 0);
    const size_t bytes = size_t(N) * sizeof(int32_t);
    Scratch copies(queue, bytes);
    if (!copies) return out_of_memory(error, "cross_entropy", bytes);
    int32_t* targets = copies.as<int32_t>();
    int64_t count;
    const int status = copy_targets(targets, &count, args->targets, V, args->ignore_index, error);
    if (status != DF_OK) return status;
    const int64_t block = larger<int64_t>(1, kGrain / V);
    for_pieces(queue, ceil_div(N, block), 4 * N * V, [&](int64_t b, int) {
        for (int64_t n = b * block, end = smaller(n + block, N); n < end; ++n) {
            const int32_t target = targets[n];
            T* dlogits_n = dlogits ? dlogits[n] : nullptr;
            if (target != args->ignore_index) {
                *losses[n] = A(row_loss<T>(dlogits_n, logits[n], V, target, double(count)));
                continue;
            }
            *losses[n] = 0;
            if (dlogits_n != nullptr)
                for (int64_t i = 0; i < V; ++i) dlogits_n[i] = T{};
        }
    });
    double loss = 0;
    for (int64_t n = 0; n < N; ++n) loss += double(*losses[n]);
    *data<A>(args->loss) = A(count == 0 ? 0.0 : loss / double(count));
    return DF_OK;
}

}  // namespace

int cross_entropy(df_queue* queue, const df_cross_entropy_args* args, df_error* error) {
    return dispatch(args->logits->dtype, [&](auto type) { return run<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
