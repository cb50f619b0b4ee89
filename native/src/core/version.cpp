#include "core/error.h"

namespace dualform {
const char kVersion[] = DF_VERSION;
const char kBuildId[] = DF_BUILD_ID;
}  // namespace dualform

extern "C" {
int df_abi_version(void) { return DF_ABI_VERSION; }
const char* df_version(void) { return dualform::kVersion; }
const char* df_build_id(void) { return dualform::kBuildId; }
int df_nop(int x) { return static_cast<int>(static_cast<unsigned>(x) + 1u); }
}
