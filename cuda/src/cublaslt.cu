#include "cublaslt.h"

#include "launches.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <mutex>
#include <new>

namespace dualform::cuda {

#if defined(DF_CUDA_EMULATION) && !defined(DF_CUBLASLT_STAND_IN) /* a test brings a library of its own */

CublasltSearch find_cublaslt() { return {false, "", "the host emulation does not use it", 0}; }
bool set_cublaslt_path(const char*) { return true; }
Cublaslt* open_cublaslt(char* provider, size_t n) {
    snprintf(provider, n, "own tiled kernel");
    return nullptr;
}
void close_cublaslt(Cublaslt*) {}
int multiply_with_cublaslt(const Call&, const Product&, bool* served, const GeluEpilogue*) {
    *served = false;
    return DF_OK;
}

#else

namespace {

// The part of cuBLASLt's C ABI used here, declared by hand because the plug-in builds without its headers. Values are those NVIDIA
// documents for cublasLt.h (CUDA 11.4 and later; unchanged through 13), data type numbers those of the toolkit's library_types.h.
using Handle = void*;
using Descriptor = void*;
constexpr int kComputeF32 = 68;                                              /* CUBLAS_COMPUTE_32F: float, no TF32 */
constexpr int kRealF32 = 0, kRealBf16 = 14;                                  /* CUDA_R_32F, CUDA_R_16BF */
constexpr int kOpTransposed = 1;                                             /* CUBLAS_OP_T */
constexpr int kMatmulTransA = 3, kMatmulTransB = 4, kMatmulEpilogue = 7, kMatmulBiasPointer = 8; /* CUBLASLT_MATMUL_DESC_... */
constexpr int kLayoutBatchCount = 5, kLayoutBatchStride = 6;                 /* CUBLASLT_MATRIX_LAYOUT_... */
constexpr int kPreferenceWorkspace = 1, kPreferenceReduction = 3, kPreferenceAlignmentA = 5; /* ..._A, B, C, D are 5, 6, 7, 8 */
constexpr uint32_t kReductionComputeType = 2; /* CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE: partial sums in float, in a fixed order */
constexpr int kMatmulAuxPointer = 11, kMatmulAuxLeading = 12; /* CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, ..._LD */
constexpr uint32_t kEpilogueDefault = 1, kEpilogueBias = 4, kEpilogueGelu = 32, kEpilogueAux = 128, kEpilogueGeluSlope = 64 | kEpilogueAux;
constexpr int kInvalidValue = 7, kArchitectureMismatch = 8, kNotSupported = 15; /* CUBLAS_STATUS_... */
constexpr int64_t kAuxMultiple = 8; /* elements: what the leading dimension of GELU's auxiliary matrix has to be a multiple of */

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

struct Library {
    void* handle = nullptr;
    int (*create)(Handle*) = nullptr;
    int (*destroy)(Handle) = nullptr;
    size_t (*version)() = nullptr;
    int (*layout_create)(Descriptor*, int type, uint64_t rows, uint64_t columns, int64_t leading) = nullptr;
    int (*layout_destroy)(Descriptor) = nullptr;
    int (*layout_set)(Descriptor, int attribute, const void* value, size_t bytes) = nullptr;
    int (*matmul_create)(Descriptor*, int compute_type, int scale_type) = nullptr;
    int (*matmul_destroy)(Descriptor) = nullptr;
    int (*matmul_set)(Descriptor, int attribute, const void* value, size_t bytes) = nullptr;
    int (*preference_create)(Descriptor*) = nullptr;
    int (*preference_destroy)(Descriptor) = nullptr;
    int (*preference_set)(Descriptor, int attribute, const void* value, size_t bytes) = nullptr;
    int (*heuristic)(Handle, Descriptor matmul, Descriptor a, Descriptor b, Descriptor c, Descriptor d, Descriptor preference, int wanted,
                     Heuristic* results, int* found) = nullptr;
    int (*matmul)(Handle, Descriptor matmul, const void* alpha, const void* a, Descriptor a_layout, const void* b, Descriptor b_layout,
                  const void* beta, const void* c, Descriptor c_layout, void* d, Descriptor d_layout, const Algorithm* algorithm,
                      void* workspace,
                  size_t workspace_bytes, cudaStream_t stream) = nullptr;
    char path[256] = "";
};

std::mutex path_mutex;
char wanted_path[256] = "";

template <class F>
bool bind(void* library, F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    return function != nullptr;
}

/// Opens the first of: the wanted path, libcublasLt.so.13, libcublasLt.so. Once open a library stays open: its kernels may be queued.
bool load(Library& l, char* reason, size_t n) {
    char first[sizeof wanted_path];
    {
        std::lock_guard<std::mutex> lock(path_mutex);
        memcpy(first, wanted_path, sizeof first);
    }
    reason[0] = 0;
    for (const char* name : {static_cast<const char*>(first), "libcublasLt.so.13", "libcublasLt.so"}) {
        if (*name == 0) continue;
        l.handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
        if (l.handle == nullptr) {
            const char* why = dlerror();
            if (reason[0] == 0) snprintf(reason, n, "%s", why != nullptr ? why : name);
            continue;
        }
        const bool whole =
            bind(l.handle, l.create, "cublasLtCreate") && bind(l.handle, l.destroy, "cublasLtDestroy") && bind(l.handle, l.version,
                "cublasLtGetVersion") &&
            bind(l.handle, l.layout_create, "cublasLtMatrixLayoutCreate") && bind(l.handle, l.layout_destroy,
                "cublasLtMatrixLayoutDestroy") &&
            bind(l.handle, l.layout_set, "cublasLtMatrixLayoutSetAttribute") && bind(l.handle, l.matmul_create,
                "cublasLtMatmulDescCreate") &&
            bind(l.handle, l.matmul_destroy, "cublasLtMatmulDescDestroy") && bind(l.handle, l.matmul_set,
                "cublasLtMatmulDescSetAttribute") &&
            bind(l.handle, l.preference_create, "cublasLtMatmulPreferenceCreate") &&
            bind(l.handle, l.preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
            bind(l.handle, l.preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
            bind(l.handle, l.heuristic, "cublasLtMatmulAlgoGetHeuristic") && bind(l.handle, l.matmul, "cublasLtMatmul");
        if (whole) {
            Dl_info info;
            const bool known = dladdr(reinterpret_cast<void*>(l.create), &info) != 0 && info.dli_fname != nullptr;
            snprintf(l.path, sizeof l.path, "%s", known ? info.dli_fname : name);
            return true;
        }
        snprintf(reason, n, "%s lacks a function of cuBLASLt", name);
        dlclose(l.handle);
        l.handle = nullptr;
    }
    return false;
}

}  // namespace

namespace {

/// All that the choice of an algorithm depends on.
struct Shape {
    int64_t m, n, k, batch, leading[3], batch_stride[3]; /* of out, a, b */
    int64_t aux_leading;
    int32_t type[3], transposed[2], accumulate;
    uint32_t alignment[3], epilogue;
};

/// What was chosen for a shape; remembered until the device closes. A model has some dozens of shapes; what comes after the table is full is
/// asked for anew each time.
class Choices {
public:
    bool find(const Shape& shape, Heuristic* chosen, bool* served) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (int i = first(shape); entries_[i].used; i = (i + 1) % kEntries)
            if (memcmp(&entries_[i].shape, &shape, sizeof shape) == 0) {
                *chosen = entries_[i].chosen;
                *served = entries_[i].served;
                return true;
            }
        return false;
    }
    void remember(const Shape& shape, const Heuristic& chosen, bool served) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (count_ >= kEntries / 2) return; /* never full: find() ends at a free entry */
        int i = first(shape);
        while (entries_[i].used) {
            if (memcmp(&entries_[i].shape, &shape, sizeof shape) == 0) return;
            i = (i + 1) % kEntries;
        }
        entries_[i] = {shape, chosen, true, served};
        ++count_;
    }
    /// This shape is left to others from now on.
    void give_up(const Shape& shape) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (int i = first(shape); entries_[i].used; i = (i + 1) % kEntries)
            if (memcmp(&entries_[i].shape, &shape, sizeof shape) == 0) entries_[i].served = false;
    }

private:
    static constexpr int kEntries = 1024;
    struct Entry {
        Shape shape;
        Heuristic chosen;
        bool used, served;
    };
    static int first(const Shape& shape) {
        const auto* bytes = reinterpret_cast<const unsigned char*>(&shape);
        uint64_t hash = 1469598103934665603u;
        for (size_t i = 0; i < sizeof shape; ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
        return static_cast<int>(hash % kEntries);
    }

    std::mutex mutex_;
    int count_ = 0;
    Entry entries_[kEntries] = {};
};

}  // namespace

struct Cublaslt {
    Library library;
    Handle handle = nullptr;
    Choices choices;
};

namespace {

/// Owns a descriptor for the length of one call.
struct Owned {
    Descriptor value = nullptr;
    int (*destroy)(Descriptor);
    explicit Owned(int (*d)(Descriptor)) : destroy(d) {}
    ~Owned() {
        if (value != nullptr) destroy(value);
    }
    Owned(const Owned&) = delete;
    Owned& operator=(const Owned&) = delete;
};

int type_of(const Floats& data) { return data.dtype == DF_BF16 ? kRealBf16 : kRealF32; }

/// One operand as cuBLASLt sees it: our row-major matrix is its column-major transpose.
struct Operand {
    int64_t leading, batch_stride;
    bool transposed;
    bool fits;
};

/// rows x columns are of the row-major matrix; batch_stride per matrix.
Operand operand(const Matrix& m, int64_t rows, int64_t columns, int64_t batch_stride) {
    Operand o = {};
    o.batch_stride = batch_stride;
    if (m.column == 1) {
        o.leading = rows == 1 ? larger(m.row, columns) : m.row;
        o.fits = o.leading >= columns;
    } else {
        o.leading = columns == 1 ? larger(m.column, rows) : m.column;
        o.transposed = true;
        o.fits = m.row == 1 && o.leading >= rows;
    }
    o.fits = o.fits && o.leading <= INT_MAX && batch_stride >= 0;
    return o;
}

/// Largest power of two, at most 256, that divides the address.
uint32_t alignment(const void* data) {
    uint32_t a = 256;
    while (reinterpret_cast<uintptr_t>(data) % a != 0) a /= 2;
    return a;
}

}  // namespace

bool set_cublaslt_path(const char* path) {
    const char* text = path == nullptr ? "" : path;
    if (strlen(text) >= sizeof wanted_path || (*text != 0 && *text != '/')) return false;
    std::lock_guard<std::mutex> lock(path_mutex);
    snprintf(wanted_path, sizeof wanted_path, "%s", text);
    return true;
}

CublasltSearch find_cublaslt() {
    CublasltSearch found = {};
    Library l;
    found.found = load(l, found.reason, sizeof found.reason);
    if (!found.found) return found;
    snprintf(found.path, sizeof found.path, "%s", l.path);
    found.version = l.version();
    dlclose(l.handle);
    return found;
}

Cublaslt* open_cublaslt(char* provider, size_t n) {
    char reason[160];
    auto* c = new (std::nothrow) Cublaslt;
    if (c != nullptr && load(c->library, reason, sizeof reason)) {
        const int status = c->library.create(&c->handle);
        if (status == 0) {
            snprintf(provider, n, "cublaslt %zu (%.200s)", c->library.version(), c->library.path);
            return c;
        }
        snprintf(reason, sizeof reason, "cublasLtCreate: status %d", status);
    }
    snprintf(provider, n, "own tiled kernel (%s)", c != nullptr ? reason : "no memory");
    delete c;
    return nullptr;
}

void close_cublaslt(Cublaslt* c) {
    if (c == nullptr) return;
    c->library.destroy(c->handle);
    delete c;
}

int multiply_with_cublaslt(const Call& call, const Product& p, bool* served, const GeluEpilogue* gelu) {
    *served = false;
    Cublaslt* c = call.queue->cublaslt;
    if (c == nullptr) return DF_OK;
    const Library& l = c->library;
    // One dtype on the way in, one batch stride, an addend that is out itself, a bias in out's dtype: what the ABI above can say.
    if (p.b_plus.data || p.a.data.dtype != p.b.data.dtype || (p.out.data.dtype == DF_BF16 && p.a.data.dtype != DF_BF16)) return DF_OK;
    if (p.addend.data && p.addend.data.data != p.out.data.data) return DF_OK;
    if (p.bias && p.bias.dtype != p.out.data.dtype) return DF_OK;
    if (p.batch.rank > 1 || p.batch.count > INT_MAX || p.m > INT_MAX || p.n > INT_MAX || p.k > INT_MAX) return DF_OK;
    const bool aux = gelu != nullptr && gelu->pre;
    if (gelu != nullptr && (p.addend.data || p.batch.count != 1 || (gelu->gradient && (p.bias || !aux)))) return DF_OK;
    if (aux && (gelu->pre.dtype != p.out.data.dtype || alignment(gelu->pre.data) < 16)) return DF_OK;
    if (aux && (gelu->pre_row < p.n || gelu->pre_row % kAuxMultiple != 0)) return DF_OK;
    const Operand a = operand(p.a, p.m, p.k, p.batch.stride[1][0]), b = operand(p.b, p.k, p.n, p.batch.stride[2][0]);
    const Operand out = operand(p.out, p.m, p.n, p.batch.stride[0][0]);
    if (!a.fits || !b.fits || !out.fits || out.transposed) return DF_OK;

    Shape shape;
    memset(&shape, 0, sizeof shape); /* padding too: shapes are compared as bytes */
    const Operand* const operands[3] = {&out, &a, &b};
    const Floats* const data[3] = {&p.out.data, &p.a.data, &p.b.data};
    shape.m = p.m, shape.n = p.n, shape.k = p.k, shape.batch = p.batch.count;
    for (int i = 0; i < 3; ++i) {
        shape.leading[i] = operands[i]->leading;
        shape.batch_stride[i] = operands[i]->batch_stride;
        shape.type[i] = type_of(*data[i]);
        shape.alignment[i] = alignment(data[i]->data);
    }
    shape.transposed[0] = a.transposed, shape.transposed[1] = b.transposed;
    shape.accumulate = static_cast<bool>(p.addend.data);
    if (p.bias) shape.epilogue |= kEpilogueBias;
    if (gelu != nullptr) shape.epilogue |= gelu->gradient ? kEpilogueGeluSlope : aux ? kEpilogueGelu | kEpilogueAux : kEpilogueGelu;
    if (shape.epilogue == 0) shape.epilogue = kEpilogueDefault;
    // There is no preference for the bias and the auxiliary matrix; they are read as out is written, so the least of the three counts.
    if (p.bias) shape.alignment[0] = smaller(shape.alignment[0], alignment(p.bias.data));
    if (aux) shape.aux_leading = gelu->pre_row, shape.alignment[0] = smaller(shape.alignment[0], alignment(gelu->pre.data));
    Heuristic chosen = {};
    bool takes = false;
    const bool known = c->choices.find(shape, &chosen, &takes);
    if (known && !takes) return DF_OK;

    // Row-major out = a b is column-major out^T = b^T a^T: b comes first, and a plain row-major operand is already the transpose.
    Owned matmul(l.matmul_destroy), layout_b(l.layout_destroy), layout_a(l.layout_destroy), layout_out(l.layout_destroy);
    bool ok = l.matmul_create(&matmul.value, kComputeF32, kRealF32) == 0;
    const auto describe = [&](Owned& layout, const Operand& o, const Floats& of, int64_t rows, int64_t columns) {
        const uint64_t stored_rows = static_cast<uint64_t>(o.transposed ? rows : columns),
            stored_columns = static_cast<uint64_t>(o.transposed ? columns : rows);
        ok = ok && l.layout_create(&layout.value, type_of(of), stored_rows, stored_columns, o.leading) == 0;
        if (!ok || p.batch.count == 1) return;
        const int32_t count = static_cast<int32_t>(p.batch.count);
        ok = l.layout_set(layout.value, kLayoutBatchCount, &count, sizeof count) == 0 &&
             l.layout_set(layout.value, kLayoutBatchStride, &o.batch_stride, sizeof o.batch_stride) == 0;
    };
    describe(layout_b, b, p.b.data, p.k, p.n);
    describe(layout_a, a, p.a.data, p.m, p.k);
    describe(layout_out, out, p.out.data, p.m, p.n);
    const int32_t transposed = kOpTransposed;
    if (b.transposed) ok = ok && l.matmul_set(matmul.value, kMatmulTransA, &transposed, sizeof transposed) == 0;
    if (a.transposed) ok = ok && l.matmul_set(matmul.value, kMatmulTransB, &transposed, sizeof transposed) == 0;
    if (shape.epilogue != kEpilogueDefault)
        ok = ok && l.matmul_set(matmul.value, kMatmulEpilogue, &shape.epilogue, sizeof shape.epilogue) == 0;
    if (p.bias) ok = ok && l.matmul_set(matmul.value, kMatmulBiasPointer, &p.bias.data, sizeof p.bias.data) == 0;
    if (aux)
        ok = ok && l.matmul_set(matmul.value, kMatmulAuxPointer, &gelu->pre.data, sizeof gelu->pre.data) == 0 &&
             l.matmul_set(matmul.value, kMatmulAuxLeading, &gelu->pre_row, sizeof gelu->pre_row) == 0;
    if (!ok) return DF_OK;
    if (!known) {
        Owned preference(l.preference_destroy);
        const uint64_t workspace_bytes = 32u << 20; /* what NVIDIA recommends for compute capability 9.0 */
        ok = l.preference_create(&preference.value) == 0 &&
             l.preference_set(preference.value, kPreferenceWorkspace, &workspace_bytes, sizeof workspace_bytes) == 0 &&
             l.preference_set(preference.value, kPreferenceReduction, &kReductionComputeType, sizeof kReductionComputeType) == 0;
        const uint32_t alignments[4] = {shape.alignment[2], shape.alignment[1], shape.alignment[0], shape.alignment[0]};
        for (int i = 0; i < 4; ++i)
            ok = ok && l.preference_set(preference.value, kPreferenceAlignmentA + i, &alignments[i], sizeof alignments[i]) == 0;
        int found = 0;
        ok = ok && l.heuristic(c->handle, matmul.value, layout_b.value, layout_a.value, layout_out.value, layout_out.value, preference.value,
                               1, &chosen, &found) == 0;
        takes = ok && found != 0 && chosen.status == 0;
        if (ok) c->choices.remember(shape, chosen, takes);
        if (!takes) return DF_OK; /* a shape it does not take: the tiled kernel does */
    }

    Scratch workspace(call, static_cast<int64_t>(chosen.workspace));
    if (chosen.workspace != 0 && !workspace) return workspace.failure();
    const float alpha = 1, beta = p.addend.data ? 1.0f : 0.0f;
    const int status = l.matmul(c->handle, matmul.value, &alpha, p.b.data.data, layout_b.value, p.a.data.data, layout_a.value, &beta,
                                p.out.data.data,
                                layout_out.value, p.out.data.data, layout_out.value, &chosen.algorithm, workspace.as<void>(),
                                    chosen.workspace,
                                call.stream);
    *served = status == 0;
    if (status == 0) return count_launch("cublasLtMatmul"), DF_OK;
    if (const int lost = call.check(cudaGetLastError(), "cublasLtMatmul")) return lost;
    // What it says before it starts, of a shape that its heuristic had taken: the tiled kernel serves that. All else is an error.
    if (status != kInvalidValue && status != kArchitectureMismatch && status != kNotSupported)
        return fail(call.error, DF_INTERNAL, "%s: cublasLtMatmul: status %d", call.op, status);
    c->choices.give_up(shape);
    return DF_OK;
}

#endif

}  // namespace dualform::cuda
