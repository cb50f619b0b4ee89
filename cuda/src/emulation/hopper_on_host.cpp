// See hopper_on_host.h. Everything here runs in the fibers of one block at a time, or between their rounds.
#include "hopper_on_host.h"

#include <stddef.h>

#include <algorithm>
#include <deque>
#include <vector>

#include "cuda_on_host.h"

namespace dualform::cuda::emulation {

namespace {

constexpr int kWarp = 32, kWarpgroup = 128, kMaxThreads = 1024;
constexpr int kNamed = 16; /* of the hardware */
/* Rounds from the issue of a copy to its landing, at most, drawn for each: more than the work on a tile takes, so that a copy may come
   after another that was issued later and is long used. */
constexpr int kLandsWithin = 300;
constexpr int kTakes = 4; /* rounds that waiting for products or stores takes: what is given back too early is gone by then */
constexpr uint32_t kMark = 0x5b; /* upper byte of an initialised barrier's second word */

/// An mbarrier's 8 bytes: the parity of the running phase, then kMark and where the rest is.
struct Barrier {
    int expected, pending;
    int64_t bytes;
};

struct Load {
    CUtensorMap map;      /* of a tensor load */
    int at[4];
    const char* from;     /* of a bulk load, else null */
    uint32_t to, bytes;
    uint64_t* barrier;
    int lands;
};

struct Store {
    CUtensorMap map;
    int at[4];
    float* sum; /* of a bulk add, else null */
    uint32_t from, bytes;
    bool done = false;
};

struct Product {
    float* d;
    int n;
    bool a_in_registers, a_mn, b_mn, accumulate;
    uint64_t a, b;
    float rows[2][16]; /* of A in registers: rows g and g + 8 */
    bool done = false;
};

/// Work in groups: committed sizes in order, then what is not committed yet.
template <class T>
struct Groups {
    std::deque<T> work;
    std::deque<size_t> sizes;
    size_t open = 0;
    int committed = 0; /* groups so far */
    void add(const T& t) {
        work.push_back(t);
        ++open;
    }
    void commit() {
        sizes.push_back(open);
        open = 0;
        ++committed;
    }
    /// Everything so far, in order, is done now; it still counts as under way.
    template <class F>
    void hurry(F&& run) {
        for (T& t : work) {
            if (!t.done) run(t);
            t.done = true;
        }
    }
    bool under_way(int pending) const {
        return sizes.size() > static_cast<size_t>(pending) && std::any_of(work.begin(), work.end(), [](const T& t) { return !t.done; });
    }
    template <class F>
    void wait(int pending, F&& run) {
        for (; sizes.size() > static_cast<size_t>(pending); sizes.pop_front())
            for (size_t i = sizes.front(); i > 0; --i) {
                if (!work.front().done) run(work.front());
                work.pop_front();
            }
    }
    void clear() { *this = {}; }
};

struct Named {
    int arrived, phase;
};

struct State {
    std::vector<Barrier> barriers;
    std::deque<Load> loads;
    int round = 0;
    int wakes[kMaxThreads] = {}, asleep[kMaxThreads] = {};
    std::vector<int> sleepers;
    Named named[kNamed] = {};
    Groups<Product> products[kMaxThreads];
    int issued[kMaxThreads / kWarpgroup] = {}; /* groups that all threads of a warpgroup have committed */
    Groups<Store> stores[kMaxThreads];
};
State state;

/// The running thread sleeps for some rounds.
void take_time() {
    const int thread = static_cast<int>(running->index.x);
    state.wakes[thread] = state.round + kTakes;
    state.asleep[thread] = 1;
    state.sleepers.push_back(thread);
    sleep_while(&state.asleep[thread], 1);
}

Barrier* find(uint64_t* word) {
    uint32_t half[2];
    memcpy(half, word, sizeof half);
    if (half[1] >> 24 != kMark || (half[1] & 0xffffff) >= state.barriers.size()) {
        fault("an mbarrier that was not initialised");
        return nullptr;
    }
    return &state.barriers[half[1] & 0xffffff];
}

void settle(uint64_t* word, Barrier& b) {
    if (b.pending < 0) fault("more arrivals at an mbarrier than it expects");
    if (b.pending != 0 || b.bytes != 0) return;
    b.pending = b.expected;
    uint32_t parity;
    memcpy(&parity, word, sizeof parity);
    parity ^= 1u;
    memcpy(word, &parity, sizeof parity);
}

/// The address that the 128-byte swizzle (or 64, 32, none: 0) gives a byte: bits 4.. are changed by bits 7..
uint32_t swizzled(uint32_t address, int span) {
    const uint32_t mask = span == 128 ? 7 : span == 64 ? 3 : span == 32 ? 1 : 0;
    return address ^ (((address >> 7) & mask) << 4);
}

/// Runs copy(shared byte address, global byte or null outside of the tensor) for every element of a box.
template <class F>
void for_box(const CUtensorMap& map, uint32_t shared, const int (&at)[4], F&& copy) {
    uint32_t linear = 0;
    for (int i3 = 0; i3 < map.box[3]; ++i3)
        for (int i2 = 0; i2 < map.box[2]; ++i2)
            for (int i1 = 0; i1 < map.box[1]; ++i1)
                for (int i0 = 0; i0 < map.box[0]; ++i0) {
                    const int64_t c[4] = {int64_t{at[0]} + i0, int64_t{at[1]} + i1, int64_t{at[2]} + i2, int64_t{at[3]} + i3};
                    bool inside = true;
                    int64_t offset = 0;
                    for (int k = 0; k < 4; ++k) {
                        inside = inside && c[k] >= 0 && c[k] < map.size[k];
                        offset += c[k] * map.stride[k];
                    }
                    copy(swizzled(shared + linear, map.swizzled ? 128 : 0), inside ? map.data + offset : nullptr);
                    linear += static_cast<uint32_t>(map.element_bytes);
                }
}

uint32_t box_bytes(const CUtensorMap& map) {
    return static_cast<uint32_t>(map.box[0] * map.box[1] * map.box[2] * map.box[3] * map.element_bytes);
}

void land(const Load& load) {
    char* const to = shared_at(load.to, load.bytes);
    if (load.from != nullptr) {
        memcpy(to, load.from, load.bytes);
    } else {
        const size_t size = static_cast<size_t>(load.map.element_bytes);
        for_box(load.map, load.to, load.at, [&](uint32_t address, const char* from) {
            if (from != nullptr)
                memcpy(to + (address - load.to), from, size);
            else
                memset(to + (address - load.to), 0, size);
        });
    }
    if (Barrier* const b = find(load.barrier)) {
        b->bytes -= load.bytes;
        settle(load.barrier, *b);
    }
}

void issue(Load load) {
    char* const to = shared_at(load.to, load.bytes);
    if (to == nullptr || load.to % (load.from == nullptr && load.map.swizzled ? 1024 : load.from == nullptr ? 128 : 16) != 0)
        return fault("a copy to shared memory that does not lie in it, or is not aligned");
    if (find(load.barrier) == nullptr) return;
    if (done_at_once()) return land(load);
    memset(to, 0xff, load.bytes);
    load.lands = state.round + 1 + static_cast<int>(draw() % kLandsWithin);
    state.loads.push_back(load);
}

void finish(const Store& store) {
    char* const from = shared_at(store.from, store.bytes);
    if (store.sum != nullptr) {
        for (uint32_t i = 0; i < store.bytes / sizeof(float); ++i) {
            float value;
            memcpy(&value, from + i * sizeof value, sizeof value);
            store.sum[i] += value;
        }
        return;
    }
    for_box(store.map, store.from, store.at, [&](uint32_t address, char* to) {
        if (to != nullptr) memcpy(to, from + (address - store.from), static_cast<size_t>(store.map.element_bytes));
    });
}

/// Where element (mn, k) of an operand of 16 values of k lies: the canonical layouts of the PTX ISA, "matrix descriptor".
uint32_t operand_address(uint64_t descriptor, bool mn_major, uint32_t mn, uint32_t k) {
    const uint32_t start = static_cast<uint32_t>(descriptor & 0x3fff) << 4, leading = static_cast<uint32_t>(descriptor >> 16 & 0x3fff) << 4;
    const uint32_t stride = static_cast<uint32_t>(descriptor >> 32 & 0x3fff) << 4, mode = static_cast<uint32_t>(descriptor >> 62);
    const uint32_t span = mode == 0 ? 16 : 256u >> mode; /* bytes of a row: 1 is 128, 2 is 64, 3 is 32 */
    if (descriptor >> 49 & 7) fault("a wgmma descriptor with a base offset, which no kernel here needs");
    uint32_t offset;
    if (mode == 0)
        offset = mn_major ? mn % 8 * 2 + mn / 8 * stride + k % 8 * 16 + k / 8 * leading
                          : mn % 8 * 16 + mn / 8 * stride + k / 8 * leading + k % 8 * 2;
    else if (mn_major)
        offset = mn % (span / 2) * 2 + mn / (span / 2) * leading + k % 8 * span + k / 8 * stride;
    else
        offset = mn % 8 * span + mn / 8 * stride + k * 2;
    return swizzled(start + offset, mode == 0 ? 0 : static_cast<int>(span));
}

float operand(uint64_t descriptor, bool mn_major, uint32_t mn, uint32_t k) {
    const char* const at = shared_at(operand_address(descriptor, mn_major, mn, k), 2);
    if (at == nullptr) {
        fault("a wgmma operand outside shared memory");
        return 0;
    }
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/// The thread's part: rows g and g + 8 of its warp's sixteen, columns 8 n + 2 t and the one after it.
void multiply(const Product& p, uint32_t thread) {
    const uint32_t lane = thread % kWarp, g = lane / 4, t = lane % 4, row = thread % kWarpgroup / kWarp * 16 + g;
    float a[2][16];
    for (uint32_t i = 0; i < 2; ++i)
        for (uint32_t k = 0; k < 16; ++k) a[i][k] = p.a_in_registers ? p.rows[i][k] : operand(p.a, p.a_mn, row + 8 * i, k);
    for (uint32_t c = 0; c < static_cast<uint32_t>(p.n) / 4; ++c) {
        float b[16], sum[2] = {0, 0};
        for (uint32_t k = 0; k < 16; ++k) b[k] = operand(p.b, p.b_mn, c / 2 * 8 + 2 * t + c % 2, k);
        for (int k = 0; k < 16; ++k) {
            sum[0] += a[0][k] * b[k];
            sum[1] += a[1][k] * b[k];
        }
        for (uint32_t i = 0; i < 2; ++i) {
            float& d = p.d[c / 2 * 4 + 2 * i + c % 2];
            d = p.accumulate ? d + sum[i] : sum[i];
        }
    }
}

void meet(Named& named, int threads, bool waits) {
    const int phase = named.phase;
    if (++named.arrived == threads) {
        named.arrived = 0;
        ++named.phase;
    }
    if (waits) sleep_while(&named.phase, phase);
}

void begin_block() {
    state.barriers.clear();
    state.loads.clear();
    state.sleepers.clear();
    for (Named& n : state.named) n.arrived = 0;
    for (auto& p : state.products) p.clear();
    for (auto& s : state.stores) s.clear();
    for (int& i : state.issued) i = 0;
}

bool step(bool idle) {
    ++state.round;
    bool did = !state.sleepers.empty();
    for (size_t i = 0; i < state.sleepers.size();) {
        const int thread = state.sleepers[i];
        if (state.wakes[thread] > state.round) {
            ++i;
            continue;
        }
        state.asleep[thread] = 0;
        state.sleepers[i] = state.sleepers.back();
        state.sleepers.pop_back();
    }
    for (size_t i = 0; i < state.loads.size();) { /* in any order */
        if (state.loads[i].lands > state.round) {
            ++i;
            continue;
        }
        const Load load = state.loads[i];
        state.loads.erase(state.loads.begin() + static_cast<std::ptrdiff_t>(i));
        land(load);
        did = true;
    }
    if (idle && !did && !state.loads.empty()) { /* nothing else can happen: one of them comes */
        const size_t i = draw() % state.loads.size();
        const Load load = state.loads[i];
        state.loads.erase(state.loads.begin() + static_cast<std::ptrdiff_t>(i));
        land(load);
        did = true;
    }
    return did;
}

void end_block() {
    if (!state.loads.empty()) fault("a block that ends before its copies to shared memory have landed");
    for (const auto& p : state.products)
        if (!p.work.empty()) fault("a thread that ends before its wgmma are waited for");
    for (const auto& s : state.stores)
        if (!s.work.empty()) fault("a thread that ends before its copies from shared memory are waited for");
    for (const Named& n : state.named)
        if (n.arrived != 0) fault("a named barrier that a block leaves half full");
}

[[maybe_unused]] const bool registered = [] {
    beside = {begin_block, step, end_block};
    return true;
}();

}  // namespace

void barrier_init(uint64_t* barrier, int arrivals) {
    const uint32_t half[2] = {0, kMark << 24 | static_cast<uint32_t>(state.barriers.size())};
    (void)shared_address(barrier); /* must lie in it */
    state.barriers.push_back({arrivals, arrivals, 0});
    memcpy(barrier, half, sizeof half);
}

void barrier_arrive(uint64_t* barrier, uint32_t bytes) {
    Barrier* const b = find(barrier);
    if (b == nullptr) return;
    b->bytes += bytes;
    --b->pending;
    settle(barrier, *b);
    may_switch();
}

void barrier_wait(uint64_t* barrier, int parity) {
    if (find(barrier) != nullptr) sleep_while(reinterpret_cast<const int*>(barrier), parity);
}

void named_barrier(int id, int threads, bool waits) { meet(state.named[id], threads, waits); }

void tensor_load(void* to, const CUtensorMap* map, uint64_t* barrier, const int (&at)[4]) {
    issue({*map, {at[0], at[1], at[2], at[3]}, nullptr, shared_address(to), box_bytes(*map), barrier, 0});
}

void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
    if (bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) return fault("a bulk copy that is not of 16-byte units");
    issue({{}, {}, static_cast<const char*>(from), shared_address(to), bytes, barrier, 0});
}

static void add_store(const Store& store) {
    Groups<Store>& stores = state.stores[running->index.x];
    stores.add(store);
    if (done_at_once()) stores.hurry(finish);
}

void tensor_store(const CUtensorMap* map, const void* from, const int (&at)[4]) {
    const uint32_t address = shared_address(from);
    if (address % (map->swizzled ? 1024 : 128) != 0) return fault("a tensor store from shared memory that is not aligned");
    add_store({*map, {at[0], at[1], at[2], at[3]}, nullptr, address, box_bytes(*map)});
}

void bulk_add(float* to, const void* from, uint32_t bytes) {
    const uint32_t address = shared_address(from);
    if (bytes % 16 != 0 || address % 16 != 0 || reinterpret_cast<uintptr_t>(to) % 16 != 0)
        return fault("a bulk reduction that is not of 16-byte units");
    add_store({{}, {}, to, address, bytes});
}

void bulk_commit() { state.stores[running->index.x].commit(); }
void bulk_wait(int pending) {
    if (state.stores[running->index.x].under_way(pending)) take_time();
    state.stores[running->index.x].wait(pending, finish);
}

static void add_product(const Product& p) {
    const uint32_t thread = running->index.x;
    state.products[thread].add(p);
    if (done_at_once()) state.products[thread].hurry([&](const Product& product) { multiply(product, thread); });
}

void wgmma(float* d, int n, uint64_t a, bool a_mn, uint64_t b, bool b_mn, bool accumulate) {
    add_product({d, n, false, a_mn, b_mn, accumulate, a, b, {}});
}

void wgmma(float* d, int n, const uint32_t (&a)[4], uint64_t b, bool b_mn, bool accumulate) {
    Product p = {d, n, true, false, b_mn, accumulate, 0, b, {}};
    const int quad = static_cast<int>(running->index.x % kWarp / 4 * 4);
    for (int half = 0; half < 2; ++half) { /* k 0..7, then 8..15 */
        exchange_put(a[2 * half] | static_cast<uint64_t>(a[2 * half + 1]) << 32);
        warp_barrier();
        for (int t = 0; t < 4; ++t) {
            const uint64_t pair = exchange_get(quad + t);
            for (int row = 0; row < 2; ++row)
                for (int e = 0; e < 2; ++e) {
                    const uint32_t wide = static_cast<uint32_t>(pair >> (32 * row + 16 * e) & 0xffff) << 16;
                    memcpy(&p.rows[row][8 * half + 2 * t + e], &wide, sizeof wide);
                }
        }
        warp_barrier();
    }
    add_product(p);
}

void wgmma_commit() {
    const int thread = static_cast<int>(running->index.x), warpgroup = thread / kWarpgroup;
    state.products[thread].commit();
    int all = state.products[thread].committed;
    for (int t = warpgroup * kWarpgroup; t < (warpgroup + 1) * kWarpgroup; ++t)
        if (state.products[t].committed < all) all = state.products[t].committed;
    state.issued[warpgroup] = all;
}

void wgmma_wait(int pending) {
    const int thread = static_cast<int>(running->index.x), warpgroup = thread / kWarpgroup;
    const int target = state.products[thread].committed - pending; /* groups, done by all threads */
    while (state.issued[warpgroup] < target) sleep_while(&state.issued[warpgroup], state.issued[warpgroup]);
    if (state.products[thread].under_way(pending)) take_time();
    for (int t = warpgroup * kWarpgroup; t < (warpgroup + 1) * kWarpgroup; ++t) {
        Groups<Product>& products = state.products[t];
        products.wait(products.committed - target, [&](const Product& p) { multiply(p, static_cast<uint32_t>(t)); });
    }
}

void stmatrix(uint32_t row, const uint32_t (&r)[4]) {
    const uint32_t lane = running->index.x % kWarp;
    exchange_put(row);
    warp_barrier();
    for (uint32_t i = 0; i < 4; ++i)
        for (uint32_t e = 0; e < 2; ++e) {
            const uint32_t to_row = lane / 4, to_column = 2 * (lane % 4) + e;
            const uint32_t address = static_cast<uint32_t>(exchange_get(static_cast<int>(8 * i + to_row)));
            char* const at = shared_at(address + 2 * to_column, 2);
            if (at == nullptr || address % 16 != 0) {
                fault("an stmatrix row outside shared memory, or not aligned");
                continue;
            }
            const uint16_t bits = static_cast<uint16_t>(r[i] >> (16 * e));
            memcpy(at, &bits, sizeof bits);
        }
    warp_barrier();
}

}  // namespace dualform::cuda::emulation
