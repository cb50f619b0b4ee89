// CUDA graphs: what reaches the stream between begin and end is recorded instead of run, and launched again as one piece.
#pragma once

#include "queue.h"

namespace dualform::cuda {

/// All as in df_backend. An op asks `queue->capturing` before it waits for the device.
int begin_capture(const Call& call);
int end_capture(const Call& call, df_recording** out);
int replay(const Call& call, df_recording* recording);
void forget(df_recording* recording);

}  // namespace dualform::cuda
