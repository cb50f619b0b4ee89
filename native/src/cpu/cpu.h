// What a CPU kernel file sees: the queue (threads, scratch), errors, dtype dispatch.
//
// Every kernel file is compiled once per instruction set, in the namespace dualform::cpu::DF_ISA (base, avx2, avx512), and
// exports nothing but the functions listed in kernels.h. Nothing here or there throws. A kernel must not call inline functions of the
// standard library that are not always inlined: the linker would keep one copy, compiled for one instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "dualform/df_backend.h"

namespace dualform::cpu {

/// Writes a sentence and returns the status: `return fail(error, DF_UNSUPPORTED, "attention: ...")`.
int fail(df_error* error, int status, const char* format, ...) __attribute__((format(printf, 3, 4)));
int out_of_memory(df_error* error, const char* op, size_t bytes);

/// How products of bfloat16 are formed. Sums are float32 in each. With kTiles products of float32 may be formed of them, too.
enum class Bf16Products {
    kWidened,  // as float32
    kDot,      // AVX512_BF16: two products in each lane
    kTiles,    // AMX: 16 x 16 tiles
};
Bf16Products bf16_products(df_queue* queue);

/// Threads that parallel_for may use; worker numbers are below it.
int thread_count(df_queue* queue);
/// Runs fn(context, i, worker) for i in [0, n), each i once, on any worker, in any order. The caller's thread takes part. When the
/// pool is busy with another call, everything runs on the caller's thread as worker 0.
void run_parallel(df_queue* queue, int64_t n, void (*fn)(void* context, int64_t i, int worker), void* context);

/// Memory from the device's pool for the duration of one op, 64-byte aligned.
class Scratch {
public:
    Scratch(df_queue* queue, size_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    explicit operator bool() const { return data_ != nullptr; }
    template <class T>
    T* as(size_t byte_offset = 0) const { return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset); }

private:
    df_queue* queue_;
    void* data_;
};

/// bfloat16 storage.
struct bf16 {
    uint16_t bits;
};

}  // namespace dualform::cpu

#ifdef DF_ISA
namespace dualform::cpu::DF_ISA {

/// f(i, worker) for i in [0, n). Results must not depend on worker or on the number of threads.
template <class F>
inline void parallel_for(df_queue* queue, int64_t n, F&& f) {
    if (n == 1) {
        f(int64_t{0}, 0);
        return;
    }
    run_parallel(
        queue, n, [](void* context, int64_t i, int worker) { (*static_cast<F*>(context))(i, worker); }, const_cast<void*>(static_cast<const volatile void*>(&f)));
}

/// The accumulation type of a storage type.
template <class T>
struct AccumulateOf { using type = float; };
template <>
struct AccumulateOf<double> { using type = double; };
template <class T>
using Accumulate = typename AccumulateOf<T>::type;

template <class T>
struct Type { using type = T; };

/// Calls f(Type<T>{}) with the storage type of a floating dtype: float, bf16 or double. f returns a status.
template <class F>
inline int dispatch(int dtype, F&& f) {
    switch (dtype) {
        case DF_F32: return f(Type<float>{});
        case DF_BF16: return f(Type<bf16>{});
        default: return f(Type<double>{});
    }
}

template <class T>
constexpr T smaller(T a, T b) { return b < a ? b : a; }
template <class T>
constexpr T larger(T a, T b) { return a < b ? b : a; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <class T>
inline T* data(const df_view* v) { return static_cast<T*>(v->data); }
inline int64_t numel(const df_view* v) {
    int64_t n = 1;
    for (int i = 0; i < v->rank; ++i) n *= v->shape[i];
    return n;
}

}  // namespace dualform::cpu::DF_ISA
#endif
