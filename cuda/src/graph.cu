#include "graph.h"

#include <new>

struct df_recording {
    cudaGraphExec_t exec;
};

namespace dualform::cuda {

/// In the thread-local mode other threads may allocate meanwhile; the core keeps them, and allocations of this thread, off the stream.
int begin_capture(const Call& call) {
    if (const int status = call.check(cudaStreamBeginCapture(call.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"))
        return status;
    call.queue->capturing = true;
    return DF_OK;
}

int end_capture(const Call& call, df_recording** out) {
    call.queue->capturing = false;
    cudaGraph_t graph = nullptr;
    const int status = call.check(cudaStreamEndCapture(call.stream, &graph), "cudaStreamEndCapture");
    if (out == nullptr || status != DF_OK || graph == nullptr) {
        if (graph != nullptr) cudaGraphDestroy(graph);
        if (status != DF_OK || out == nullptr) return status;
        return fail(call.error, DF_INTERNAL, "%s: the stream gave no graph", call.op);
    }
    cudaGraphExec_t exec = nullptr;
    const int made = call.check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    cudaGraphDestroy(graph);
    if (made != DF_OK) return made;
    *out = new (std::nothrow) df_recording{exec};
    if (*out != nullptr) return DF_OK;
    cudaGraphExecDestroy(exec);
    return fail(call.error, DF_OUT_OF_MEMORY, "%s: no memory for a graph", call.op);
}

int replay(const Call& call, df_recording* recording) { return call.check(cudaGraphLaunch(recording->exec, call.stream), "cudaGraphLaunch"); }

/// A launch that is still running goes on: the runtime frees the graph behind it.
void forget(df_recording* recording) {
    cudaGraphExecDestroy(recording->exec);
    delete recording;
}

}  // namespace dualform::cuda
