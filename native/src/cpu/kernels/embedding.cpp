// Token and position embeddings. Backward gives every table row to one thread, which finds its tokens through a counting sort of the ids.
#include <stdio.h>

#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

/// Copies the ids, every one in 0..V-1, or leaves a sentence with the first one that is not. Tables are indexed with the copies alone: each
/// id is read once (volatile), so what another thread writes to ids after its check is never an index.
int copy_ids(int32_t* copies, const df_view* ids, int64_t V, df_error* error) {
    const Rows<const volatile int32_t> each(ids, 0);
    const int64_t N = numel(ids);
    for (int64_t n = 0; n < N; ++n) {
        const int32_t id = *each[n];
        copies[n] = id;
        if (id >= 0 && id < V) continue;
        char place[32 * DF_MAX_RANK] = "";
        int length = 0;
        for (int axis = 0; axis < ids->rank; ++axis) {
            int64_t below = 1;
            for (int i = axis + 1; i < ids->rank; ++i) below *= ids->shape[i];
            const auto at = static_cast<long long>(n / below % ids->shape[axis]);
            length += snprintf(place + length, sizeof place - size_t(length), "%s%lld", axis > 0 ? "," : "", at);
        }
        return fail(error, DF_INVALID_ARGUMENT, "ids[%s]: %d, expected 0..%lld", place, id, static_cast<long long>(V - 1));
    }
    return DF_OK;
}

int64_t sequence_length(const df_view* ids) { return ids->rank == 0 ? 1 : ids->shape[ids->rank - 1]; }

template <class T>
void forward(df_queue* queue, const df_embedding_args* args, const int32_t* ids) {
    using A = Accumulate<T>;
    const int64_t C = args->out->shape[args->out->rank - 1], N = numel(args->ids), sequence = sequence_length(args->ids);
    const Rows<T> out(args->out);
    const Rows<const T> wte(args->wte), wpe(args->wpe);
    const int64_t block = larger<int64_t>(1, kGrain / C);
    for_pieces(queue, ceil_div(N, block), N * C, [&](int64_t b, int) {
        for (int64_t n = b * block, end = smaller(n + block, N); n < end; ++n) {
            T* out_n = out[n];
            const T *token = wte[ids[n]], *place = wpe ? wpe[args->position + n % sequence] : nullptr;
            for_vectors<A>(C, [&](int64_t i, int lanes) {
                Vec<A> v = load_lanes<A>(token + i, lanes);
                if (place != nullptr) v += load_lanes<A>(place + i, lanes);
                store_lanes<A>(out_n + i, v, lanes);
            });
        }
    });
}

constexpr int64_t kColumns = 128;  // channels of one piece of backward: also spreads a batch that repeats a single id over the threads

/// table[first .. first + n) (+)= the sum of rows dout[order(0 .. hits)), in that order, in double.
template <class T, class G, class F>
void add_rows(G* table, const Rows<const T>& dout, int64_t hits, F&& order, int64_t first, int n, bool accumulate) {
    using A = Accumulate<T>;
    if (hits == 0 && accumulate) return;
    alignas(64) double sums[kColumns] = {};
    for (int64_t h = 0; h < hits; ++h) {
        const T* row = dout[order(h)] + first;
        for_vectors<A>(n, [&](int64_t i, int lanes) { add_to<A>(sums + i, load_lanes<A>(row + i, lanes)); });
    }
    for (int i = 0; i < n; ++i) put_rounded(table + first + i, accumulate ? double(get(table + first + i)) + sums[i] : sums[i]);
}

/// f(row, first column, columns) for every row of a table and block of its channels, in parallel.
template <class F>
void for_table(df_queue* queue, int64_t rows, int64_t C, int64_t hits, F&& f) {
    const int64_t columns = ceil_div(C, kColumns), block = larger<int64_t>(1, ceil_div(rows, 64)), blocks = ceil_div(rows, block);
    for_pieces(queue, blocks * columns, (rows + hits) * C, [&](int64_t piece, int) {
        const int64_t first = piece % columns * kColumns, b = piece / columns;
        for (int64_t row = b * block, end = smaller(row + block, rows); row < end; ++row) f(row, first, int(smaller(kColumns, C - first)));
    });
}

/// f(Type<G>{}) with the storage type of a gradient table: that of dout or its accumulation type.
template <class T, class F>
void with_table_type(const df_view* table, const df_view* dout, F&& f) {
    if (table->dtype == dout->dtype) f(Type<T>{});
    else f(Type<Accumulate<T>>{});
}

template <class T>
int backward(df_queue* queue, const df_embedding_args* args, df_error* error) {
    const int64_t C = args->dout->shape[args->dout->rank - 1], N = numel(args->ids), sequence = sequence_length(args->ids);
    const Rows<const T> dout(args->dout);
    const bool accumulate = args->accumulate != 0;
    if (args->dwte != nullptr) {
        // Tokens sorted by id, in batch order within an id: those of id v are order[begin[v]] .. order[begin[v + 1] - 1].
        const int64_t V = args->dwte->shape[0];
        const size_t ids_at = size_t(V + 2 + N) * sizeof(int64_t), bytes = ids_at + size_t(N) * sizeof(int32_t);
        Scratch scratch(queue, bytes);
        if (!scratch) return out_of_memory(error, "embedding_backward", bytes);
        int64_t *begin = scratch.as<int64_t>(), *order = begin + V + 2;
        int32_t* ids = scratch.as<int32_t>(ids_at);
        const int status = copy_ids(ids, args->ids, V, error);
        if (status != DF_OK) return status;
        for (int64_t v = 0; v < V + 2; ++v) begin[v] = 0;
        for (int64_t n = 0; n < N; ++n) ++begin[int64_t{ids[n]} + 2];
        for (int64_t v = 2; v < V + 2; ++v) begin[v] += begin[v - 1];
        for (int64_t n = 0; n < N; ++n) order[begin[int64_t{ids[n]} + 1]++] = n;
        with_table_type<T>(args->dwte, args->dout, [&](auto type) {
            using G = typename decltype(type)::type;
            const Rows<G> dwte(args->dwte);
            for_table(queue, V, C, N, [&](int64_t v, int64_t first, int n) {
                const int64_t* tokens = order + begin[v];
                add_rows<T, G>(dwte[v], dout, begin[v + 1] - begin[v], [&](int64_t h) { return tokens[h]; }, first, n, accumulate);
            });
        });
    }
    if (args->dwpe != nullptr) {
        with_table_type<T>(args->dwpe, args->dout, [&](auto type) {
            using G = typename decltype(type)::type;
            const Rows<G> dwpe(args->dwpe);
            for_table(queue, args->dwpe->shape[0], C, N, [&](int64_t p, int64_t first, int n) {
                const int64_t t = p - args->position;
                const int64_t hits = t >= 0 && t < sequence ? N / sequence : 0;
                add_rows<T, G>(dwpe[p], dout, hits, [&](int64_t h) { return h * sequence + t; }, first, n, accumulate);
            });
        });
    }
    return DF_OK;
}

}  // namespace

int embedding_forward(df_queue* queue, const df_embedding_args* args, df_error* error) {
    const size_t bytes = size_t(numel(args->ids)) * sizeof(int32_t);
    Scratch ids(queue, bytes);
    if (!ids) return out_of_memory(error, "embedding_forward", bytes);
    const int status = copy_ids(ids.as<int32_t>(), args->ids, args->wte->shape[0], error);
    if (status != DF_OK) return status;
    return dispatch(args->out->dtype, [&](auto type) {
        forward<typename decltype(type)::type>(queue, args, ids.as<int32_t>());
        return DF_OK;
    });
}

int embedding_backward(df_queue* queue, const df_embedding_args* args, df_error* error) {
    return dispatch(args->dout->dtype, [&](auto type) { return backward<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
