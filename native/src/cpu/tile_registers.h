// The tile registers of AMX and their four instructions.
#pragma once

#if defined(DF_EMULATED_TILES)
#include "emulated/tiles.h"
#else
#include "cpu/simd.h"

namespace dualform::cpu::DF_ISA {

#if defined(__AVX512F__)

/// Tile registers: all eight hold 16 rows of 64 bytes while a TileSession lives. A thread must not keep them beyond a task: the next
/// user of the thread may be anyone, and their contents slow down every switch.
class TileSession {
public:
    explicit TileSession(bool wanted) : wanted_(wanted) {
        if (!wanted_) return;
        struct alignas(64) Configuration {
            uint8_t palette, start_row, reserved[14];
            uint16_t row_bytes[16];
            uint8_t rows[16];
        } configuration = {};
        configuration.palette = 1;
        for (int i = 0; i < 8; ++i) {
            configuration.row_bytes[i] = 64;
            configuration.rows[i] = 16;
        }
        asm volatile("ldtilecfg %0" : : "m"(configuration));
    }
    ~TileSession() {
        if (wanted_) asm volatile("tilerelease");
    }
    TileSession(const TileSession&) = delete;
    TileSession& operator=(const TileSession&) = delete;

private:
    bool wanted_;
};

#define DF_TILE_ZERO(t) asm volatile("tilezero %%tmm" #t ::)
#define DF_TILE_LOAD(t, p, stride) asm volatile("tileloadd (%0,%1,1), %%tmm" #t : : "r"(p), "r"(stride) : "memory")
#define DF_TILE_STORE(t, p, stride) asm volatile("tilestored %%tmm" #t ", (%0,%1,1)" : : "r"(p), "r"(stride) : "memory")
#define DF_TILE_DOT(c, a, b) asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)

#else

class TileSession {
public:
    explicit TileSession(bool) {}
};

#endif

}  // namespace dualform::cpu::DF_ISA

#endif
