// Fills from counter-based random numbers, equal on every device: one thread per Philox block, four elements.
#include "kernels.h"
#include "launch.h"
#include "philox.h"
#include "views.h"

namespace dualform::cuda {

namespace {

constexpr int kThreads = 256;

struct Fill {
    Floats out;
    Walk<1> walk;
    uint64_t seed, offset;
    const uint32_t* state; /* words of seed and offset on the device, in their place; or null */
    double a, b;     /* lo and width, or mean and std */
    double most;     /* uniform: the largest value of the dtype below hi */
    bool bounded;
};

__device__ inline PhiloxBlock block_of(const Fill& p, int64_t n) {
    if (p.state == nullptr) return philox4x32_10(p.offset + static_cast<uint64_t>(n), p.seed);
    const uint64_t seed = p.state[0] | static_cast<uint64_t>(p.state[1]) << 32, offset = p.state[2] | static_cast<uint64_t>(p.state[3]) << 32;
    return philox4x32_10(offset + static_cast<uint64_t>(n), seed);
}

/// The next fill begins behind the blocks of this one.
__global__ void random_advance(uint32_t* state, int64_t blocks) {
    if (threadIdx.x != 0) return;
    const uint64_t next = (state[2] | static_cast<uint64_t>(state[3]) << 32) + static_cast<uint64_t>(blocks);
    state[2] = static_cast<uint32_t>(next);
    state[3] = static_cast<uint32_t>(next >> 32);
}

/// In (0, 1): never 0, so its logarithm is finite.
__device__ inline double unit(uint32_t word) { return (word + 0.5) * (1.0 / 4294967296.0); }

__device__ inline void store_four(const Fill& p, int64_t block, const double (&values)[4]) {
    for (int w = 0; w < 4; ++w) {
        const int64_t i = 4 * block + w;
        if (i >= p.walk.count) return;
        int64_t at[1];
        p.walk.offsets(i, at);
        p.out.store(at[0], values[w]);
    }
}

__global__ void random_uniform_blocks(Fill p, int64_t blocks) {
    for (int64_t n = first_element(); n < blocks; n += element_stride()) {
        const PhiloxBlock block = block_of(p, n);
        double values[4];
        for (int w = 0; w < 4; ++w) {
            values[w] = fma(p.b, unit(block.word[w]), p.a);
            if (p.bounded && values[w] > p.most) values[w] = p.most;
        }
        store_four(p, n, values);
    }
}

__global__ void random_normal_blocks(Fill p, int64_t blocks) {
    constexpr double kTwoPi = 6.28318530717958647693;
    for (int64_t n = first_element(); n < blocks; n += element_stride()) {
        const PhiloxBlock block = block_of(p, n);
        double values[4];
        for (int pair = 0; pair < 4; pair += 2) {
            const double radius = sqrt(-2.0 * log(unit(block.word[pair]))), angle = kTwoPi * unit(block.word[pair + 1]);
            values[pair] = fma(p.b, radius * cos(angle), p.a);
            values[pair + 1] = fma(p.b, radius * sin(angle), p.a);
        }
        store_four(p, n, values);
    }
}

/// The largest value of the dtype that is less than hi.
double largest_below(double hi, int dtype) {
    const float nearest = static_cast<float>(hi);
    if (dtype == DF_F32) return nearest < hi ? nearest : nextafterf(nearest, -INFINITY);
    const float rounded = to_float(to_bf16(nearest));
    if (rounded < hi) return rounded;
    if (rounded == 0) return bits_to_float(0x80010000u);
    return bits_to_float(float_to_bits(rounded) + (rounded > 0 ? 0xffff0000u : 0x10000u)); /* one step of bfloat16 down */
}

Fill fill_of(const df_random_args* args) {
    Fill p = {};
    p.out = floats(args->out);
    p.walk = walk<1>({args->out});
    p.seed = args->seed;
    p.offset = args->offset;
    p.state = args->state == nullptr ? nullptr : static_cast<const uint32_t*>(args->state->data);
    p.a = args->a;
    p.b = args->b;
    return p;
}

int fill(const Call& call, const df_random_args* args, const char* name, void (*kernel)(Fill, int64_t), const Fill& p) {
    const int64_t blocks = ceil_div(p.walk.count, 4);
    if (const int status = launch(call, name, element_blocks(blocks, kThreads), kThreads, 0, kernel, p, blocks)) return status;
    if (args->state == nullptr) return DF_OK;
    return launch(call, "random_advance", 1, kWarp, 0, random_advance, static_cast<uint32_t*>(args->state->data), blocks);
}

}  // namespace

int random_uniform(const Call& call, const df_random_args* args) {
    if (const int status = call.require_device_floats({args->out})) return status;
    Fill p = fill_of(args);
    p.b = args->b - args->a;
    p.bounded = args->a < args->b;
    p.most = p.bounded ? largest_below(args->b, args->out->dtype) : 0;
    return fill(call, args, "random_uniform_blocks", random_uniform_blocks, p);
}

int random_normal(const Call& call, const df_random_args* args) {
    if (const int status = call.require_device_floats({args->out})) return status;
    return fill(call, args, "random_normal_blocks", random_normal_blocks, fill_of(args));
}

}  // namespace dualform::cuda
