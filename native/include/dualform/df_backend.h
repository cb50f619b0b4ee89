/* The seam between the core (api/) and a backend (cpu/, cuda/): one C table of functions that never throw.
 *
 * The core has already checked every argument: shapes agree, dtypes are allowed, devices match, outputs do not overlap inputs. A
 * backend reads sizes from the views. Every function returns a df_status and, when it is not DF_OK, writes a sentence to error.
 * An op may be queued (CUDA) or done when the call returns (CPU). Meaning and formulas: df_ops.h; argument names are the same.
 */
#ifndef DUALFORM_DF_BACKEND_H
#define DUALFORM_DF_BACKEND_H

#include "dualform/df_ops.h"

#define DF_BACKEND_ABI 2

#ifdef __cplusplus
extern "C" {
#endif

/** A tensor as a backend sees it. Strides in elements; the last stride is 1 (or the last dimension is 1). */
typedef struct df_view {
    void* data;
    int32_t dtype; /* df_dtype */
    int32_t rank;
    int64_t shape[DF_MAX_RANK];
    int64_t stride[DF_MAX_RANK];
} df_view;

typedef struct df_error {
    char text[512];
} df_error;

/** What the core offers a backend: scratch memory from the device's pool (64-byte aligned on the CPU, 256 on CUDA; reused in
 *  stream order). alloc returns null when memory is out. */
typedef struct df_host {
    void* context;
    void* (*alloc)(void* context, size_t bytes);
    void (*release)(void* context, void* memory);
} df_host;

/** A backend's state for one open device. */
typedef struct df_queue df_queue;

/** Work a backend has recorded instead of running it. */
typedef struct df_recording df_recording;

/* One struct per family; forward and backward read the members they need. Null = absent. */
typedef struct df_attention_args {
    const df_view *out, *lse, *attn, *state_out;                /* forward writes; backward reads out (or attn) and lse */
    const df_view *dq, *dk, *dv, *deta;                         /* backward writes */
    const df_view *dout, *q, *k, *v, *lengths, *eta, *state_in; /* eta null: plain attention */
    double scale;
    int causal, accumulate; /* accumulate: deta adds */
} df_attention_args;

typedef struct df_dual_args {
    const df_view *out, *delta_w, *dw0, *de, *dxp, *dx;
    const df_view *dout, *w0, *e, *xp, *x;
    int form;       /* DF_FORM_PRIMAL or DF_FORM_DUAL: the core resolved auto */
    int accumulate; /* of delta_w in delta_accumulate, of dw0 in backward */
} df_dual_args;

typedef struct df_linear_attention_args {
    const df_view *out, *state_out;
    const df_view *dq, *dk, *dv, *ddecay, *dstate_in;
    const df_view *dout, *dstate_out, *q, *k, *v, *decay, *state_in;
    int accumulate; /* of ddecay */
} df_linear_attention_args;

typedef struct df_matmul_args {
    const df_view *out, *a, *b, *bias;
    int trans_a, trans_b, accumulate;
} df_matmul_args;

typedef struct df_bias_args { /* bias_backward */
    const df_view *dbias, *dout;
    int accumulate;
} df_bias_args;

typedef struct df_layernorm_args {
    const df_view *sum, *out, *mean, *rstd, *x, *residual, *weight, *bias;
    const df_view *dx, *dweight, *dbias, *dout, *dsum;
    double eps;
    int accumulate;
} df_layernorm_args;

typedef struct df_gelu_args {
    const df_view *out, *dx, *dbias, *dout, *x, *bias;
    int kind, accumulate;
} df_gelu_args;

typedef struct df_matmul_gelu_args { /* backward: out is dpre, a is dout, b is w; pre is read */
    const df_view *out, *pre, *dbias, *a, *b, *bias;
    int trans_a, trans_b, kind, accumulate;
    int* served; /* set to 1 by a backend that did it; left alone, the core composes it of matmul and bias_gelu */
} df_matmul_gelu_args;

typedef struct df_embedding_args {
    const df_view *out, *dwte, *dwpe, *dout, *ids, *wte, *wpe;
    int64_t position;
    int accumulate;
} df_embedding_args;

typedef struct df_cross_entropy_args {
    const df_view *loss, *losses, *dlogits, *logits, *targets;
    int ignore_index;
} df_cross_entropy_args;

typedef struct df_pointwise_args { /* unary, binary, affine, copy, fill, argmax */
    const df_view *out, *x, *b, *dx, *dout;
    int op;
    double alpha, beta;
} df_pointwise_args;

typedef struct df_reduce_args {
    const df_view *out, *x, *dx, *dout;
    int op;
    unsigned int axes; /* out and dout may lack these axes or have them as 1 */
} df_reduce_args;

/** Elements from..to-1 of flat tensors, and their weight decay. */
typedef struct df_range {
    int64_t from, to;
    double weight_decay;
} df_range;

typedef struct df_optimizer_args { /* squared_norm, clip_scale, adamw, sgd */
    const df_view *param, *m, *v, *master, *grad, *scale, *sumsq, *x;
    const df_view *rates, *steps, *loss, *limit; /* numbers on the device: adamw reads rates and steps in place of lr and step, and does
                                                    nothing where scale is not finite; clip_scale counts steps, reads loss and limit */
    double lr, beta1, beta2, eps, weight_decay, max_norm;
    int64_t step;
    int accumulate;
    const df_range* ranges; /* adamw over parts of flat tensors, each with its own decay; null: all of them with weight_decay */
    int range_count;
} df_optimizer_args; /* sgd: m is the momentum buffer, beta1 the momentum */

typedef struct df_random_args {
    const df_view *out, *state; /* state: I32 words of seed and offset, which moves on; null: the numbers below */
    uint64_t seed, offset;
    double a, b; /* lo, hi or mean, std */
} df_random_args;

/** The ops of a backend. */
typedef struct df_backend_ops {
    int (*attention_forward)(df_queue*, const df_attention_args*, df_error*); /* momentum attention when eta is given */
    int (*attention_backward)(df_queue*, const df_attention_args*, df_error*);
    int (*delta_accumulate)(df_queue*, const df_dual_args*, df_error*);
    int (*delta_apply)(df_queue*, const df_dual_args*, df_error*); /* out = x (w0 + delta_w)^T */
    int (*dual_form_forward)(df_queue*, const df_dual_args*, df_error*);
    int (*dual_form_backward)(df_queue*, const df_dual_args*, df_error*);
    int (*linear_attention_forward)(df_queue*, const df_linear_attention_args*, df_error*);
    int (*linear_attention_backward)(df_queue*, const df_linear_attention_args*, df_error*);
    int (*matmul)(df_queue*, const df_matmul_args*, df_error*);
    int (*bias_backward)(df_queue*, const df_bias_args*, df_error*);
    int (*residual_layernorm_forward)(df_queue*, const df_layernorm_args*, df_error*);
    int (*residual_layernorm_backward)(df_queue*, const df_layernorm_args*, df_error*);
    int (*bias_gelu_forward)(df_queue*, const df_gelu_args*, df_error*);
    int (*bias_gelu_backward)(df_queue*, const df_gelu_args*, df_error*);
    int (*embedding_forward)(df_queue*, const df_embedding_args*, df_error*);
    int (*embedding_backward)(df_queue*, const df_embedding_args*, df_error*);
    int (*cross_entropy)(df_queue*, const df_cross_entropy_args*, df_error*);
    int (*unary_forward)(df_queue*, const df_pointwise_args*, df_error*);
    int (*unary_backward)(df_queue*, const df_pointwise_args*, df_error*);
    int (*binary_forward)(df_queue*, const df_pointwise_args*, df_error*); /* x op b */
    int (*affine)(df_queue*, const df_pointwise_args*, df_error*);
    int (*copy)(df_queue*, const df_pointwise_args*, df_error*);
    int (*fill)(df_queue*, const df_pointwise_args*, df_error*); /* alpha */
    int (*reduce_forward)(df_queue*, const df_reduce_args*, df_error*);
    int (*reduce_backward)(df_queue*, const df_reduce_args*, df_error*);
    int (*argmax)(df_queue*, const df_pointwise_args*, df_error*);
    int (*squared_norm)(df_queue*, const df_optimizer_args*, df_error*);
    int (*clip_scale)(df_queue*, const df_optimizer_args*, df_error*);
    int (*adamw_step)(df_queue*, const df_optimizer_args*, df_error*);
    int (*sgd_step)(df_queue*, const df_optimizer_args*, df_error*);
    int (*random_uniform)(df_queue*, const df_random_args*, df_error*);
    int (*random_normal)(df_queue*, const df_random_args*, df_error*);
    /* Two ops in one where that is faster; null where it never is, and in a backend without graphs of its own. */
    int (*matmul_gelu_forward)(df_queue*, const df_matmul_gelu_args*, df_error*);
    int (*matmul_gelu_backward)(df_queue*, const df_matmul_gelu_args*, df_error*);
} df_backend_ops;

typedef struct df_backend {
    uint32_t struct_size; /* sizeof(df_backend): a plug-in built against other headers is refused */
    uint32_t abi;         /* DF_BACKEND_ABI */
    const char* name;     /* "cpu", "cuda" */
    const char* build_id; /* must equal the core's */
    /** Devices that can be opened now; 0 with DF_UNAVAILABLE and the full reason when there is none. */
    int (*device_count)(int* count, df_error*);
    /** One JSON object about the backend and its devices; never opens one. */
    int (*describe)(char* json, size_t n, df_error*);
    int (*set_option)(const char* key, const char* value, df_error*);
    int (*open)(int index, int threads, const df_host* host, df_queue** out, df_error*);
    void (*close)(df_queue*);
    int (*describe_queue)(df_queue*, char* text, size_t n, df_error*);
    /** df_device_start_timer, df_device_stop_timer. */
    int (*start_timer)(df_queue*, df_error*);
    int (*stop_timer)(df_queue*, double* seconds, df_error*);
    int (*threads)(df_queue*);
    /** df_device_peak_gflops; DF_UNSUPPORTED where it cannot be measured. */
    int (*peak)(df_queue*, int dtype, double* gflops, df_error*);
    int (*synchronize)(df_queue*, df_error*);
    int (*set_stream)(df_queue*, void* stream, df_error*);
    /** Raw device memory, used by the core's pool. */
    int (*allocate)(df_queue*, size_t bytes, void** out, df_error*);
    void (*deallocate)(df_queue*, void* memory, size_t bytes);
    /** Plain byte copies between host and device memory, complete when the call returns. */
    int (*write)(df_queue*, void* device, const void* host, size_t bytes, df_error*);
    int (*read)(df_queue*, void* host, const void* device, size_t bytes, df_error*);
    /** Graphs. All four null: the core records the calls of ops itself and replays them one by one. From capture_begin to capture_end the
     *  calling thread's ops are recorded, not run; the core lets nothing else reach the queue and hands out no memory that it would have
     *  to allocate. capture_end ends it in any case; out null abandons what was recorded. */
    int (*capture_begin)(df_queue*, df_error*);
    int (*capture_end)(df_queue*, df_recording** out, df_error*);
    int (*replay)(df_queue*, df_recording*, df_error*);
    void (*forget)(df_queue*, df_recording*);
    df_backend_ops ops;
} df_backend;

/** The one symbol a plug-in exports, named df_backend_entry; null when it does not speak that ABI. */
typedef const df_backend* (*df_backend_entry_fn)(uint32_t abi);

#ifdef __cplusplus
}
#endif
#endif
