// The only kernel launch of the backend.
#pragma once

#include "launches.h"
#include "queue.h"

namespace dualform::cuda {

/// Largest grid in x on every device this library is built for; y and z stop at 65535, so every grid here is folded into x.
constexpr int64_t kMaxBlocks = 2147483647;

/// Queues kernel(args...) on the call's stream with `blocks` blocks of `threads` threads and `shared` bytes of dynamic shared memory.
/// DF_OK, or a status and a sentence that names the kernel. Zero blocks are nothing to do.
template <class... Parameters, class... Arguments>
int launch(const Call& call, const char* name, int64_t blocks, int threads, size_t shared, void (*kernel)(Parameters...),
           const Arguments&... arguments) {
    if (blocks == 0) return DF_OK;
    if (blocks < 0 || blocks > kMaxBlocks)
        return fail(call.error, DF_UNSUPPORTED, "%s: %s would need %lld blocks, at most %lld", call.op, name,
                    static_cast<long long>(blocks),
                    static_cast<long long>(kMaxBlocks));
    count_launch(name);
#ifdef DF_CUDA_EMULATION
    return call.check(emulation::enqueue(call.stream, [=] { return emulation::run(blocks, threads, shared, [&] { kernel(arguments...); }); }),
                      name);
#else
    // Above 48 KiB a kernel has to ask once; asking again costs nothing worth remembering.
    if (shared > 48 * 1024)
        if (const int status = call.check(
                cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared)), name))
            return status;
    kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared, call.stream>>>(arguments...);
    return call.check(cudaGetLastError(), name);
#endif
}

/// Blocks of `threads` threads for n independent elements, one a thread. Kernels walk on with a grid stride, so the cap only bounds
/// the grid: 65536 blocks of 256 threads fill every device many times over.
inline int64_t element_blocks(int64_t n, int threads) {
    const int64_t blocks = (n + threads - 1) / threads;
    return blocks < 65536 ? blocks : 65536;
}

}  // namespace dualform::cuda
