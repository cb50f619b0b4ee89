// Backward of attention and momentum attention on Hopper.
#pragma once

#include "queue.h"

namespace dualform::cuda {

/// Whether attention_backward_hopper serves this: chosen by name, compute capability 9.0, BF16, head sizes 64 and 128, views that TMA can
/// read and write (16-byte aligned base and strides).
bool attention_backward_hopper_serves(const Call& call, const df_attention_args* args);
/// The parts of dq are added in the order in which they come, or with deterministic() in one fixed order.
int attention_backward_hopper(const Call& call, const df_attention_args* args);

}  // namespace dualform::cuda
