// AMX's tile registers and instructions in plain C++, for tests on processors that have none: the numbers of the instructions (Intel's Software
// Developer's Manual, volume 2, TDPBF16PS), and a check that each of them finds a session open, and a session none.
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "cpu/simd.h"

namespace dualform::cpu::DF_ISA {

struct EmulatedTiles {
    bool open = false;
    alignas(64) unsigned char tile[8][16][64];
};
inline thread_local EmulatedTiles emulated_tiles;

inline void expect_tiles(bool open, const char* what) {
    if (emulated_tiles.open == open) return;
    fprintf(stderr, "emulated tiles: %s while %s session is open\n", what, open ? "no" : "a");
    abort();
}

class TileSession {
public:
    explicit TileSession(bool wanted) : wanted_(wanted) {
        if (!wanted_) return;
        expect_tiles(false, "a session begins");
        emulated_tiles.open = true;
        __builtin_memset(emulated_tiles.tile, 0, sizeof emulated_tiles.tile);
    }
    ~TileSession() {
        if (wanted_) emulated_tiles.open = false;
    }
    TileSession(const TileSession&) = delete;
    TileSession& operator=(const TileSession&) = delete;

private:
    bool wanted_;
};

inline void emulate_tile_zero(int t) {
    expect_tiles(true, "tilezero");
    __builtin_memset(emulated_tiles.tile[t], 0, sizeof emulated_tiles.tile[t]);
}
inline void emulate_tile_load(int t, const void* p, int64_t stride) {
    expect_tiles(true, "tileloadd");
    for (int r = 0; r < 16; ++r) __builtin_memcpy(emulated_tiles.tile[t][r], static_cast<const char*>(p) + r * stride, 64);
}
inline void emulate_tile_store(int t, void* p, int64_t stride) {
    expect_tiles(true, "tilestored");
    for (int r = 0; r < 16; ++r) __builtin_memcpy(static_cast<char*>(p) + r * stride, emulated_tiles.tile[t][r], 64);
}
/// Denormal numbers are zeros to it, before and after.
template <class V>
inline V emulate_flush(V x) { return select((bit_cast<Words>(x) & 0x7f800000u) == 0, bit_cast<V>(bit_cast<Words>(x) & 0x80000000u), x); }
inline void emulate_tile_dot(int c, int a, int b) {
    expect_tiles(true, "tdpbf16ps");
    for (int m = 0; m < 16; ++m) {
        Vec<float> even = {}, odd = {}, sum;
        for (int k = 0; k < 16; ++k) {
            Words pairs, word;
            uint32_t a_word;
            __builtin_memcpy(&pairs, emulated_tiles.tile[b][k], sizeof pairs);
            __builtin_memcpy(&a_word, emulated_tiles.tile[a][m] + 4 * k, sizeof a_word);
            word = Words{} | a_word;
            const auto first = [](Words w) { return emulate_flush(bit_cast<Vec<float>>(w << 16)); };
            const auto second = [](Words w) { return emulate_flush(bit_cast<Vec<float>>(w & 0xffff0000u)); };
            even = emulate_flush(even + first(word) * first(pairs));
            odd = emulate_flush(odd + second(word) * second(pairs));
        }
        __builtin_memcpy(&sum, emulated_tiles.tile[c][m], sizeof sum);
        sum = emulate_flush(emulate_flush(sum) + emulate_flush(even + odd));
        __builtin_memcpy(emulated_tiles.tile[c][m], &sum, sizeof sum);
    }
}

#define DF_TILE_ZERO(t) emulate_tile_zero(t)
#define DF_TILE_LOAD(t, p, stride) emulate_tile_load(t, p, stride)
#define DF_TILE_STORE(t, p, stride) emulate_tile_store(t, p, stride)
#define DF_TILE_DOT(c, a, b) emulate_tile_dot(c, a, b)

}  // namespace dualform::cpu::DF_ISA
