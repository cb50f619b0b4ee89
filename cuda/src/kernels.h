// The ops of the CUDA backend, one declaration per entry of df_backend_ops. Meaning and formulas: df_ops.h.
#pragma once

#include "queue.h"

#define DF_CUDA_KERNELS(X)                                      \
    X(attention_forward, df_attention_args)                     \
    X(attention_backward, df_attention_args)                    \
    X(delta_accumulate, df_dual_args)                           \
    X(delta_apply, df_dual_args)                                \
    X(dual_form_forward, df_dual_args)                          \
    X(dual_form_backward, df_dual_args)                         \
    X(linear_attention_forward, df_linear_attention_args)       \
    X(linear_attention_backward, df_linear_attention_args)      \
    X(matmul, df_matmul_args)                                   \
    X(bias_backward, df_bias_args)                              \
    X(residual_layernorm_forward, df_layernorm_args)            \
    X(residual_layernorm_backward, df_layernorm_args)           \
    X(bias_gelu_forward, df_gelu_args)                          \
    X(bias_gelu_backward, df_gelu_args)                         \
    X(embedding_forward, df_embedding_args)                     \
    X(embedding_backward, df_embedding_args)                    \
    X(cross_entropy, df_cross_entropy_args)                     \
    X(unary_forward, df_pointwise_args)                         \
    X(unary_backward, df_pointwise_args)                        \
    X(binary_forward, df_pointwise_args)                        \
    X(affine, df_pointwise_args)                                \
    X(copy, df_pointwise_args)                                  \
    X(fill, df_pointwise_args)                                  \
    X(reduce_forward, df_reduce_args)                           \
    X(reduce_backward, df_reduce_args)                          \
    X(argmax, df_pointwise_args)                                \
    X(squared_norm, df_optimizer_args)                          \
    X(clip_scale, df_optimizer_args)                            \
    X(adamw_step, df_optimizer_args)                            \
    X(sgd_step, df_optimizer_args)                              \
    X(random_uniform, df_random_args)                           \
    X(random_normal, df_random_args)                            \
    X(matmul_gelu_forward, df_matmul_gelu_args)                 \
    X(matmul_gelu_backward, df_matmul_gelu_args)

namespace dualform::cuda {
#define DF_DECLARE(name, Args) int name(const Call& call, const Args* args);
DF_CUDA_KERNELS(DF_DECLARE)
#undef DF_DECLARE
}  // namespace dualform::cuda
