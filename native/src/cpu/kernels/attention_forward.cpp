// Attention and momentum attention, forward. One task per (b, query head, one or two blocks of 64 queries); the keys stream past with an
// online softmax. A lone query (cached decoding) has a path of its own, vectorised along the head size.
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/attention_widened.h"
#include "cpu/kernels/momentum.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int64_t kPrefetchKeys = 16;  // keys fetched ahead for a lone query: a head's rows lie too far apart for the hardware to guess
constexpr int kBlocks = 2;             // blocks of kTile queries that a task takes along when there are enough tasks: they share copies of keys
constexpr int64_t kPackedQueries = 512;  // queries of a key head from which packing its keys and values beats copying tiles
constexpr int64_t kTasks = 32;         // tasks wanted
constexpr double kLog2E = 1.4426950408889634074;
constexpr float kStaleness = 4;        // what scores may exceed the subtracted maximum by before it moves and sums are rescaled

template <class A>
constexpr A kMinusInfinity = A(-__builtin_inf());

/// Keys and values of every head, packed once for all its queries, in tiles of kTile keys. X is bf16: rows of keys, and values with the keys
/// along the rows; zeros where there is no key or channel. X is the accumulation type: rows of both; nothing where there is no key.
template <class X>
struct PackedHeads {
    static constexpr bool kPairs = sizeof(X) == sizeof(bf16);
    explicit PackedHeads(const AttentionSizes& sizes)
        : tiles(ceil_div(sizes.S, kTile)),
          NKV(sizes.NKV),
          depth(kPairs ? int(round_up(sizes.HS, bf16_tile::kStep)) : sizes.HS),
          rows(kPairs ? int(round_up(sizes.HS, bf16_tile::kBlock)) : sizes.HS) {}
    int64_t count(int64_t B) const { return B * NKV * tiles; }
    int64_t key_elements() const { return int64_t{kTile} * depth; }
    int64_t value_elements() const { return int64_t{kTile} * rows; }
    int64_t at(int64_t b, int64_t kv, int64_t tile) const { return (b * NKV + kv) * tiles + tile; }
    X* key(int64_t b, int64_t kv, int64_t tile) const { return keys + at(b, kv, tile) * key_elements(); }        // [kTile][depth]
    X* value(int64_t b, int64_t kv, int64_t tile) const { return values + at(b, kv, tile) * value_elements(); }  // [rows][kTile] or [kTile][rows]

    int64_t tiles, NKV;
    int depth, rows;
    X *keys = nullptr, *values = nullptr;
};

template <bool Pairs, class A>
struct PackedTypeOf { using type = A; };
template <class A>
struct PackedTypeOf<true, A> { using type = bf16; };

/// Pairs: T is bf16 and the processor multiplies it; otherwise products are formed in A.
template <class T, bool Pairs>
struct Forward {
    using A = Accumulate<T>;
    using Packed = typename PackedTypeOf<Pairs, A>::type;

    explicit Forward(const df_attention_args* args)
        : sizes(args),
          q(args->q),
          k(args->k),
          v(args->v),
          out(args->out),
          attn(args->attn),
          lse(args->lse),
          scale(args->scale),
          momentum{sizes, v, args->eta, ChunkCarries(sizes, args->state_in == nullptr ? 0 : sizes.S - sizes.T)},
          packed(sizes),
          packs(Pairs || (sizes.T * sizes.group >= kPackedQueries && (sizeof(T) != sizeof(A) || k.stride[1] != sizes.HS))),
          blocks(sizes.B * sizes.NH * ceil_div(sizes.T, kBlocks * kTile) >= kTasks ? kBlocks : 1) {}

    /// A worker's scratch; [HS][lanes] unless said. lanes is that of a whole block.
    struct Offsets {
        Offsets(const Forward& pass, bool with_momentum) {
            Layout layout;
            const AttentionSizes& sizes = pass.sizes;
            const int64_t lanes = pass.lanes(sizes.T), n = smaller<int64_t>(kTile, sizes.S);
            const int64_t HSp = round_up(sizes.HS, larger(kLanes<A>, bf16_tile::kStep));
            for (int i = 0; i < pass.blocks; ++i) {
                own[i] = Pairs ? layout.add<bf16>(pass.packed.depth * lanes) : layout.add<A>(sizes.HS * lanes);
                part[i] = layout.add<A>(HSp * lanes);
                total[i] = layout.add<A>(HSp * lanes);
            }
            scores = layout.add<A>(kTile * larger<int64_t>(lanes, Pairs ? HSp / 2 : 0));  // [kTile][lanes]
            weights = layout.add<bf16>(Pairs ? kTile * lanes : 0);                        // [kTile / 2][lanes][2]
            keys = layout.add<A>(n * HSp);                                                // [n][HS], where they cannot be read in place
            values = layout.add<A>(n * HSp);                                              // [n][HS]
            copy = layout.add<A>(n * sizes.HS);                                           // values without Inf and NaN [n][HS]
            rows = layout.add<A>(larger<int64_t>(lanes, kTile) * HSp);                    // [lanes][HS]
            m = layout.add<double>(with_momentum ? HSp : 0);                              // [HS]
            bytes = layout.bytes();
        }
        size_t own[kBlocks], part[kBlocks], total[kBlocks], scores, weights, keys, values, copy, rows, m, bytes;
    };

    int lanes(int64_t queries) const {
        const int n = lanes_for<A>(queries);
        return Pairs ? int(round_up(n, bf16_tile::kBlock)) : n;
    }
    void pack(int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const;
    void query_blocks(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const;
    void lone_query(int64_t b, int64_t h, char* memory, const Offsets& at) const;
    void write_row(int64_t b, int64_t h, int64_t t, const A* row, const double* m) const;
    A* array(char* memory, size_t offset) const { return reinterpret_cast<A*>(memory + offset); }
    bf16* halves(char* memory, size_t offset) const { return reinterpret_cast<bf16*>(memory + offset); }

    AttentionSizes sizes;
    Heads<T> q, k, v, out, attn;
    RowValues<A> lse;
    Scale scale;
    Momentum<T> momentum;
    PackedHeads<Packed> packed;
    bool packs;  // otherwise rows are read in place, or copied tile by tile
    int blocks;
    bool tiles = false;  // Pairs: on AMX tiles
};

/// 2^x for x that is not far above 0, within 1.1e-7: weights that are rounded to bfloat16 need no more. Exactly 0 below 2^-125, NaN for NaN.
inline Vec<float> power_of_two(Vec<float> x) {
#if defined(__AVX512F__)
    const float magic = 12582912.0f, lowest = -125.0f;
    const Vec<float> n = (x + magic) - magic, r = x - n;
    Vec<float> p = splat<float>(0.0013264727f);  // minimax fit
    p = p * r + 0.009671513f;
    p = p * r + 0.055507336f;
    p = p * r + 0.24022242f;
    p = p * r + 0.693147f;
    p = p * r + 1.0f;
    Vec<float> y;
    asm("vcmpnleps %3, %1, %%k1\n\tvscalefps %2, %4, %0%{%%k1%}%{z%}" : "=&v"(y) : "v"(x), "v"(n), "v"(splat<float>(lowest)), "v"(p) : "k1");
    return y;
#else
    (void)x;
    __builtin_unreachable();
#endif
}

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
/// may lag behind a little: exponentials and their sums are as exact, and sums seldom need another factor. exponential(x): of these scores.
template <class A, class Exponential>
inline __attribute__((always_inline)) Vec<A> move_shift(Softmax<A>& state, int lane, Vec<A> tile_max, Exponential&& exponential) {
    const Vec<A> old = load(state.shift + lane), next = select(tile_max > old + A(kStaleness), tile_max, old);
    store(state.shift + lane, next);
    // A row that has met nothing but -inf subtracts 0: its weights are exp(-inf) = 0.
    const Vec<A> shift = select(next == kMinusInfinity<A>, Vec<A>{}, next);
    store(state.factor + lane, exponential(old - shift));
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
/// multiplied by. Returns whether some factor is not 1.
template <bool Masked, class A>
bool softmax_tile(A* products, int lanes, int n, A scale, const Seen<A>& seen, Softmax<A>& state) {
    bool changed = false;
    for (int lane = 0; lane < lanes; lane += kLanes<A>) {
        A* const column = products + lane;
        const typename Seen<A>::Lanes used = Masked ? seen.lanes(lane) : typename Seen<A>::Lanes{};
        const int reached = Masked ? smaller(n, int(seen.last[lane + kLanes<A> - 1])) : n;  // beyond, no lane uses a row
        Vec<A> maxima[4];
        for (Vec<A>& m : maxima) m = splat<A>(kMinusInfinity<A>);
        const auto scaled = [&](int s) __attribute__((always_inline)) {
            Vec<A> x = rounded(load(column + s * lanes) * scale);
            if (Masked) x = select(used.mask(s), x, splat<A>(kMinusInfinity<A>));
            store(column + s * lanes, x);
            return x;
        };
        int s = 0;
        for (; s + 4 <= reached; s += 4)
            for (int i = 0; i < 4; ++i) maxima[i] = vmax(maxima[i], scaled(s + i));
        for (; s < reached; ++s) maxima[0] = vmax(maxima[0], scaled(s));
        const Vec<A> shift = move_shift(state, lane, vmax(vmax(maxima[0], maxima[1]), vmax(maxima[2], maxima[3])),
                                        [](Vec<A> x) { return exp_of_shifted(x); });
        Vec<A> tile_sum = {};
        for (s = 0; s < reached;) {
            Vec<A> chain = {};  // short chains of additions, as in tile_gemm
            for (const int end = smaller(reached, s + 16); s < end; ++s) {
                const Vec<A> w = exp_of_shifted(load(column + s * lanes) - shift);
                store(column + s * lanes, w);
                chain += w;
            }
            tile_sum += chain;
        }
        for (; s < n; ++s) store(column + s * lanes, Vec<A>{});
        changed |= add_weights(state, lane, tile_sum);
    }
    return changed;
}

/// The same for weights rounded to bfloat16: pairs [n/2][lanes][2] = 2^(scale product - shift), with zeros up to kStep rows. scale, which is
/// above 0, and the shift are those of powers of two. products are only read.
template <bool Masked>
bool softmax_tile_pairs(const float* products, bf16* pairs, int lanes, int n, float scale, const Seen<float>& seen, Softmax<float>& state) {
    bool changed = false;
    for (int lane = 0; lane < lanes; lane += kLanes<float>) {
        const float* const column = products + lane;
        const Seen<float>::Lanes used = Masked ? seen.lanes(lane) : Seen<float>::Lanes{};
        const int reached = Masked ? smaller(n, int(seen.last[lane + kLanes<float> - 1])) : n;  // beyond, no lane uses a row
        Vec<float> maxima[4];
        for (Vec<float>& m : maxima) m = splat<float>(kMinusInfinity<float>);
        const auto product = [&](int s) __attribute__((always_inline)) {
            const Vec<float> x = load(column + s * lanes);
            return Masked ? select(used.mask(s), x, splat<float>(kMinusInfinity<float>)) : x;
        };
        int s = 0;
        for (; s + 4 <= reached; s += 4)
            for (int i = 0; i < 4; ++i) maxima[i] = vmax(maxima[i], product(s + i));
        for (; s < reached; ++s) maxima[0] = vmax(maxima[0], product(s));
        const Vec<float> shift = move_shift(state, lane, vmax(vmax(maxima[0], maxima[1]), vmax(maxima[2], maxima[3])) * scale, power_of_two);
        Vec<float> sums[2] = {};  // of few terms each: pairwise enough
        const auto weight = [&](int row) __attribute__((always_inline)) { return power_of_two(product(row) * scale - shift); };
        const auto pair = [&](int row, Vec<float> even, Vec<float> odd) __attribute__((always_inline)) {
            bf16_tile::store_pairs(pairs + (row * lanes + 2 * lane), even, odd);
        };
        Vec<float> tile_sum = {};
        for (s = 0; s + 2 <= reached;) {
            for (Vec<float>& sum : sums) sum = Vec<float>{};
            for (const int end = smaller(reached, s + 16); s + 2 <= end; s += 2) {
                const Vec<float> even = weight(s), odd = weight(s + 1);
                pair(s, even, odd);
                sums[0] += even;
                sums[1] += odd;
            }
            tile_sum += sums[0] + sums[1];
        }
        if (s < reached) {
            const Vec<float> even = weight(s);
            pair(s, even, Vec<float>{});
            tile_sum += even;
            s += 2;
        }
        for (; s < int(round_up(n, bf16_tile::kStep)); s += 2) __builtin_memset(pairs + (s * lanes + 2 * lane), 0, kVectorBytes);
        changed |= add_weights(state, lane, tile_sum);
    }
    return changed;
}

template <class A>
A log_sum_exp(double shift, double sum) {
    return sum == 0 ? kMinusInfinity<A> : A(shift + log(sum));
}

/// lse[i] = log_sum_exp(shift[i] unit, sum[i]) for n lanes.
template <class A>
void log_sum_exps(A* lse, const Softmax<A>& state, double unit, int n) {
    for (int i = 0; i < n; i += kLanes<double>) {
        double logs[kLanes<double>];
        store(logs, log_of_normal(load(state.sum + i)));
        for (int j = 0; j < smaller(kLanes<double>, n - i); ++j) {
            const double sum = state.sum[i + j];
            const bool ordinary = sum > 1e-300 && sum < 1e300;
            const double shift = double(state.shift[i + j]) * unit;
            lse[i + j] = ordinary ? A(shift + logs[j]) : log_sum_exp<A>(shift, sum);
        }
    }
}

/// Stores row t of the attention part, and of the output: that plus m (null: nothing is added).
template <class T, bool Pairs>
void Forward<T, Pairs>::write_row(int64_t b, int64_t h, int64_t t, const A* row, const double* m) const {
    T* out_t = out.row(b, t, h);
    if (m == nullptr) {
        put_row(out_t, row, sizes.HS);
    } else {
        A sum[256];
        for (int c = 0; c < sizes.HS; ++c) sum[c] = A(double(row[c]) + m[c]);
        put_row(out_t, sum, sizes.HS);
    }
    if (attn) put_row(attn.row(b, t, h), row, sizes.HS);
}

/// Keys and values of one tile, as PackedHeads has them.
template <class T, bool Pairs>
void Forward<T, Pairs>::pack(int64_t b, int64_t kv, int64_t tile, char* memory, const Offsets& at) const {
    const int64_t s0 = tile * kTile;
    const int n = int(larger<int64_t>(0, smaller<int64_t>(kTile, sizes.length(b) - s0)));
    Packed *keys = packed.key(b, kv, tile), *values = packed.value(b, kv, tile);
    if constexpr (Pairs) {
        pack_rows(keys, packed.depth, k.row(b, s0, kv), k.stride[1], n, kTile, sizes.HS);
        pack_columns(values, kTile, v.row(b, s0, kv), v.stride[1], n, sizes.HS, packed.rows, halves(memory, at.scores));
    } else {
        for (int s = 0; s < n; ++s) {
            convert_row(keys + s * sizes.HS, k.row(b, s0 + s, kv), sizes.HS);
            convert_row(values + s * sizes.HS, v.row(b, s0 + s, kv), sizes.HS);
        }
    }
}

template <class T, bool Pairs>
void Forward<T, Pairs>::query_blocks(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t kv = h / sizes.group, length = sizes.length(b), end = smaller<int64_t>(sizes.T, t0 + blocks * kTile);
    const int used = int(ceil_div(end - t0, kTile));
    A *scores = array(memory, at.scores), *rows = array(memory, at.rows);
    bf16* pairs = halves(memory, at.weights);
    const bf16_tile::TileSession session(Pairs && tiles);

    Softmax<A> softmax[kBlocks];
    FoldedSum<A> weighted[kBlocks] = {FoldedSum<A>(array(memory, at.part[0]), array(memory, at.total[0])),
                                      FoldedSum<A>(array(memory, at.part[blocks - 1]), array(memory, at.total[blocks - 1]))};
    const auto block_of = [&](int i) { return int(smaller<int64_t>(kTile, end - t0 - i * kTile)); };
    const auto visible = [&](int i, int query) { return sizes.visible(t0 + i * kTile + query, length); };
    for (int i = 0; i < used; ++i) {
        const int nq = block_of(i), width = lanes(nq);
        softmax[i].start(width);
        weighted[i].start((Pairs ? packed.rows : HS) * width);
        if (visible(i, nq - 1) == 0) continue;
        const T* first = q.row(b, t0 + i * kTile, h);
        if (i + 1 < used) prefetch_rows(q.row(b, t0 + (i + 1) * kTile, h), q.stride[1], block_of(i + 1), HS);
        if constexpr (Pairs)
            pack_row_pairs(halves(memory, at.own[i]), width, first, q.stride[1], nq, HS, packed.depth, scale.negative, halves(memory, at.rows));
        else
            pack_transposed(array(memory, at.own[i]), width, first, q.stride[1], nq, HS, scale.negative, rows);
    }

    Seen<A> seen;
    const int64_t last_visible = visible(used - 1, block_of(used - 1) - 1);
    for (int64_t s0 = 0; s0 < last_visible; s0 += kTile) {
        const int wanted = int(smaller<int64_t>(kTile, last_visible - s0));
        Rows<A> keys{nullptr, 0}, values{nullptr, 0};
        if constexpr (!Pairs)
            keys = packs ? Rows<A>{packed.key(b, kv, s0 / kTile), HS} : dense_rows(k.row(b, s0, kv), k.stride[1], wanted, HS, array(memory, at.keys));
        for (int i = 0; i < used; ++i) {
            const int nq = block_of(i), width = lanes(nq);
            const int n = int(smaller<int64_t>(wanted, visible(i, nq - 1) - s0));
            if (n <= 0) continue;
            const bool masked = visible(i, 0) < s0 + n;
            if (masked)
                for (int lane = 0; lane < width; ++lane) seen.set(lane, 0, visible(i, smaller(lane, nq - 1)) - s0);
            FoldedSum<A>& sum = weighted[i];
            const auto weigh = [&] {
                bool changed;
                if constexpr (Pairs) {
                    const float magnitude = float(scale.magnitude * kLog2E);
                    changed = masked ? softmax_tile_pairs<true>(scores, pairs, width, n, magnitude, seen, softmax[i])
                                     : softmax_tile_pairs<false>(scores, pairs, width, n, magnitude, seen, softmax[i]);
                } else {
                    const A magnitude = A(scale.magnitude);
                    changed = masked ? softmax_tile<true>(scores, width, n, magnitude, seen, softmax[i])
                                     : softmax_tile<false>(scores, width, n, magnitude, seen, softmax[i]);
                }
                if (changed) sum.scale_lanes(softmax[i].factor, width);
            };
            const auto values_in_place = [&] { return dense_rows(v.row(b, s0, kv), v.stride[1], wanted, HS, array(memory, at.values)); };
            if constexpr (Pairs) {
                const int64_t tile = s0 / kTile;
                bf16_tile::gemm(tiles, scores, width, packed.key(b, kv, tile), packed.depth, halves(memory, at.own[i]), width,
                                int(round_up(n, bf16_tile::kBlock)), width, packed.depth, false);
                weigh();
                if (!masked || all_finite(v.row(b, s0, kv), v.stride[1], n, HS)) {
                    bf16_tile::gemm(tiles, sum.part(), width, packed.value(b, kv, tile), kTile, pairs, width, packed.rows, width,
                                    int(round_up(n, bf16_tile::kStep)), sum.adds());
                } else {
                    widen_pairs(scores, pairs, width, n);
                    add_product(sum.part(), width, values_in_place(), n, scores, HS, sum.adds(), &seen, nullptr, array(memory, at.copy));
                    if (!sum.adds()) __builtin_memset(sum.part() + HS * width, 0, size_t(packed.rows - HS) * size_t(width) * sizeof(A));
                }
            } else {
                score_products(scores, width, keys, n, array(memory, at.own[i]), HS, masked ? &seen : nullptr);
                weigh();
                if (values.first == nullptr) values = packs ? Rows<A>{packed.value(b, kv, s0 / kTile), HS} : values_in_place();
                add_product(sum.part(), width, values, n, scores, HS, sum.adds(), masked ? &seen : nullptr, nullptr, array(memory, at.copy),
                            true);
            }
            sum.tile_done();
        }
    }

    A* lse_h = lse.head(b, h);
    const double eta = momentum.eta_view == nullptr ? 0 : momentum.eta(h);
    double* m = eta == 0 ? nullptr : reinterpret_cast<double*>(memory + at.m);
    if (m != nullptr) momentum.start(m, b, sizes.position(t0), h, eta);
    for (int i = 0; i < used; ++i) {
        const int nq = block_of(i), width = lanes(nq);
        A* result = weighted[i].finish();
        for (int lane = 0; lane < width; lane += kLanes<A>) {
            A sums[kLanes<A>];
            for (int j = 0; j < kLanes<A>; ++j) sums[j] = A(softmax[i].sum[lane + j]);
            const Vec<A> sum = load(sums), inverse = A(1) / sum;
            for (int c = lane; c < HS * width; c += width) store(result + c, select(sum == A(0), Vec<A>{}, load(result + c) * inverse));
        }
        transpose_rows(rows, HS, result, width, HS, nq);
        const int64_t t = t0 + i * kTile;
        log_sum_exps(lse_h + t, softmax[i], Pairs ? scale.magnitude / double(A(scale.magnitude * kLog2E)) : 1.0, nq);
        for (int j = 0; j < nq; ++j) {
            write_row(b, h, t + j, rows + j * HS, m);
            if (m != nullptr && t + j + 1 < end) momentum.step(m, b, sizes.position(t + j), h, eta);
        }
    }
}

/// T = 1: the query sees every key within length.
template <class T, bool Pairs>
void Forward<T, Pairs>::lone_query(int64_t b, int64_t h, char* memory, const Offsets& at) const {
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
            if (s0 + s + kPrefetchKeys < length) prefetch_rows(k.row(b, s0 + s + kPrefetchKeys, kv), 0, 1, HS);
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
    write_row(b, h, 0, row, m);
}

/// state_out = m_S.
template <class T>
void write_state(const Momentum<T>& momentum, const df_view* state_out) {
    using A = Accumulate<T>;
    const AttentionSizes& sizes = momentum.sizes;
    for (int64_t b = 0; b < sizes.B; ++b)
        for (int64_t h = 0; h < sizes.NH; ++h) {
            A* state = data<A>(state_out) + b * state_out->stride[0] + h * state_out->stride[1];
            const double* m = momentum.carries.at(b, h, momentum.carries.chunks);
            for (int c = 0; c < sizes.HS; ++c) state[c] = momentum.eta(h) == 0 ? A(0) : A(m[c]);
        }
}

template <class T, bool Pairs>
int forward(df_queue* queue, const df_attention_args* args, df_error* error) {
    using A = Accumulate<T>;
    Forward<T, Pairs> pass(args);
    pass.tiles = bf16_products(queue) == Bf16Products::kTiles;
    const AttentionSizes& sizes = pass.sizes;
    const bool with_momentum = args->eta != nullptr;
    const int64_t queries = pass.blocks * kTile, blocks = ceil_div(sizes.T, queries), tasks = sizes.B * sizes.NH * blocks;
    const double work = sizes.pairs() * sizes.HS;
    const typename Forward<T, Pairs>::Offsets at(pass, with_momentum);
    const bool lone = sizes.T == 1 && sizes.S >= kLoneQueryKeys;
    const int64_t packed_tiles = pass.packs && !lone ? pass.packed.count(sizes.B) : 0;

    Layout layout;
    const size_t workers = layout.add<char>(int64_t(at.bytes) * task_workers(queue, larger(tasks, packed_tiles), work));
    const size_t carries = layout.add<double>(with_momentum ? pass.momentum.carries.elements(sizes.B) : 0);
    const size_t keys = layout.add<typename Forward<T, Pairs>::Packed>(packed_tiles * pass.packed.key_elements());
    const size_t values = layout.add<typename Forward<T, Pairs>::Packed>(packed_tiles * pass.packed.value_elements());
    const Scratch scratch(queue, layout.bytes());
    if (!scratch) return out_of_memory(error, with_momentum ? "momentum_attention_forward" : "attention_forward", layout.bytes());

    if (with_momentum) {
        pass.momentum.carries.first = scratch.as<double>(carries);
        pass.momentum.compute_carries(queue, args->state_in, Type<A>{});
        if (args->state_out != nullptr) write_state(pass.momentum, args->state_out);
    }
    const auto memory = [&](int worker) { return scratch.as<char>(workers) + size_t(worker) * at.bytes; };
    pass.packed.keys = scratch.as<typename Forward<T, Pairs>::Packed>(keys);
    pass.packed.values = scratch.as<typename Forward<T, Pairs>::Packed>(values);
    for_tasks(queue, packed_tiles, work, [&](int64_t i, int worker) {
        const int64_t tile = i % pass.packed.tiles, head = i / pass.packed.tiles;
        pass.pack(head / sizes.NKV, head % sizes.NKV, tile, memory(worker), at);
    });
    for_tasks(queue, tasks, work, [&](int64_t i, int worker) {
        // Head after head, whose keys and values stay in the cache; its last queries see the most keys and go first.
        const int64_t head = i / blocks, b = head / sizes.NH, h = head % sizes.NH, block = blocks - 1 - i % blocks;
        if (lone) return pass.lone_query(b, h, memory(worker), at);
        pass.query_blocks(b, h, block * queries, memory(worker), at);
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

int attention_forward_f64(df_queue* queue, const df_attention_args* args, df_error* error) { return forward<double, false>(queue, args, error); }

int attention_forward(df_queue* queue, const df_attention_args* args, df_error* error) {
    if (args->q->dtype != DF_F64 && is_widened(AttentionSizes(args))) return forward_widened(queue, args, error);
    if constexpr (bf16_tile::kCompiled)
        if (args->q->dtype == DF_BF16 && bf16_products(queue) != Bf16Products::kWidened && is_ordinary(args->scale))
            return forward<bf16, true>(queue, args, error);
    return dispatch(args->q->dtype, [&](auto type) { return forward<typename decltype(type)::type, false>(queue, args, error); });
}

}  // namespace dualform::cpu::DF_ISA
