#include <cmath>

#include "case.h"

namespace dualform::test {
namespace {

/// Word of a Philox4x32-10 block, written from the published definition.
uint32_t philox_word(uint64_t key, uint64_t counter, int word) {
    uint32_t c[4] = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
             k[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
        const uint32_t next[4] = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
                                  static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
        for (int i = 0; i < 4; ++i) c[i] = next[i];
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    return c[word];
}

class RandomCase : public Case {
public:
    RandomCase(bool normal, bool next) : normal_(normal), next_(next) {}
    void draw(Draw& d) override {
        dtype = d.dtype;
        seed_ = d.random.bits();
        offset_ = d.flag("large_offset", 0.3) ? uint64_t{0xfffffffd} : static_cast<uint64_t>(d.below("offset", 1000));
        low_ = d.flag("standard") ? 0 : d.random.uniform(-3, 3);
        width_ = d.random.uniform(0.1, 3);
        output("out", {d.dim("M", 17), d.dim("d0", 5), d.flag("wide", 0.1) ? 8191 : d.dim("N")});
        if (!next_) return;
        std::vector<double> words = state(offset_);
        size_t at = 0;
        input("state", {4}, [words, at](Random&) mutable { return words[at++ % 4]; }, DF_I32).role = Role::kUpdated;
    }
    df_status forward(const Handles& t) override {
        if (next_)
            return normal_ ? df_random_normal_next(t("out"), t("state"), low_, width_)
                           : df_random_uniform_next(t("out"), t("state"), low_, low_ + width_);
        return normal_ ? df_random_normal(t("out"), seed_, offset_, low_, width_)
                       : df_random_uniform(t("out"), seed_, offset_, low_, low_ + width_);
    }
    void expect(Values& v, bool exact) const override {
        const int64_t n = count(find("out")->shape);
        std::vector<double> out;
        const auto unit = [&](int64_t i) {
            return (philox_word(seed_, offset_ + static_cast<uint64_t>(i / 4), static_cast<int>(i % 4)) + 0.5) * 0x1p-32;
        };
        for (int64_t i = 0; i < n; ++i) {
            if (normal_) {
                const double r = std::sqrt(-2 * std::log(unit(i & ~int64_t{1}))), angle = 2 * M_PI * unit(i | 1);
                out.push_back(low_ + width_ * r * (i & 1 ? std::sin(angle) : std::cos(angle)));
            } else {
                out.push_back(low_ + (low_ + width_ - low_) * unit(i));
            }
        }
        put(v, "out", Arithmetic<double>{}, out, exact);
        if (next_) v["state"] = state(offset_ + static_cast<uint64_t>((n + 3) / 4));
    }

private:
    /// The words of a generator's state as 32-bit integers.
    std::vector<double> state(uint64_t offset) const {
        std::vector<double> words;
        for (const uint64_t word : {seed_, seed_ >> 32, offset, offset >> 32})
            words.push_back(static_cast<double>(static_cast<int32_t>(static_cast<uint32_t>(word))));
        return words;
    }

    const bool normal_, next_;
    uint64_t seed_ = 0, offset_ = 0;
    double low_ = 0, width_ = 0;
};

const Registration uniform_case("random_uniform", [] { return std::unique_ptr<Case>(new RandomCase(false, false)); });
const Registration normal_case("random_normal", [] { return std::unique_ptr<Case>(new RandomCase(true, false)); });

const Registration uniform_next_case("random_uniform_next", [] { return std::unique_ptr<Case>(new RandomCase(false, true)); });
const Registration normal_next_case("random_normal_next", [] { return std::unique_ptr<Case>(new RandomCase(true, true)); });

}  // namespace
}  // namespace dualform::test
