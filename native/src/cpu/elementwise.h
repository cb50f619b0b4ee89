// The index space that the tensors of one op share: broadcasting, merged dimensions, rows, tiles, and how work is cut for the threads.
//
// Kernels read and write tiles of up to kTile elements in the accumulation type A. A tile of a contiguous tensor of A is the tensor's own
// memory; anything else (bfloat16, a broadcast or strided operand) passes through a small buffer in the L1 cache.
#pragma once

#include "cpu/vector_math.h"

namespace dualform::cpu::DF_ISA {

constexpr int kTile = 512;
constexpr int64_t kGrain = 16384;       // elements of one piece of parallel work
constexpr int64_t kInlineWork = 32768;  // below it, waking threads costs more than it saves

/// f(i, worker) for i in [0, n): in parallel when there is enough work, which is counted in element operations.
template <class F>
inline void for_pieces(df_queue* queue, int64_t n, int64_t work, F&& f) {
    if (work > kInlineWork) return parallel_for(queue, n, [&](int64_t i, int worker) { f(i, worker); });
    for (int64_t i = 0; i < n; ++i) f(i, 0);
}

/// K tensors broadcast to one shape (row-major), cut into rows whose elements lie at one stride in each tensor.
template <int K>
struct Space {
    int rank = 0;  // dimensions outside the row, innermost first
    int64_t shape[DF_MAX_RANK] = {};
    int64_t stride[K][DF_MAX_RANK] = {};
    int64_t rows = 1, inner = 1;
    int64_t inner_stride[K] = {};

    /// Dimensions of size 1 vanish; two dimensions merge when every tensor steps through both as through one. Null views stay at 0.
    Space(const df_view* like, const df_view* const (&views)[K]) {
        bool empty = true;
        for (int k = 0; k < K; ++k) inner_stride[k] = 1;
        for (int axis = like->rank - 1; axis >= 0; --axis) {
            const int64_t size = like->shape[axis];
            if (size == 1) continue;
            int64_t step[K];
            for (int k = 0; k < K; ++k) step[k] = step_of(views[k], like, axis);
            if (empty) {
                inner = size;
                for (int k = 0; k < K; ++k) inner_stride[k] = step[k];
                empty = false;
            } else if (merges(step)) {
                (rank == 0 ? inner : shape[rank - 1]) *= size;
            } else {
                shape[rank] = size;
                for (int k = 0; k < K; ++k) stride[k][rank] = step[k];
                ++rank;
            }
        }
        for (int i = 0; i < rank; ++i) rows *= shape[i];
    }

    int64_t size() const { return rows * inner; }

    /// Where element index (row-major) lies in each tensor.
    void locate(int64_t index, int64_t (&offset)[K]) const {
        int64_t row = rank == 0 ? 0 : index / inner;
        for (int k = 0; k < K; ++k) offset[k] = (index - row * inner) * inner_stride[k];
        for (int i = 0; i < rank; ++i) {
            const int64_t place = row % shape[i];
            row /= shape[i];
            for (int k = 0; k < K; ++k) offset[k] += place * stride[k][i];
        }
    }

    /// The pieces of parallel work: each is some whole rows, or a part of one row. Depends on the shape alone.
    int64_t rows_per_piece() const { return larger<int64_t>(1, kGrain / inner); }
    int64_t pieces_per_row() const { return inner > kGrain ? ceil_div(inner, kGrain) : 1; }
    int64_t pieces() const { return ceil_div(rows, rows_per_piece()) * pieces_per_row(); }

    /// f(offset, index, n) for the tiles of one piece: where the tile starts in each tensor and in row-major order, and its size.
    template <class F>
    void tiles(int64_t piece, F&& f) const {
        const int64_t parts = pieces_per_row();
        const int64_t first = piece / parts * rows_per_piece(), last = smaller(first + rows_per_piece(), rows);
        const int64_t begin = piece % parts * kGrain, end = parts == 1 ? inner : smaller(begin + kGrain, inner);
        int64_t place[DF_MAX_RANK], row_offset[K] = {}, rest = first;
        for (int i = 0; i < rank; ++i) {
            place[i] = rest % shape[i];
            rest /= shape[i];
            for (int k = 0; k < K; ++k) row_offset[k] += place[i] * stride[k][i];
        }
        for (int64_t row = first; row < last; ++row) {
            for (int64_t i = begin; i < end; i += kTile) {
                int64_t offset[K];
                for (int k = 0; k < K; ++k) offset[k] = row_offset[k] + i * inner_stride[k];
                f(offset, row * inner + i, int(smaller<int64_t>(kTile, end - i)));
            }
            for (int i = 0; i < rank; ++i) {
                for (int k = 0; k < K; ++k) row_offset[k] += stride[k][i];
                if (++place[i] < shape[i]) break;
                place[i] = 0;
                for (int k = 0; k < K; ++k) row_offset[k] -= shape[i] * stride[k][i];
            }
        }
    }

private:
    static int64_t step_of(const df_view* v, const df_view* like, int axis) {
        if (v == nullptr) return 0;
        const int own = axis - (like->rank - v->rank);
        return own < 0 || v->shape[own] == 1 ? 0 : v->stride[own];
    }
    bool merges(const int64_t (&step)[K]) const {
        for (int k = 0; k < K; ++k) {
            const int64_t last = rank == 0 ? inner_stride[k] * inner : stride[k][rank - 1] * shape[rank - 1];
            if (step[k] != last) return false;
        }
        return true;
    }
};

/// f(offset, index, n) for every tile of the space, in parallel.
template <int K, class F>
inline void for_tiles(df_queue* queue, const Space<K>& space, F&& f) {
    for_pieces(queue, space.pieces(), space.size(), [&](int64_t piece, int) { space.tiles(piece, f); });
}

// ---- tiles ----

template <class A, class T>
inline const A* read_as(A* buffer, const T* p, int64_t stride, int n) {
    if (stride == 1) {
        if constexpr (kSame<A, T>) {
            return p;
        } else if constexpr (kSame<A, float> && !kSame<T, double>) {
            for_vectors<float>(n, [&](int64_t i, int lanes) { store_lanes<float>(buffer + i, load_lanes<float>(p + i, lanes), lanes); });
        } else {
            for (int i = 0; i < n; ++i) buffer[i] = A(get(p + i));
        }
    } else if (stride == 0) {
        const A x = A(get(p));
        for (int i = 0; i < n; ++i) buffer[i] = x;
    } else {
        for (int i = 0; i < n; ++i) buffer[i] = A(get(p + i * stride));
    }
    return buffer;
}

/// n elements of v from an offset, in A: v's own memory when that is what it holds, otherwise copied to buffer.
template <class A>
inline const A* read_tile(A* buffer, const df_view* v, int64_t offset, int64_t stride, int n) {
    switch (v->dtype) {
        case DF_F32: return read_as<A, float>(buffer, data<const float>(v) + offset, stride, n);
        case DF_BF16: return read_as<A, bf16>(buffer, data<const bf16>(v) + offset, stride, n);
        default: return read_as<A, double>(buffer, data<const double>(v) + offset, stride, n);
    }
}

/// Where a kernel writes a tile: v's own memory, or buffer; then write_tile puts it into v, rounding once.
template <class A>
inline A* tile_target(A* buffer, const df_view* v, int64_t offset, int64_t stride) {
    const bool own = stride == 1 && v->dtype == (kSame<A, float> ? DF_F32 : DF_F64);
    return own ? data<A>(v) + offset : buffer;
}

template <class A, class T>
inline void write_as(T* p, const A* tile, int64_t stride, int n) {
    if constexpr (kSame<A, float> && kSame<T, bf16>) {
        if (stride == 1) {
            for_vectors<float>(n, [&](int64_t i, int lanes) { store_lanes<float>(p + i, load_lanes<float>(tile + i, lanes), lanes); });
            return;
        }
    }
    for (int i = 0; i < n; ++i) {
        if constexpr (kSame<A, double>) put_rounded(p + i * stride, tile[i]);
        else put(p + i * stride, tile[i]);
    }
}

template <class A>
inline void write_tile(const df_view* v, int64_t offset, int64_t stride, const A* tile, int n) {
    dispatch(v->dtype, [&](auto type) {
        using T = typename decltype(type)::type;
        T* p = data<T>(v) + offset;
        if (static_cast<const void*>(p) != static_cast<const void*>(tile)) write_as<A, T>(p, tile, stride, n);
        return 0;
    });
}

// ---- single elements and rows ----

inline double read_scalar(const df_view* v, int64_t offset = 0) {
    switch (v->dtype) {
        case DF_F32: return double(data<float>(v)[offset]);
        case DF_BF16: return double(get(data<bf16>(v) + offset));
        default: return data<double>(v)[offset];
    }
}
/// v[offset] (+)= x, rounded once.
inline void write_scalar(const df_view* v, int64_t offset, double x, bool add = false) {
    if (add) x += read_scalar(v, offset);
    switch (v->dtype) {
        case DF_F32: data<float>(v)[offset] = float(x); break;
        case DF_BF16: data<bf16>(v)[offset] = round_to_bf16(x); break;
        default: data<double>(v)[offset] = x;
    }
}

/// The rows of a tensor (.., C); with trailing = 0 each element is a row.
template <class T>
class Rows {
public:
    explicit Rows(const df_view* v, int trailing = 1) {
        if (v == nullptr) return;
        first_ = data<T>(v);
        for (int axis = v->rank - trailing - 1; axis >= 0; --axis) {
            const int64_t size = v->shape[axis], step = v->stride[axis];
            if (size == 1) continue;
            if (rank_ > 0 && step == stride_[rank_ - 1] * shape_[rank_ - 1]) {
                shape_[rank_ - 1] *= size;
            } else {
                shape_[rank_] = size;
                stride_[rank_++] = step;
            }
        }
    }
    explicit operator bool() const { return first_ != nullptr; }
    T* operator[](int64_t n) const {
        T* p = first_;
        for (int i = 0; i < rank_ - 1; ++i) {
            p += n % shape_[i] * stride_[i];
            n /= shape_[i];
        }
        return rank_ == 0 ? p : p + n * stride_[rank_ - 1];
    }

private:
    T* first_ = nullptr;
    int rank_ = 0;
    int64_t shape_[DF_MAX_RANK] = {}, stride_[DF_MAX_RANK] = {};
};

}  // namespace dualform::cpu::DF_ISA
