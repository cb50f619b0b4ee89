// Attention and momentum attention, backward, in one pass over the tiles of scores, in rounds of up to kRound queries of one query head of
// each group. In a round a task owns one key head, or every so-manieth of its blocks of 64 keys: it walks the queries past each block and adds
// to dk and dv of the block and to dq of the round's queries. Tasks of one head keep a dq of their own each, added in a fixed order at the end
// of the round, so there are no atomics and the bits do not depend on threads.
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/attention_widened.h"
#include "cpu/kernels/momentum.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int64_t kTasks = 8;       // tasks wanted: a head is split where there are fewer
constexpr int64_t kRound = 2048;    // queries of a round: bounds the scratch
constexpr int kFetchSteps = 16;     // queries of a tile between two fetches
constexpr double kSplitWork = 4e6;  // multiply-adds of q k^T that a part of a split head has at least

template <class A>
inline bool saw_no_key(A lse) { return lse == A(-__builtin_inf()); }

/// Queries and gradients of a round, packed once for all its keys, in tiles of kTile queries: as rows, and with the queries along the rows;
/// zeros where there is no query or channel.
struct PackedQueries {
    explicit PackedQueries(const AttentionSizes& sizes)
        : tiles(ceil_div(smaller(sizes.T, kRound), kTile)),
          NKV(sizes.NKV),
          depth(int(round_up(sizes.HS, bf16_tile::kStep))),
          rows(int(round_up(sizes.HS, bf16_tile::kBlock))) {}
    int64_t count(int64_t B) const { return B * NKV * tiles; }
    int64_t tile_elements() const { return 2 * int64_t{kTile} * (depth + rows); }
    bf16* at(int64_t b, int64_t kv, int64_t tile) const { return first + ((b * NKV + kv) * tiles + tile) * tile_elements(); }
    bf16* q(bf16* tile) const { return tile; }                                                    // [kTile][depth]
    bf16* dout(bf16* tile) const { return tile + int64_t{kTile} * depth; }                        // [kTile][depth]
    bf16* q_columns(bf16* tile) const { return tile + 2 * int64_t{kTile} * depth; }               // [rows][kTile]
    bf16* dout_columns(bf16* tile) const { return tile + int64_t{kTile} * (2 * depth + rows); }   // [rows][kTile]

    int64_t tiles, NKV;
    int depth, rows;
    bf16* first = nullptr;
};

/// The same where float32 products are formed of bfloat16 parts: left operands, whose lines are queries (of the scores' products) or channels
/// (of sums over queries).
struct SplitQueries {
    explicit SplitQueries(const AttentionSizes& sizes)
        : tiles(ceil_div(smaller(sizes.T, kRound), kTile)), NKV(sizes.NKV), elements(split_elements(kTile, sizes.HS)) {}
    int64_t number(int64_t b, int64_t kv, int64_t tile) const { return (b * NKV + kv) * tiles + tile; }
    struct Tile {
        bf16 *q, *dout, *q_columns, *dout_columns;
        bool *ordinary_q, *ordinary_dout;
    };
    Tile at(int64_t b, int64_t kv, int64_t tile) const {
        bf16* const of_tile = first + number(b, kv, tile) * 4 * elements;
        bool* const is = ordinary + number(b, kv, tile) * 2;
        return {of_tile, of_tile + elements, of_tile + 2 * elements, of_tile + 3 * elements, is, is + 1};
    }

    int64_t tiles, NKV, elements;  // of an operand of a tile
    bf16* first = nullptr;
    bool* ordinary = nullptr;
};

/// Queries t0..t1 of query head kv group + member, for every key head kv. first and last of all rounds.
struct Round {
    int64_t member, t0, t1;
    bool first, last;
};

/// Pairs: T is bf16 and the processor multiplies it; otherwise products are formed in A, or split in parts.
template <class T, bool Pairs>
struct Backward {
    using A = Accumulate<T>;

    Backward(df_queue* queue, const df_attention_args* args)
        : sizes(args),
          dq(args->dq),
          dk(args->dk),
          dv(args->dv),
          dout(args->dout),
          q(args->q),
          k(args->k),
          v(args->v),
          out(args->eta != nullptr ? args->attn : args->out),
          lse(args->lse),
          scale(args->scale),
          momentum{sizes, v, args->eta, ChunkCarries(sizes, 0)},
          reverse{sizes, dout, args->eta, ChunkCarries(sizes, 0)},
          packed(sizes),
          split(sizes),
          splits(!Pairs && splits_products<T>(queue, sizes)),
          channels(int(round_up(sizes.HS, Pairs ? larger(kLanes<A>, bf16_tile::kBlock) : kLanes<A>))),
          width(int(round_up(lanes_for<A>(sizes.S), Pairs || splits ? 32 : 1))),
          key_blocks(ceil_div(sizes.S, kTile)) {
        const int64_t heads = sizes.B * sizes.NKV;
        const double head_work = double(round_queries()) * double(sizes.S) * sizes.HS;
        with_momentum = args->eta != nullptr;
        parts = 1;
        while (heads * parts < kTasks && 2 * parts <= key_blocks && head_work / double(2 * parts) >= kSplitWork) parts *= 2;
        carries_by_head = with_momentum && parts == 1 && rounds() == 1 && sizes.T == sizes.S;
    }

    /// A worker's scratch. width: lanes of a block of keys; channels: HS rounded up to whole vectors.
    struct Offsets {
        explicit Offsets(const Backward& pass) {
            Layout layout;
            const AttentionSizes& sizes = pass.sizes;
            const int64_t width = pass.width, channels = pass.channels, depth = pass.packed.depth;
            for (size_t& offset : own) offset = Pairs ? layout.add<bf16>(depth * width) : layout.add<A>(sizes.HS * width);  // [HS][width]
            keys = Pairs ? layout.add<bf16>(kTile * channels) : layout.add<A>(kTile * channels);  // [kTile][channels], right operand of dq
            for (size_t& offset : part) offset = layout.add<A>(channels * width);                 // [HS][width]
            for (size_t& offset : total) offset = layout.add<A>(channels * width);
            scores = layout.add<A>(kTile * width);   // [kTile][width]
            dscores = layout.add<A>(kTile * width);  // [kTile][width]
            for (size_t& offset : pairs) offset = layout.add<bf16>(Pairs ? kTile * width : 0);  // [kTile / 2][width][2]
            dscore_rows = layout.add<bf16>(Pairs ? kTile * width : 0);                              // [kTile][width]
            for (size_t& offset : rows) offset = layout.add<A>(kTile * larger(channels, depth));    // [kTile][HS]
            copy = layout.add<A>(kTile * channels);                                                 // rows without Inf and NaN [kTile][HS]
            block = layout.add<A>(larger<int64_t>(width, kTile) * larger(channels, depth));         // [width][HS]
            // (queries of a round, rounded up to rows of a tile, channels): a fold, and the sum of folds
            for (size_t& offset : dq) offset = layout.add<A>(round_up(pass.round_queries(), bf16_tile::kBlock) * channels);
            for (size_t& offset : streamed) offset = layout.add<A>(Pairs || pass.splits ? 0 : pass.round_queries() * sizes.HS);  // (queries, HS): q and dout
            for (size_t& offset : split_own) offset = layout.add<bf16>(pass.splits ? split_elements(width, sizes.HS) : 0);
            const int64_t split_scores = pass.splits ? split_elements(kTile, width) : 0;
            split_p = layout.add<bf16>(split_scores);
            split_ds = layout.add<bf16>(split_scores);
            split_ds_rows = layout.add<bf16>(split_scores);
            split_out = layout.add<bf16>(pass.splits ? split_elements(split_tile::kBlock, sizes.HS) : 0);
            const int64_t at_once = kMostVectors * kLanes<double>;  // channels of a recurrence
            for (size_t& offset : chunk) offset = layout.add<double>(pass.with_momentum ? kChunk * at_once : 0);  // [kChunk][channels]
            bytes = layout.bytes();
        }
        size_t own[2], keys, part[2], total[2], scores, dscores, pairs[2], dscore_rows, rows[2], copy, block, dq[2], streamed[2], chunk[2], bytes;
        size_t split_own[3], split_p, split_ds, split_ds_rows, split_out;  // split_own: keys, values, and keys by channels
    };

    /// A tile of queries of head h, and one of keys of head kv.
    struct Place {
        int64_t b, h, kv, t0, s0;
        int nq, n;
    };

    /// Of a block of keys: whether keys and values are ordinary, and whether pack_own has run.
    struct Own {
        bool ordinary_keys, ordinary_values, packed;
    };

    int64_t round_queries() const { return smaller(sizes.T, kRound); }
    int64_t rounds() const { return sizes.group * ceil_div(sizes.T, kRound); }
    Round round(int64_t i) const {
        const int64_t t0 = i / sizes.group * kRound;
        return {i % sizes.group, t0, smaller(sizes.T, t0 + kRound), i == 0, i + 1 == rounds()};
    }
    int64_t head_elements() const { return key_blocks * 2 * sizes.HS * width; }
    void prepare(const Round& round, int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const;
    void prepare_split(const Round& round, int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const;
    void pack_own(int64_t b, int64_t kv, int64_t s0, int n, char* memory, const Offsets& at) const;
    void pack_own(const Place& place, Own& own, char* memory, const Offsets& at) const {
        if (!own.packed) pack_own(place.b, place.kv, place.s0, place.n, memory, at);
        own.packed = true;
    }
    void split_block(int64_t b, int64_t kv, int64_t s0, int n, Own& own, char* memory, const Offsets& at) const;
    bool split_products(const Place& place, const SplitQueries::Tile& tile, const Seen<A>* seen, Own& own, char* memory, const Offsets& at) const;
    bool split_sums(const Place& place, const SplitQueries::Tile& tile, const Seen<A>* seen, FoldedSum<A>& sum_dk, FoldedSum<A>& sum_dv, A* dq_t,
                    char* memory, const Offsets& at) const;
    Rows<A> queries_at(const Place& place, const Heads<T>& x, A* rows) const {
        return dense_rows(x.row(place.b, place.t0, place.h), x.stride[1], place.nq, sizes.HS, rows);
    }
    void walk(const Round& round, int64_t b, int64_t kv, int64_t part, char* memory, const Offsets& at) const;
    void queries_past(const Round& round, int64_t b, int64_t kv, int64_t s0, int n, Own& own, bool folds, int64_t& gathered, char* memory,
                      const Offsets& at, FoldedSum<A>& sum_dk, FoldedSum<A>& sum_dv) const;
    void write_keys(int64_t b, int64_t kv, int64_t s0, int n, const A* result_dk, const A* result_dv, char* memory, const Offsets& at) const;
    void write_queries(int64_t b, int64_t h, int64_t t0, int64_t t1, A* sum) const;
    void momentum_chunk(int64_t b, int64_t kv, int64_t j, int n, A* rows, char* memory, const Offsets& at) const;
    void gather(const Round& round, int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const;
    /// The gradients of chunk j: those gathered, which lie together, if they are there.
    PositionRows<T> gradients_of(int64_t b, int64_t h, int64_t j, char* memory, const Offsets& at) const {
        if constexpr (sizeof(T) == sizeof(A))
            if (carries_by_head && !splits)
                return {array(memory, at.streamed[1]) + j * kTile * sizes.HS, sizes.HS, reverse.carries.chunk_begin(j), reverse.carries.chunk_end(j)};
        return reverse.gradients(b, h);
    }
    A* array(char* memory, size_t offset) const { return reinterpret_cast<A*>(memory + offset); }
    bf16* halves(char* memory, size_t offset) const { return reinterpret_cast<bf16*>(memory + offset); }
    double* doubles(char* memory, size_t offset) const { return reinterpret_cast<double*>(memory + offset); }
    A* delta_of(int64_t b, int64_t h) const { return delta + (b * sizes.NH + h) * sizes.T; }
    A* dq_part(int64_t b, int64_t kv, int64_t part) const { return dq_parts + ((b * sizes.NKV + kv) * parts + part) * round_queries() * channels; }
    /// The first tile of a round's queries that sees key s0 or a later one.
    int64_t first_query(const Round& round, int64_t s0) const {
        return larger(round.t0, sizes.causal ? larger<int64_t>(0, s0 - (sizes.S - sizes.T)) / kTile * kTile : 0);
    }

    AttentionSizes sizes;
    Heads<T> dq, dk, dv, dout, q, k, v, out;
    RowValues<A> lse;
    Scale scale;
    Momentum<T> momentum;
    ReverseMomentum<T> reverse;
    PackedQueries packed;
    SplitQueries split;
    bool splits;
    int channels, width;
    int64_t key_blocks, parts;
    bool with_momentum;
    bool carries_by_head;   // with momentum: each walk makes lambda's carries of its head, whose chunks are the tiles; otherwise they are there before
    bool tiles = false;     // Pairs: on AMX tiles
    A* delta = nullptr;     // (B,NH,T) dout_t . (attention part of out_t)
    double* deta_parts = nullptr;  // (B,NH,chunks), where deta is wanted
    A* dq_parts = nullptr;  // (B,NKV,parts,queries of a round,channels), where a head is split
    A* heads = nullptr;     // (B,NKV,blocks,2,HS,width) dk and dv so far, where there are several rounds
};

/// products [n][width] and dP [n][width] become P = exp(scale product - lse) and dS = P (dP - delta); own rows are keys, the rows queries.
/// exp is at most 1 in exact arithmetic: rounding of huge scores must not make it infinite. dead[t]: query t has nothing to attend.
/// Pairs: P and dS go to pairs of queries, and dS to rows, rounded, with zeros up to whole steps; masked tiles stay in place too.
template <bool Pairs, bool Masked, class A>
void gradient_tile(A* products, A* dproducts, bf16* p_pairs, bf16* ds_pairs, bf16* ds_rows, int width, int n, A scale, const A* lse, const A* delta,
                   const bool* dead, const Seen<A>& seen, Fetches& fetches) {
    for (int lane = 0; lane < width; lane += kLanes<A>) {
        const typename Seen<A>::Lanes used = Masked ? seen.lanes(lane) : typename Seen<A>::Lanes{};
        const auto at = [&](int t, Vec<A>& p, Vec<A>& ds) __attribute__((always_inline)) {
            p = exp_of_shifted(vmin(Vec<A>{}, load(products + t * width + lane) * scale - lse[t]));
            ds = p * (load(dproducts + t * width + lane) - delta[t]);
            if constexpr (Masked) {
                const typename Seen<A>::IVec uses = dead[t] ? typename Seen<A>::IVec{} : used.mask(t);
                p = select(uses, p, Vec<A>{});
                ds = select(uses, ds, Vec<A>{});
            }
            if constexpr (Masked || !Pairs) {
                store(products + t * width + lane, p);
                store(dproducts + t * width + lane, ds);
            }
        };
        if constexpr (Pairs) {
            int t = 0;
            for (; t < n; t += 2) {
                if (t % kFetchSteps == 0) fetches.next();
                Vec<A> p[2] = {}, ds[2] = {};
                at(t, p[0], ds[0]);
                if (t + 1 < n) at(t + 1, p[1], ds[1]);
                bf16_tile::store_pairs(p_pairs + t * width + 2 * lane, p[0], p[1]);
                bf16_tile::store_pairs(ds_pairs + t * width + 2 * lane, ds[0], ds[1]);
                bf16_tile::store_rounded(ds_rows + t * width + lane, ds[0]);
                bf16_tile::store_rounded(ds_rows + (t + 1) * width + lane, ds[1]);
            }
            for (; t < int(round_up(n, bf16_tile::kStep)); t += 2) {
                bf16_tile::store_pairs(p_pairs + t * width + 2 * lane, Vec<A>{}, Vec<A>{});
                bf16_tile::store_pairs(ds_pairs + t * width + 2 * lane, Vec<A>{}, Vec<A>{});
                bf16_tile::store_rounded(ds_rows + t * width + lane, Vec<A>{});
                bf16_tile::store_rounded(ds_rows + (t + 1) * width + lane, Vec<A>{});
            }
        } else {
            for (int t = 0; t < n; ++t) {
                if (t % kFetchSteps == 0) fetches.next();
                Vec<A> p, ds;
                at(t, p, ds);
            }
        }
    }
}

/// What the pass over the keys needs of one tile of queries: delta and, with Pairs, PackedQueries, or SplitQueries. delta is rounded as dP is: where all the
/// values that a query sees are equal, dP - delta is exactly 0.
template <class T, bool Pairs>
void Backward<T, Pairs>::prepare(const Round& round, int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t h = kv * sizes.group + round.member, t0 = round.t0 + tile * kTile;
    if (t0 >= round.t1) return;
    const int n = int(smaller<int64_t>(kTile, round.t1 - t0));
    if (splits) return prepare_split(round, b, kv, tile, memory, at);
    A* to = delta_of(b, h) + t0;
    const T *first_dout = dout.row(b, t0, h), *first_out = out.row(b, t0, h);
    if constexpr (Pairs) {
        bf16* const packs = packed.at(b, kv, tile);
        pack_rows(packed.q(packs), packed.depth, q.row(b, t0, h), q.stride[1], n, kTile, HS);
        pack_rows(packed.dout(packs), packed.depth, first_dout, dout.stride[1], n, kTile, HS);
        pack_columns(packed.q_columns(packs), kTile, q.row(b, t0, h), q.stride[1], n, HS, packed.rows, halves(memory, at.rows[0]));
        pack_columns(packed.dout_columns(packs), kTile, first_dout, dout.stride[1], n, HS, packed.rows, halves(memory, at.rows[0]));
        const TileSession session(tiles && parts > 1);  // a walk has its own
        constexpr int kBlock = bf16_tile::kBlock;
        A square[kBlock * kBlock];
        for (int i = 0; i < n; i += kBlock) {
            const int m = smaller(kBlock, n - i);
            pack_row_pairs(halves(memory, at.rows[0]), kBlock, first_out + i * out.stride[1], out.stride[1], m, HS, packed.depth, false,
                           halves(memory, at.rows[1]));
            bf16_tile::gemm(tiles, square, kBlock, packed.dout(packs) + i * packed.depth, packed.depth, halves(memory, at.rows[0]), kBlock, kBlock,
                            kBlock, packed.depth, false);
            for (int r = 0; r < m; ++r) to[i + r] = square[r * kBlock + r];
        }
    } else {
        A square[kLanes<A> * kLanes<A>];
        A* own = array(memory, at.block);
        for (int i = 0; i < n; i += kLanes<A>) {
            const int m = smaller(kLanes<A>, n - i);
            for (int r = 0; r < m; ++r) {
                if (parts > 1) fetch_row(dout, b, t0 + i + r + kRowsAhead, h, t0, t0 + n, HS);
                fetch_row(out, b, t0 + i + r + kRowsAhead, h, t0, t0 + n, HS);
            }
            const Rows<A> rows = parts == 1 ? Rows<A>{array(memory, at.streamed[1]) + (tile * kTile + i) * HS, HS}
                                            : dense_rows(first_dout + i * dout.stride[1], dout.stride[1], m, HS, array(memory, at.rows[0]));
            pack_transposed(own, kLanes<A>, first_out + i * out.stride[1], out.stride[1], m, HS, false, array(memory, at.rows[1]));
            score_products(square, kLanes<A>, rows, m, own, HS);
            for (int r = 0; r < m; ++r) to[i + r] = square[r * kLanes<A> + r];
        }
    }
}

/// prepare for products of parts.
template <class T, bool Pairs>
void Backward<T, Pairs>::prepare_split(const Round& round, int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
    if constexpr (kSplits<T>) {
        using namespace split_tile;
        const int HS = sizes.HS, steps = HS / kStep;
        const int64_t h = kv * sizes.group + round.member, t0 = round.t0 + tile * kTile;
        const int n = int(smaller<int64_t>(kTile, round.t1 - t0)), padded = int(round_up(n, kBlock));
        A *rows = array(memory, at.rows[0]), *own = array(memory, at.block);
        const SplitQueries::Tile to = split.at(b, kv, tile);
        const auto pack = [&](const Heads<T>& x, bf16* lines, bf16* columns) {
            const bool lines_are = split_rows<true>(lines, x.row(b, t0, h), x.stride[1], n, padded, HS);
            return split_channels<true>(columns, x.row(b, t0, h), x.stride[1], n, padded, HS, rows) && lines_are;
        };
        *to.ordinary_q = pack(q, to.q, to.q_columns);
        *to.ordinary_dout = pack(dout, to.dout, to.dout_columns);
        const TileSession session(parts > 1);  // a walk has its own
        bf16* const right = halves(memory, at.split_out);
        for (int i = 0; i < n; i += kBlock) {
            const int m = smaller(kBlock, n - i);
            const T* first_out = out.row(b, t0 + i, h);
            const bool checks = !(split_rows<false>(right, first_out, out.stride[1], m, kBlock, HS) && *to.ordinary_dout);
            A square[kBlock * kBlock];
            block_product(square, kBlock, kBlock, to.dout + i * steps * kLineElements, right, steps, false, checks, [&](float* exact) {
                pack_transposed(own, kBlock, first_out, out.stride[1], m, HS, false, array(memory, at.rows[1]));
                const Rows<A> gradients = dense_rows(dout.row(b, t0 + i, h), dout.stride[1], m, HS, rows);
                tile_gemm<A, kScoreChain>(exact, kBlock, gradients.first, gradients.stride, own, kBlock, m, kBlock, HS, false);
            });
            for (int r = 0; r < m; ++r) delta_of(b, h)[t0 + i + r] = square[r * kBlock + r];
        }
    }
}

/// The products of the scores and, if both sides are ordinary, of dP, where seen (null: everywhere) says that some of 32 queries may use one of
/// 32 keys. Returns whether dP is there.
template <class T, bool Pairs>
bool Backward<T, Pairs>::split_products(const Place& place, const SplitQueries::Tile& tile, const Seen<A>* seen, Own& own, char* memory,
                                        const Offsets& at) const {
    if constexpr (kSplits<T>) {
        using namespace split_tile;
        const int HS = sizes.HS, steps = HS / kStep, nq = place.nq;
        const auto product = [&](auto mirrored, A* to, const bf16* left, const bf16* right, bool checks) __attribute__((always_inline)) {
            for (int t = 0; t < nq; t += kBlock)
                for (int lane = 0; lane < width; lane += kBlock) {
                    if (seen != nullptr && seen->first[lane] >= t + kBlock) continue;
                    block_product<decltype(mirrored)::value != 0>(
                        to + t * width + lane, width, kBlock, left + t * steps * kLineElements, right + lane * steps * kLineElements, steps, false, checks,
                        [&](float* exact) {
                            pack_own(place, own, memory, at);
                            const Rows<A> rows = queries_at(place, q, array(memory, at.rows[0]));
                            tile_gemm<A, kScoreChain>(exact, kBlock, rows.first + t * rows.stride, rows.stride, array(memory, at.own[0]) + lane, width,
                                                      smaller(kBlock, nq - t), kBlock, HS, false);
                        });
                }
        };
        product(Constant<1>{}, array(memory, at.scores), tile.q, halves(memory, at.split_own[0]), !(own.ordinary_keys && *tile.ordinary_q));
        if (!(own.ordinary_values && *tile.ordinary_dout)) return false;
        product(Constant<0>{}, array(memory, at.dscores), tile.dout, halves(memory, at.split_own[1]), false);
    }
    return true;
}

/// What P and dS of a tile add to dv, dk and dq, where keys, queries and gradients are ordinary. Returns false, and adds nothing, unless P and dS
/// are small enough for finite sums.
template <class T, bool Pairs>
bool Backward<T, Pairs>::split_sums(const Place& place, const SplitQueries::Tile& tile, const Seen<A>* seen, FoldedSum<A>& sum_dk,
                                    FoldedSum<A>& sum_dv, A* dq_t, char* memory, const Offsets& at) const {
    if constexpr (kSplits<T>) {
        using namespace split_tile;
        const int HS = sizes.HS, nq = place.nq, padded = int(round_up(nq, kStep)), steps = padded / kStep, key_steps = width / kStep;
        A *p = array(memory, at.scores), *ds = array(memory, at.dscores);
        __builtin_memset(p + nq * width, 0, size_t(padded - nq) * size_t(width) * sizeof(A));
        __builtin_memset(ds + nq * width, 0, size_t(padded - nq) * size_t(width) * sizeof(A));
        bf16 *const right_p = halves(memory, at.split_p), *const right_ds = halves(memory, at.split_ds), *const rows = halves(memory, at.split_ds_rows);
        // Their scales are those of ordinary operands: what is tiny in them is nothing beside the rest.
        if (!pack_terms<false, false>(right_p, p, width, width, steps) || !pack_terms<false, false>(right_ds, ds, width, width, steps)) return false;
        pack_lines<true, false>(rows, ds, width, padded, key_steps);
        const auto no_repeat = [](float*) {};
        const auto of_keys = [&](FoldedSum<A>& sum, const bf16* left, const bf16* right) __attribute__((always_inline)) {
            for (int lane = 0; lane < width; lane += kBlock) {
                const int from = seen == nullptr ? 0 : smaller(int(seen->first[lane]) / kStep, steps - 1);  // queries that use none of these keys
                for (int c = 0; c < HS; c += kBlock)
                    block_product(sum.part() + c * width + lane, width, kBlock, left + c * steps * kLineElements + from * kStepElements,
                                  right + lane * steps * kLineElements + from * kStepElements, steps - from, sum.adds(), false, no_repeat);
            }
        };
        of_keys(sum_dv, tile.dout_columns, right_p);
        of_keys(sum_dk, tile.q_columns, right_ds);
        const bf16* const keys = halves(memory, at.split_own[2]);
        for (int t = 0; t < nq; t += kBlock) {
            int used = key_steps;
            while (seen != nullptr && used > 1 && seen->first[(used - 1) * kStep] >= t + kBlock) --used;
            for (int c = 0; c < HS; c += kBlock)
                block_product(dq_t + t * channels + c, channels, smaller(kBlock, nq - t), rows + t * key_steps * kLineElements,
                              keys + c * key_steps * kLineElements, used, true, false, no_repeat);
        }
    }
    return true;
}

/// A round's queries walk past the keys from s0 on (n of them, packed already): adds to dk, dv and the round's dq.
template <class T, bool Pairs>
void Backward<T, Pairs>::queries_past(const Round& round, int64_t b, int64_t kv, int64_t s0, int n, Own& own, bool folds, int64_t& gathered,
                                      char* memory, const Offsets& at, FoldedSum<A>& sum_dk, FoldedSum<A>& sum_dv) const {
    const int HS = sizes.HS;
    const int64_t h = kv * sizes.group + round.member;
    const bool long_sums = smaller(sizes.T, sizes.S) >= kLongSum;
    A *scores = array(memory, at.scores), *dscores = array(memory, at.dscores), *dq_sum = array(memory, at.dq[0]), *copy = array(memory, at.copy);
    bf16 *p_pairs = halves(memory, at.pairs[0]), *ds_pairs = halves(memory, at.pairs[1]), *ds_rows = halves(memory, at.dscore_rows);
    Seen<A> seen;
    bool dead[kTile];
    // Fetched ahead: the queries that are gathered next; with the last four tiles, rows of dk and dv and the next block of keys and
    // values, or, where there is none, dq.
    Fetches fetches;
    int fetched = 0;
    const int64_t s1 = s0 + parts * kTile, next_keys = smaller<int64_t>(kTile, sizes.length(b) - s1), written = round.last ? n : 0;
    constexpr int64_t kSteps = kTile / kFetchSteps * (kTile / kLanes<A>);  // of a tile
    for (int64_t t0 = first_query(round, s0); t0 < round.t1; t0 += kTile) {
        const int nq = int(smaller<int64_t>(kTile, round.t1 - t0));
        if ((t0 - round.t0) / kTile >= gathered) {
            for (; gathered <= (t0 - round.t0) / kTile; ++gathered) gather(round, b, kv, gathered, memory, at);
            const bool reads_rows = parts == 1 || !(Pairs || splits);
            const int64_t t1 = t0 + kTile, ahead = reads_rows ? smaller<int64_t>(kTile, round.t1 - t1) : 0;
            fetches.clear();
            fetches.add(q, b, t1, h, ahead, HS);
            fetches.add(dout, b, t1, h, ahead, HS);
            if (parts == 1) fetches.add(out, b, t1, h, ahead, HS);
        }
        for (; fetched < 4 && round.t1 - t0 <= (4 - fetched) * kTile; ++fetched) {
            if (fetched < 2) fetches.add(fetched == 0 ? dk : dv, b, s0, kv, written, HS);
            else if (next_keys > 0) fetches.add(fetched == 2 ? k : v, b, s1, kv, next_keys, HS);
            else if (fetched == 2 && parts == 1) fetches.add(dq, b, round.t0, h, smaller<int64_t>(2 * kTile, round.t1 - round.t0), HS);
        }
        fetches.spread(kSteps);
        const A *lse_t = lse.head(b, h) + t0, *delta_t = delta_of(b, h) + t0;
        const bool diagonal = sizes.causal && s0 + n - 1 > sizes.position(t0);
        bool any_dead = false;
        for (int i = 0; i < nq; ++i) any_dead |= dead[i] = saw_no_key(lse_t[i]);
        const bool masked = diagonal || any_dead || n < width;
        if (masked)
            for (int i = 0; i < width; ++i) seen.set(i, i >= n ? nq : diagonal ? s0 + i - sizes.position(t0) : 0, nq);
        const auto differentiate = [&] {
            A magnitude = A(scale.magnitude);
            if (any_huge(lse_t, nq)) {
                for (int i = 0; i < nq * width; i += kLanes<A>) store(scores + i, rounded(load(scores + i) * magnitude));
                magnitude = 1;
            }
            if (masked) gradient_tile<Pairs, true>(scores, dscores, p_pairs, ds_pairs, ds_rows, width, nq, magnitude, lse_t, delta_t, dead, seen, fetches);
            else gradient_tile<Pairs, false>(scores, dscores, p_pairs, ds_pairs, ds_rows, width, nq, magnitude, lse_t, delta_t, dead, seen, fetches);
        };
        const auto rows_of = [&](const Heads<T>& x, int i) {
            if (Pairs || splits) return dense_rows(x.row(b, t0, h), x.stride[1], nq, HS, array(memory, at.rows[i]));
            else return Rows<A>{array(memory, at.streamed[i]) + (t0 - round.t0) * HS, HS};
        };
        A* dq_t = dq_sum + (t0 - round.t0) * channels;
        // Where weights are 0 by the mask, an Inf or NaN on the other side must not reach the sum.
        const auto finite = [&](const Heads<T>& x, int i) {
            if (Pairs || splits) return all_finite(x.row(b, t0, h), x.stride[1], nq, HS);
            else return all_finite(rows_of(x, i), nq, HS);
        };
        const auto finite_keys = [&] {
            if (Pairs || splits) return all_finite(k.row(b, s0, kv), k.stride[1], n, HS);
            else return all_finite(Rows<A>{array(memory, at.keys), channels}, n, HS);
        };
        const bool guarded = masked && !(finite(q, 0) && finite(dout, 1) && finite_keys());
        if constexpr (Pairs) {
            bf16* const packs = packed.at(b, kv, (t0 - round.t0) / kTile);
            const int depth = packed.depth, channel_rows = packed.rows, m = int(round_up(nq, bf16_tile::kBlock));
            const int terms = int(round_up(nq, bf16_tile::kStep));
            bf16_tile::gemm(tiles, scores, width, packed.q(packs), depth, halves(memory, at.own[0]), width, m, width, depth, false);
            bf16_tile::gemm(tiles, dscores, width, packed.dout(packs), depth, halves(memory, at.own[1]), width, m, width, depth, false);
            differentiate();
            if (!guarded) {
                bf16_tile::gemm(tiles, sum_dv.part(), width, packed.dout_columns(packs), kTile, p_pairs, width, channel_rows, width, terms, sum_dv.adds());
                bf16_tile::gemm(tiles, sum_dk.part(), width, packed.q_columns(packs), kTile, ds_pairs, width, channel_rows, width, terms, sum_dk.adds());
                bf16_tile::gemm(tiles, dq_t, channels, ds_rows, width, halves(memory, at.keys), channels, m, channels, width, true);
            }
        } else {
            const Place place = {b, h, kv, t0, s0, nq, n};
            const SplitQueries::Tile tile = splits ? split.at(b, kv, (t0 - round.t0) / kTile) : SplitQueries::Tile{};
            const Seen<A>* const reaching = diagonal ? &seen : nullptr;
            const bool has_dp = splits && split_products(place, tile, reaching, own, memory, at);
            const bool may_split = has_dp && own.ordinary_keys && *tile.ordinary_q;
            if (splits && !may_split) pack_own(place, own, memory, at);
            const auto rows_or_none = [&](const Heads<T>& x, int i) { return may_split ? Rows<A>{nullptr, 0} : rows_of(x, i); };
            Rows<A> queries = rows_or_none(q, 0), gradients = rows_or_none(dout, 1);
            // On the diagonal the first queries reach the first keys only.
            const int step = diagonal ? kReach : nq;
            const auto reach = [&](int t) { return diagonal ? seen.reaches_to(width, smaller(t + step, nq)) : width; };
            for (int t = 0; t < nq && !has_dp; t += step) {
                const int rows = smaller(step, nq - t), lanes = reach(t);
                if (!splits)
                    tile_gemm<A, kScoreChain>(scores + t * width, width, queries.first + t * queries.stride, queries.stride, array(memory, at.own[0]), width,
                                              rows, lanes, HS, false);
                tile_gemm<A, kScoreChain>(dscores + t * width, width, gradients.first + t * gradients.stride, gradients.stride, array(memory, at.own[1]),
                                          width, rows, lanes, HS, false);
            }
            differentiate();
            const bool added = may_split && !guarded && split_sums(place, tile, reaching, sum_dk, sum_dv, dq_t, memory, at);
            if (may_split && !added && !guarded) {
                pack_own(place, own, memory, at);
                queries = rows_of(q, 0);
                gradients = rows_of(dout, 1);
            }
            const auto add_sums = [&](auto chain) {
                constexpr int kChain = decltype(chain)::value;
                for (int t = 0; t < nq; t += step) {
                    const int rows = smaller(step, nq - t), lanes = t == 0 && !sum_dv.adds() ? width : reach(t);
                    const bool add = t > 0 || sum_dv.adds();
                    tile_gemm<A, kChain>(sum_dv.part(), width, gradients.first + t * gradients.stride, 1, scores + t * width, width, HS, lanes, rows, add,
                                         gradients.stride);
                    tile_gemm<A, kChain>(sum_dk.part(), width, queries.first + t * queries.stride, 1, dscores + t * width, width, HS, lanes, rows, add,
                                         queries.stride);
                    tile_gemm<A, kChain>(dq_t + t * channels, channels, dscores + t * width, width, array(memory, at.keys), channels, rows, HS,
                                         smaller(reach(t), n), true);
                }
            };
            if (!guarded && !added) {
                if (long_sums) add_sums(Constant<kLongSumChain>{});
                else add_sums(Constant<tile::kChain>{});
            }
        }
        if (guarded) {
            const auto clear_padding = [&](FoldedSum<A>& sum) {
                if (!sum.adds()) __builtin_memset(sum.part() + HS * width, 0, size_t(channels - HS) * size_t(width) * sizeof(A));
            };
            clear_padding(sum_dv);
            clear_padding(sum_dk);
            const auto add = [&](auto chain) {
                constexpr int kChain = decltype(chain)::value;
                add_product<kChain>(sum_dv.part(), width, rows_of(dout, 1), nq, scores, HS, sum_dv.adds(), &seen, dead, copy);
                add_product<kChain>(sum_dk.part(), width, rows_of(q, 0), nq, dscores, HS, sum_dk.adds(), &seen, dead, copy);
            };
            if (!Pairs && long_sums && !diagonal) add(Constant<kLongSumChain>{});
            else add(Constant<tile::kChain>{});
            const Rows<A> keys = dense_rows(k.row(b, s0, kv), k.stride[1], n, HS, copy);
            for (int t = 0; t < nq; ++t)
                for (int s = 0; s < n && !dead[t]; ++s)
                    if (seen.uses(s, t))
                        for (int c = 0; c < HS; ++c) dq_t[t * channels + c] += dscores[t * width + s] * (scale.negative ? -A(1) : A(1)) * keys.first[s * keys.stride + c];
        }
        sum_dv.tile_done();
        sum_dk.tile_done();
        if (folds) {
            A* total = array(memory, at.dq[1]) + (t0 - round.t0) * channels;
            for (int i = 0; i < nq * channels; i += kLanes<A>) {
                store(total + i, load(total + i) + load(dq_t + i));
                store(dq_t + i, Vec<A>{});
            }
        }
    }
}

/// dk, dv of keys s0..s0+n from their transposed sums [HS][width].
template <class T, bool Pairs>
void Backward<T, Pairs>::write_keys(int64_t b, int64_t kv, int64_t s0, int n, const A* result_dk, const A* result_dv, char* memory,
                                    const Offsets& at) const {
    const int HS = sizes.HS;
    A* rows = array(memory, at.block);
    const A factor = scale.negative ? -A(scale.magnitude) : A(scale.magnitude);
    transpose_rows(rows, HS, result_dk, width, HS, n);
    for (int i = 0; i < n; ++i) {
        fetch_row(dk, b, s0 + i + kRowsAhead, kv, s0, s0 + n, HS);
        for (int c = 0; c < HS; ++c) rows[i * HS + c] *= factor;
        put_row(dk.row(b, s0 + i, kv), rows + i * HS, HS);
    }
    transpose_rows(rows, HS, result_dv, width, HS, n);
    if (with_momentum) momentum_chunk(b, kv, s0 / kChunk, n, rows, memory, at);
    for (int i = 0; i < n; ++i) {
        fetch_row(dv, b, s0 + i + kRowsAhead, kv, s0, s0 + n, HS);
        put_row(dv.row(b, s0 + i, kv), rows + i * HS, HS);
    }
}

/// dq of queries t0..t1 from their sums [.][channels], which it scales.
template <class T, bool Pairs>
void Backward<T, Pairs>::write_queries(int64_t b, int64_t h, int64_t t0, int64_t t1, A* sum) const {
    const A magnitude = A(scale.magnitude);
    for (int64_t t = t0; t < t1; ++t, sum += channels) {
        fetch_row(dq, b, t + kRowsAhead, h, t0, t1, sizes.HS);
        const bool none = saw_no_key(lse.head(b, h)[t]);
        for (int c = 0; c < sizes.HS; ++c) sum[c] = none ? A(0) : magnitude * sum[c];
        put_row(dq.row(b, t, h), sum, sizes.HS);
    }
}

/// Keys and values from s0 on, n of them, as what float32's instructions multiply: one to a lane, and keys as rows.
template <class T, bool Pairs>
void Backward<T, Pairs>::pack_own(int64_t b, int64_t kv, int64_t s0, int n, char* memory, const Offsets& at) const {
    if constexpr (!Pairs) {
        const int HS = sizes.HS;
        const T *first_k = k.row(b, s0, kv), *first_v = v.row(b, s0, kv);
        A* rows = array(memory, at.block);
        A* keys = array(memory, at.keys);
        for (int s = 0; s < n; ++s) {
            fetch_row(k, b, s0 + s + kRowsAhead, kv, s0, s0 + n, HS);
            fetch_row(v, b, s0 + s, kv, s0, s0 + n, HS);
            A* key = keys + s * channels;
            convert_row(key, first_k + s * k.stride[1], HS);
            for (int c = 0; c < HS && scale.negative; ++c) key[c] = -key[c];
            for (int c = HS; c < channels; ++c) key[c] = A(0);
        }
        pack_transposed(array(memory, at.own[0]), width, keys, channels, n, HS, false, rows);
        pack_transposed(array(memory, at.own[1]), width, first_v, v.stride[1], n, HS, false, rows);
    }
}

/// The same for products of parts.
template <class T, bool Pairs>
void Backward<T, Pairs>::split_block(int64_t b, int64_t kv, int64_t s0, int n, Own& own, char* memory, const Offsets& at) const {
    if constexpr (kSplits<T>) {
        const int HS = sizes.HS;
        const T* first_k = k.row(b, s0, kv);
        int64_t stride = k.stride[1];
        if (scale.negative) {
            pack_own(b, kv, s0, n, memory, at);
            own.packed = true;
            first_k = array(memory, at.keys);
            stride = channels;
        }
        own.ordinary_keys = split_rows<false>(halves(memory, at.split_own[0]), first_k, stride, n, width, HS);
        own.ordinary_keys &= split_channels<false>(halves(memory, at.split_own[2]), first_k, stride, n, width, HS, array(memory, at.block));
        own.ordinary_values = split_rows<false>(halves(memory, at.split_own[1]), v.row(b, s0, kv), v.stride[1], n, width, HS);
    }
}

/// What a walk needs of a tile of queries, in turn from the first tile on: the rows, one after another, as all blocks of keys read them; delta
/// and packs, unless tasks of their own made them; and lambda's carries.
template <class T, bool Pairs>
void Backward<T, Pairs>::gather(const Round& round, int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t h = kv * sizes.group + round.member, t0 = round.t0 + tile * kTile;
    const int64_t n = smaller<int64_t>(kTile, round.t1 - t0);
    if (!(Pairs || splits)) {
        A *to_q = array(memory, at.streamed[0]) + tile * kTile * HS, *to_dout = array(memory, at.streamed[1]) + tile * kTile * HS;
        for (int64_t t = t0; t < t0 + n; ++t, to_q += HS, to_dout += HS) {
            fetch_row(q, b, t + kRowsAhead, h, round.t0, round.t1, HS);
            fetch_row(dout, b, t + kRowsAhead, h, round.t0, round.t1, HS);
            convert_row(to_q, q.row(b, t, h), HS);
            convert_row(to_dout, dout.row(b, t, h), HS);
        }
    }
    if (parts == 1) prepare(round, b, kv, tile, memory, at);
    if (carries_by_head) {
        reverse.chunk_carry(b, h, tile, gradients_of(b, h, tile, memory, at));
        if (tile + 1 == reverse.carries.chunks) reverse.join_carries(b, h);
    }
}

template <class T, bool Pairs>
void Backward<T, Pairs>::walk(const Round& round, int64_t b, int64_t kv, int64_t part, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t h = kv * sizes.group + round.member, length = sizes.length(b), block_elements = int64_t(HS) * width;
    const int64_t dq_elements = (round.t1 - round.t0) * channels;
    const bool several = !(round.first && round.last);
    int64_t gathered = 0;  // tiles of queries
    const auto gather_rest = [&] {
        for (; gathered < ceil_div(round.t1 - round.t0, kTile); ++gathered) gather(round, b, kv, gathered, memory, at);
    };
    const TileSession session(splits || (Pairs && tiles));
    A *fold = array(memory, at.dq[0]), *total = array(memory, at.dq[1]);
    __builtin_memset(fold, 0, size_t(dq_elements) * sizeof(A));
    const bool folds = ceil_div(key_blocks, parts) >= kFoldTiles;
    if (folds) __builtin_memset(total, 0, size_t(dq_elements) * sizeof(A));
    FoldedSum<A> sum_dk(array(memory, at.part[0]), array(memory, at.total[0])), sum_dv(array(memory, at.part[1]), array(memory, at.total[1]));
    int64_t done = 0;
    for (int64_t block = part; block < key_blocks; block += parts, ++done) {
        const int64_t s0 = block * kTile, end = smaller<int64_t>(s0 + kTile, sizes.S);
        const int n = int(larger<int64_t>(0, smaller(end, length) - s0));
        for (int64_t s = s0 + n; s < end && round.last; ++s)
            for (int c = 0; c < HS; ++c) {
                put(dk.row(b, s, kv) + c, A(0));
                put(dv.row(b, s, kv) + c, A(0));
            }
        if (n == 0) {
            gather_rest();
            if (deta_parts != nullptr && round.last) momentum_chunk(b, kv, block, 0, nullptr, memory, at);
            continue;
        }
        const int64_t elements = int64_t(Pairs ? packed.rows : HS) * width;
        sum_dk.start(elements);
        sum_dv.start(elements);
        if (first_query(round, s0) < round.t1) {
            Own own = {};
            const T *first_k = k.row(b, s0, kv), *first_v = v.row(b, s0, kv);
            if constexpr (Pairs) {
                bf16 *rows = halves(memory, at.block), *keys = halves(memory, at.keys);
                pack_row_pairs(halves(memory, at.own[0]), width, first_k, k.stride[1], n, HS, packed.depth, scale.negative, rows);
                pack_row_pairs(halves(memory, at.own[1]), width, first_v, v.stride[1], n, HS, packed.depth, false, rows);
                for (int s = 0; s < width; s += 2) {
                    bf16* pair = keys + s * channels;
                    pair_rows(pair, s < n ? first_k + s * k.stride[1] : nullptr, s + 1 < n ? first_k + (s + 1) * k.stride[1] : nullptr, HS);
                    __builtin_memset(pair + 2 * HS, 0, size_t(channels - HS) * 2 * sizeof(bf16));
                    for (int c = 0; c < 2 * HS && scale.negative; ++c) pair[c].bits ^= 0x8000;
                }
            } else {
                if (splits) split_block(b, kv, s0, n, own, memory, at);
                else pack_own(b, kv, s0, n, memory, at);
            }
            queries_past(round, b, kv, s0, n, own, done % kFoldTiles == kFoldTiles - 1, gathered, memory, at, sum_dk, sum_dv);
        }
        gather_rest();
        A *result_dk = sum_dk.finish(), *result_dv = sum_dv.finish();
        if (several) {
            A* of_head = heads + ((b * sizes.NKV + kv) * key_blocks + block) * 2 * block_elements;
            for (int64_t i = 0; i < block_elements; i += kLanes<A>) {
                const Vec<A> dk_before = round.first ? Vec<A>{} : load(of_head + i), dv_before = round.first ? Vec<A>{} : load(of_head + block_elements + i);
                store(of_head + i, dk_before + load(result_dk + i));
                store(of_head + block_elements + i, dv_before + load(result_dv + i));
            }
            result_dk = of_head;
            result_dv = of_head + block_elements;
        }
        if (round.last) write_keys(b, kv, s0, n, result_dk, result_dv, memory, at);
    }
    A* result = parts == 1 ? fold : dq_part(b, kv, part);
    for (int64_t i = 0; i < dq_elements && (folds || parts > 1); i += kLanes<A>)
        store(result + i, folds ? load(total + i) + load(fold + i) : load(fold + i));
    if (parts == 1) write_queries(b, h, round.t0, round.t1, result);
}

/// Chunk j in the momentum term's gradients: rows [n][HS], of its first n values' dv, += eta lambda_{s+1}, summed over the head group; and the
/// chunk's shares of deta, the sums of lambda_{s+1} . (m_s + v_s) over its positions s. A walk of all chunks takes m along, from carry to carry;
/// where a head is split, they are there before.
template <class T, bool Pairs>
void Backward<T, Pairs>::momentum_chunk(int64_t b, int64_t kv, int64_t j, int n, A* rows, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const bool with_deta = deta_parts != nullptr;
    const int64_t begin = momentum.carries.chunk_begin(j), end = momentum.carries.chunk_end(j);
    double *sum = doubles(memory, at.chunk[0]), *inner = doubles(memory, at.chunk[1]);  // of the channels at hand
    const auto share_of = [&](int64_t h) -> double& { return deta_parts[(b * sizes.NH + h) * momentum.carries.chunks + j]; };
    for (int64_t h = kv * sizes.group; h < (kv + 1) * sizes.group && with_deta; ++h) share_of(h) = 0;
    by_channels(HS, [&](auto zeros, int c) __attribute__((always_inline)) {
        using Group = decltype(zeros);
        using V = typename Group::Vector;
        const auto place = [&](double* of_chunk, int64_t s, int i) { return of_chunk + (s - begin) * Group::kWidth + i * Group::kStep; };
        bool any = false;
        for (int64_t h = kv * sizes.group; h < (kv + 1) * sizes.group; ++h) {
            const double eta = momentum.eta(h);
            if (eta == 0 && !with_deta) continue;
            if (with_deta) {
                Group m = {};
                if (parts > 1 || j > 0) m.load(momentum.carries.at(b, h, j) + c);
                momentum.follow(m, c, momentum.values(b, h), begin, end, eta,
                                [&](auto, V inner_s, int64_t s, int i) __attribute__((always_inline)) { store_as(place(inner, s, i), inner_s); });
                if (parts == 1) m.store(momentum.carries.at(b, h, j + 1) + c);
            }
            Group lambda = {}, shares = {};
            lambda.load(reverse.carries.at(b, h, j + 1) + c);
            const int64_t values_end = eta == 0 ? begin : begin + n, inner_end = with_deta ? smaller(end, sizes.S - 1) : begin;
            const auto step = [&](V lambda_s, int64_t s, int i) __attribute__((always_inline)) {
                if (s < inner_end) shares.x[i] += lambda_s * load_as<V>(place(inner, s, i));
                if (s < values_end) store_as(place(sum, s, i), any ? load_as<V>(place(sum, s, i)) + eta * lambda_s : eta * lambda_s);
            };
            reverse.follow(lambda, c, gradients_of(b, h, j, memory, at), begin, end, eta, step);
            any |= eta != 0;
            for (int i = 0; i < Group::kCount && with_deta; ++i) {
                if constexpr (Group::kStep == 1) share_of(h) += shares.x[i];
                else share_of(h) += lane_sum<double>(shares.x[i]);
            }
        }
        for (int s = 0; s < n && any; ++s)
            for (int i = 0; i < Group::kCount; ++i) {
                A* const x = rows + s * HS + c + i * Group::kStep;
                store_as(x, load_as<V>(x) + load_as<V>(place(sum, begin + s, i)));
            }
    });
}

template <class T, bool Pairs>
int backward(df_queue* queue, const df_attention_args* args, df_error* error) {
    using A = Accumulate<T>;
    using Pass = Backward<T, Pairs>;
    Pass pass(queue, args);
    pass.tiles = bf16_products(queue) == Bf16Products::kTiles;
    const AttentionSizes& sizes = pass.sizes;
    const bool with_momentum = pass.with_momentum, with_deta = with_momentum && args->deta != nullptr;
    const int64_t chunks = pass.momentum.carries.chunks, query_tiles = pass.packed.count(sizes.B);
    const int64_t tasks = sizes.B * sizes.NKV * pass.parts;
    const typename Pass::Offsets at(pass);

    const double work = sizes.pairs() * sizes.HS;
    Layout layout;
    const size_t workers = layout.add<char>(int64_t(at.bytes) * task_workers(queue, larger(tasks, pass.parts > 1 ? query_tiles : 0), work));
    const size_t delta = layout.add<A>(sizes.B * sizes.NH * sizes.T);
    const size_t packs = layout.add<bf16>(Pairs ? query_tiles * pass.packed.tile_elements() : 0);
    const size_t splits = layout.add<bf16>(pass.splits ? query_tiles * 4 * pass.split.elements : 0);
    const size_t ordinary = layout.add<bool>(pass.splits ? query_tiles * 2 : 0);
    const size_t dq_parts = layout.add<A>(pass.parts > 1 ? tasks * pass.round_queries() * pass.channels : 0);
    const size_t heads = layout.add<A>(pass.rounds() > 1 ? sizes.B * sizes.NKV * pass.head_elements() : 0);
    const size_t reverse_carries = layout.add<double>(with_momentum ? pass.reverse.carries.elements(sizes.B) : 0);
    const size_t carries = layout.add<double>(with_deta ? pass.momentum.carries.elements(sizes.B) : 0);
    const size_t deta_parts = layout.add<double>(with_deta ? sizes.B * sizes.NH * chunks : 0);
    const Scratch scratch(queue, layout.bytes());
    if (!scratch) return out_of_memory(error, with_momentum ? "momentum_attention_backward" : "attention_backward", layout.bytes());
    const auto memory_of = [&](int worker) { return scratch.as<char>(workers) + size_t(worker) * at.bytes; };

    pass.delta = scratch.as<A>(delta);
    pass.packed.first = scratch.as<bf16>(packs);
    pass.split.first = scratch.as<bf16>(splits);
    pass.split.ordinary = scratch.as<bool>(ordinary);
    pass.dq_parts = scratch.as<A>(dq_parts);
    pass.heads = scratch.as<A>(heads);
    if (with_momentum) {
        pass.reverse.carries.first = scratch.as<double>(reverse_carries);
        if (!pass.carries_by_head) pass.reverse.compute_carries(queue);
    }
    if (with_deta) {
        pass.deta_parts = scratch.as<double>(deta_parts);
        pass.momentum.carries.first = scratch.as<double>(carries);
        if (pass.parts > 1) pass.momentum.compute_carries(queue, 0, nullptr, Type<A>{});
    }
    for (int64_t r = 0; r < pass.rounds(); ++r) {
        const Round round = pass.round(r);
        const auto for_query_tiles = [&](auto&& f) {
            for_tasks(queue, query_tiles, work, [&](int64_t i, int worker) {
                const int64_t tile = i % pass.packed.tiles, head = i / pass.packed.tiles;
                f(head / sizes.NKV, head % sizes.NKV, tile, worker);
            });
        };
        if (pass.parts > 1)
            for_query_tiles([&](int64_t b, int64_t kv, int64_t tile, int worker) { pass.prepare(round, b, kv, tile, memory_of(worker), at); });
        for_tasks(queue, tasks, work, [&](int64_t i, int worker) {
            const int64_t part = i % pass.parts, head = i / pass.parts;
            pass.walk(round, head / sizes.NKV, head % sizes.NKV, part, memory_of(worker), at);
        });
        if (pass.parts == 1) continue;
        for_query_tiles([&](int64_t b, int64_t kv, int64_t tile, int) {
            const int64_t t0 = round.t0 + tile * kTile, t1 = smaller(t0 + kTile, round.t1);
            const int64_t first = tile * kTile * pass.channels, n = (t1 - t0) * pass.channels;
            if (t0 >= t1) return;
            A* sum = pass.dq_part(b, kv, 0) + first;
            for (int64_t part = 1; part < pass.parts; ++part) {
                const A* other = pass.dq_part(b, kv, part) + first;
                for (int64_t e = 0; e < n; e += kLanes<A>) store(sum + e, load(sum + e) + load(other + e));
            }
            pass.write_queries(b, kv * sizes.group + round.member, t0, t1, sum);
        });
    }
    if (!with_deta) return DF_OK;

    for (int64_t h = 0; h < sizes.NH; ++h) {
        double sum = args->accumulate ? get_scalar(args->deta, h) : 0;
        for (int64_t b = 0; b < sizes.B; ++b)
            for (int64_t j = 0; j < chunks; ++j) sum += pass.deta_parts[(b * sizes.NH + h) * chunks + j];
        put_scalar(args->deta, h, sum);
    }
    return DF_OK;
}

/// A small call, in float64. What forward saved was rounded, so the forward pass is done again.
int backward_widened(df_queue* queue, const df_attention_args* args, df_error* error) {
    WidenedTensors tensors;
    const int q = tensors.add(args->q), k = tensors.add(args->k), v = tensors.add(args->v), dout = tensors.add(args->dout);
    const int out = tensors.add(args->dout), attn = tensors.add(args->eta != nullptr ? args->dout : nullptr), lse = tensors.add(args->lse);
    const int dq = tensors.add(args->dq), dk = tensors.add(args->dk), dv = tensors.add(args->dv);
    const Scratch scratch(queue, tensors.bytes());
    if (!scratch) return out_of_memory(error, args->eta != nullptr ? "momentum_attention_backward" : "attention_backward", tensors.bytes());
    tensors.place(scratch);
    const int inputs[] = {q, k, v, dout};
    for (int input : inputs) tensors.widen(input);
    df_attention_args wide = *args;
    wide.q = tensors[q];
    wide.k = tensors[k];
    wide.v = tensors[v];
    wide.dout = tensors[dout];
    wide.out = tensors[out];
    wide.attn = tensors[attn];
    wide.lse = tensors[lse];
    int status = attention_forward_f64(queue, &wide, error);
    if (status != DF_OK) return status;
    wide.dq = tensors[dq];
    wide.dk = tensors[dk];
    wide.dv = tensors[dv];
    status = backward<double, false>(queue, &wide, error);
    if (status != DF_OK) return status;
    const int outputs[] = {dq, dk, dv};
    for (int output : outputs) tensors.narrow(output);
    return DF_OK;
}

}  // namespace

int attention_backward(df_queue* queue, const df_attention_args* args, df_error* error) {
    if (args->q->dtype != DF_F64 && is_widened(AttentionSizes(args))) return backward_widened(queue, args, error);
    if constexpr (bf16_tile::kCompiled)
        if (args->q->dtype == DF_BF16 && bf16_products(queue) != Bf16Products::kWidened) return backward<bf16, true>(queue, args, error);
    return dispatch(args->q->dtype, [&](auto type) { return backward<typename decltype(type)::type, false>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
