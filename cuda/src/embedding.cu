// Token and position embeddings. The backward pass has one owner per vocabulary row, which adds its tokens in their order.
#include "ids.h"
#include "kernels.h"
#include "launch.h"
#include "views.h"

#include <stdio.h>

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

/// *first = index of the first id out of range. An integer minimum is the same in any order.
__global__ void first_bad_id(unsigned long long* first, const int32_t* ids, Walk<1> walk, int64_t limit, bool may_ignore, int32_t ignored) {
    for (int64_t i = first_element(); i < walk.count; i += element_stride()) {
        int64_t at[1];
        walk.offsets(i, at);
        const int32_t id = ids[at[0]];
        if (!within(id, limit) && !(may_ignore && id == ignored)) atomicMin(first, static_cast<unsigned long long>(i));
    }
}

struct Embedding {
    Floats out, wte, wpe;
    const int32_t* ids;
    int64_t out_b, out_t, ids_b, wte_row, wpe_row;
    int64_t batch, time, columns, position, vocabulary;
};

__global__ void embedding_forward_elements(Embedding p) {
    const int64_t count = p.batch * p.time * p.columns;
    for (int64_t i = first_element(); i < count; i += element_stride()) {
        const int64_t c = i % p.columns, t = i / p.columns % p.time, b = i / p.columns / p.time;
        const int32_t id = p.ids[b * p.ids_b + t];
        float value = within(id, p.vocabulary) ? p.wte.load(id * p.wte_row + c) : NAN;
        if (p.wpe) value += p.wpe.load((p.position + t) * p.wpe_row + c);
        p.out.store(b * p.out_b + t * p.out_t + c, value);
    }
}

struct EmbeddingGradient {
    Floats dwte, dwpe, dout;
    const int32_t* ids;
    int64_t dout_b, dout_t, ids_b, dwte_row, dwpe_row;
    int64_t batch, time, columns, position, positions, vocabulary;
    bool accumulate;
    __device__ int32_t id(int64_t n) const { return ids[n / time * ids_b + n % time]; }
};

/// The tokens of each vocabulary row as a list: row r has count[r] of them from sorted[start[r]] on, in rising order. Where a row's list
/// lies depends on which thread comes first, what is in it does not. Every kernel but the first reads the copy of the ids.
struct TokenLists {
    int32_t *id;                     /* (tokens), -1 where there is none in range */
    int32_t *placed, *sorted;        /* (tokens) */
    int32_t *count, *start, *cursor; /* (vocabulary) */
    int32_t* taken;                  /* places given to rows so far */
    int64_t tokens;
};

__global__ void embedding_count_tokens(TokenLists lists, EmbeddingGradient p) {
    for (int64_t n = first_element(); n < lists.tokens; n += element_stride()) {
        const int32_t id = p.id(n);
        const bool inside = within(id, p.vocabulary);
        lists.id[n] = inside ? id : -1;
        if (inside) atomicAdd(&lists.count[id], 1);
    }
}

__global__ void embedding_claim_places(TokenLists lists, int64_t vocabulary) {
    for (int64_t r = first_element(); r < vocabulary; r += element_stride())
        if (lists.count[r] > 0) lists.start[r] = lists.cursor[r] = atomicAdd(lists.taken, lists.count[r]);
}

__global__ void embedding_place_tokens(TokenLists lists) {
    for (int64_t n = first_element(); n < lists.tokens; n += element_stride())
        if (const int32_t id = lists.id[n]; id >= 0) lists.placed[atomicAdd(&lists.cursor[id], 1)] = static_cast<int32_t>(n);
}

/// A token's place in its row's list is the number of tokens before it.
__global__ void embedding_sort_tokens(TokenLists lists) {
    for (int64_t n = first_element(); n < lists.tokens; n += element_stride()) {
        const int32_t id = lists.id[n];
        if (id < 0) continue;
        const int32_t start = lists.start[id], end = start + lists.count[id];
        int32_t before = 0;
        for (int32_t i = start; i < end; ++i) before += lists.placed[i] < n;
        lists.sorted[start + before] = static_cast<int32_t>(n);
    }
}

/// One block per (vocabulary row, 256 columns), one column a thread.
__global__ void __launch_bounds__(kThreads) embedding_backward_rows(EmbeddingGradient p, TokenLists lists, int64_t column_blocks) {
    __shared__ int64_t window[kThreads]; /* where rows of dout begin */
    const int64_t row = blockIdx.x / column_blocks, c = blockIdx.x % column_blocks * kThreads + threadIdx.x, at = row * p.dwte_row + c;
    const int32_t count = lists.count[row];
    if (count == 0) {
        if (!p.accumulate && c < p.columns) p.dwte.store(at, 0.0f);
        return;
    }
    const int32_t start = lists.start[row];
    double sum = 0;
    for (int32_t first = 0; first < count; first += kThreads) {
        const int here = smaller<int32_t>(kThreads, count - first);
        __syncthreads();
        if (static_cast<int>(threadIdx.x) < here) {
            const int32_t n = lists.sorted[start + first + threadIdx.x];
            window[threadIdx.x] = n / p.time * p.dout_b + n % p.time * p.dout_t;
        }
        __syncthreads();
        if (c >= p.columns) continue;
#pragma unroll 4
        for (int k = 0; k < here; ++k) sum += p.dout.load(window[k] + c);
    }
    if (c >= p.columns) return;
    p.dwte.store(at, p.accumulate ? p.dwte.load(at) + sum : sum);
}

/// One thread per element of dwpe: the sum over the batch at its position, 0 outside the positions that were read.
__global__ void embedding_backward_positions(EmbeddingGradient p) {
    const int64_t count = p.positions * p.columns;
    for (int64_t i = first_element(); i < count; i += element_stride()) {
        const int64_t c = i % p.columns, row = i / p.columns, t = row - p.position, at = row * p.dwpe_row + c;
        double sum = p.accumulate ? p.dwpe.load(at) : 0.0;
        if (t >= 0 && t < p.time)
            for (int64_t b = 0; b < p.batch; ++b) sum += p.dout.load(b * p.dout_b + t * p.dout_t + c);
        p.dwpe.store(at, sum);
    }
}

}  // namespace

int check_ids(const Call& call, const df_view* ids, const IdRange& range) {
    if (call.queue->capturing.load(std::memory_order_relaxed)) return DF_OK; /* nobody waits for a replay: the kernels make what such an id gives NaN */
    Scratch flag(call, sizeof(unsigned long long));
    if (!flag) return flag.failure();
    unsigned long long first = ~0ull;
    const Walk<1> w = walk<1>({ids});
    const int32_t* data = static_cast<const int32_t*>(ids->data);
    if (const int status = call.check(cudaMemsetAsync(flag.as<void>(), 0xff, sizeof first, call.stream), "ids")) return status;
    if (const int status = launch(call, "first_bad_id", element_blocks(w.count, kThreads), kThreads, 0, first_bad_id,
                                  flag.as<unsigned long long>(), data,
                                  w, range.limit, range.may_ignore, range.ignored))
        return status;
    if (const int status = call.check(cudaMemcpyAsync(&first, flag.as<void>(), sizeof first, cudaMemcpyDeviceToHost, call.stream), "ids"))
        return status;
    if (const int status = call.check(cudaStreamSynchronize(call.stream), "ids")) return status;
    if (first == ~0ull) return DF_OK;
    int64_t at[1];
    w.offsets(static_cast<int64_t>(first), at);
    int32_t id = 0;
    if (const int status = call.check(cudaMemcpyAsync(&id, data + at[0], sizeof id, cudaMemcpyDeviceToHost, call.stream), "ids"))
        return status;
    if (const int status = call.check(cudaStreamSynchronize(call.stream), "ids")) return status;
    char place[64];
    if (ids->rank == 2)
        snprintf(place, sizeof place, "%lld,%lld", static_cast<long long>(first / ids->shape[1]),
                 static_cast<long long>(first % ids->shape[1]));
    else
        snprintf(place, sizeof place, "%lld", static_cast<long long>(first));
    if (range.may_ignore)
        return fail(call.error, DF_INVALID_ARGUMENT, "%s[%s]: %d, expected 0..%lld or %d (ignored)", range.name, place, id,
                    static_cast<long long>(range.limit - 1), range.ignored);
    return fail(call.error, DF_INVALID_ARGUMENT, "%s[%s]: %d, expected 0..%lld", range.name, place, id,
                static_cast<long long>(range.limit - 1));
}

int embedding_forward(const Call& call, const df_embedding_args* args) {
    if (const int status = call.require_device_floats({args->out, args->wte, args->wpe})) return status;
    if (const int status = check_ids(call, args->ids, {"ids", args->wte->shape[0], false, 0})) return status;
    Embedding p = {};
    p.out = floats(args->out);
    p.wte = floats(args->wte);
    p.wpe = floats(args->wpe);
    p.ids = static_cast<const int32_t*>(args->ids->data);
    p.out_b = args->out->stride[0];
    p.out_t = args->out->stride[1];
    p.ids_b = args->ids->stride[0];
    p.wte_row = args->wte->stride[0];
    p.wpe_row = stride_of(args->wpe, 0);
    p.batch = args->ids->shape[0];
    p.time = args->ids->shape[1];
    p.columns = last_dim(args->out);
    p.position = args->position;
    p.vocabulary = args->wte->shape[0];
    return launch(call, "embedding_forward_elements", element_blocks(numel(args->out), kThreads), kThreads, 0, embedding_forward_elements,
                  p);
}

namespace {

int add_tokens(const Call& call, const EmbeddingGradient& p) {
    TokenLists lists = {};
    lists.tokens = p.batch * p.time;
    if (lists.tokens > INT32_MAX || p.vocabulary > INT32_MAX)
        return fail(call.error, DF_UNSUPPORTED, "%s: %lld tokens and %lld rows, at most 2147483647 each", call.op,
                    static_cast<long long>(lists.tokens), static_cast<long long>(p.vocabulary));
    Scratch scratch(call, (3 * lists.tokens + 3 * p.vocabulary + 1) * static_cast<int64_t>(sizeof(int32_t)));
    if (!scratch) return scratch.failure();
    int32_t* next = scratch.as<int32_t>();
    const auto take = [&](int64_t n) {
        int32_t* const from = next;
        next += n;
        return from;
    };
    lists.taken = take(1);
    lists.count = take(p.vocabulary); /* after taken: one memset */
    lists.start = take(p.vocabulary);
    lists.cursor = take(p.vocabulary);
    lists.id = take(lists.tokens);
    lists.placed = take(lists.tokens);
    lists.sorted = take(lists.tokens);
    const size_t zeros = static_cast<size_t>(1 + p.vocabulary) * sizeof(int32_t);
    if (const int status = call.check(cudaMemsetAsync(lists.taken, 0, zeros, call.stream), "embedding")) return status;
    const int64_t token_blocks = element_blocks(lists.tokens, kThreads), column_blocks = ceil_div(p.columns, kThreads);
    if (const int status = launch(call, "embedding_count_tokens", token_blocks, kThreads, 0, embedding_count_tokens, lists, p)) return status;
    if (const int status = launch(call, "embedding_claim_places", element_blocks(p.vocabulary, kThreads), kThreads, 0, embedding_claim_places,
                                  lists, p.vocabulary))
        return status;
    if (const int status = launch(call, "embedding_place_tokens", token_blocks, kThreads, 0, embedding_place_tokens, lists)) return status;
    if (const int status = launch(call, "embedding_sort_tokens", token_blocks, kThreads, 0, embedding_sort_tokens, lists)) return status;
    return launch(call, "embedding_backward_rows", p.vocabulary * column_blocks, kThreads, 0, embedding_backward_rows, p, lists, column_blocks);
}

}  // namespace

int embedding_backward(const Call& call, const df_embedding_args* args) {
    if (const int status = call.require_device_floats({args->dwte, args->dwpe, args->dout})) return status;
    EmbeddingGradient p = {};
    p.dwte = floats(args->dwte);
    p.dwpe = floats(args->dwpe);
    p.dout = floats(args->dout);
    p.ids = static_cast<const int32_t*>(args->ids->data);
    p.dout_b = args->dout->stride[0];
    p.dout_t = args->dout->stride[1];
    p.ids_b = args->ids->stride[0];
    p.dwte_row = stride_of(args->dwte, 0);
    p.dwpe_row = stride_of(args->dwpe, 0);
    p.batch = args->ids->shape[0];
    p.time = args->ids->shape[1];
    p.columns = last_dim(args->dout);
    p.position = args->position;
    p.accumulate = args->accumulate != 0;
    if (args->dwte != nullptr) {
        p.vocabulary = args->dwte->shape[0];
        if (const int status = check_ids(call, args->ids, {"ids", p.vocabulary, false, 0})) return status;
        if (const int status = add_tokens(call, p)) return status;
    }
    if (args->dwpe == nullptr) return DF_OK;
    p.positions = args->dwpe->shape[0];
    return launch(call, "embedding_backward_positions", element_blocks(p.positions * p.columns, kThreads), kThreads, 0,
                  embedding_backward_positions, p);
}

}  // namespace dualform::cuda
