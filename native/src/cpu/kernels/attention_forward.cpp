// Attention and momentum attention, forward, by one or two blocks of 64 queries of a head, past which the keys stream with an online softmax.
// A task is such blocks or, where there are many heads, a whole head. A lone query (cached decoding) has a path of its own, vectorised along
// the head size. Where the processor multiplies bfloat16, attention_forward_bf16.cpp serves instead.
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/attention_widened.h"
#include "cpu/kernels/momentum.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int kBlocks = 2;             // blocks of kTile queries that a task takes along when there are enough tasks: they share copies of keys
constexpr int64_t kPackedQueries = 512;  // queries of a key head from which packing its keys and values beats copying tiles
constexpr int64_t kHeldQueries = 192;  // the same where each worker packs for itself
constexpr int64_t kHeldElements = int64_t{1} << 20;  // of a head's keys that a worker packs for itself: bounds the scratch
constexpr int64_t kTasks = 32;         // tasks wanted
constexpr int kWeights = 16;           // weights added one after another, as terms in tile_gemm
constexpr int64_t kShares = 4;         // tasks of a head that several workers share, each of which packs its keys for itself

template <class A>
constexpr A kMinusInfinity = A(-__builtin_inf());

/// Keys and values of one tile, packed for all queries of a head: in the accumulation type [kTile][HS], or as operands of products of bfloat16
/// parts, keys as left operands of the scores, values, channel after channel, of the sums.
template <class A>
struct PackedTile {
    A *keys, *values;
    bf16 *split_keys, *split_values;
    bool* ordinary;  // of a split tile: keys, values
};

/// The head whose tiles a worker has packed for itself, from the first one on, and whose carries it has made.
struct Held {
    int64_t head, tiles, carries;
};

template <class T>
struct Forward {
    using A = Accumulate<T>;

    Forward(df_queue* queue, const df_attention_args* args)
        : sizes(args),
          q(args->q),
          k(args->k),
          v(args->v),
          out(args->out),
          attn(args->attn),
          lse(args->lse),
          scale(args->scale),
          momentum{sizes, v, args->eta, ChunkCarries(sizes, args->state_in == nullptr ? 0 : sizes.S - sizes.T)},
          tiles(ceil_div(sizes.S, kTile)),
          splits(splits_products<T>(queue, sizes)),
          many(sizes.B * sizes.NKV >= 2 * thread_count(queue) && sizes.S * sizes.HS <= kHeldElements),
          packs(splits || (sizes.T * sizes.group >= (many ? kHeldQueries : kPackedQueries) && (sizeof(T) != sizeof(A) || k.stride[1] != sizes.HS))),
          holds(packs && many),
          operand_bytes(splits ? split_elements(kTile, sizes.HS) * int64_t(sizeof(bf16)) : int64_t{kTile} * sizes.HS * int64_t(sizeof(A))),
          blocks(sizes.B * sizes.NH * ceil_div(sizes.T, kBlocks * kTile) >= kTasks ? kBlocks : 1) {}

    /// A worker's scratch; [HS][lanes] unless said. lanes is that of a whole block.
    struct Offsets {
        Offsets(const Forward& pass, bool with_momentum) {
            Layout layout;
            const AttentionSizes& sizes = pass.sizes;
            const int64_t lanes = pass.lanes_of(sizes.T), n = smaller<int64_t>(kTile, sizes.S);
            const int64_t HSp = round_up(sizes.HS, kLanes<A>);
            for (int i = 0; i < pass.blocks; ++i) {
                own[i] = layout.add<A>(sizes.HS * lanes);
                part[i] = layout.add<A>(HSp * lanes);
                total[i] = layout.add<A>(HSp * lanes);
                split_own[i] = layout.add<bf16>(pass.splits ? split_elements(lanes, sizes.HS) : 0);
            }
            split_weights = layout.add<bf16>(pass.splits ? split_elements(lanes, kTile) : 0);
            exact = layout.add<A>(pass.splits ? HSp * lanes : 0);
            scores = layout.add<A>(kTile * lanes);                          // [kTile][lanes]
            keys = layout.add<A>(n * HSp);                                  // [n][HS], where they cannot be read in place
            values = layout.add<A>(n * HSp);                                // [n][HS]
            copy = layout.add<A>(n * sizes.HS);                             // values without Inf and NaN [n][HS]
            rows = layout.add<A>(larger<int64_t>(lanes, kTile) * HSp);      // [lanes][HS]
            m = layout.add<double>(with_momentum ? HSp : 0);                // [HS]
            held = layout.add<Held>(1);
            held_tiles = layout.add<char>(pass.holds ? pass.tiles * pass.tile_bytes() : 0);
            bytes = layout.bytes();
        }
        size_t own[kBlocks], part[kBlocks], total[kBlocks], split_own[kBlocks], split_weights, exact, scores, keys, values, copy, rows, m, held, held_tiles, bytes;
    };

    int64_t tile_bytes() const { return 2 * operand_bytes + 64; }
    PackedTile<A> packed(int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
        char* const of_tile = holds ? memory + at.held_tiles + tile * tile_bytes() : shared + ((b * sizes.NKV + kv) * tiles + tile) * tile_bytes();
        char* const values = of_tile + operand_bytes;
        return {reinterpret_cast<A*>(of_tile), reinterpret_cast<A*>(values), reinterpret_cast<bf16*>(of_tile), reinterpret_cast<bf16*>(values),
                reinterpret_cast<bool*>(values + operand_bytes)};
    }
    void pack(int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const;
    /// What the worker holds of a head.
    Held& held_of(int64_t b, int64_t kv, char* memory, const Offsets& at) const {
        Held& held = *reinterpret_cast<Held*>(memory + at.held);
        const int64_t head = b * sizes.NKV + kv;
        if (held.head != head) held = {head, 0, 0};
        return held;
    }
    /// Packs what the worker has not packed of a head, up to this tile. Returns whether there was any.
    bool hold(int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
        Held& held = held_of(b, kv, memory, at);
        const bool any = held.tiles <= tile;
        for (; held.tiles <= tile; ++held.tiles) pack(b, kv, held.tiles, memory, at);
        return any;
    }
    /// f(the values of query head h from position p on): of a whole tile that is packed, those, which lie together.
    template <class F>
    void with_values(int64_t b, int64_t h, int64_t p, char* memory, const Offsets& at, F&& f) const {
        const int64_t length = sizes.length(b);
        if (packs && !splits && p % kTile == 0 && 0 <= p && p < length)
            f(PositionRows<A>{packed(b, h / sizes.group, p / kTile, memory, at).values, sizes.HS, p, smaller(p + kTile, length)});
        else
            f(momentum.values(b, h));
    }
    /// Makes the carries that are missing of a head up to position p, whose chunks are the tiles.
    void hold_carries(int64_t b, int64_t kv, int64_t p, char* memory, const Offsets& at) const {
        Held& held = held_of(b, kv, memory, at);
        for (; held.carries <= p / kChunk; ++held.carries)
            for (int64_t h = kv * sizes.group; h < (kv + 1) * sizes.group; ++h) {
                if (held.carries == 0) {
                    momentum.start_carries(b, h, nullptr, Type<A>{});
                    continue;
                }
                const int64_t j = held.carries - 1;
                with_values(b, h, j * kChunk, memory, at, [&](const auto& values) { momentum.chunk_carry(b, h, j, values); });
                momentum.join_carry(b, h, j);
            }
    }
    /// Own rows rounded up to whole vectors, or blocks of a split product.
    int lanes_of(int64_t rows) const { return int(round_up(lanes_for<A>(rows), splits ? 32 : 1)); }
    void split_scores(A* scores, int width, int64_t b, int64_t h, int64_t t0, int nq, int i, bool ordinary, int64_t s0, int n, const Seen<A>* seen,
                      char* memory, const Offsets& at) const;
    void split_sum(A* sum, int width, bool add, int64_t b, int64_t kv, int64_t s0, int n, A* weights, const Seen<A>* seen, char* memory,
                   const Offsets& at) const;
    /// owned: no other worker has queries of the key head. next: the first query of the block that follows on this worker, of head next_h
    /// of the same b; -1: not known.
    void query_blocks(int64_t b, int64_t h, int64_t t0, int64_t next_h, int64_t next, bool owned, char* memory, const Offsets& at) const;
    void lone_query(int64_t b, int64_t h, char* memory, const Offsets& at) const;
    A* array(char* memory, size_t offset) const { return reinterpret_cast<A*>(memory + offset); }
    bf16* split_own(char* memory, const Offsets& at, int i) const { return reinterpret_cast<bf16*>(memory + at.split_own[i]); }

    AttentionSizes sizes;
    Heads<T> q, k, v, out, attn;
    RowValues<A> lse;
    Scale scale;
    Momentum<T> momentum;
    int64_t tiles;  // of keys
    bool splits;    // products are formed of bfloat16 parts
    bool many;      // at least two key heads for each worker, none too large for it to pack
    bool packs;     // keys and values, once for all queries of a head; otherwise rows are read in place, or copied tile by tile
    bool holds;     // packs: each worker for itself, a head at a time, which its caches keep; otherwise all heads are packed first
    int64_t operand_bytes;  // of a packed tile's keys, and of its values
    int blocks;
    bool carries_by_head = false;  // of m: who holds a whole head makes those of its query heads; otherwise they are there before
    char* shared = nullptr;  // (B,NKV,tiles) packed tiles, unless each worker holds its own
};

/// Of one block of queries: what its softmax subtracts, and the sum of its weights.
template <class A>
struct Softmax {
    void start(int lanes) {
        for (int i = 0; i < lanes; ++i) {
            shift[i] = kMinusInfinity<A>;
            sum[i] = 0;
        }
    }
    A shift[kTile], factor[kTile];
    double sum[kTile];
};

/// Takes the maxima of a tile's scores in, for the vector of lanes at lane: moves what is subtracted, and returns it. The subtracted maximum
/// may lag behind a little: exponentials and their sums are as exact, and sums seldom need another factor.
template <class A>
inline __attribute__((always_inline)) Vec<A> move_shift(Softmax<A>& state, int lane, Vec<A> tile_max) {
    const Vec<A> old = load(state.shift + lane), next = select(tile_max > old + A(kStaleness), tile_max, old);
    store(state.shift + lane, next);
    // A row that has met nothing but -inf subtracts 0: its weights are exp(-inf) = 0.
    const Vec<A> shift = select(next == kMinusInfinity<A>, Vec<A>{}, next);
    store(state.factor + lane, exp_of_shifted(old - shift));
    return shift;
}

/// Adds the weights of a tile to the sums of the vector of lanes at lane. Returns whether some earlier sum gets another factor.
template <class A>
inline bool add_weights(Softmax<A>& state, int lane, Vec<A> tile_sum) {
    const Vec<A> factor = load(state.factor + lane);
    for (int h = 0; h < kDoubles<A>; ++h) {
        double* sum = state.sum + lane + h * kLanes<double>;
        store(sum, load(sum) * widen(factor, h) + widen(tile_sum, h));
    }
    bool changed = false;
    for (int i = 0; i < kLanes<A>; ++i) changed |= !(state.factor[lane + i] == A(1));
    return changed;
}

/// products [n][lanes] become weights exp(scale product - shift); the shift and the sum take the tile in. factor: what earlier sums are
/// multiplied by. Returns whether some factor is not 1. Meanwhile rows are fetched.
template <bool Masked, class A>
bool softmax_tile(A* products, int lanes, int n, A scale, const Seen<A>& seen, Softmax<A>& state, Fetches& fetches) {
    if (scale == A(0)) {  // with -inf for what is masked it would make NaN
        for (int i = 0; i < n * lanes; i += kLanes<A>) store(products + i, load(products + i) * scale);
        scale = 1;
    }
    bool changed = false;
    for (int lane = 0; lane < lanes; lane += kLanes<A>) {
        A* const column = products + lane;
        const typename Seen<A>::Lanes used = Masked ? seen.lanes(lane) : typename Seen<A>::Lanes{};
        const int reached = Masked ? smaller(n, int(seen.last[lane + kLanes<A> - 1])) : n;  // beyond, no lane uses a row
        Vec<A> maxima[4];
        for (Vec<A>& m : maxima) m = splat<A>(kMinusInfinity<A>);
        const auto product = [&](int s) __attribute__((always_inline)) {
            Vec<A> x = load(column + s * lanes);
            if (Masked) {
                x = select(used.mask(s), x, splat<A>(kMinusInfinity<A>));
                store(column + s * lanes, x);
            }
            return x;
        };
        int s = 0;
        for (; s + 4 <= reached; s += 4)
            for (int i = 0; i < 4; ++i) maxima[i] = vmax(maxima[i], product(s + i));
        for (; s < reached; ++s) maxima[0] = vmax(maxima[0], product(s));
        const Vec<A> shift = move_shift(state, lane, rounded(vmax(vmax(maxima[0], maxima[1]), vmax(maxima[2], maxima[3])) * scale));
        A factor = scale;
        if (any_huge(state.shift + lane, kLanes<A>)) {
            for (int r = 0; r < reached; ++r) store(column + r * lanes, rounded(load(column + r * lanes) * scale));
            factor = 1;
        }
        Vec<A> tile_sum = {};
        for (s = 0; s < reached;) {
            Vec<A> chain = {};  // short chains of additions, as in tile_gemm
            for (const int end = smaller(reached, s + kWeights); s < end; ++s) {
                const Vec<A> w = exp_of_shifted(load(column + s * lanes) * factor - shift);
                store(column + s * lanes, w);
                chain += w;
            }
            tile_sum += chain;
            fetches.next();
        }
        for (; s < n; ++s) store(column + s * lanes, Vec<A>{});
        changed |= add_weights(state, lane, tile_sum);
    }
    return changed;
}

/// Keys and values of one tile.
template <class T>
void Forward<T>::pack(int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
    const int64_t s0 = tile * kTile;
    const int64_t n = smaller<int64_t>(kTile, sizes.length(b) - s0);
    const PackedTile<A> to = packed(b, kv, tile, memory, at);
    if constexpr (kSplits<T>) {
        if (splits) {
            if (n <= 0) return;
            const int padded = int(round_up(n, split_tile::kBlock));
            to.ordinary[0] = split_rows<true>(to.split_keys, k.row(b, s0, kv), k.stride[1], int(n), padded, sizes.HS);
            to.ordinary[1] = split_channels<true>(to.split_values, v.row(b, s0, kv), v.stride[1], int(n), padded, sizes.HS, array(memory, at.rows));
            return;
        }
    }
    for (int s = 0; s < n; ++s) {
        fetch_row(k, b, s0 + s + kRowsAhead, kv, s0, s0 + n, sizes.HS);
        fetch_row(v, b, s0 + s + kRowsAhead, kv, s0, s0 + n, sizes.HS);
        convert_row(to.keys + s * sizes.HS, k.row(b, s0 + s, kv), sizes.HS);
        convert_row(to.values + s * sizes.HS, v.row(b, s0 + s, kv), sizes.HS);
    }
}

/// scores [n][width] of a tile of keys and block i of queries, where seen (null: everywhere) says that some of 32 queries may use one of 32 keys.
template <class T>
void Forward<T>::split_scores(A* scores, int width, int64_t b, int64_t h, int64_t t0, int nq, int i, bool ordinary, int64_t s0, int n,
                              const Seen<A>* seen, char* memory, const Offsets& at) const {
    if constexpr (kSplits<T>) {
        using namespace split_tile;
        const int HS = sizes.HS, steps = HS / kStep;
        const int64_t kv = h / sizes.group;
        const PackedTile<A> tile = packed(b, kv, s0 / kTile, memory, at);
        const bf16 *keys = tile.split_keys, *queries = split_own(memory, at, i);
        const bool checks = !(ordinary && tile.ordinary[0]);
        for (int r = 0; r < n; r += kBlock)
            for (int lane = 0; lane < width; lane += kBlock) {
                if (seen != nullptr && seen->last[lane + kBlock - 1] <= r) continue;
                block_product(scores + r * width + lane, width, kBlock, keys + r * steps * kLineElements, queries + lane * steps * kLineElements, steps,
                              false, checks, [&](float* exact) {
                                  const int rows = smaller(kBlock, n - r);
                                  A* const own = array(memory, at.own[i]);
                                  pack_transposed(own, width, q.row(b, t0, h), q.stride[1], nq, HS, scale.negative, array(memory, at.rows));
                                  const Rows<A> exact_keys = dense_rows(k.row(b, s0 + r, kv), k.stride[1], rows, HS, array(memory, at.keys));
                                  tile_gemm<A, kScoreChain>(exact, kBlock, exact_keys.first, exact_keys.stride, own + lane, width, rows, kBlock, HS, false);
                              });
            }
    }
}

/// sum [HS][width] (+)= what n values add by weights [n][width], behind which zeros are written up to a whole step.
template <class T>
void Forward<T>::split_sum(A* sum, int width, bool add, int64_t b, int64_t kv, int64_t s0, int n, A* weights, const Seen<A>* seen, char* memory,
                           const Offsets& at) const {
    if constexpr (kSplits<T>) {
        using namespace split_tile;
        const int HS = sizes.HS, steps = int(ceil_div(n, kStep));
        const int value_steps = int(ceil_div(smaller(int64_t{kTile}, sizes.length(b) - s0), int64_t{kStep}));
        __builtin_memset(weights + n * width, 0, size_t(steps * kStep - n) * size_t(width) * sizeof(A));
        bf16* const split_weights = reinterpret_cast<bf16*>(memory + at.split_weights);
        pack_terms<false, false>(split_weights, weights, width, width, steps);
        const PackedTile<A> tile = packed(b, kv, s0 / kTile, memory, at);
        const bf16* values = tile.split_values;
        const bool checks = !tile.ordinary[1];
        A* whole = nullptr;  // sums by float32's instructions, once they are needed
        for (int lane = 0; lane < width; lane += kBlock) {
            const int reached = seen == nullptr ? n : smaller(n, int(seen->last[lane + kBlock - 1]));
            const int used = larger(1, int(ceil_div(reached, kStep)));
            for (int c = 0; c < HS; c += kBlock)
                block_product(sum + c * width + lane, width, kBlock, values + c * value_steps * kLineElements,
                              split_weights + lane * steps * kLineElements, used, add, checks, [&](float* exact) {
                                  if (whole == nullptr) {
                                      whole = array(memory, at.exact);
                                      const Rows<A> rows = dense_rows(v.row(b, s0, kv), v.stride[1], n, HS, array(memory, at.values));
                                      add_product(whole, width, rows, n, weights, HS, false, seen, nullptr, array(memory, at.copy), true);
                                  }
                                  for (int i = 0; i < kBlock; ++i)
                                      __builtin_memcpy(exact + i * kBlock, whole + (c + i) * width + lane, kBlock * sizeof(A));
                              });
        }
    }
}

template <class T>
void Forward<T>::query_blocks(int64_t b, int64_t h, int64_t t0, int64_t next_h, int64_t next, bool owned, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t kv = h / sizes.group, length = sizes.length(b), end = smaller<int64_t>(sizes.T, t0 + blocks * kTile);
    const int used = int(ceil_div(end - t0, kTile));
    A *scores = array(memory, at.scores), *rows = array(memory, at.rows);

    [[maybe_unused]] const TileSession session(splits);
    bool ordinary[kBlocks] = {};  // queries
    Softmax<A> softmax[kBlocks];
    FoldedSum<A> weighted[kBlocks] = {FoldedSum<A>(array(memory, at.part[0]), array(memory, at.total[0])),
                                      FoldedSum<A>(array(memory, at.part[blocks - 1]), array(memory, at.total[blocks - 1]))};
    const auto block_of = [&](int i) { return int(smaller<int64_t>(kTile, end - t0 - i * kTile)); };
    const auto visible = [&](int i, int query) { return sizes.visible(t0 + i * kTile + query, length); };
    for (int i = 0; i < used; ++i) {
        const int nq = block_of(i), width = lanes_of(nq);
        softmax[i].start(width);
        weighted[i].start(HS * width);
        if (visible(i, nq - 1) == 0) continue;
        const T* first = q.row(b, t0 + i * kTile, h);
        if (i + 1 < used) prefetch_rows(q.row(b, t0 + (i + 1) * kTile, h), q.stride[1], block_of(i + 1), HS);
        if constexpr (kSplits<T>)
            if (splits && !scale.negative) {
                ordinary[i] = split_rows<false>(split_own(memory, at, i), first, q.stride[1], nq, width, HS);
                continue;
            }
        pack_transposed(array(memory, at.own[i]), width, first, q.stride[1], nq, HS, scale.negative, rows);
        if constexpr (kSplits<T>)
            if (splits && scale.negative)
                ordinary[i] = split_tile::pack_terms<false>(split_own(memory, at, i), array(memory, at.own[i]), width, width, HS / split_tile::kStep);
    }

    Seen<A> seen;
    const int64_t last_visible = visible(used - 1, block_of(used - 1) - 1);
    // Fetched ahead: keys and values that are packed next; with the last two tiles, rows of out and the next queries.
    Fetches fetches;
    bool fetching = false;
    int64_t steps = 0;  // of a tile
    for (int i = 0; i < used; ++i) steps += kTile / kWeights * (lanes_of(block_of(i)) / kLanes<A>);
    for (int64_t s0 = 0; s0 < last_visible; s0 += kTile) {
        const int wanted = int(smaller<int64_t>(kTile, last_visible - s0));
        if (holds && hold(b, kv, s0 / kTile, memory, at)) {
            const int64_t s1 = s0 + kTile, n = smaller<int64_t>(kTile, last_visible - s1);
            if (n > 0) fetches.clear();
            fetches.add(k, b, s1, kv, n, HS);
            fetches.add(v, b, s1, kv, n, HS);
        }
        if (!fetching && last_visible - s0 <= 2 * kTile) {
            fetching = true;
            if (next >= 0) fetches.add(q, b, next, next_h, smaller<int64_t>(blocks * kTile, sizes.T - next), HS);
            fetches.add(out, b, t0, h, end - t0, HS);
        }
        fetches.spread(steps);
        Rows<A> values{nullptr, 0};
        const PackedTile<A> tile = packs ? packed(b, kv, s0 / kTile, memory, at) : PackedTile<A>{};
        const Rows<A> keys = splits  ? Rows<A>{nullptr, 0}
                             : packs ? Rows<A>{tile.keys, HS}
                                     : dense_rows(k.row(b, s0, kv), k.stride[1], wanted, HS, array(memory, at.keys));
        for (int i = 0; i < used; ++i) {
            const int nq = block_of(i), width = lanes_of(nq);
            const int n = int(smaller<int64_t>(wanted, visible(i, nq - 1) - s0));
            if (n <= 0) continue;
            const bool masked = visible(i, 0) < s0 + n;
            if (masked)
                for (int lane = 0; lane < width; ++lane) seen.set(lane, 0, visible(i, smaller(lane, nq - 1)) - s0);
            FoldedSum<A>& sum = weighted[i];
            const Seen<A>* reach = masked ? &seen : nullptr;
            if (splits) split_scores(scores, width, b, h, t0 + i * kTile, nq, i, ordinary[i], s0, n, reach, memory, at);
            else score_products(scores, width, keys, n, array(memory, at.own[i]), HS, reach);
            const A magnitude = A(scale.magnitude);
            const bool changed = masked ? softmax_tile<true>(scores, width, n, magnitude, seen, softmax[i], fetches)
                                        : softmax_tile<false>(scores, width, n, magnitude, seen, softmax[i], fetches);
            if (changed) sum.scale_lanes(softmax[i].factor, width);
            if (splits) {
                split_sum(sum.part(), width, sum.adds(), b, kv, s0, n, scores, reach, memory, at);
                sum.tile_done();
                continue;
            }
            if (values.first == nullptr)
                values = packs ? Rows<A>{tile.values, HS}
                               : dense_rows(v.row(b, s0, kv), v.stride[1], wanted, HS, array(memory, at.values));
            const auto add = [&](auto chain) {
                add_product<decltype(chain)::value>(sum.part(), width, values, n, scores, HS, sum.adds(), reach, nullptr, array(memory, at.copy), true);
            };
            if (sizes.S >= kLongSum) add(Constant<kLongSumChain>{});
            else add(Constant<tile::kChain>{});
            sum.tile_done();
        }
    }

    A* lse_h = lse.head(b, h);
    const double eta = momentum.eta_view == nullptr ? 0 : momentum.eta(h);
    double* m = eta == 0 ? nullptr : reinterpret_cast<double*>(memory + at.m);
    if (m != nullptr) {
        if (carries_by_head && owned) hold_carries(b, kv, sizes.position(t0), memory, at);
        momentum.start(m, b, sizes.position(t0), h, eta);
    }
    for (int i = 0; i < used; ++i) {
        const int nq = block_of(i), width = lanes_of(nq);
        A* result = weighted[i].finish();
        for (int lane = 0; lane < width; lane += kLanes<A>) {
            A sums[kLanes<A>];
            for (int j = 0; j < kLanes<A>; ++j) sums[j] = A(softmax[i].sum[lane + j]);
            const Vec<A> sum = load(sums), inverse = A(1) / sum;
            for (int c = lane; c < HS * width; c += width) store(result + c, select(sum == A(0), Vec<A>{}, load(result + c) * inverse));
        }
        transpose_rows(rows, HS, result, width, HS, nq);
        const int64_t t = t0 + i * kTile;
        log_sum_exps(lse_h + t, softmax[i].shift, softmax[i].sum, 1.0, nq);
        for (int j = 0; j < nq && attn; ++j) put_row(attn.row(b, t + j, h), rows + j * HS, HS);
        const int64_t p = sizes.position(t);
        if (m != nullptr) with_values(b, h, p, memory, at, [&](const auto& values) { momentum.add(rows, nq, m, values, p, eta); });
        for (int j = 0; j < nq; ++j) put_row(out.row(b, t + j, h), rows + j * HS, HS);
    }
}

/// T = 1: the query sees every key within length.
template <class T>
void Forward<T>::lone_query(int64_t b, int64_t h, char* memory, const Offsets& at) const {
    const int HS = sizes.HS, HSp = int(round_up(HS, kLanes<A>)), whole = HS / kLanes<A> * kLanes<A>;
    const int64_t kv = h / sizes.group, length = sizes.length(b);
    A *row = array(memory, at.rows), *scores = array(memory, at.scores), *rows = array(memory, at.values);
    convert_row(row, q.row(b, 0, h), HS);
    const A factor_of_score = A(scale.negative ? -scale.magnitude : scale.magnitude);

    A max = kMinusInfinity<A>;
    double sum = 0;
    FoldedSum<A> weighted(array(memory, at.part[0]), array(memory, at.total[0]));
    weighted.start(HSp);
    for (int64_t s0 = 0; s0 < length; s0 += kTile) {
        const int n = int(smaller<int64_t>(kTile, length - s0));
        for (int s = 0; s < n; ++s) {
            const T* k_s = k.row(b, s0 + s, kv);
            prefetch_rows(v.row(b, s0 + s, kv), 0, 1, HS);
            fetch_row(k, b, s0 + s + kRowsAhead, kv, s0, length, HS);
            Vec<A> products = {};
            for (int c = 0; c < whole; c += kLanes<A>) products += load(row + c) * load(k_s + c);
            A score = lane_sum<A>(products);
            for (int c = whole; c < HS; ++c) score += row[c] * get(k_s + c);
            scores[s] = score * factor_of_score;
        }
        for (int s = n; s < kTile; ++s) scores[s] = kMinusInfinity<A>;
        Vec<A> maxima = splat<A>(max);
        for (int s = 0; s < kTile; s += kLanes<A>) maxima = vmax(maxima, load(scores + s));
        const A new_max = lane_max<A>(maxima), shift = new_max == kMinusInfinity<A> ? A(0) : new_max;
        Vec<A> sums = {};
        for (int s = 0; s < kTile; s += kLanes<A>) {
            const Vec<A> weights = vexp<A>(load(scores + s) - shift);
            store(scores + s, weights);
            sums += weights;
        }
        A factor[kLanes<A>];
        store(factor, vexp<A>(splat<A>(max - shift)));
        for (int i = 1; i < kLanes<A>; ++i) factor[i] = factor[0];
        if (!(factor[0] == A(1))) weighted.scale_lanes(factor, kLanes<A>);
        sum = sum * double(factor[0]) + double(lane_sum<A>(sums));
        max = new_max;

        Rows<A> values{nullptr, 0};
        if (sizeof(T) == sizeof(A) && HS == HSp) {
            values = read_rows(v.row(b, s0, kv), v.stride[1], n, HS, rows);
        } else {
            for (int s = 0; s < n; ++s) convert_row(rows + s * HSp, v.row(b, s0 + s, kv), HS);
            values = {rows, HSp};
        }
        tile_gemm(weighted.part(), HSp, scores, kTile, values.first, values.stride, 1, HS, n, weighted.adds());
        weighted.tile_done();
    }

    const A* result = weighted.finish();
    for (int c = 0; c < HS; ++c) row[c] = sum == 0 ? A(0) : result[c] / A(sum);
    lse.head(b, h)[0] = log_sum_exp<A>(double(max), sum);
    const double eta = momentum.eta_view == nullptr ? 0 : momentum.eta(h);
    double* m = eta == 0 ? nullptr : reinterpret_cast<double*>(memory + at.m);
    if (m != nullptr) momentum.start(m, b, sizes.position(0), h, eta);
    if (attn) put_row(attn.row(b, 0, h), row, HS);
    for (int c = 0; c < HS && m != nullptr; ++c) row[c] = A(double(row[c]) + m[c]);
    put_row(out.row(b, 0, h), row, HS);
}

template <class T>
int forward(df_queue* queue, const df_attention_args* args, df_error* error) {
    using A = Accumulate<T>;
    Forward<T> pass(queue, args);
    const AttentionSizes& sizes = pass.sizes;
    const bool with_momentum = args->eta != nullptr;
    const int64_t queries = pass.blocks * kTile, blocks = ceil_div(sizes.T, queries);  // of a query head
    const double work = sizes.pairs() * sizes.HS;
    const typename Forward<T>::Offsets at(pass, with_momentum);
    const bool lone = sizes.T == 1 && sizes.S >= kLoneQueryKeys;
    const int64_t heads = sizes.B * sizes.NKV, packed_tiles = pass.packs && !pass.holds && !lone ? heads * pass.tiles : 0;
    // Where workers hold heads, a part is a whole key head, and of the last ones, so that all workers end together, a share of its blocks of
    // queries. Elsewhere it is one block.
    const int64_t of_head = sizes.group * blocks, shares = pass.holds ? smaller(kShares, of_head) : of_head;
    const int64_t whole = pass.holds ? heads - thread_count(queue) : 0, parts = whole + (heads - whole) * shares;
    const int64_t used_workers = task_workers(queue, larger(parts, packed_tiles), work);

    Layout layout;
    const size_t workers = layout.add<char>(int64_t(at.bytes) * used_workers);
    const size_t carries = layout.add<double>(with_momentum ? pass.momentum.carries.elements(sizes.B) : 0);
    const size_t shared = layout.add<char>(packed_tiles * pass.tile_bytes());
    const Scratch scratch(queue, layout.bytes());
    if (!scratch) return out_of_memory(error, with_momentum ? "momentum_attention_forward" : "attention_forward", layout.bytes());

    if (with_momentum) {
        pass.momentum.carries.first = scratch.as<double>(carries);
        pass.carries_by_head = pass.holds && !lone && args->state_in == nullptr && args->state_out == nullptr;
        pass.momentum.compute_carries(queue, pass.carries_by_head ? whole : 0, args->state_in, Type<A>{});
        if (args->state_out != nullptr) pass.momentum.put_state(args->state_out);
    }
    const auto memory = [&](int worker) { return scratch.as<char>(workers) + size_t(worker) * at.bytes; };
    pass.shared = scratch.as<char>(shared);
    for_tasks(queue, packed_tiles, work, [&](int64_t i, int worker) {
        const int64_t tile = i % pass.tiles, head = i / pass.tiles;
        pass.pack(head / sizes.NKV, head % sizes.NKV, tile, memory(worker), at);
    });
    for (int i = 0; i < used_workers; ++i) *reinterpret_cast<Held*>(memory(i) + at.held) = {-1, 0, 0};
    for_tasks(queue, parts, work, [&](int64_t i, int worker) {
        const bool is_whole = i < whole;
        const int64_t kv_head = is_whole ? i : whole + (i - whole) / shares, step = is_whole ? 1 : shares;
        const int64_t b = kv_head / sizes.NKV, h0 = kv_head % sizes.NKV * sizes.group;
        // A head's last queries see the most keys and go first.
        const auto first_of = [&](int64_t x) { return (blocks - 1 - x % blocks) * queries; };
        for (int64_t x = is_whole ? 0 : (i - whole) % shares; x < of_head; x += step) {
            // The block that this worker has next, or is likely to have.
            const int64_t h = h0 + x / blocks, next = pass.holds ? x + step : x + thread_count(queue);
            if (lone) pass.lone_query(b, h, memory(worker), at);
            else pass.query_blocks(b, h, first_of(x), h0 + next / blocks, next < of_head ? first_of(next) : -1, is_whole, memory(worker), at);
        }
    });
    return DF_OK;
}

/// A small call, in float64.
int forward_widened(df_queue* queue, const df_attention_args* args, df_error* error) {
    WidenedTensors tensors;
    const int q = tensors.add(args->q), k = tensors.add(args->k), v = tensors.add(args->v), state_in = tensors.add(args->state_in);
    const int out = tensors.add(args->out), attn = tensors.add(args->attn), lse = tensors.add(args->lse);
    const int state_out = tensors.add(args->state_out);
    const Scratch scratch(queue, tensors.bytes());
    if (!scratch) return out_of_memory(error, args->eta != nullptr ? "momentum_attention_forward" : "attention_forward", tensors.bytes());
    tensors.place(scratch);
    const int inputs[] = {q, k, v, state_in};
    for (int input : inputs) tensors.widen(input);
    df_attention_args wide = *args;
    wide.q = tensors[q];
    wide.k = tensors[k];
    wide.v = tensors[v];
    wide.state_in = tensors[state_in];
    wide.out = tensors[out];
    wide.attn = tensors[attn];
    wide.lse = tensors[lse];
    wide.state_out = tensors[state_out];
    const int status = attention_forward_f64(queue, &wide, error);
    if (status != DF_OK) return status;
    const int outputs[] = {out, attn, lse, state_out};
    for (int output : outputs) tensors.narrow(output);
    return DF_OK;
}

/// Whether scores may be scaled into powers of two: a scale of 0 would make a number of what is masked, one beyond float infinity.
bool is_ordinary(double scale) { return (scale > 1e-30 && scale < 1e30) || (scale < -1e-30 && scale > -1e30); }

}  // namespace

int attention_forward_f64(df_queue* queue, const df_attention_args* args, df_error* error) { return forward<double>(queue, args, error); }

int attention_forward(df_queue* queue, const df_attention_args* args, df_error* error) {
    if (args->q->dtype != DF_F64 && is_widened(AttentionSizes(args))) return forward_widened(queue, args, error);
    const bool lone = args->q->shape[1] == 1 && args->k->shape[1] >= kLoneQueryKeys;
    if (bf16_tile::kCompiled && args->q->dtype == DF_BF16 && bf16_products(queue) != Bf16Products::kWidened && is_ordinary(args->scale) && !lone)
        return attention_forward_bf16(queue, args, error);
    return dispatch(args->q->dtype, [&](auto type) { return forward<typename decltype(type)::type>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
