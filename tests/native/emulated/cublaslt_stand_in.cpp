// The part of cuBLASLt's C interface that cublaslt.cu calls, computed plainly: column-major D = alpha op(A) op(B) + beta C + bias,
// then GELU or, with its gradient as epilogue, times the slope of the GELU at the auxiliary matrix.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Layout {
    int type;
    int64_t rows, columns, leading;
    int32_t batch = 1;
    int64_t stride = 0;
};
struct Matmul {
    int32_t transposed_a = 0, transposed_b = 0;
    uint32_t epilogue = 1;
    const void* bias = nullptr;
    void* aux = nullptr;
    int64_t aux_leading = 0;
};
struct Algorithm {
    uint64_t data[8];
};
struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};

constexpr uint64_t kMark = 0xd0a1f0a3;
int asked = 0;
uint32_t alignment_of_out = 0;

float load(int type, const void* data, int64_t i) {
    if (type == 0) return static_cast<const float*>(data)[i];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(data)[i]) << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void store(int type, void* data, int64_t i, float x) {
    if (type == 0) {
        static_cast<float*>(data)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    static_cast<uint16_t*>(data)[i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Which epilogues may stand together, and what each needs.
bool whole(const Matmul& m, const Layout& d) {
    const bool bias = m.epilogue == 4 || m.epilogue == 36 || m.epilogue == 164, aux = m.epilogue == 160 || m.epilogue == 164 || m.epilogue == 192;
    if (!bias && !aux && m.epilogue != 1 && m.epilogue != 32) return false;
    if (bias != (m.bias != nullptr) || aux != (m.aux != nullptr)) return false;
    return !aux || (m.aux_leading >= d.rows && m.aux_leading % 8 == 0 && reinterpret_cast<uintptr_t>(m.aux) % 16 == 0 && d.batch == 1);
}

double inner(double u) { return sqrt(2 / M_PI) * (u + 0.044715 * u * u * u); }

}  // namespace

EXPORT int stand_in_asked() { return asked; }
EXPORT uint32_t stand_in_alignment() { return alignment_of_out; } /* what was asked for last */
EXPORT int cublasLtCreate(void** handle) { return *handle = new char, 0; }
EXPORT int cublasLtDestroy(void* handle) { return delete static_cast<char*>(handle), 0; }
EXPORT size_t cublasLtGetVersion() { return 1; }
EXPORT int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    if (leading < static_cast<int64_t>(rows)) return 7;
    *layout = new Layout{type, static_cast<int64_t>(rows), static_cast<int64_t>(columns), leading};
    return 0;
}
EXPORT int cublasLtMatrixLayoutDestroy(void* layout) { return delete static_cast<Layout*>(layout), 0; }
EXPORT int cublasLtMatrixLayoutSetAttribute(void* layout, int attribute, const void* value, size_t bytes) {
    Layout& l = *static_cast<Layout*>(layout);
    if (attribute == 5 && bytes == sizeof l.batch) return memcpy(&l.batch, value, bytes), 0;
    if (attribute == 6 && bytes == sizeof l.stride) return memcpy(&l.stride, value, bytes), 0;
    return 7;
}
EXPORT int cublasLtMatmulDescCreate(void** matmul, int compute, int scale) {
    *matmul = new Matmul;
    return compute == 68 && scale == 0 ? 0 : 7;
}
EXPORT int cublasLtMatmulDescDestroy(void* matmul) { return delete static_cast<Matmul*>(matmul), 0; }
EXPORT int cublasLtMatmulDescSetAttribute(void* matmul, int attribute, const void* value, size_t bytes) {
    Matmul& m = *static_cast<Matmul*>(matmul);
    void* const members[] = {&m.transposed_a, &m.transposed_b, nullptr, nullptr, &m.epilogue, &m.bias, nullptr, nullptr, &m.aux, &m.aux_leading};
    const size_t sizes[] = {4, 4, 0, 0, 4, 8, 0, 0, 8, 8};
    const int i = attribute - 3;
    if (i < 0 || i > 9 || members[i] == nullptr || bytes != sizes[i]) return 7;
    return memcpy(members[i], value, bytes), 0;
}
EXPORT int cublasLtMatmulPreferenceCreate(void** preference) { return *preference = new char, 0; }
EXPORT int cublasLtMatmulPreferenceDestroy(void* preference) { return delete static_cast<char*>(preference), 0; }
EXPORT int cublasLtMatmulPreferenceSetAttribute(void*, int attribute, const void* value, size_t bytes) {
    if (attribute == 8) memcpy(&alignment_of_out, value, sizeof alignment_of_out);
    return attribute == 1 ? (bytes == 8 ? 0 : 7) : bytes == 4 ? 0 : 7;
}
EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void* matmul, void*, void*, void*, void* d, void*, int wanted, Heuristic* results, int* found) {
    ++asked;
    *found = 0;
    if (!whole(*static_cast<Matmul*>(matmul), *static_cast<Layout*>(d))) return 7;
    if (wanted < 1 || static_cast<Layout*>(d)->rows == 13) return wanted < 1 ? 7 : 0; /* one shape that it does not take */
    results[0] = {};
    results[0].algorithm.data[0] = kMark + static_cast<uint64_t>(static_cast<Layout*>(d)->rows);
    results[0].workspace = 64;
    *found = 1;
    return 0;
}
EXPORT int cublasLtMatmul(void*, void* matmul, const void* alpha, const void* a, void* a_layout, const void* b, void* b_layout, const void* beta,
                          const void* c, void* c_layout, void* d, void* d_layout, const Algorithm* algorithm, void* workspace, size_t workspace_bytes,
                          void*) {
    const Matmul& m = *static_cast<Matmul*>(matmul);
    const Layout &la = *static_cast<Layout*>(a_layout), &lb = *static_cast<Layout*>(b_layout), &ld = *static_cast<Layout*>(d_layout);
    if (algorithm->data[0] != kMark + static_cast<uint64_t>(ld.rows) || workspace == nullptr || workspace_bytes != 64) return 7;
    if (c != d || c_layout != d_layout || !whole(m, ld)) return 7;
    if (ld.rows == 11) return 15; /* one shape that is taken and then refused */
    const int64_t k = m.transposed_a ? la.rows : la.columns;
    for (int32_t n = 0; n < ld.batch; ++n)
        for (int64_t i = 0; i < ld.rows; ++i)
            for (int64_t j = 0; j < ld.columns; ++j) {
                double sum = 0;
                for (int64_t x = 0; x < k; ++x)
                    sum += static_cast<double>(load(la.type, a, n * la.stride + (m.transposed_a ? x + i * la.leading : i + x * la.leading))) *
                           load(lb.type, b, n * lb.stride + (m.transposed_b ? j + x * lb.leading : x + j * lb.leading));
                sum *= *static_cast<const float*>(alpha);
                const int64_t at = n * ld.stride + i + j * ld.leading;
                if (*static_cast<const float*>(beta) != 0) sum += static_cast<double>(*static_cast<const float*>(beta)) * load(ld.type, d, at);
                if (m.epilogue & 4) sum += load(ld.type, m.bias, i);
                const int64_t at_aux = i + j * m.aux_leading;
                if (m.epilogue == 192) {
                    const double u = load(ld.type, m.aux, at_aux), t = tanh(inner(u));
                    sum *= (1 + t) / 2 + u / 2 * (1 - t * t) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * u * u);
                } else if (m.epilogue & 128) {
                    store(ld.type, m.aux, at_aux, static_cast<float>(sum));
                }
                if (m.epilogue & 32) sum = sum / 2 * (1 + tanh(inner(sum)));
                store(ld.type, d, at, static_cast<float>(sum));
            }
    return 0;
}
