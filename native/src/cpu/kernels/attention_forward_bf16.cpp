// Attention and momentum attention of bfloat16, forward, where the processor multiplies it. Strips of 16 queries are the rows of every tile:
// scores [query][key], weights, output. So queries and outputs lie as they do in memory, a row's softmax needs no other row, and what a strip
// keeps fits the L1 cache while the packed keys and values stream past it.
#include "cpu/kernels/attention_tile.h"
#include "cpu/kernels/momentum.h"

namespace dualform::cpu::DF_ISA {

#if defined(__AVX512F__)

namespace {

constexpr int kStrip = bf16_tile::kBlock;            // queries of a strip
constexpr int kStep = bf16_tile::kStep;              // terms of a tile product
constexpr int kOperand = kStrip * kStep;             // elements of an operand's tile
constexpr int kSums = kStrip * kStrip;               // elements of a tile of sums
constexpr int kMostStrips = 8;                       // of a task when there are enough tasks: they share the keys in the L2 cache
constexpr int kFewStrips = 4;                        // else
constexpr int64_t kTasks = 32;                       // wanted
constexpr int64_t kChunkKeys = kFoldTiles * kTile;   // what every strip of a task takes before the sums join their total
constexpr int64_t kHeads = 16;                       // of keys for each thread, from which a task takes a whole one
constexpr int kMostWaiting = 4 * kTile;              // keys whose weights wait for one product, where a head is wide
constexpr double kLog2E = 1.4426950408889634074;
constexpr float kMinusInfinity = -__builtin_inff();

/// 2^x for x that is not far above 0, within 1.5e-7: weights that are rounded to bfloat16 need no more. Exactly 0 below 2^-125, NaN for NaN.
inline Vec<float> power_of_two(Vec<float> x) {
    const float lowest = -125.0f;
    Vec<float> r, y;
    asm("vreduceps $1, %1, %0" : "=v"(r) : "v"(x));  // x - floor(x)
    Vec<float> p = splat<float>(0.00186713017f);     // minimax fit
    p = p * r + 0.00901702978f;
    p = p * r + 0.0557999127f;
    p = p * r + 0.240164444f;
    p = p * r + 0.693151295f;
    p = p * r + 1.0f;
    asm("vcmpnleps %3, %1, %%k1\n\tvscalefps %1, %2, %0%{%%k1%}%{z%}" : "=&v"(y) : "v"(x), "v"(p), "v"(splat<float>(lowest)) : "k1");
    return y;
}

/// Whether some lane of x is above limit.
inline bool any_above(Vec<float> x, float limit) {
    bool any;
    asm("vcmpgt_oqps %2, %1, %%k1\n\tkortestw %%k1, %%k1" : "=@ccnz"(any) : "v"(x), "v"(splat<float>(limit)) : "k1");
    return any;
}

/// Keys and values of every head, packed once for all its queries, in tiles of kTile keys; zeros where there is no key or channel.
struct PackedHeads {
    explicit PackedHeads(const AttentionSizes& sizes)
        : tiles(ceil_div(sizes.S, kTile)), NKV(sizes.NKV), depth(int(round_up(sizes.HS, kStep))), rows(int(round_up(sizes.HS, kStrip))) {}
    int64_t count(int64_t B) const { return B * NKV * tiles; }
    int64_t key_elements() const { return int64_t{kTile} * depth; }
    int64_t value_elements() const { return int64_t{kTile} * rows; }
    int64_t at(int64_t b, int64_t kv, int64_t tile) const { return (b * NKV + kv) * tiles + tile; }
    bf16* key(int64_t b, int64_t kv, int64_t tile) const { return keys + at(b, kv, tile) * key_elements(); }
    bf16* value(int64_t b, int64_t kv, int64_t tile) const { return values + at(b, kv, tile) * value_elements(); }

    int64_t tiles, NKV;
    int depth, rows;
    bf16* keys = nullptr;      // [kTile / 16][depth / 32][16 pairs of channels][16 keys][2]
    bf16* values = nullptr;    // [kTile / 32][rows / 16][16 pairs of keys][16 channels][2]
    bool* finite = nullptr;    // of a tile's values
};

/// f over the lanes of every row, in pairs: one lane for each row.
template <class F>
inline Vec<float> fold_rows(const float (&rows)[kStrip][kStrip], F&& f) {
    float lanes[kStrip][kStrip];
    transpose_rows(lanes[0], kStrip, rows[0], kStrip, kStrip, kStrip);
    Vec<float> folded[kStrip / 2];
    for (int i = 0; i < kStrip / 2; ++i) folded[i] = f(load(lanes[i]), load(lanes[i + kStrip / 2]));
    for (int half = kStrip / 4; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) folded[i] = f(folded[i], folded[i + half]);
    return folded[0];
}

/// What a strip's softmax subtracts, and the sums of its weights.
struct Strip {
    void start() {
        store(shift, splat<float>(kMinusInfinity));
        for (double& x : sum) x = 0;
        for (auto& row : chunk_sum) store(row, Vec<float>{});
    }
    /// A row that has met nothing but -inf subtracts 0: its weights are 2^-inf = 0.
    float subtracted(int row) const { return shift[row] == kMinusInfinity ? 0.0f : shift[row]; }
    /// Moves what rows subtract to the largest scores that exceed it by too much; earlier sums get a factor.
    void move_shift(Vec<float> largest) {
        const Vec<float> old = load(shift), next = select(largest > old + kStaleness, largest, old);
        store(shift, next);
        store(factor, power_of_two(old - select(next == kMinusInfinity, Vec<float>{}, next)));
        for (int row = 0; row < kStrip; ++row) {
            sum[row] *= double(factor[row]);
            store(chunk_sum[row], load(chunk_sum[row]) * factor[row]);
        }
    }
    void end_chunk() {
        float sums[kStrip];
        store(sums, fold_rows(chunk_sum, [](Vec<float> a, Vec<float> b) { return a + b; }));
        for (int row = 0; row < kStrip; ++row) sum[row] += double(sums[row]);
        for (auto& row : chunk_sum) store(row, Vec<float>{});
    }
    float shift[kStrip], factor[kStrip];
    double sum[kStrip];
    float chunk_sum[kStrip][kStrip];
};

/// Products [n / 16][row][16] of a strip with n keys. All: every row uses all kTile keys; else row uses the first seen[row] of n.
template <bool All>
struct Products {
    int vectors() const { return All ? kTile / kStrip : n / kStrip; }
    Vec<float> at(int row, int i) const {
        const Vec<float> x = load(first + i * kSums + row * kStrip);
        if (All) return x;
        typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));
        const Ints key = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        return select(key < seen[row] - i * kStrip, x, splat<float>(kMinusInfinity));
    }
    const float* first;
    int n;
    const int* seen;
};

/// Moves shifts that scale products exceed by too much. Returns whether there were some.
template <bool All>
inline bool move_shifts(const Products<All>& products, float scale, Strip& strip) {
    float maxima[kStrip][kStrip];
    bool exceeded = false;
    for (int row = 0; row < kStrip; ++row) {
        Vec<float> max = products.at(row, 0);
        for (int i = 1; i < products.vectors(); ++i) max = vmax(max, products.at(row, i));
        max = rounded(max * scale);
        store(maxima[row], max);
        exceeded |= any_above(max, strip.shift[row] + kStaleness);
    }
    if (exceeded) strip.move_shift(fold_rows(maxima, [](Vec<float> a, Vec<float> b) { return vmax(a, b); }));
    return exceeded;
}

/// weights [n / 32][row][32] = 2^(scale product - shift), which the sums take in.
template <bool All>
inline void weigh(bf16* weights, const Products<All>& products, float scale, Strip& strip) {
    for (int row = 0; row < kStrip; ++row) {
        const float shift = strip.subtracted(row);
        const bool huge = any_huge(&shift, 1);
        const auto weight = [&](int i) __attribute__((always_inline)) {
            const Vec<float> x = products.at(row, i);
            return power_of_two(huge ? rounded(x * scale) - shift : x * scale - shift);
        };
        Vec<float> sum = {};
        for (int i = 0; i < products.vectors(); i += 2) {
            const Vec<float> low = weight(i), high = weight(i + 1);
            bf16_tile::store_rounded(weights + i / 2 * kOperand + row * kStep, low, high);
            sum += low + high;
        }
        store(strip.chunk_sum[row], load(strip.chunk_sum[row]) + sum);
    }
}

struct ForwardBf16 {
    explicit ForwardBf16(const df_attention_args* args)
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
          strips(sizes.B * sizes.NH * ceil_div(sizes.T, kMostStrips * kStrip) >= kTasks ? kMostStrips : kFewStrips),
          most_waiting(packed.rows > kTile ? kMostWaiting : kTile) {}

    /// A worker's scratch.
    struct Offsets {
        Offsets(const ForwardBf16& pass, bool with_momentum) {
            Layout layout;
            const int64_t depth = pass.packed.depth, rows = pass.packed.rows;
            own = layout.add<bf16>(pass.strips * kStrip * depth);     // [strips][depth / 32][16][32]
            total = layout.add<float>(pass.strips * kStrip * rows);   // [strips][rows / 16][16][16]
            part = layout.add<float>(kStrip * rows);                  // [rows / 16][16][16]
            scores = layout.add<float>(kStrip * kTile);               // [kTile / 16][16][16]
            weights = layout.add<bf16>(kStrip * pass.most_waiting);   // [most_waiting / 32][16][32]
            values = layout.add<bf16>(kTile * rows);                  // of a tile, without Inf and NaN
            out = layout.add<float>(kStrip * rows);                   // [kStrip][HS]
            m = layout.add<double>(with_momentum ? rows : 0);
            bytes = layout.bytes();
        }
        size_t own, total, part, scores, weights, values, out, m, bytes;
    };

    void pack(int64_t b, int64_t kv, int64_t tile) const;
    void query_strips(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const;
    void add_keys(int64_t b, int64_t h, int64_t t, int nq, int64_t s0, int64_t s_end, Strip& strip, const bf16* own, float* sums, float* total,
                  char* memory, const Offsets& at) const;
    void add_seen_values(float* sums, bool add, const bf16* weights, int n, const int* seen, int64_t b, int64_t kv, int64_t s0,
                         bf16* finite_values) const;
    float* floats(char* memory, size_t offset) const { return reinterpret_cast<float*>(memory + offset); }
    bf16* halves(char* memory, size_t offset) const { return reinterpret_cast<bf16*>(memory + offset); }

    AttentionSizes sizes;
    Heads<bf16> q, k, v, out, attn;
    RowValues<float> lse;
    Scale scale;
    Momentum<bf16> momentum;
    PackedHeads packed;
    int strips;          // of a task
    int most_waiting;    // keys whose weights wait for one product
    bool tiles = false;  // on AMX tiles
};

/// One row of a strip's operand [HS / 32][16][32], zeros beyond HS. null: zeros.
void pack_query(bf16* to, const bf16* from, int HS) {
    for (int c = 0; c < HS; c += kStep, to += kOperand) {
        constexpr size_t kBytes = kStep * sizeof(bf16);
        if (from != nullptr && c + kStep <= HS) {
            __builtin_memcpy(to, from + c, kBytes);
        } else {
            __builtin_memset(to, 0, kBytes);
            for (int j = c; j < HS && from != nullptr; ++j) to[j - c] = from[j];
        }
    }
}

/// to[c] = row[c], rounded.
void round_row(bf16* to, const float* row, int HS) {
    int c = 0;
    for (; c + kStrip <= HS; c += kStrip) bf16_tile::store_rounded(to + c, load(row + c));
    for (; c < HS; ++c) put(to + c, row[c]);
}

/// Multiplies the rows of n tiles of sums.
void scale_rows(float* sums, int n, const float* factor) {
    for (int i = 0; i < n; ++i)
        for (int row = 0; row < kStrip; ++row) {
            float* at = sums + i * kSums + row * kStrip;
            store(at, load(at) * factor[row]);
        }
}

/// Keys and values of one tile.
void ForwardBf16::pack(int64_t b, int64_t kv, int64_t tile) const {
    const int HS = sizes.HS;
    const int64_t s0 = tile * kTile;
    const int n = int(larger<int64_t>(0, smaller<int64_t>(kTile, sizes.length(b) - s0)));
    bf16 *keys = packed.key(b, kv, tile), *values = packed.value(b, kv, tile);
    const auto rows_from = [&](int s) { return larger(0, smaller(kStrip, n - s)); };
    for (int s = 0; s < kTile; s += kStrip) {
        prefetch_rows(v.row(b, s0 + s, kv), v.stride[1], rows_from(s), HS);
        if (s + kStrip < kTile) prefetch_rows(k.row(b, s0 + s + kStrip, kv), k.stride[1], rows_from(s + kStrip), HS);
        for (int c = 0; c < packed.depth; c += kStep, keys += kOperand)
            bf16_tile::pack_right(keys, kStrip, k.row(b, s0 + s, kv) + c, 1, k.stride[1], smaller(kStep, HS - c), kStep, rows_from(s), kStrip);
    }
    for (int s = 0; s < kTile; s += kStep)
        for (int pair = 0; pair < kStep / 2; ++pair) {
            const int key = s + 2 * pair;
            const bf16 *even = key < n ? v.row(b, s0 + key, kv) : nullptr, *odd = key + 1 < n ? even + v.stride[1] : nullptr;
            for (int c = 0; c < packed.rows; c += kStrip) {
                bf16* const to = values + s * packed.rows + c * kStep + pair * kStep;
                const int width = smaller(kStrip, HS - c);
                if (width == kStrip && odd != nullptr) {
                    const Words words = bit_cast<Words>(load(even + c)) >> 16 | bit_cast<Words>(load(odd + c));
                    __builtin_memcpy(to, &words, sizeof words);
                    continue;
                }
                __builtin_memset(to, 0, size_t(kStep) * sizeof(bf16));
                if (even != nullptr) pair_rows(to, even + c, odd == nullptr ? nullptr : odd + c, width);
            }
        }
    packed.finite[packed.at(b, kv, tile)] = all_finite(values, 0, 1, int(packed.value_elements()));
}

/// sums (+)= weights times values of the tile at s0, of which row uses the first seen[row] of n: an Inf or a NaN, 0 times which would reach the
/// others, is taken out and added to the rows that use it alone. The bits of the others stay the same.
void ForwardBf16::add_seen_values(float* sums, bool add, const bf16* weights, int n, const int* seen, int64_t b, int64_t kv, int64_t s0,
                                  bf16* finite_values) const {
    const bf16* const values = packed.value(b, kv, s0 / kTile);
    for (int64_t i = 0; i < packed.value_elements(); ++i) finite_values[i] = is_finite(get(values + i)) ? values[i] : bf16{0};
    bf16_tile::strip_gemm(tiles, sums, weights, finite_values, kOperand, packed.rows * kStep, packed.rows, n, add);
    for (int s = 0; s < n && s0 + s < sizes.length(b); ++s)
        for (int c = 0; c < sizes.HS; ++c) {
            const float x = get(v.row(b, s0 + s, kv) + c);
            if (is_finite(x)) continue;
            float* const column = sums + c / kStrip * kSums + c % kStrip;
            const bf16* const weight = weights + s / kStep * kOperand + s % kStep;
            for (int row = 0; row < kStrip; ++row)
                if (s < seen[row]) column[row * kStrip] += x * get(weight + row * kStep);
        }
}

/// The strip of nq queries at t takes in the keys from s0 to s_end: sums assigns, what total has (null: nothing) gets the factors, too.
void ForwardBf16::add_keys(int64_t b, int64_t h, int64_t t, int nq, int64_t s0, int64_t s_end, Strip& strip, const bf16* own, float* sums,
                           float* total, char* memory, const Offsets& at) const {
    const int64_t kv = h / sizes.group, length = sizes.length(b);
    const float magnitude = float(scale.magnitude * kLog2E);
    float* const scores = floats(memory, at.scores);
    bf16* const weights = halves(memory, at.weights);
    int seen[kStrip];
    bool add = false;
    int64_t first = 0;  // tile of keys whose weights wait for one product with their values
    int waiting = 0;    // keys
    const auto join = [&] {
        if (waiting == 0) return;
        bf16_tile::strip_gemm(tiles, sums, weights, packed.value(b, kv, first), kOperand, packed.rows * kStep, packed.rows, waiting, add);
        waiting = 0;
        add = true;
    };
    const auto take = [&](const auto& products) {
        if (move_shifts(products, magnitude, strip)) {
            join();
            if (add) scale_rows(sums, packed.rows / kStrip, strip.factor);
            if (total != nullptr) scale_rows(total, packed.rows / kStrip, strip.factor);
        }
        if (waiting == most_waiting) join();
        weigh(weights + waiting * kStrip, products, magnitude, strip);
    };
    for (int64_t s = s0; s < s_end; s += kTile) {
        const int64_t tile = s / kTile;
        const int n = int(round_up(smaller<int64_t>(kTile, s_end - s), kStep));
        bf16_tile::strip_gemm(tiles, scores, own, packed.key(b, kv, tile), packed.depth * kStrip, kOperand, n, packed.depth, false);
        if (sizes.visible(t, length) >= s + kTile) {
            take(Products<true>{scores, n, nullptr});
        } else {
            for (int row = 0; row < kStrip; ++row)
                seen[row] = int(larger<int64_t>(0, smaller<int64_t>(kTile, sizes.visible(t + smaller(row, nq - 1), length) - s)));
            take(Products<false>{scores, n, seen});
            if (!packed.finite[packed.at(b, kv, tile)]) {
                const bf16* const last = weights + waiting * kStrip;
                join();
                add_seen_values(sums, add, last, n, seen, b, kv, s, halves(memory, at.values));
                add = true;
                continue;
            }
        }
        if (waiting == 0) first = tile;
        waiting += n;
    }
    join();
}

void ForwardBf16::query_strips(int64_t b, int64_t h, int64_t t0, char* memory, const Offsets& at) const {
    const int HS = sizes.HS;
    const int64_t length = sizes.length(b), end = smaller<int64_t>(sizes.T, t0 + strips * kStrip);
    const int used = int(ceil_div(end - t0, kStrip));
    const auto queries_of = [&](int i) { return int(smaller<int64_t>(kStrip, end - t0 - i * kStrip)); };
    const auto own = [&](int i) { return halves(memory, at.own) + i * kStrip * packed.depth; };
    const auto total = [&](int i) { return floats(memory, at.total) + i * kStrip * packed.rows; };
    const TileSession session(tiles);

    const auto fetch = [&](const Heads<bf16>& heads, int i) { prefetch_rows(heads.row(b, t0 + i * kStrip, h), heads.stride[1], queries_of(i), HS); };

    Strip strip[kMostStrips];
    const auto start = [&](int i) {
        strip[i].start();
        for (int j = 0; j < kStrip; ++j) pack_query(own(i) + j * kStep, j < queries_of(i) ? q.row(b, t0 + i * kStrip + j, h) : nullptr, HS);
        for (int j = 0; j < kStrip * packed.depth && scale.negative; ++j) own(i)[j].bits ^= 0x8000;
        if (i + 1 < used) fetch(q, i + 1);
        fetch(out, i);
    };
    fetch(q, 0);
    float* const part = floats(memory, at.part);
    for (int64_t s0 = 0; s0 == 0 || s0 < sizes.visible(end - 1, length); s0 += kChunkKeys)
        for (int i = 0; i < used; ++i) {
            if (s0 == 0) start(i);
            const int64_t t = t0 + i * kStrip;
            const int nq = queries_of(i);
            const int64_t s_end = smaller(s0 + kChunkKeys, sizes.visible(t + nq - 1, length));
            if (s_end <= s0) continue;
            if (s0 == 0) {
                add_keys(b, h, t, nq, s0, s_end, strip[i], own(i), total(i), nullptr, memory, at);
            } else {
                add_keys(b, h, t, nq, s0, s_end, strip[i], own(i), part, total(i), memory, at);
                for (int j = 0; j < kStrip * packed.rows; j += kStrip) store(total(i) + j, load(total(i) + j) + load(part + j));
            }
            strip[i].end_chunk();
        }

    float* const rows = floats(memory, at.out);
    const double eta = momentum.eta_view == nullptr ? 0 : momentum.eta(h);
    double* m = eta == 0 ? nullptr : reinterpret_cast<double*>(memory + at.m);
    if (m != nullptr) momentum.start(m, b, sizes.position(t0), h, eta);
    for (int i = 0; i < used; ++i) {
        const int64_t t = t0 + i * kStrip;
        log_sum_exps(lse.head(b, h) + t, strip[i].shift, strip[i].sum, scale.magnitude / double(float(scale.magnitude * kLog2E)), queries_of(i));
        for (int j = 0; j < queries_of(i); ++j) {
            const float sum = float(strip[i].sum[j]), inverse = 1 / sum;
            for (int c = 0; c < packed.rows; c += kStrip)  // what lies beyond the row is the next one's place
                store(rows + j * HS + c, sum == 0 ? Vec<float>{} : load(total(i) + c * kStrip + j * kStrip) * inverse);
        }
        for (int j = 0; j < queries_of(i) && attn; ++j) round_row(attn.row(b, t + j, h), rows + j * HS, HS);
        if (m != nullptr) momentum.add(rows, queries_of(i), m, momentum.values(b, h), sizes.position(t), eta);
        for (int j = 0; j < queries_of(i); ++j) round_row(out.row(b, t + j, h), rows + j * HS, HS);
    }
}

}  // namespace

int attention_forward_bf16(df_queue* queue, const df_attention_args* args, df_error* error) {
    ForwardBf16 pass(args);
    pass.tiles = bf16_products(queue) == Bf16Products::kTiles;
    const AttentionSizes& sizes = pass.sizes;
    const bool with_momentum = args->eta != nullptr;
    const int64_t queries = pass.strips * kStrip, blocks = ceil_div(sizes.T, queries), tasks = sizes.B * sizes.NH * blocks;
    const int64_t packed_tiles = pass.packed.count(sizes.B);
    const double work = sizes.pairs() * sizes.HS;
    const ForwardBf16::Offsets at(pass, with_momentum);

    Layout layout;
    const size_t workers = layout.add<char>(int64_t(at.bytes) * task_workers(queue, tasks, work));
    const size_t carries = layout.add<double>(with_momentum ? pass.momentum.carries.elements(sizes.B) : 0);
    const size_t keys = layout.add<bf16>(packed_tiles * pass.packed.key_elements());
    const size_t values = layout.add<bf16>(packed_tiles * pass.packed.value_elements());
    const size_t finite = layout.add<bool>(packed_tiles);
    const Scratch scratch(queue, layout.bytes());
    if (!scratch) return out_of_memory(error, with_momentum ? "momentum_attention_forward" : "attention_forward", layout.bytes());

    if (with_momentum) {
        pass.momentum.carries.first = scratch.as<double>(carries);
        pass.momentum.compute_carries(queue, 0, args->state_in, Type<float>{});
        if (args->state_out != nullptr) pass.momentum.put_state(args->state_out);
    }
    pass.packed.keys = scratch.as<bf16>(keys);
    pass.packed.values = scratch.as<bf16>(values);
    pass.packed.finite = scratch.as<bool>(finite);
    const auto query_block = [&](int64_t head, int64_t block, int worker) {
        pass.query_strips(head / sizes.NH, head % sizes.NH, block * queries, scratch.as<char>(workers) + size_t(worker) * at.bytes, at);
    };
    const int64_t heads = sizes.B * sizes.NKV, threads = task_workers(queue, heads, work);
    if (heads % threads == 0 && heads >= kHeads * threads) {
        // Whole heads: keys and values are in the cache of who packs them.
        for_tasks(queue, heads, work, [&](int64_t i, int worker) {
            for (int64_t tile = 0; tile < pass.packed.tiles; ++tile) pass.pack(i / sizes.NKV, i % sizes.NKV, tile);
            for (int64_t head = i * sizes.group; head < (i + 1) * sizes.group; ++head)
                for (int64_t block = 0; block < blocks; ++block) query_block(head, block, worker);
        });
        return DF_OK;
    }
    for_tasks(queue, packed_tiles, work, [&](int64_t i, int) {
        // Heads of a row lie next to each other.
        const int64_t rows = i / sizes.NKV;
        pass.pack(rows / pass.packed.tiles, i % sizes.NKV, rows % pass.packed.tiles);
    });
    // Head after head, whose keys and values stay in the cache; its last queries see the most keys and go first.
    for_tasks(queue, tasks, work, [&](int64_t i, int worker) { query_block(i / blocks, blocks - 1 - i % blocks, worker); });
    return DF_OK;
}

#else

int attention_forward_bf16(df_queue*, const df_attention_args*, df_error*) { __builtin_unreachable(); }

#endif

}  // namespace dualform::cpu::DF_ISA
