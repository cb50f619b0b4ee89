// Seeded draws: the same seed gives the same case on every machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace dualform::test {

class Random {
public:
    /// Mixed, or neighbouring seeds would give the same stream one step apart.
    explicit Random(uint64_t seed) : state_(seed ^ 0x6A09E667F3BCC909u) { state_ = bits() ^ (seed << 32); }

    uint64_t bits() {  // splitmix64
        uint64_t z = (state_ += 0x9E3779B97F4A7C15u);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        return z ^ (z >> 31);
    }
    double uniform(double lo = 0, double hi = 1) { return lo + (hi - lo) * (static_cast<double>(bits() >> 11) * 0x1p-53); }
    double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform()); }
    int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
    bool chance(double p) { return uniform() < p; }
    int64_t one_of(std::initializer_list<int64_t> values) { return values.begin()[below(static_cast<int64_t>(values.size()))]; }

private:
    uint64_t state_;
};

}  // namespace dualform::test
