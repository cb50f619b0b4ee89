// The wrappers of cuda/src/mma.h as the emulation runs them, against plain products: fragment layouts by the PTX ISA's tables, written
// out here a second time, and what must go wrong does.
#include "mma.h"

#include <cstdio>
#include <vector>

using namespace dualform::cuda;

namespace {

int passed = 0, failed = 0;

void expect(bool ok, const char* sentence) {
    ok ? ++passed : ++failed;
    if (!ok) std::printf("FAILED: %s\n", sentence);
}

/// Small whole numbers: every product and sum is exact in any order.
float number(int i) { return static_cast<float>((i * 37 + 11) % 31 - 15); }

int lane() { return static_cast<int>(threadIdx.x % 32); }

/// Two warps, of which each multiplies its own operands.
void bf16_products() {
    std::vector<float> a(2 * 16 * 16), b(2 * 16 * 8), c(2 * 16 * 8), d(2 * 16 * 8);
    for (size_t i = 0; i < a.size(); ++i) a[i] = number(static_cast<int>(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = number(static_cast<int>(3 * i + 5));
    for (size_t i = 0; i < c.size(); ++i) c[i] = number(static_cast<int>(7 * i + 2));
    const int status = emulation::run(1, 64, 0, [&] {
        const int warp = static_cast<int>(threadIdx.x) / 32, row = lane() >> 2, in_group = lane() % 4;
        const float *A = &a[static_cast<size_t>(warp * 256)], *B = &b[static_cast<size_t>(warp * 128)];
        uint32_t fa[4], fb[2];
        // PTX ISA, m16n8k16: element i of A at row groupID (+ 8 for i in 2, 3, 6, 7), column 2 threadID_in_group + i % 2 (+ 8 for i >= 4).
        for (int i = 0; i < 8; i += 2) {
            const int r = row + (i == 2 || i == 6 ? 8 : 0), k = 2 * in_group + (i >= 4 ? 8 : 0);
            fa[i / 2] = pack_bf16(A[r * 16 + k], A[r * 16 + k + 1]);
        }
        for (int i = 0; i < 4; i += 2) { /* of B: row 2 threadID_in_group + i % 2 (+ 8 for i >= 2), column groupID */
            const int k = 2 * in_group + (i >= 2 ? 8 : 0);
            fb[i / 2] = pack_bf16(B[k * 8 + row], B[(k + 1) * 8 + row]);
        }
        float fc[4];
        for (int i = 0; i < 4; ++i) fc[i] = c[static_cast<size_t>(warp * 128 + (row + (i >= 2 ? 8 : 0)) * 8 + 2 * in_group + i % 2)];
        mma_m16n8k16_bf16(fc, fa, fb[0], fb[1]);
        for (int i = 0; i < 4; ++i) d[static_cast<size_t>(warp * 128 + (row + (i >= 2 ? 8 : 0)) * 8 + 2 * in_group + i % 2)] = fc[i];
    });
    bool equal = status == emulation::kSuccess;
    for (int w = 0; w < 2; ++w)
        for (int r = 0; r < 16; ++r)
            for (int n = 0; n < 8; ++n) {
                float sum = c[static_cast<size_t>(w * 128 + r * 8 + n)];
                for (int k = 0; k < 16; ++k) sum += a[static_cast<size_t>(w * 256 + r * 16 + k)] * b[static_cast<size_t>(w * 128 + k * 8 + n)];
                equal = equal && sum == d[static_cast<size_t>(w * 128 + r * 8 + n)];
            }
    expect(equal, "mma_m16n8k16_bf16 is not the plain product");
}

void tf32_products() {
    std::vector<float> a(16 * 8), b(8 * 8), d(16 * 8);
    for (size_t i = 0; i < a.size(); ++i) a[i] = number(static_cast<int>(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = number(static_cast<int>(5 * i + 1));
    const int status = emulation::run(1, 32, 0, [&] {
        const int row = lane() >> 2, in_group = lane() % 4;
        uint32_t fa[4], fb[2];
        // PTX ISA, m16n8k8 tf32: a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4); b0 (t, g), b1 (t + 4, g).
        for (int i = 0; i < 4; ++i) fa[i] = to_tf32(a[static_cast<size_t>((row + (i % 2) * 8) * 8 + in_group + (i / 2) * 4)]);
        for (int i = 0; i < 2; ++i) fb[i] = to_tf32(b[static_cast<size_t>((in_group + 4 * i) * 8 + row)]);
        float fc[4] = {};
        mma_m16n8k8_tf32(fc, fa, fb[0], fb[1]);
        for (int i = 0; i < 4; ++i) d[static_cast<size_t>((row + (i >= 2 ? 8 : 0)) * 8 + 2 * in_group + i % 2)] = fc[i];
    });
    bool equal = status == emulation::kSuccess;
    for (int r = 0; r < 16; ++r)
        for (int n = 0; n < 8; ++n) {
            float sum = 0;
            for (int k = 0; k < 8; ++k) sum += a[static_cast<size_t>(r * 8 + k)] * b[static_cast<size_t>(k * 8 + n)];
            equal = equal && sum == d[static_cast<size_t>(r * 8 + n)];
        }
    expect(equal, "mma_m16n8k8_tf32 is not the plain product");
    expect(bits_to_float(to_tf32(1.0f + 0x1p-11f)) == 1.0f + 0x1p-10f && bits_to_float(to_tf32(-1.0f - 0x1p-12f)) == -1.0f,
           "to_tf32 does not round to nearest, ties away from zero");
}

/// What a block does with 16 KiB of dynamic shared memory at a multiple of 1024.
template <class Body>
int run_block(const Body& body) { return emulation::run(1, 32, 16384, [&] { body(); }); }

template <int Chunks>
void matrices(bool transposed) {
    uint16_t got[32][8];
    const int status = run_block([&] {
        auto* shared = static_cast<unsigned char*>(emulation::dynamic_shared());
        if (lane() == 0) /* element (row, column) of the tile is 100 row + column; 16 rows of Chunks chunks */
            for (int r = 0; r < 16; ++r)
                for (int c = 0; c < 8 * Chunks; ++c) {
                    const auto x = static_cast<uint16_t>(1000 * r + c);
                    memcpy(shared + swizzle<Chunks>(r, c / 8) + 2 * (c % 8), &x, sizeof x);
                }
        __syncwarp();
        // Matrices: rows 0..7 and 8..15 of chunk 0, then of chunk 1.
        uint32_t r[4];
        const SharedAddress row = shared_address(shared + swizzle<Chunks>(lane() % 16, lane() / 16));
        transposed ? ldmatrix_x4_trans(r, row) : ldmatrix_x4(r, row);
        memcpy(got[lane()], r, sizeof r);
    });
    bool equal = status == emulation::kSuccess;
    for (int l = 0; l < 32; ++l)
        for (int i = 0; i < 8; ++i) { /* register i / 2, half i % 2 */
            const int matrix = i / 2, in_row = transposed ? 2 * (l % 4) + i % 2 : l / 4, in_column = transposed ? l / 4 : 2 * (l % 4) + i % 2;
            const int r = (matrix % 2) * 8 + in_row, c = (matrix / 2) * 8 + in_column;
            equal = equal && got[l][i] == 1000 * r + c;
        }
    expect(equal, transposed ? "ldmatrix_x4_trans moves elements elsewhere" : "ldmatrix_x4 moves elements elsewhere");
}

/// Every chunk of a tile has a place of its own, and eight rows of a chunk column lie in the 32 banks once.
template <int Chunks>
void places() {
    std::vector<int> used(static_cast<size_t>(32 * Chunks));
    bool once = true, banks = true;
    for (int r = 0; r < 32; ++r)
        for (int c = 0; c < Chunks; ++c) {
            const int at = swizzle<Chunks>(r, c);
            once = once && at % 16 == 0 && at >= 0 && at / 16 < 32 * Chunks && used[static_cast<size_t>(at / 16)]++ == 0;
        }
    for (int r0 = 0; r0 < 32; r0 += 8)
        for (int c = 0; c < Chunks; ++c) {
            unsigned seen = 0;
            for (int r = r0; r < r0 + 8; ++r) seen |= 1u << (swizzle<Chunks>(r, c) / 16 % 8);
            banks = banks && seen == 0xff;
        }
    expect(once, "swizzle: two chunks in one place, or outside the tile");
    expect(banks, "swizzle: eight rows of a column meet in a bank");
}

void copies() {
    float before = 0, first = 0, second_before = 0, second = 0, cut = 1;
    const std::vector<float> source = {1, 2, 3, 4, 5, 6, 7, 8};
    alignas(16) float from[8];
    memcpy(from, source.data(), sizeof from);
    int status = run_block([&] {
        auto* shared = reinterpret_cast<float*>(emulation::dynamic_shared());
        if (lane() != 0) return;
        cp_async_16(shared_address(shared), from);
        cp_async_commit();
        cp_async_16(shared_address(shared + 4), from + 4, 8);
        cp_async_commit();
        before = shared[0];
        cp_async_wait<1>();
        first = shared[3];
        second_before = shared[4];
        cp_async_wait<0>();
        second = shared[5];
        cut = shared[6];
    });
    expect(status == emulation::kSuccess && before != before && first == 4, "cp.async: what is under way must be NaN, then the data");
    expect(second_before != second_before && second == 6 && cut == 0, "cp.async: wait_group<1> must leave one group under way; short copies fill with 0");
    status = run_block([&] { cp_async_16(shared_address(static_cast<unsigned char*>(emulation::dynamic_shared()) + 8), from); });
    expect(status == emulation::kMisalignedAddress, "cp.async to an address that is no multiple of 16 must fail");
    status = run_block([&] { cp_async_16(shared_address(static_cast<unsigned char*>(emulation::dynamic_shared()) + 16384), from); });
    expect(status == emulation::kIllegalAddress, "cp.async outside shared memory must fail");
    expect(low_bf16(pack_bf16(1.5f, -2)) == 1.5f && high_bf16(pack_bf16(1.5f, -2)) == -2, "pack_bf16: the first number is in the lower half");
}

/// As tensor cores do: what lies below the largest addend's last bits is cut, not rounded.
void cutting() {
    float up = 0, down = 0;
    emulation::run(1, 32, 0, [&] {
        for (const float sign : {1.0f, -1.0f}) {
            const uint32_t a = pack_bf16(sign, 0), b = pack_bf16(0x1p-24f * 1.5f, 0);
            const bool k0 = lane() % 4 == 0; /* one product, at k = 0 */
            const uint32_t fa[4] = {k0 ? a : 0, k0 ? a : 0, 0, 0};
            float c[4] = {1, 1, 1, 1};
            mma_m16n8k16_bf16(c, fa, k0 ? b : 0, 0);
            if (lane() == 0) (sign > 0 ? up : down) = c[0];
        }
    });
    expect(up == 1, "1 + 1.5 2^-24 must be cut to 1");
    expect(down == 1 - 0x1p-23f, "1 - 1.5 2^-24 must be cut to the float below");
}

}  // namespace

int main() {
    bf16_products();
    tf32_products();
    for (const bool transposed : {false, true}) {
        matrices<2>(transposed);
        matrices<4>(transposed);
        matrices<8>(transposed);
        matrices<16>(transposed);
    }
    places<1>();
    places<2>();
    places<4>();
    places<8>();
    places<16>();
    places<32>();
    copies();
    cutting();
    std::printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
