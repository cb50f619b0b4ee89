// The dual form on tensor cores, for weights of at most 256 by 256 (a head's) and any number of problems.
//
// Everything is one of two shapes, read with other operands:
//   primal   R = sum_n z_n (x) y_n  (+ a weight),   out = x R^T      out: z=e y=xp x=x    de: z=dout y=x x=xp    dxp: z=x y=dout x=e
//                                                                    dx: z=xp y=e x=dout, the weight transposed
//   dual     out = x w0^T + (x y^T) z                                out: y=xp z=e        de: x=xp y=x z=dout    dxp: x=e y=dout z=x
//                                                                    dx: x=dout y=e z=xp, the weight transposed
// A block owns 64 columns of out (value indices of R, which its warps keep in registers as in running_state.h). Primal: it sums R, adds the
// weight in float32 and applies it, in one kernel: no R in memory unless it is asked for. Where that gives too few blocks the terms are
// cut into pieces, summed in order by a small kernel, and the rows are cut too. Dual: a block keeps 64 rows of x and walks the terms.
// R as an operand is two bfloat16, so that a small R on a large weight is not lost.
#include "choice.h"
#include "dual_form.h"
#include "launch.h"
#include "running_state.h"

namespace dualform::cuda {

namespace {

constexpr int kMaxPasses = 3, kLargest = 256;

/// Rows of one operand, of P problems.
struct Table {
    Floats data;
    int64_t problem = 0, row = 0;
    __host__ __device__ Rows rows(int64_t p, int64_t begin, int64_t end) const {
        Rows r;
        r.data = data;
        r.base = p * problem;
        r.stride = row;
        r.begin = begin;
        r.end = end;
        return r;
    }
};

Table table(const df_view* view) {
    Table t;
    if (view == nullptr) return t;
    t.data = floats(view);
    t.problem = view->rank == 3 ? view->stride[0] : 0;
    t.row = view->stride[view->rank - 2];
    return t;
}

/// A weight of value by key indices, of P problems and, for partial sums, of pieces.
struct Weight {
    Floats data;
    int64_t problem = 0, row = 0, column = 1, piece = 0;
    __host__ __device__ int64_t at(int64_t p, int64_t n, int a, int c) const { return p * problem + n * piece + a * row + c * column; }
};

Weight weight(const df_view* view, bool transposed = false) {
    Weight w;
    if (view == nullptr) return w;
    w.data = floats(view);
    w.problem = view->rank == 3 ? view->stride[0] : 0;
    w.row = view->stride[view->rank - 2];
    if (transposed) {
        w.column = w.row;
        w.row = 1;
    }
    return w;
}

int64_t shape_of(const df_view* view, int from_last) { return view->shape[view->rank - 1 - from_last]; }
bool aligned(const Table& t) { return rows_aligned(t.data, {t.problem, t.row}); }

struct Pass {
    Table z, y;        /* terms */
    Table x, out;      /* rows; both absent: nothing is applied */
    Weight store;      /* receives the sum (optional) */
    Weight w0, plus;   /* added after that (optional) */
    bool adds = false; /* to what is in store */
    bool vectors_in = false, vectors_out = false;
    int values = 0, keys = 0;
    int64_t terms = 0, rows = 0, terms_per_piece = 0, rows_per_piece = 0;
    int64_t first_block = 0; /* of the launch */
};

struct Passes {
    Pass pass[kMaxPasses];
    int count = 0;
    int64_t problems = 1, pieces = 1;
};

struct Place {
    int pass, a0;
    int64_t problem, piece;
};

__device__ inline Place place_of(const Passes& p, int64_t pieces) {
    Place at = {0, 0, 0, 0};
    while (at.pass + 1 < p.count && blockIdx.x >= p.pass[at.pass + 1].first_block) ++at.pass;
    int64_t block = blockIdx.x - p.pass[at.pass].first_block;
    const int64_t slices = ceil_div(p.pass[at.pass].values, kStateColumns);
    at.a0 = static_cast<int>(block % slices) * kStateColumns;
    block /= slices;
    at.piece = block % pieces;
    at.problem = block / pieces;
    return at;
}

/// z as the left operand of an update: the same registers in another order.
template <int Parts, int Steps>
__device__ inline void transpose_z(uint32_t (&left)[Parts][Steps][4], const uint32_t (&z)[Parts][Steps][4]) {
#pragma unroll
    for (int p = 0; p < Parts; ++p)
#pragma unroll
        for (int s = 0; s < Steps; ++s)
#pragma unroll
            for (int i = 0; i < 4; ++i) left[p][s][i] = z[p][s][i == 1 ? 2 : i == 2 ? 1 : i];
}

/// Dynamic shared memory: two stages, of y and z while terms are summed, of x while rows are applied.
template <int Size, int Chunk, int Parts>
__global__ void __launch_bounds__(kStateThreads, Size == 256 ? 1 : 2) delta_mma(const Passes p) {
    using Tiles = StateTiles<Size, Chunk, Parts>;
    constexpr int kStage = Tiles::kStage - Tiles::kY, kZ = Tiles::kZ - Tiles::kY;
    const Place at = place_of(p, p.pieces);
    const Pass& s = p.pass[at.pass];
    const SharedAddress shared = shared_address(dynamic_shared());
    const int values = smaller(kStateColumns, s.values - at.a0), steps = static_cast<int>(ceil_div(s.keys, 16));

    float state[Size / 8][4] = {};
    const int64_t term = at.piece * s.terms_per_piece, last_term = smaller(s.terms, term + s.terms_per_piece);
    if (term < last_term) {
        const Rows y = s.y.rows(at.problem, 0, last_term), z = s.z.rows(at.problem, 0, last_term);
        const auto load = [&](int64_t row, SharedAddress stage) {
            load_rows<Size, Chunk, Parts>(stage, y, row, 0, s.keys, s.vectors_in);
            load_rows<kStateColumns, Chunk, Parts>(stage + kZ, z, row, at.a0, s.values, s.vectors_in);
            cp_async_commit();
        };
        load(term, shared);
        int stage = 0;
        for (int64_t row = term; row < last_term; row += Chunk, stage ^= 1) {
            cp_async_wait<0>();
            __syncthreads();
            if (row + Chunk < last_term) load(row + Chunk, shared + (stage ^ 1) * kStage);
            uint32_t z_parts[Parts][Chunk / 16][4], left[Parts][Chunk / 16][4];
            load_z<Chunk>(z_parts, shared + stage * kStage + kZ);
            transpose_z(left, z_parts);
            update_state<Size, Chunk, Parts>(state, 1.0f, left, true, shared + stage * kStage, steps);
        }
        __syncthreads();
    }
    if (s.store.data)
        each_state_element<Size>(state, values, s.keys, [&](int a, int c, float& r) {
            const int64_t i = s.store.at(at.problem, at.piece, at.a0 + a, c);
            s.store.data.store(i, s.adds ? s.store.data.load(i) + r : r);
        });
    const int64_t first = at.piece * s.rows_per_piece, last = smaller(s.rows, first + s.rows_per_piece);
    if (first >= last) return;
    const Rows x = s.x.rows(at.problem, 0, last), out = s.out.rows(at.problem, 0, last);
    const auto load = [&](int64_t row, SharedAddress stage) {
        load_rows<Size, Chunk, Parts>(stage, x, row, 0, s.keys, s.vectors_in);
        cp_async_commit();
    };
    load(first, shared);
    each_state_element<Size>(state, values, s.keys, [&](int a, int c, float& r) {
        if (s.plus.data) r += s.plus.data.load(s.plus.at(at.problem, 0, at.a0 + a, c));
    });
    each_state_element<Size>(state, values, s.keys, [&](int a, int c, float& r) {
        if (s.w0.data) r += s.w0.data.load(s.w0.at(at.problem, 0, at.a0 + a, c));
    });
    int stage = 0;
    for (int64_t row = first; row < last; row += Chunk, stage ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        if (row + Chunk < last) load(row + Chunk, shared + (stage ^ 1) * kStage);
        float sum[Chunk / 16][2][4] = {};
        add_x_state<Size, Chunk, Parts, 2>(sum, state, shared + stage * kStage, steps);
        store_rows<Chunk>(out, sum, row, at.a0, s.values, s.vectors_out);
    }
}

/// One thread per element of a pass's weight: the pieces in order, to the first piece and to `store`.
__global__ void __launch_bounds__(256) sum_pieces(Weight pieces, int64_t count, Weight store, bool adds, int64_t problems, int values,
                                                  int keys) {
    const int64_t size = static_cast<int64_t>(values) * keys;
    for (int64_t e = first_element(); e < problems * size; e += element_stride()) {
        const int64_t problem = e / size;
        const int a = static_cast<int>(e % size / keys), c = static_cast<int>(e % keys);
        float* at = static_cast<float*>(pieces.data.data) + pieces.at(problem, 0, a, c);
        float sum = *at;
        for (int64_t n = 1; n < count; ++n) sum += at[n * pieces.piece];
        *at = sum;
        if (!store.data) continue;
        const int64_t to = store.at(problem, 0, a, c);
        store.data.store(to, adds ? store.data.load(to) + sum : sum);
    }
}

/// Dynamic shared memory: x, then Stages stages of y and z, then the scores.
template <int Size, int Chunk, int Parts, int Stages>
__global__ void __launch_bounds__(kStateThreads, Size == 256 ? 1 : 2) chain_mma(const Passes p) {
    using Tiles = StateTiles<Size, Chunk, Parts>;
    constexpr int kStage = Tiles::kStage - Tiles::kY, kZ = Tiles::kZ - Tiles::kY, kX = Parts * Tiles::kWide;
    const Place at = place_of(p, p.pieces);
    const Pass& s = p.pass[at.pass];
    const int64_t first = at.piece * Chunk;
    if (first >= s.rows) return; /* of passes with fewer rows */
    const SharedAddress x_tile = shared_address(dynamic_shared()), stages = x_tile + kX, scores = stages + Stages * kStage;
    const int values = smaller(kStateColumns, s.values - at.a0), steps = static_cast<int>(ceil_div(s.keys, 16));
    const Rows y = s.y.rows(at.problem, 0, s.terms), z = s.z.rows(at.problem, 0, s.terms);
    const auto load = [&](int64_t row, SharedAddress stage) {
        load_rows<Size, Chunk, Parts>(stage, y, row, 0, s.keys, s.vectors_in);
        load_rows<kStateColumns, Chunk, Parts>(stage + kZ, z, row, at.a0, s.values, s.vectors_in);
        cp_async_commit();
    };
    load_rows<Size, Chunk, Parts>(x_tile, s.x.rows(at.problem, 0, s.rows), first, 0, s.keys, s.vectors_in);
    cp_async_commit();
    load(0, stages);
    float sum[Chunk / 16][2][4] = {};
    if (s.w0.data) {
        float state[Size / 8][4] = {};
        each_state_element<Size>(state, values, s.keys, [&](int a, int c, float& r) {
            r = s.w0.data.load(s.w0.at(at.problem, 0, at.a0 + a, c));
        });
        cp_async_wait<1>();
        __syncthreads();
        add_x_state<Size, Chunk, Parts, 2>(sum, state, x_tile, steps);
    }
    for (int64_t row = 0; row < s.terms; row += Chunk) {
        const SharedAddress stage = stages + (Stages == 1 ? 0 : row / Chunk % Stages * kStage);
        const SharedAddress next = stages + (Stages == 1 ? 0 : (row / Chunk + 1) % Stages * kStage);
        cp_async_wait<0>();
        __syncthreads();
        if (Stages > 1 && row + Chunk < s.terms) load(row + Chunk, next);
        store_scores<Size, Chunk, Parts, false>(scores, x_tile, stage, steps, [](float score, int, int) { return score; });
        uint32_t z_parts[Parts][Chunk / 16][4];
        load_z<Chunk>(z_parts, stage + kZ);
        __syncthreads();
        float partial[Chunk / 16][2][4] = {}; /* added in float32: the tensor cores' own sums lose a little at every step */
        add_scores_z<Chunk, Parts, false>(partial, scores, z_parts);
#pragma unroll
        for (int m = 0; m < Chunk / 16; ++m)
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[m][i / 4][i % 4] += partial[m][i / 4][i % 4];
        if (Stages == 1 && row + Chunk < s.terms) load(row + Chunk, next); /* all warps have read y and z: the barrier above */
    }
    store_rows<Chunk>(s.out.rows(at.problem, 0, s.rows), sum, first, at.a0, s.values, s.vectors_out);
}

/// The passes of one call: added one by one, then run as primal or dual.
class Work {
public:
    Work(const Call& call, const df_view* sample) : call_(call), half_(sample->dtype == DF_BF16) {
        p_.problems = sample->rank == 3 ? sample->shape[0] : 1;
    }

    /// values and keys as of `y`, `z` or, without terms, as given.
    Pass& add(const df_view* out, const df_view* x, const df_view* y, const df_view* z, int64_t values, int64_t keys) {
        Pass& s = p_.pass[p_.count++];
        s.out = table(out);
        s.x = table(x);
        s.y = table(y);
        s.z = table(z);
        s.terms = y != nullptr ? shape_of(y, 1) : 0;
        s.rows = out != nullptr ? shape_of(out, 1) : 0;
        served_ = served_ && values <= kLargest && keys <= kLargest && p_.problems > 0;
        s.values = static_cast<int>(smaller<int64_t>(values, kLargest));
        s.keys = static_cast<int>(smaller<int64_t>(keys, kLargest));
        s.vectors_in = aligned(s.x) && aligned(s.y) && aligned(s.z);
        s.vectors_out = aligned(s.out) && values % 4 == 0;
        return s;
    }
    bool serves() const { return served_ && p_.count > 0 && (half_ || precision() != Precision::kFloat32); }

    int run_primal(const char* name) {
        int64_t blocks = 0, longest = 0, elements = 0;
        for (int i = 0; i < p_.count; ++i) {
            const Pass& s = p_.pass[i];
            blocks += p_.problems * ceil_div(s.values, kStateColumns);
            longest = larger(longest, larger(s.terms, s.rows));
            elements += p_.problems * s.values * s.keys;
        }
        p_.pieces = pieces_of(longest, blocks);
        if (p_.pieces == 1) return launch_passes(name, p_, true);

        Scratch partial(call_, p_.pieces * elements * static_cast<int64_t>(sizeof(float)));
        if (!partial) return partial.failure();
        Passes sums = p_, applies = p_;
        float* data = partial.as<float>();
        bool sums_terms = false, applies_rows = false;
        for (int i = 0; i < p_.count; ++i) {
            Pass &sum = sums.pass[i], &apply = applies.pass[i];
            Weight w;
            w.data = floats(data);
            w.column = 1;
            w.row = sum.keys;
            w.piece = w.row * sum.values;
            w.problem = w.piece * p_.pieces;
            data += w.problem * p_.problems;
            sum.rows = 0;
            sums_terms = sums_terms || sum.terms > 0;
            if (apply.terms > 0) apply.plus = w;
            apply.terms = 0;
            apply.store = Weight();
            applies_rows = applies_rows || apply.rows > 0;
            if (sum.terms > 0) sum.store = w;
            sum.adds = false;
        }
        if (sums_terms) {
            if (const int status = launch_passes("delta_mma terms", sums, true)) return status;
            for (int i = 0; i < p_.count; ++i) {
                const Pass& s = p_.pass[i];
                if (s.terms == 0) continue;
                if (const int status = launch(call_, "sum_pieces", element_blocks(p_.problems * s.values * s.keys, 256), 256, 0, sum_pieces,
                                              sums.pass[i].store, p_.pieces, s.store, s.adds, p_.problems, s.values, s.keys))
                    return status;
            }
        }
        return applies_rows ? launch_passes(name, applies, true) : DF_OK;
    }

    int run_dual(const char* name) {
        const int64_t chunk = !half_ && keys() > 128 ? 32 : 64;
        p_.pieces = 0;
        for (int i = 0; i < p_.count; ++i) p_.pieces = larger(p_.pieces, ceil_div(p_.pass[i].rows, chunk));
        return p_.pieces == 0 ? DF_OK : launch_passes(name, p_, false);
    }

private:
    /// One piece where the blocks fill the 132 multiprocessors of the largest device this is written for; else twice as many blocks, but
    /// no piece below 512 rows, where three launches cost more than they save.
    static constexpr int64_t pieces_of(int64_t longest, int64_t blocks) {
        constexpr int64_t kMultiprocessors = 132, kLeast = 512;
        if (blocks >= kMultiprocessors) return 1;
        return larger<int64_t>(1, smaller(ceil_div(2 * kMultiprocessors, larger<int64_t>(blocks, 1)), longest / kLeast));
    }
    int keys() const {
        int most = 0;
        for (int i = 0; i < p_.count; ++i) most = larger(most, p_.pass[i].keys);
        return most;
    }
    template <int Size, int Chunk, int Parts, int Stages>
    int launch_sized(const char* name, const Passes& p, int64_t blocks, bool primal) {
        using Tiles = StateTiles<Size, Chunk, Parts>;
        constexpr int kStage = Tiles::kStage - Tiles::kY;
        if (primal) {
            constexpr int kTerms = Size == 256 ? 32 : Chunk; /* the state leaves no registers for more */
            constexpr int kTermStage = StateTiles<Size, kTerms, Parts>::kStage - StateTiles<Size, kTerms, Parts>::kY;
            return launch(call_, name, blocks, kStateThreads, 2 * kTermStage, delta_mma<Size, kTerms, Parts>, p);
        }
        return launch(call_, name, blocks, kStateThreads, Parts * (Tiles::kWide + Tiles::kWeights) + Stages * kStage,
                      chain_mma<Size, Chunk, Parts, Stages>, p);
    }
    /// What fits in the 99 KiB a block can have on every device.
    int launch_passes(const char* name, Passes& p, bool primal) {
        int64_t blocks = 0;
        for (int i = 0; i < p.count; ++i) {
            Pass& s = p.pass[i];
            s.first_block = blocks;
            s.terms_per_piece = primal ? ceil_div(s.terms, p.pieces) : s.terms;
            s.rows_per_piece = ceil_div(s.rows, p.pieces);
            blocks += p.problems * p.pieces * ceil_div(s.values, kStateColumns);
        }
        if (half_) {
            if (keys() <= 64) return launch_sized<64, 64, 1, 2>(name, p, blocks, primal);
            if (keys() <= 128) return launch_sized<128, 64, 1, 2>(name, p, blocks, primal);
            return launch_sized<256, 64, 1, 1>(name, p, blocks, primal);
        }
        if (keys() <= 128) return launch_sized<128, 64, 2, 1>(name, p, blocks, primal);
        return launch_sized<256, 32, 2, 1>(name, p, blocks, primal);
    }

    const Call& call_;
    bool half_, served_ = true;
    Passes p_;
};

}  // namespace

int delta_accumulate_mma(const Call& call, const df_dual_args* args, bool* served) {
    Work work(call, args->e);
    Pass& s = work.add(nullptr, nullptr, args->xp, args->e, shape_of(args->e, 0), shape_of(args->xp, 0));
    s.store = weight(args->delta_w);
    s.adds = args->accumulate != 0;
    *served = work.serves();
    return *served ? work.run_primal("delta_mma accumulate") : DF_OK;
}

int delta_apply_mma(const Call& call, const df_dual_args* args, bool* served) {
    Work work(call, args->x);
    Pass& s = work.add(args->out, args->x, nullptr, nullptr, shape_of(args->out, 0), shape_of(args->x, 0));
    s.w0 = weight(args->w0);
    s.plus = weight(args->delta_w);
    *served = work.serves();
    return *served ? work.run_primal("delta_mma apply") : DF_OK;
}

int dual_form_forward_mma(const Call& call, const df_dual_args* args, bool* served) {
    const int64_t o = shape_of(args->e, 0), i = shape_of(args->x, 0);
    Work sum(call, args->x), work(call, args->x);
    Pass& s = work.add(args->out, args->x, args->xp, args->e, o, i);
    s.w0 = weight(args->w0);
    *served = work.serves();
    if (!*served) return DF_OK;
    if (args->form != DF_FORM_DUAL) {
        s.store = weight(args->delta_w);
        return work.run_primal("delta_mma out");
    }
    if (args->delta_w != nullptr) {
        sum.add(nullptr, nullptr, args->xp, args->e, o, i).store = weight(args->delta_w);
        if (const int status = sum.run_primal("delta_mma delta_w")) return status;
    }
    return work.run_dual("chain_mma out");
}

int dual_form_backward_mma(const Call& call, const df_dual_args* args, bool* served) {
    const int64_t o = shape_of(args->e, 0), i = shape_of(args->x, 0);
    const bool dual = args->form == DF_FORM_DUAL;
    Work sum(call, args->x), work(call, args->x);
    *served = o <= kLargest && i <= kLargest;
    if (!*served) return DF_OK;
    if (args->de != nullptr || (args->dw0 != nullptr && !dual)) {
        Pass& s = work.add(args->de, args->de != nullptr ? args->xp : nullptr, args->x, args->dout, o, i);
        if (!dual) {
            s.store = weight(args->dw0);
            s.adds = args->accumulate != 0;
        }
    }
    if (args->dw0 != nullptr && dual) {
        Pass& s = sum.add(nullptr, nullptr, args->x, args->dout, o, i);
        s.store = weight(args->dw0);
        s.adds = args->accumulate != 0;
    }
    if (args->dxp != nullptr) work.add(args->dxp, args->e, args->dout, args->x, i, o);
    if (args->dx != nullptr) work.add(args->dx, args->dout, args->e, args->xp, i, o).w0 = weight(args->w0, true);
    *served = work.serves() || sum.serves();
    if (!*served) return DF_OK;
    if (sum.serves())
        if (const int status = sum.run_primal("delta_mma dw0")) return status;
    if (!work.serves()) return DF_OK;
    return dual ? work.run_dual("chain_mma de dxp dx") : work.run_primal("delta_mma dw0 de dxp dx");
}

}  // namespace dualform::cuda
