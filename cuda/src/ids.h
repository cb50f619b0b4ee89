// Ids checked on the device before anything is written, the one place where an op waits for the device, and again where they are used. In a
// captured graph the second check is the only one: an id out of range then gives NaN, which reaches the loss.
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

/// Asked by a kernel of the id it has read: memory that changes after check_ids must not make it reach outside a table.
__device__ inline bool within(int32_t id, int64_t limit) { return id >= 0 && id < limit; }

}  // namespace dualform::cuda
