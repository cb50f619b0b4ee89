// wgmma in PTX, one pair of functions for each N: A from shared memory, A from registers. Included by hopper.h, inside its namespace,
// and nowhere else.
//
// An instruction names N / 2 accumulators; the operands behind them are numbered by hand, as inline PTX wants it.

#define DF_ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DF_ACC8(i) DF_ACC4(i), DF_ACC4(i + 4)
#define DF_ACC32(i) DF_ACC8(i), DF_ACC8(i + 8), DF_ACC8(i + 16), DF_ACC8(i + 24)

#define DF_REG16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define DF_REG32 DF_REG16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DF_REG48 DF_REG32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define DF_REG64 DF_REG48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

#define DF_WGMMA(n, half, registers, accumulators, o0, o1, o2, o3, o4, o5, o6)                                                             \
    template <Major A, Major B>                                                                                                           \
    __device__ __forceinline__ void wgmma(float(&d)[half], uint64_t a, uint64_t b, bool accumulate) {                                     \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers   \
                     "}, " o0 ", " o1 ", p, 1, 1, " o3 ", " o4 ";\n}\n"                                                                    \
                     : accumulators                                                                                                       \
                     : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(A)), "n"(static_cast<int>(B)));            \
    }                                                                                                                                     \
    template <Major B>                                                                                                                    \
    __device__ __forceinline__ void wgmma(float(&d)[half], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint64_t b,                \
                                          bool accumulate) {                                                                              \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " o5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers   \
                     "}, {" o0 ", " o1 ", " o2 ", " o3 "}, " o4 ", p, 1, 1, " o6 ";\n}\n"                                                  \
                     : accumulators                                                                                                       \
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(b), "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(B)));          \
    }

#define DF_ACC_N64 DF_ACC32(0)
#define DF_ACC_N128 DF_ACC32(0), DF_ACC32(32)
DF_WGMMA(64, 32, DF_REG32, DF_ACC_N64, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
DF_WGMMA(128, 64, DF_REG64, DF_ACC_N128, "%64", "%65", "%66", "%67", "%68", "%69", "%70")

#undef DF_WGMMA
#undef DF_ACC_N64
#undef DF_ACC_N128
#undef DF_REG16
#undef DF_REG32
#undef DF_REG48
#undef DF_REG64
#undef DF_ACC32
#undef DF_ACC8
#undef DF_ACC4
