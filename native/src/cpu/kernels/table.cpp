// The table of this instruction set, named DF_OPS_TABLE by the build: kBaseOps, kAvx2Ops or kAvx512Ops.
#include "cpu/kernels.h"

namespace dualform::cpu {

#define DF_ENTRY(name, Args) DF_ISA::name,
const df_backend_ops DF_OPS_TABLE = {DF_CPU_KERNELS(DF_ENTRY) nullptr, nullptr /* no two ops in one */};

}  // namespace dualform::cpu
