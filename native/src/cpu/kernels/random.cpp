// Uniform and normal fills from Philox blocks: element i takes word i mod 4 of block offset + i / 4.
#include "cpu/philox.h"

#include "cpu/elementwise.h"
#include "cpu/kernels.h"

namespace dualform::cpu::DF_ISA {

namespace {

constexpr int kBlocks = kTile / 4 + 2;  // blocks that one tile can touch

double unit(uint32_t word) { return (double(word) + 0.5) * 0x1p-32; }

/// draw(units, n) turns n uniform numbers in (0, 1), whole blocks, into the wanted distribution in place.
template <class F>
void fill_with(df_queue* queue, const df_random_args* args, int64_t cost, F&& draw) {
    uint32_t* state = args->state != nullptr ? data<uint32_t>(args->state) : nullptr;
    const uint64_t seed = state == nullptr ? args->seed : state[0] | uint64_t(state[1]) << 32;
    const uint64_t start = state == nullptr ? args->offset : state[2] | uint64_t(state[3]) << 32;
    const Space<1> space(args->out, {args->out});
    for_pieces(queue, space.pieces(), cost * space.size(), [&](int64_t piece, int) {
        space.tiles(piece, [&](const int64_t* offset, int64_t index, int n) {
            alignas(64) double values[4 * kBlocks];
            const int64_t first = index / 4, blocks = (index + n - 1) / 4 - first + 1;
            for (int64_t b = 0; b < blocks; ++b) {
                const PhiloxBlock block = philox(start + uint64_t(first + b), 0, seed);
                for (int w = 0; w < 4; ++w) values[4 * b + w] = unit(block.word[w]);
            }
            draw(values, int(4 * blocks));
            write_tile<double>(args->out, offset[0], space.inner_stride[0], values + index % 4, n);
        });
    });
    if (state == nullptr) return;
    const uint64_t next = start + uint64_t(ceil_div(space.size(), 4));
    state[2] = uint32_t(next);
    state[3] = uint32_t(next >> 32);
}

/// The next value of the dtype below x, for rounding that must not reach a bound.
float below(float x) {
    if (x == 0) return -0x1p-149f;
    const uint32_t bits = bit_cast<uint32_t>(x);
    return bit_cast<float>(x > 0 ? bits - 1 : bits + 1);
}
float below_bf16(float x) {
    const uint32_t bits = bit_cast<uint32_t>(x) & 0xffff0000u;
    if (x == 0) return bit_cast<float>(0x80010000u);
    if (x < 0) return bit_cast<float>(bits + 0x10000u);
    return bit_cast<float>(bits == bit_cast<uint32_t>(x) ? bits - 0x10000u : bits);
}

/// The largest value of the dtype that is less than hi.
double largest_below(double hi, int dtype) {
    if (dtype == DF_F32) {
        const float nearest = float(hi);
        return double(double(nearest) < hi ? nearest : below(nearest));
    }
    const float nearest = to_float(round_to_bf16(hi));
    return double(double(nearest) < hi ? nearest : below_bf16(nearest));
}

}  // namespace

int random_uniform(df_queue* queue, const df_random_args* args, df_error*) {
    const double lo = args->a, hi = args->b, width = hi - lo;
    const bool bounded = args->out->dtype != DF_F64 && lo < hi;
    const double most = bounded ? largest_below(hi, args->out->dtype) : 0;
    // fma by name: the same bits on every instruction set.
    fill_with(queue, args, 4, [&](double* values, int n) {
        for (int i = 0; i < n; ++i) values[i] = __builtin_fma(width, values[i], lo);
        if (!bounded) return;
        for (int i = 0; i < n; ++i) values[i] = values[i] > most ? most : values[i];
    });
    return DF_OK;
}

int random_normal(df_queue* queue, const df_random_args* args, df_error*) {
    constexpr double kTwoPi = 6.28318530717958647693;
    fill_with(queue, args, 32, [&](double* values, int n) {
        for (int i = 0; i < n; i += 2) {
            const double r = __builtin_sqrt(-2 * log(values[i])), angle = kTwoPi * values[i + 1];
            values[i] = __builtin_fma(args->b, r * cos(angle), args->a);
            values[i + 1] = __builtin_fma(args->b, r * sin(angle), args->a);
        }
    });
    return DF_OK;
}

}  // namespace dualform::cpu::DF_ISA
