// The CPU backend's table.
#pragma once

#include "dualform/df_backend.h"

namespace dualform::cpu {

const df_backend* backend();

}  // namespace dualform::cpu
