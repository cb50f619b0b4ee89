#include "momentum.h"

#include "launch.h"

namespace dualform::cuda {

MomentumChunks::MomentumChunks(const df_attention_args* args)
    : queries(args->q->shape[1]),
      keys(args->k->shape[1]),
      offset(keys - queries),
      prefix(args->state_in != nullptr || offset <= 0 ? 0 : ceil_div(offset, kTile)),
      base(offset - prefix * kTile),
      count(prefix + ceil_div(queries, kTile)),
      batch(static_cast<int>(args->q->shape[0])),
      heads(static_cast<int>(args->q->shape[2])),
      head_size(static_cast<int>(args->q->shape[3])) {}

namespace {

/// A (B, rows, heads, HS) tensor, and what the kernels here need beside it.
struct Sequence {
    Floats data;
    int64_t batch_stride, row_stride, head_stride;
    int group; /* query heads per head of this tensor */

    /// x[k] = channel d of row first + k, 0 outside of [low, high): all on their way before the first is needed.
    template <int N>
    __device__ void read(int64_t b, int head, int d, int64_t first, int64_t low, int64_t high, float (&x)[N]) const {
        const int64_t at = b * batch_stride + (head / group) * head_stride + d;
        const auto from = [&](const auto* values) {
#pragma unroll
            for (int k = 0; k < N; ++k) {
                const int64_t row = first + k;
                x[k] = row >= low && row < high ? to_float(values[at + row * row_stride]) : 0.0f;
            }
        };
        if (data.dtype == DF_BF16)
            from(static_cast<const bf16*>(data.data));
        else
            from(static_cast<const float*>(data.data));
    }
};

constexpr int kRun = 8; /* rows a thread reads at once */

Sequence sequence(const df_view* view, int64_t query_heads) {
    return {floats(view), view->stride[0], view->stride[1], view->stride[2], static_cast<int>(query_heads / view->shape[2])};
}

struct Lengths {
    const int32_t* data;
    int64_t stride;
    __device__ int64_t at(int64_t b, int64_t keys) const {
        return data == nullptr ? keys : smaller<int64_t>(larger<int64_t>(data[b * stride], 0), keys);
    }
};

Lengths lengths(const df_view* view) {
    if (view == nullptr) return {nullptr, 0};
    return {static_cast<const int32_t*>(view->data), view->stride[0]};
}

/// One block per (b, head, chunk), one thread per channel: what the chunk adds to m at its end, and with tangents to n.
/// Tangents lie behind the carries: carries[total] onwards.
__global__ void momentum_chunk_sums(double* carries, double* tangents, MomentumChunks c, Sequence v, Lengths lengths, Floats eta) {
    const int64_t chunk = blockIdx.x % c.count;
    const int head = static_cast<int>(blockIdx.x / c.count % c.heads);
    const int64_t b = blockIdx.x / c.count / c.heads;
    const double e = eta.load(head);
    const int64_t length = lengths.at(b, c.keys);
    for (int d = threadIdx.x; d < c.head_size; d += blockDim.x) {
        double m = 0, n = 0;
        const int64_t begin = larger<int64_t>(c.start(chunk), 0), end = c.end(chunk);
        for (int64_t s = begin; s < end; s += kRun) {
            float x[kRun];
            v.read(b, head, d, s, begin, smaller(end, length), x);
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                if (s + k >= end) break;
                const double taken = m + x[k];
                n = e * n + taken;
                m = e * taken;
            }
        }
        carries[c.carry(b, head, chunk) + d] = e == 0 ? 0 : m; /* 0 times a NaN value must not reach the carry */
        if (tangents != nullptr) tangents[c.carry(b, head, chunk) + d] = n;
    }
}

constexpr int kAhead = 8; /* chunks read before the first of them is written: the walk should wait for memory once for all of them */

/// One thread per (b, head, channel) walks the chunks and leaves in each the value at its first position.
__global__ void momentum_scan(double* carries, double* tangents, MomentumChunks c, Floats eta, Floats state_in, int64_t in_batch,
                              int64_t in_head,
                              Floats state_out, int64_t out_batch, int64_t out_head) {
    const int64_t channels = static_cast<int64_t>(c.batch) * c.heads * c.head_size;
    for (int64_t i = first_element(); i < channels; i += element_stride()) {
        const int d = static_cast<int>(i % c.head_size), head = static_cast<int>(i / c.head_size % c.heads);
        const int64_t b = i / c.head_size / c.heads;
        const double e = eta.load(head);
        double m = state_in && e != 0 ? state_in.load(b * in_batch + head * in_head + d) : 0.0f, n = 0;
        const double whole = pow(e, static_cast<double>(kTile)), one_less = pow(e, static_cast<double>(kTile - 1));
        for (int64_t chunk0 = 0; chunk0 < c.count; chunk0 += kAhead) {
            double added[kAhead], tangent[kAhead];
#pragma unroll
            for (int k = 0; k < kAhead; ++k) {
                const bool inside = chunk0 + k < c.count;
                const int64_t at = c.carry(b, head, chunk0 + k) + d;
                added[k] = inside ? carries[at] : 0;
                tangent[k] = inside && tangents != nullptr ? tangents[at] : 0;
            }
#pragma unroll
            for (int k = 0; k < kAhead; ++k) {
                const int64_t chunk = chunk0 + k, at = c.carry(b, head, chunk) + d, positions = c.end(chunk) - c.start(chunk);
                if (chunk >= c.count) break;
                const double decay = positions == kTile ? whole : pow(e, static_cast<double>(positions));
                carries[at] = m;
                if (tangents != nullptr) {
                    tangents[at] = n;
                    const double before = positions == kTile ? one_less : pow(e, static_cast<double>(positions - 1));
                    n = decay * n + positions * before * m + tangent[k];
                }
                m = decay * m + added[k];
            }
        }
        if (state_out) state_out.store(b * out_batch + head * out_head + d, m);
    }
}

/// One block per (b, head, key tile), one thread per channel: sum over the tile's positions of eta^(p - first) dout_p.
__global__ void momentum_reverse_sums(double* carries, int64_t tiles, MomentumChunks c, Sequence dout, Floats eta) {
    const int64_t tile = blockIdx.x % tiles;
    const int head = static_cast<int>(blockIdx.x / tiles % c.heads);
    const int64_t b = blockIdx.x / tiles / c.heads;
    const double e = eta.load(head);
    const int64_t first = larger(tile * kTile, c.offset), end = smaller((tile + 1) * kTile, c.keys);
    for (int d = threadIdx.x; d < c.head_size; d += blockDim.x) {
        double lambda = 0;
        for (int64_t after = end; after > first; after -= kRun) {
            float x[kRun];
            dout.read(b, head, d, after - kRun - c.offset, first - c.offset, end - c.offset, x);
#pragma unroll
            for (int k = kRun - 1; k >= 0; --k) {
                if (after - kRun + k < first) break;
                lambda = x[k] + (e == 0 ? 0 : e * lambda);
            }
        }
        if (first > tile * kTile && first < end) lambda *= pow(e, static_cast<double>(first - tile * kTile));
        carries[((b * c.heads + head) * tiles + tile) * c.head_size + d] = lambda;
    }
}

/// One thread per (b, head, channel) walks the tiles from the last and leaves in each the value at the first position after it.
__global__ void momentum_reverse_scan(double* carries, int64_t tiles, MomentumChunks c, Floats eta) {
    const int64_t channels = static_cast<int64_t>(c.batch) * c.heads * c.head_size;
    for (int64_t i = first_element(); i < channels; i += element_stride()) {
        const int d = static_cast<int>(i % c.head_size);
        const int64_t row = i / c.head_size; /* b NH + head */
        const double e = eta.load(row % c.heads), decay = pow(e, static_cast<double>(kTile));
        double lambda = 0;
        for (int64_t tile = tiles - 1; tile >= 0; --tile) {
            const int64_t at = (row * tiles + tile) * c.head_size + d;
            const double added = carries[at];
            carries[at] = lambda;
            lambda = e == 0 ? added : added + decay * lambda;
        }
    }
}

/// One block per (head, b, chunk), one thread per channel: partials[head][b][chunk] = sum over the chunk's queries of dout_p . n_p.
__global__ void momentum_eta_partials(double* partials, const double* carries, const double* tangents, MomentumChunks c, Sequence v,
                                      Sequence dout,
                                      Lengths lengths, Floats eta) {
    const int64_t chunk = blockIdx.x % c.count, b = blockIdx.x / c.count % c.batch;
    const int head = static_cast<int>(blockIdx.x / c.count / c.batch);
    const double e = eta.load(head);
    const int64_t length = lengths.at(b, c.keys);
    double sum = 0;
    for (int d = threadIdx.x; d < c.head_size; d += blockDim.x) {
        double m = carries[c.carry(b, head, chunk) + d], n = tangents[c.carry(b, head, chunk) + d];
        const int64_t begin = larger<int64_t>(c.start(chunk), 0), end = c.end(chunk);
        for (int64_t p = begin; p < end; p += kRun) {
            float x[kRun], g[kRun];
            v.read(b, head, d, p, begin, smaller(end, length), x);
            dout.read(b, head, d, p - c.offset, 0, end - c.offset, g);
#pragma unroll
            for (int k = 0; k < kRun; ++k) {
                if (p + k >= end) break;
                if (p + k >= c.offset) sum += g[k] * n;
                const double taken = m + x[k];
                n = e * n + taken;
                m = e == 0 ? 0 : e * taken;
            }
        }
    }
    sum = sum_block(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void sum_per_head_block(Floats out, int64_t n, const double* partials, bool accumulate) {
    const int head = static_cast<int>(blockIdx.x);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += partials[head * n + i];
    sum = sum_block(sum);
    if (threadIdx.x == 0) out.store(head, accumulate ? out.load(head) + sum : sum);
}

/// Threads for one channel each: whole warps.
int channel_threads(int head_size) { return static_cast<int>(ceil_div(head_size, kWarp)) * kWarp; }

}  // namespace

int momentum_carries(const Call& call, const df_attention_args* args, const MomentumChunks& c, double* carries) {
    const int64_t heads = static_cast<int64_t>(c.batch) * c.heads;
    if (const int status = launch(call, "momentum_chunk_sums", heads * c.count, channel_threads(c.head_size), 0, momentum_chunk_sums,
                                  carries,
                                  static_cast<double*>(nullptr), c, sequence(args->v, c.heads), lengths(args->lengths), floats(args->eta)))
        return status;
    const df_view *in = args->state_in, *out = args->state_out;
    return launch(call, "momentum_scan", element_blocks(heads * c.head_size, 128), 128, 0, momentum_scan, carries,
                  static_cast<double*>(nullptr), c,
                  floats(args->eta), floats(in), stride_of(in, 0), stride_of(in, 1), floats(out), stride_of(out, 0), stride_of(out, 1));
}

int momentum_reverse_carries(const Call& call, const df_attention_args* args, const MomentumChunks& c, double* carries) {
    const int64_t heads = static_cast<int64_t>(c.batch) * c.heads, tiles = ceil_div(c.keys, kTile);
    if (const int status = launch(call, "momentum_reverse_sums", heads * tiles, channel_threads(c.head_size), 0, momentum_reverse_sums,
                                  carries, tiles, c,
                                  sequence(args->dout, c.heads), floats(args->eta)))
        return status;
    return launch(call, "momentum_reverse_scan", element_blocks(heads * c.head_size, 128), 128, 0, momentum_reverse_scan, carries, tiles, c,
                  floats(args->eta));
}

int momentum_eta_gradient(const Call& call, const df_attention_args* args, const MomentumChunks& c) {
    const int64_t heads = static_cast<int64_t>(c.batch) * c.heads;
    Scratch scratch(call, 2 * c.carry_bytes());
    Scratch partials(call, heads * c.count * static_cast<int64_t>(sizeof(double)));
    if (!scratch) return scratch.failure();
    if (!partials) return partials.failure();
    double *carries = scratch.as<double>(), *tangents = scratch.as<double>(c.carry_bytes());
    const int threads = channel_threads(c.head_size);
    const Sequence v = sequence(args->v, c.heads), dout = sequence(args->dout, c.heads);
    if (const int status = launch(call, "momentum_chunk_sums", heads * c.count, threads, 0, momentum_chunk_sums, carries, tangents, c, v,
                                  lengths(args->lengths), floats(args->eta)))
        return status;
    if (const int status = launch(call, "momentum_scan", element_blocks(heads * c.head_size, 128), 128, 0, momentum_scan, carries,
                                  tangents, c,
                                  floats(args->eta), Floats(), 0, 0, Floats(), 0, 0))
        return status;
    if (const int status = launch(call, "momentum_eta_partials", heads * c.count, threads, 0, momentum_eta_partials, partials.as<double>(),
                                  carries,
                                  tangents, c, v, dout, lengths(args->lengths), floats(args->eta)))
        return status;
    return sum_per_head(call, floats(args->deta), c.heads, c.batch * c.count, partials.as<double>(), args->accumulate != 0);
}

int sum_per_head(const Call& call, Floats out, int heads, int64_t n, const double* partials, bool accumulate) {
    return launch(call, "sum_per_head", heads, 128, 0, sum_per_head_block, out, n, partials, accumulate);
}

}  // namespace dualform::cuda
