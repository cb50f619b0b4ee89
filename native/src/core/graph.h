// Graphs: a step's ops recorded once, replayed many times without the caller's code.
//
// A backend with graphs of its own (CUDA) records what reaches its queue. For one without (the CPU) the calls are kept here, arguments and
// all, and made again one by one. Either way a step under capture obeys the same rules, so that a step that can be captured on one
// backend can be on the other: no memory from the system, nothing between host and device, no other thread.
#pragma once

#include <stddef.h>

#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/device.h"

namespace dualform {

template <class Args>
using Op = int (*df_backend_ops::*)(df_queue*, const Args*, df_error*);

/// Throws when the contents of an argument are out of range.
template <class Args>
using CheckValues = void (*)(const char* op, const Args&);

/// The views that an argument struct starts with, before its numbers.
template <class Args>
constexpr size_t kViews = 0;
#define DF_VIEWS(Args, first_number) \
    template <>                      \
    inline constexpr size_t kViews<Args> = offsetof(Args, first_number) / sizeof(const df_view*);
DF_VIEWS(df_attention_args, scale)
DF_VIEWS(df_dual_args, form)
DF_VIEWS(df_linear_attention_args, accumulate)
DF_VIEWS(df_matmul_args, trans_a)
DF_VIEWS(df_bias_args, accumulate)
DF_VIEWS(df_layernorm_args, eps)
DF_VIEWS(df_gelu_args, kind)
DF_VIEWS(df_matmul_gelu_args, trans_a)
DF_VIEWS(df_embedding_args, position)
DF_VIEWS(df_cross_entropy_args, ignore_index)
DF_VIEWS(df_pointwise_args, op)
DF_VIEWS(df_reduce_args, op)
DF_VIEWS(df_optimizer_args, lr)
DF_VIEWS(df_random_args, seed)
#undef DF_VIEWS

/// One call of an op. Recorded by a backend without graphs, which is the CPU: it can look at values.
struct RecordedCall {
    virtual ~RecordedCall() = default;
    virtual int run(const df_backend_ops& ops, df_queue* queue, df_error* error) = 0;
};

/// What arguments point to besides views is copied too.
template <class Args>
void keep(Args&, std::vector<df_range>&) {}
inline void keep(df_optimizer_args& args, std::vector<df_range>& ranges) {
    if (args.ranges == nullptr) return;
    ranges.assign(args.ranges, args.ranges + args.range_count);
    args.ranges = ranges.data();
}

template <class Args>
class RecordedOp final : public RecordedCall {
public:
    RecordedOp(Op<Args> op, const Args& args, const char* name, CheckValues<Args> check_values)
        : op_(op), args_(args), name_(name), check_values_(check_values) {
        static_assert(kViews<Args> > 0);
        auto** views = reinterpret_cast<const df_view**>(&args_);
        for (size_t i = 0; i < kViews<Args>; ++i) {
            if (views[i] == nullptr) continue;
            views_[i] = *views[i];
            views[i] = &views_[i];
        }
        keep(args_, ranges_);
    }
    RecordedOp(const RecordedOp&) = delete;
    RecordedOp& operator=(const RecordedOp&) = delete;
    int run(const df_backend_ops& ops, df_queue* queue, df_error* error) override {
        if (check_values_ != nullptr) check_values_(name_, args_);
        return (ops.*op_)(queue, &args_, error);
    }

private:
    const Op<Args> op_;
    Args args_;
    const char* const name_;
    const CheckValues<Args> check_values_;
    df_view views_[kViews<Args>];
    std::vector<df_range> ranges_;
};

}  // namespace dualform

struct df_graph {
    df_device* device = nullptr;
    df_recording* recording = nullptr;                           // of a backend that records
    std::vector<std::unique_ptr<dualform::RecordedCall>> calls;  // of one that does not
    std::vector<void*> blocks;                                   // of the pool, kept for it
    std::mutex mutex;                                            // one replay at a time
};

namespace dualform {

/// The capture that is going on.
class Capture {
public:
    explicit Capture(df_device* device);

    /// The device's capture if this thread has begun one, else null; throws when another thread has.
    static Capture* of_this_thread(df_device* device) {
        Capture* capture = device->capture.load(std::memory_order_acquire);
        // The other thread may end its capture at any time: only its own thread looks into it.
        if (capture != nullptr && device->capturer.load(std::memory_order_acquire) != std::this_thread::get_id()) refuse_other_thread();
        return capture;
    }

    bool records_calls() const { return records_calls_; }
    template <class Args>
    void record(Op<Args> op, const Args& args, const char* name, CheckValues<Args> check_values) {
        graph_->calls.push_back(std::make_unique<RecordedOp<Args>>(op, args, name, check_values));
    }

    /// Why an op gets no scratch memory: the op itself will only say that there is none.
    void scratch_refused(const Error& error) { scratch_refusal_ = error; }
    [[noreturn]] void op_failed(df_status status, const char* sentence);
    /// The capture cannot come to anything any more; the first reason counts.
    void fail(const Error& error);

    const std::optional<Error>& failure() const { return failure_; }
    std::unique_ptr<df_graph> take() { return std::move(graph_); }

private:
    [[noreturn]] static void refuse_other_thread();

    const bool records_calls_;
    std::unique_ptr<df_graph> graph_;
    std::optional<Error> scratch_refusal_, failure_;
};

/// Throws while a graph is captured: `what` cannot be part of one.
void refuse_under_capture(df_device* device, const char* what);

/// A tensor's memory, from the pool.
void* allocate(df_device* device, size_t bytes);

}  // namespace dualform
