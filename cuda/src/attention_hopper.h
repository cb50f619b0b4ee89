// Attention by the kernels of sm_90a.
#pragma once

#include "queue.h"

namespace dualform::cuda {

/// Whether attention_forward_hopper serves this: chosen by name, compute capability 9.0, BF16, head sizes 64 and 128, views that TMA can
/// read (16-byte aligned base and strides), a positive scale.
bool attention_forward_hopper_serves(const Call& call, const df_attention_args* args);
int attention_forward_hopper(const Call& call, const df_attention_args* args);

}  // namespace dualform::cuda
