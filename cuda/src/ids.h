// Ids checked on the device before anything is written: the one place where an op waits for the device.
#pragma once

#include "queue.h"

namespace dualform::cuda {

/// DF_INVALID_ARGUMENT naming the first id (row-major) outside 0..limit-1, unless it is `ignored`.
struct IdRange {
    const char* name; /* of the argument */
    int64_t limit;
    bool may_ignore;
    int32_t ignored;
};
int check_ids(const Call& call, const df_view* ids, const IdRange& range);

}  // namespace dualform::cuda
