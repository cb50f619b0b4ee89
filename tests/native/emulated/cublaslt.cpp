// The calls made to cuBLASLt, against a stand-in library: layouts, transposes, batches, bias, addend and GELU; one question a shape.
//   emulated_cublaslt STAND_IN.so
#define DF_CUBLASLT_STAND_IN
#pragma GCC diagnostic ignored "-Wsubobject-linkage" /* the source is included, not compiled by itself */
#include "cublaslt.cu"
#include "gelu_math.h"

#include <stdarg.h>
#include <math.h>
#include <stdlib.h>

#include <vector>

namespace dualform::cuda {

// The little of the backend that a product needs.
int fail(df_error* error, int status, const char* format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(error->text, sizeof error->text, format, list);
    va_end(list);
    return status;
}
int Call::check(cudaError_t code, const char*) const { return code == cudaSuccess ? DF_OK : DF_INTERNAL; }
Scratch::Scratch(const Call& call, int64_t bytes) : call_(call), bytes_(bytes), data_(malloc(bytes > 0 ? static_cast<size_t>(bytes) : 1)) {}
Scratch::~Scratch() { free(data_); }
int Scratch::failure() const { return DF_OUT_OF_MEMORY; }

namespace {

int passed = 0, failed = 0;
int (*asked)() = nullptr;
uint32_t (*aligned_to)() = nullptr; /* out, in the last question */

void expect(bool ok, const char* what) {
    if (ok) {
        ++passed;
        return;
    }
    ++failed;
    printf("FAILED: %s\n", what);
}

/// Small integers, exact in both dtypes.
class Numbers {
public:
    Numbers(int dtype, int64_t n, unsigned seed, int64_t offset = 0) : dtype_(dtype), bytes_(static_cast<size_t>((n + offset) * 4 + 256)) {
        data_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(bytes_.data()) + 255) / 256 * 256) + offset * (dtype == DF_BF16 ? 2 : 4);
        for (int64_t i = 0; i < n; ++i) set(i, static_cast<float>((static_cast<unsigned>(i) * 7 + seed) % 5) - 2);
    }
    void set(int64_t i, float x) {
        if (dtype_ == DF_BF16)
            reinterpret_cast<bf16*>(data_)[i] = to_bf16(x);
        else
            reinterpret_cast<float*>(data_)[i] = x;
    }
    float at(int64_t i) const { return dtype_ == DF_BF16 ? to_float(reinterpret_cast<bf16*>(data_)[i]) : reinterpret_cast<float*>(data_)[i]; }
    Floats floats() const {
        Floats f;
        f.data = data_;
        f.dtype = dtype_;
        return f;
    }

private:
    int dtype_;
    std::vector<char> bytes_;
    char* data_;
};

struct Case {
    const char* name;
    int64_t m, n, k, batch;
    bool transposed_a, transposed_b, bias, accumulate;
    int dtype, out_dtype;
    int64_t offset; /* of a, in elements: another alignment */
    bool taken;
    int64_t bias_offset = 0;
};

void product(const Call& call, const Case& c) {
    Numbers a(c.dtype, c.m * c.k * c.batch, 1, c.offset), b(c.dtype, c.k * c.n * c.batch, 2), out(c.out_dtype, c.m * c.n * c.batch, 3),
        bias(c.out_dtype, c.n, 4, c.bias_offset);
    std::vector<float> expected;
    for (int64_t batch = 0; batch < c.batch; ++batch)
        for (int64_t i = 0; i < c.m; ++i)
            for (int64_t j = 0; j < c.n; ++j) {
                float sum = c.accumulate ? out.at((batch * c.m + i) * c.n + j) : 0;
                for (int64_t x = 0; x < c.k; ++x)
                    sum += a.at(batch * c.m * c.k + (c.transposed_a ? x * c.m + i : i * c.k + x)) *
                           b.at(batch * c.k * c.n + (c.transposed_b ? j * c.k + x : x * c.n + j));
                expected.push_back(sum + (c.bias ? bias.at(j) : 0));
            }
    Product p;
    p.m = c.m, p.n = c.n, p.k = c.k;
    p.a = {a.floats(), c.transposed_a ? 1 : c.k, c.transposed_a ? c.m : 1};
    p.b = {b.floats(), c.transposed_b ? 1 : c.n, c.transposed_b ? c.k : 1};
    p.out = {out.floats(), c.n, 1};
    if (c.accumulate) p.addend = p.out;
    if (c.bias) p.bias = bias.floats();
    if (c.batch > 1) {
        p.batch = Walk<4>();
        p.batch.append(c.batch, {c.m * c.n, c.m * c.k, c.k * c.n, c.accumulate ? c.m * c.n : 0});
        p.batch.finish();
    }
    bool served = false;
    const int before = asked();
    const int status = multiply_with_cublaslt(call, p, &served);
    expect(status == DF_OK && served == c.taken, c.name);
    if (asked() != before) expect(aligned_to() == (c.bias_offset != 0 ? 4u : 256u), "out's alignment is no more than the bias's");
    if (!served) return;
    bool equal = true;
    for (size_t i = 0; i < expected.size(); ++i) equal = equal && out.at(static_cast<int64_t>(i)) == expected[i];
    expect(equal, c.name);
}

struct GeluCase {
    const char* name;
    int64_t m, n, k, row; /* row: of pre, in elements */
    bool gradient, transposed_b, bias, pre;
    int dtype;
    int64_t offset; /* of pre, in elements */
    bool taken;
};

/// gelu(a b + bias) with a b + bias aside, or (a b) gelu'(pre); between the rows of pre nothing is written.
void gelu_product(const Call& call, const GeluCase& c) {
    constexpr float kUntouched = 77;
    Numbers a(c.dtype, c.m * c.k, 1), b(c.dtype, c.k * c.n, 2), out(c.dtype, c.m * c.n, 3), bias(c.dtype, c.n, 4), pre(c.dtype, c.m * c.row, 6, c.offset);
    for (int64_t i = 0; i < c.m; ++i)
        for (int64_t j = 0; j < c.row; ++j)
            if (!c.gradient || j >= c.n) pre.set(i * c.row + j, kUntouched);
    Product p;
    p.m = c.m, p.n = c.n, p.k = c.k;
    p.a = {a.floats(), c.k, 1};
    p.b = {b.floats(), c.transposed_b ? 1 : c.n, c.transposed_b ? c.k : 1};
    p.out = {out.floats(), c.n, 1};
    if (c.bias) p.bias = bias.floats();
    GeluEpilogue gelu_of;
    gelu_of.gradient = c.gradient;
    if (c.pre) gelu_of.pre = pre.floats(), gelu_of.pre_row = c.row;
    bool served = false;
    const int status = multiply_with_cublaslt(call, p, &served, &gelu_of);
    expect(status == DF_OK && served == c.taken, c.name);
    if (!served) return;
    bool equal = true;
    const float rounding = c.dtype == DF_BF16 ? 0x1p-8f : 1e-6f;
    for (int64_t i = 0; i < c.m; ++i)
        for (int64_t j = 0; j < c.row; ++j) {
            const float there = pre.at(i * c.row + j);
            if (j >= c.n) {
                equal = equal && there == kUntouched;
                continue;
            }
            float sum = c.bias ? bias.at(j) : 0;
            for (int64_t x = 0; x < c.k; ++x) sum += a.at(i * c.k + x) * b.at(c.transposed_b ? j * c.k + x : x * c.n + j);
            if (!c.gradient) equal = equal && there == (c.pre ? sum : kUntouched);
            const float expected = c.gradient ? sum * gelu_slope(there, DF_GELU_TANH) : gelu(sum, DF_GELU_TANH);
            equal = equal && fabsf(out.at(i * c.n + j) - expected) <= rounding * (1 + fabsf(expected));
        }
    expect(equal, c.name);
}

}  // namespace

}  // namespace dualform::cuda

int main(int argc, char** argv) {
    using namespace dualform::cuda;
    if (argc != 2 || !set_cublaslt_path(argv[1])) return 2;
    df_queue queue;
    df_error error = {};
    queue.cublaslt = open_cublaslt(queue.matmul_provider, sizeof queue.matmul_provider);
    if (queue.cublaslt == nullptr) {
        printf("FAILED: %s\n", queue.matmul_provider);
        return 1;
    }
    const Call call = {&queue, nullptr, "matmul", &error};
    void* const stand_in = dlopen(argv[1], RTLD_LAZY);
    asked = reinterpret_cast<int (*)()>(dlsym(stand_in, "stand_in_asked"));
    aligned_to = reinterpret_cast<uint32_t (*)()>(dlsym(stand_in, "stand_in_alignment"));
    const Case cases[] = {
        {"plain", 5, 7, 3, 1, false, false, false, false, DF_F32, DF_F32, 0, true},
        {"a transposed", 5, 7, 3, 1, true, false, false, false, DF_F32, DF_F32, 0, true},
        {"b transposed", 5, 7, 3, 1, false, true, false, false, DF_F32, DF_F32, 0, true},
        {"both transposed", 5, 7, 3, 1, true, true, false, false, DF_F32, DF_F32, 0, true},
        {"a batch", 4, 6, 3, 3, false, true, false, false, DF_F32, DF_F32, 0, true},
        {"bias", 5, 7, 3, 1, false, true, true, false, DF_F32, DF_F32, 0, true},
        {"addend", 5, 7, 3, 1, false, false, false, true, DF_F32, DF_F32, 0, true},
        {"a bias between two multiples of 16 bytes", 5, 7, 3, 1, false, true, true, false, DF_F32, DF_F32, 0, true, 1},
        {"bfloat16", 5, 7, 3, 1, false, true, true, false, DF_BF16, DF_BF16, 0, true},
        {"bfloat16 into float", 5, 7, 3, 1, true, false, false, true, DF_BF16, DF_F32, 0, true},
        {"another alignment", 5, 7, 3, 1, false, false, false, false, DF_F32, DF_F32, 1, true},
        {"a shape that is not taken", 5, 13, 3, 1, false, false, false, false, DF_F32, DF_F32, 0, false},
        {"a shape that is refused when called", 5, 11, 3, 1, false, false, false, false, DF_F32, DF_F32, 0, false},
    };
    const GeluCase gelu_cases[] = {
        {"gelu", 5, 16, 3, 16, false, false, false, false, DF_F32, 0, true},
        {"gelu and bias", 5, 16, 3, 16, false, true, true, false, DF_F32, 0, true},
        {"gelu that keeps its input", 5, 16, 3, 16, false, true, false, true, DF_F32, 0, true},
        {"gelu and bias that keep their input", 5, 16, 3, 16, false, true, true, true, DF_F32, 0, true},
        {"the same with longer rows of pre", 5, 15, 3, 24, false, true, true, true, DF_F32, 0, true},
        {"the same in bfloat16", 5, 16, 3, 16, false, true, true, true, DF_BF16, 0, true},
        {"the gradient of gelu", 5, 16, 3, 16, true, false, false, true, DF_F32, 0, true},
        {"the same with longer rows", 5, 15, 3, 24, true, true, false, true, DF_F32, 0, true},
        {"the gradient of gelu in bfloat16", 5, 16, 3, 16, true, false, false, true, DF_BF16, 0, true},
        {"rows of pre that are no multiple of 8", 5, 15, 3, 15, false, false, true, true, DF_F32, 0, false},
        {"pre off by one element", 5, 16, 3, 16, true, false, false, true, DF_F32, 1, false},
        {"the gradient without pre", 5, 16, 3, 16, true, false, false, false, DF_F32, 0, false},
        {"the gradient with a bias", 5, 16, 3, 16, true, false, true, true, DF_F32, 0, false},
        {"gelu of a shape that is not taken", 5, 13, 3, 16, false, true, true, true, DF_F32, 0, false},
    };
    int count = static_cast<int>(sizeof cases / sizeof *cases) + 1; /* shapes that are not taken are asked for too */
    for (const GeluCase& c : gelu_cases) count += c.taken;
    for (int round = 0; round < 3; ++round) {
        for (const Case& c : cases) product(call, c);
        for (const GeluCase& c : gelu_cases) gelu_product(call, c);
    }
    expect(asked() == count, "the heuristic is asked once a shape");
    if (asked() != count) printf("asked %d times, expected %d\n", asked(), count);
    close_cublaslt(queue.cublaslt);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
