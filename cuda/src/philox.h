// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).
#pragma once

#include <stdint.h>

namespace dualform::cuda {

struct PhiloxBlock {
    uint32_t word[4];
};

/// The four words of block `counter` under `key`; the upper half of the 128-bit counter is 0.
__host__ __device__ constexpr PhiloxBlock philox4x32_10(uint64_t counter, uint64_t key) {
    uint32_t c0 = static_cast<uint32_t>(counter), c1 = static_cast<uint32_t>(counter >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * c0, b = static_cast<uint64_t>(0xCD9E8D57u) * c2;
        const uint32_t high_a = static_cast<uint32_t>(a >> 32), high_b = static_cast<uint32_t>(b >> 32);
        c0 = high_b ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(b);
        c2 = high_a ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The paper's known-answer vector for counter 0 and key 0.
static_assert(philox4x32_10(0, 0).word[0] == 0x6627e8d5u && philox4x32_10(0, 0).word[3] == 0x9b00dbd8u, "not Philox4x32-10");

}  // namespace dualform::cuda
