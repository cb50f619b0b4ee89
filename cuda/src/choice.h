// Which kernels serve an op, and in what arithmetic: chosen by name, for the whole process.
//
// Each choice comes from an option of the backend (df_backend_set_option; in Java -Ddualform.kernels and so on), else from an
// environment variable, else it is the default. The plain kernels stay the default until the others have passed on a real device.
#pragma once

#include "queue.h"

namespace dualform::cuda {

/// Option "kernels", DUALFORM_KERNELS: "plain" (default), "mma" or "hopper". Where the chosen kernels do not serve a case, the next
/// simpler do: hopper, mma, plain. describe() tells by op which may at most. With mma and hopper the memory-bound ops take their kernels of 16-byte
/// accesses (vector_ops.h).
enum class Kernels { kPlain, kMma, kHopper };

/// Option "precision", DUALFORM_PRECISION: how tensor-core kernels multiply float32 inputs. "float32" (default): they do not, the plain
/// kernel serves. "tf32": operands rounded to 11 bits of mantissa. "bf16x3": operands split into two bfloat16, three products of four.
/// bfloat16 inputs are multiplied as they are in any case; sums are float32.
enum class Precision { kFloat32, kTf32, kBf16x3 };

Kernels kernels();
Precision precision();
/// Option "deterministic", DUALFORM_DETERMINISTIC: "true" gives sums one order that differ between runs else (Hopper's dq);
/// "false" is the default. The plain and mma kernels have one fixed order always.
bool deterministic();

/// Sets an option of this file; an empty value or null takes it back. *known: whether the key is one of them.
int set_choice(const char* key, const char* value, bool* known, df_error* error);
/// Reads the environment, which may hold a wrong word: called when a device is opened or described, before any op.
int read_choices(df_error* error);
/// ,"kernels":...,"precision":...,"deterministic":...,"served_by":{op: kernels} as members of a JSON object.
void describe_choices(char* json, size_t n);

}  // namespace dualform::cuda
