#include "core/layout.h"

#include "core/tensor.h"

namespace dualform {

namespace {
constexpr int64_t kMaxBytes = int64_t{1} << 62;
}

int64_t checked_numel(int dtype, int rank, const int64_t* shape) {
    if (dtype < DF_F32 || dtype > DF_I32) raise(DF_INVALID_ARGUMENT, "dtype: %d, expected F32, BF16, F64 or I32", dtype);
    if (rank < 0 || rank > DF_MAX_RANK) raise(DF_INVALID_ARGUMENT, "rank: %d, expected 0..%d", rank, DF_MAX_RANK);
    if (rank > 0 && shape == nullptr) raise(DF_INVALID_ARGUMENT, "shape: null");
    int64_t bytes = static_cast<int64_t>(element_size(dtype));
    for (int i = 0; i < rank; ++i) {
        if (shape[i] < 1) raise(DF_INVALID_ARGUMENT, "shape: dimension %d is %lld, expected at least 1", i, static_cast<long long>(shape[i]));
        if (__builtin_mul_overflow(bytes, shape[i], &bytes) || bytes > kMaxBytes)
            raise(DF_INVALID_ARGUMENT, "shape: more than 2^62 bytes, expected a size that memory can hold");
    }
    return bytes / static_cast<int64_t>(element_size(dtype));
}

void contiguous_strides(int rank, const int64_t* shape, int64_t* stride) {
    int64_t s = 1;
    for (int i = rank - 1; i >= 0; --i) {
        stride[i] = s;
        s *= shape[i];
    }
}

bool is_contiguous(const df_view& v) {
    int64_t s = 1;
    for (int i = v.rank - 1; i >= 0; --i) {
        if (v.shape[i] != 1 && v.stride[i] != s) return false;
        s *= v.shape[i];
    }
    return true;
}

int64_t extent(int rank, const int64_t* shape, const int64_t* stride) {
    int64_t last = 0;
    for (int i = 0; i < rank; ++i) {
        int64_t reach;
        if (__builtin_mul_overflow(shape[i] - 1, stride[i], &reach) || __builtin_add_overflow(last, reach, &last) || last > kMaxBytes)
            raise(DF_INVALID_ARGUMENT, "strides: the view reaches beyond 2^62 elements");
    }
    return last + 1;
}

bool reaches_once(int rank, const int64_t* shape, const int64_t* stride) {
    int axes[DF_MAX_RANK], n = 0;  // the dimensions above 1, by rising stride
    for (int i = 0; i < rank; ++i) {
        if (shape[i] == 1) continue;
        int at = n++;
        for (; at > 0 && stride[axes[at - 1]] > stride[i]; --at) axes[at] = axes[at - 1];
        axes[at] = i;
    }
    int64_t reach = 1;
    for (int i = 0; i < n; ++i) {
        if (stride[axes[i]] < reach) return false;
        reach += (shape[axes[i]] - 1) * stride[axes[i]];
    }
    return true;
}

namespace {

struct Range {
    uintptr_t from, to;
};

Range addresses(const df_view& v) {
    const uintptr_t from = reinterpret_cast<uintptr_t>(v.data);
    return {from, from + static_cast<uintptr_t>(extent(v.rank, v.shape, v.stride)) * element_size(v.dtype)};
}

/// Reach of the dimensions whose stride is below period, or -1 when another stride is not a multiple of it.
int64_t inner_extent(const df_view& v, int64_t period) {
    int64_t reach = 1;
    for (int i = 0; i < v.rank; ++i) {
        if (v.shape[i] == 1) continue;
        if (v.stride[i] < period)
            reach += (v.shape[i] - 1) * v.stride[i];
        else if (v.stride[i] % period != 0)
            return -1;
    }
    return reach;
}

}  // namespace

bool may_overlap(const df_view& a, const df_view& b) {
    const Range ra = addresses(a), rb = addresses(b);
    if (ra.to <= rb.from || rb.to <= ra.from) return false;
    const int64_t size = static_cast<int64_t>(element_size(a.dtype));
    if (a.dtype != b.dtype) return true;
    // Interleaved rows: both repeat with one period, and inside a period they lie apart.
    for (int i = 0; i < a.rank; ++i) {
        const int64_t period = a.stride[i];
        if (a.shape[i] == 1 || period <= 1) continue;
        const int64_t ea = inner_extent(a, period), eb = inner_extent(b, period);
        if (ea < 0 || eb < 0 || ea > period || eb > period) continue;
        const int64_t bytes = static_cast<int64_t>(rb.from - ra.from);
        if (bytes % size != 0) return true;
        int64_t shift = (bytes / size) % period;
        if (shift < 0) shift += period;
        if (shift >= ea && shift + eb <= period) return false;
    }
    return true;
}

bool same_elements(const df_view& a, const df_view& b) {
    if (a.data != b.data || a.dtype != b.dtype || a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; ++i)
        if (a.shape[i] != b.shape[i] || (a.shape[i] != 1 && a.stride[i] != b.stride[i])) return false;
    return true;
}

}  // namespace dualform
