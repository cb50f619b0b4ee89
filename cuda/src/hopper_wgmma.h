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
#define DF_REG80 DF_REG64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define DF_REG88 DF_REG80 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define DF_REG96 DF_REG80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define DF_REG128 DF_REG96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define DF_REG8 "%0, %1, %2, %3, %4, %5, %6, %7"

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

#define DF_ACC_N16 DF_ACC8(0)
#define DF_ACC_N32 DF_ACC8(0), DF_ACC8(8)
#define DF_ACC_N64 DF_ACC32(0)
#define DF_ACC_N96 DF_ACC32(0), DF_ACC8(32), DF_ACC8(40)
#define DF_ACC_N128 DF_ACC32(0), DF_ACC32(32)
#define DF_ACC_N160 DF_ACC32(0), DF_ACC32(32), DF_ACC8(64), DF_ACC8(72)
#define DF_ACC_N176 DF_ACC32(0), DF_ACC32(32), DF_ACC8(64), DF_ACC8(72), DF_ACC8(80)
#define DF_ACC_N192 DF_ACC32(0), DF_ACC32(32), DF_ACC32(64)
#define DF_ACC_N256 DF_ACC32(0), DF_ACC32(32), DF_ACC32(64), DF_ACC32(96)
DF_WGMMA(16, 8, DF_REG8, DF_ACC_N16, "%8", "%9", "%10", "%11", "%12", "%13", "%14")
DF_WGMMA(32, 16, DF_REG16, DF_ACC_N32, "%16", "%17", "%18", "%19", "%20", "%21", "%22")
DF_WGMMA(64, 32, DF_REG32, DF_ACC_N64, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
DF_WGMMA(96, 48, DF_REG48, DF_ACC_N96, "%48", "%49", "%50", "%51", "%52", "%53", "%54")
DF_WGMMA(128, 64, DF_REG64, DF_ACC_N128, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
DF_WGMMA(160, 80, DF_REG80, DF_ACC_N160, "%80", "%81", "%82", "%83", "%84", "%85", "%86")
DF_WGMMA(176, 88, DF_REG88, DF_ACC_N176, "%88", "%89", "%90", "%91", "%92", "%93", "%94")
DF_WGMMA(192, 96, DF_REG96, DF_ACC_N192, "%96", "%97", "%98", "%99", "%100", "%101", "%102")
DF_WGMMA(256, 128, DF_REG128, DF_ACC_N256, "%128", "%129", "%130", "%131", "%132", "%133", "%134")

#undef DF_WGMMA
#undef DF_ACC_N16
#undef DF_ACC_N32
#undef DF_ACC_N64
#undef DF_ACC_N96
#undef DF_ACC_N128
#undef DF_ACC_N160
#undef DF_ACC_N176
#undef DF_ACC_N192
#undef DF_ACC_N256
#undef DF_REG8
#undef DF_REG16
#undef DF_REG32
#undef DF_REG48
#undef DF_REG64
#undef DF_REG80
#undef DF_REG88
#undef DF_REG96
#undef DF_REG128
#undef DF_ACC32
#undef DF_ACC8
#undef DF_ACC4
