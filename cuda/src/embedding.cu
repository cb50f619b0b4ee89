// Token and position embeddings. The backward pass has one owner per vocabulary row: the block of the id's first occurrence.
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
    __device__ float at(int64_t n, int64_t c) const { return dout.load(n / time * dout_b + n % time * dout_t + c); }
};

/// One block per (token n, 256 columns). If an earlier token has the same id there is nothing to do; otherwise the block adds dout of
/// every token with that id, in order, one column a thread, and writes the row once.
__global__ void __launch_bounds__(kThreads) embedding_backward_tokens(EmbeddingGradient p, int64_t column_blocks) {
    __shared__ int32_t window[kThreads];
    __shared__ int32_t own; /* read once: every thread takes the same path */
    __shared__ int earlier;
    const int64_t n = blockIdx.x / column_blocks, tokens = p.batch * p.time;
    const int64_t c = blockIdx.x % column_blocks * kThreads + threadIdx.x;
    if (threadIdx.x == 0) {
        own = p.id(n);
        earlier = 0;
    }
    __syncthreads();
    const int32_t id = own;
    if (!within(id, p.vocabulary)) return;
    for (int64_t k = threadIdx.x; k < n; k += kThreads)
        if (p.id(k) == id) earlier = 1;
    __syncthreads();
    if (earlier != 0) return; /* every thread reads the same flag */
    double sum = 0;
    for (int64_t k0 = n; k0 < tokens; k0 += kThreads) {
        __syncthreads();
        window[threadIdx.x] = k0 + threadIdx.x < tokens ? p.id(k0 + threadIdx.x) : -1;
        __syncthreads();
        if (c < p.columns)
            for (int k = 0; k < kThreads; ++k)
                if (window[k] == id) sum += p.at(k0 + k, c);
    }
    if (c >= p.columns) return;
    const int64_t at = id * p.dwte_row + c;
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

__global__ void zero_rows(Floats out, int64_t rows, int64_t columns, int64_t row_stride) {
    for (int64_t i = first_element(); i < rows * columns; i += element_stride())
        out.store(i / columns * row_stride + i % columns, 0.0f);
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
        if (!p.accumulate)
            if (const int status = launch(call, "zero_rows", element_blocks(p.vocabulary * p.columns, kThreads), kThreads, 0, zero_rows,
                                          p.dwte, p.vocabulary, p.columns, p.dwte_row))
                return status;
        const int64_t column_blocks = ceil_div(p.columns, kThreads);
        if (const int status = launch(call, "embedding_backward_tokens", p.batch * p.time * column_blocks, kThreads, 0,
                                      embedding_backward_tokens, p,
                                      column_blocks))
            return status;
    }
    if (args->dwpe == nullptr) return DF_OK;
    p.positions = args->dwpe->shape[0];
    return launch(call, "embedding_backward_positions", element_blocks(p.positions * p.columns, kThreads), kThreads, 0,
                  embedding_backward_positions, p);
}

}  // namespace dualform::cuda
