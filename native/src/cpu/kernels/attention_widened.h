// Small attention calls in float32 or bfloat16 run in double, with one rounding at the end. Their errors are maxima over few elements,
// where a sum in float is easily twice as far off as a lucky naive one, and they cost little: the sizes below are microseconds of work.
#pragma once

#include "cpu/kernels/attention_tile.h"

namespace dualform::cpu::DF_ISA {

constexpr double kWidenedWork = 8388608;    // multiply-adds of q k^T up to which a call is small
constexpr int64_t kLoneQueryKeys = 256;     // keys from which a lone query has a path of its own: reading them is all its time

inline bool is_widened(const AttentionSizes& sizes) {
    return sizes.pairs() * sizes.HS <= kWidenedWork && !(sizes.T == 1 && sizes.S >= kLoneQueryKeys);
}

/// The float64 kernel; what it reads and writes is F64 but for lengths, eta and deta.
int attention_forward_f64(df_queue* queue, const df_attention_args* args, df_error* error);

/// Contiguous float64 copies of a call's tensors, in one block of scratch.
class WidenedTensors {
public:
    /// Reserves room for a copy of v (null stays null); returns its number.
    int add(const df_view* v) {
        const int i = count_++;
        narrow_[i] = v;
        if (v == nullptr) return i;
        wide_[i] = *v;
        wide_[i].dtype = DF_F64;
        int64_t n = 1;
        for (int axis = v->rank - 1; axis >= 0; --axis) {
            wide_[i].stride[axis] = n;
            n *= v->shape[axis];
        }
        offset_[i] = layout_.add<double>(n);
        return i;
    }
    size_t bytes() const { return layout_.bytes(); }
    void place(const Scratch& scratch) {
        for (int i = 0; i < count_; ++i)
            if (narrow_[i] != nullptr) wide_[i].data = scratch.as<double>(offset_[i]);
    }
    const df_view* operator[](int i) const { return narrow_[i] == nullptr ? nullptr : &wide_[i]; }

    /// Copies tensor i from its own dtype to float64, or back with one rounding.
    void widen(int i) const { convert(i, [](auto* own, double* wide) { *wide = double(get(own)); }); }
    void narrow(int i) const { convert(i, [](auto* own, double* wide) { put_once(own, *wide); }); }

private:
    static void put_once(float* to, double x) { *to = float(x); }
    static void put_once(double* to, double x) { *to = x; }
    /// By way of a float rounded to odd, so that the two roundings come to one.
    static void put_once(bf16* to, double x) {
        float f = float(x);
        if (double(f) != x && x == x) {
            uint32_t u = bit_cast<uint32_t>(f);
            const bool beyond = (double(f) > x) == (x > 0);
            if (beyond) --u;
            if ((u & 0x7f800000u) != 0x7f800000u) u |= 1u;
            f = bit_cast<float>(u);
        }
        *to = to_bf16(f);
    }

    template <class F>
    void convert(int i, F&& f) const {
        if (narrow_[i] == nullptr) return;
        dispatch(narrow_[i]->dtype, [&](auto type) {
            using T = typename decltype(type)::type;
            rows(*narrow_[i], 0, data<T>(narrow_[i]), data<double>(&wide_[i]), f);
            return 0;
        });
    }
    /// Walks the dimensions from axis on; returns the place in the contiguous copy after them.
    template <class T, class F>
    static double* rows(const df_view& v, int axis, T* own, double* wide, F& f) {
        if (axis == v.rank - 1) {
            for (int64_t c = 0; c < v.shape[axis]; ++c) f(own + c, wide + c);
            return wide + v.shape[axis];
        }
        for (int64_t j = 0; j < v.shape[axis]; ++j) wide = rows(v, axis + 1, own + j * v.stride[axis], wide, f);
        return wide;
    }

    static constexpr int kMost = 12;
    int count_ = 0;
    const df_view* narrow_[kMost] = {};
    df_view wide_[kMost] = {};
    size_t offset_[kMost] = {};
    Layout layout_;
};

}  // namespace dualform::cpu::DF_ISA
