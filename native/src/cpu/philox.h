// Philox4x32-10 (Salmon et al., SC 2011): a block of four random words for every counter and key, without a state.
#pragma once

#include <stdint.h>

namespace dualform::cpu {

struct PhiloxBlock {
    uint32_t word[4];
};

/// counter: words 0 and 1 of the 128-bit counter, high: words 2 and 3; key: two words, low first.
constexpr PhiloxBlock philox(uint64_t counter, uint64_t high, uint64_t key) {
    uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = uint32_t(high), c3 = uint32_t(high >> 32);
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t left = uint64_t(0xD2511F53u) * c0, right = uint64_t(0xCD9E8D57u) * c2;
        c0 = uint32_t(right >> 32) ^ c1 ^ k0;
        c1 = uint32_t(right);
        c2 = uint32_t(left >> 32) ^ c3 ^ k1;
        c3 = uint32_t(left);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return PhiloxBlock{{c0, c1, c2, c3}};
}

constexpr bool same(PhiloxBlock a, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
    return a.word[0] == w0 && a.word[1] == w1 && a.word[2] == w2 && a.word[3] == w3;
}
// The published known answers.
static_assert(same(philox(0, 0, 0), 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u), "philox of zeros");
static_assert(same(philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}), 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu), "philox of ones");
static_assert(same(philox(0x85a308d3243f6a88u, 0x0370734413198a2eu, 0x299f31d0a4093822u),
                   0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u),
              "philox of pi");

}  // namespace dualform::cpu
