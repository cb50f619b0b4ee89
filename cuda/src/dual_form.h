// The tensor-core kernels of the dual form. Each leaves *served false where it does not take the case, and then nothing has been queued.
#pragma once

#include "queue.h"

namespace dualform::cuda {

int delta_accumulate_mma(const Call& call, const df_dual_args* args, bool* served);
int delta_apply_mma(const Call& call, const df_dual_args* args, bool* served);
int dual_form_forward_mma(const Call& call, const df_dual_args* args, bool* served);
int dual_form_backward_mma(const Call& call, const df_dual_args* args, bool* served);
/// out = x w0^T + (x xp^T) e for one row x: two kernels that read xp, e and w0 once.
int dual_form_forward_step(const Call& call, const df_dual_args* args, bool* served);

}  // namespace dualform::cuda
