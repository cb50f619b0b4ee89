// Checks of one op call: dimensions bound by name, dtypes, devices, overlap. A failure is one sentence that names the argument, what
// came and what was expected.
#pragma once

#include <initializer_list>

#include "core/graph.h"
#include "core/layout.h"
#include "core/tensor.h"

namespace dualform {

/// What an argument's dtype must be, relative to the dtype of the call (set by the first Call argument).
enum class Kind {
    kCall,              // the call's floating dtype; the first such argument decides it
    kAccumulate,        // F32, or F64 when the call's is F64
    kCallOrAccumulate,  // either
    kFloat,             // any floating dtype
    kI32,
    kAny
};

class Arguments {
public:
    explicit Arguments(const char* op) : op_(op) {}

    /// Checks a tensor against named dimensions, e.g. {"B","T","NH","HS"}: a name binds at its first use and must agree after that.
    const df_view* input(const char* name, const df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind = Kind::kCall);
    const df_view* output(const char* name, df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind = Kind::kCall);
    /// Null stays null.
    const df_view* input_if(const char* name, const df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind = Kind::kCall);
    const df_view* output_if(const char* name, df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind = Kind::kCall);
    /// A dimension before the named ones of all later arguments.
    void leading(const char* dim) { leading_ = dim; }
    /// Any shape; the caller compares it.
    const df_view* input(const char* name, const df_tensor* tensor, Kind kind = Kind::kCall);
    const df_view* output(const char* name, df_tensor* tensor, Kind kind = Kind::kCall);
    /// The shape of another argument, called like_name.
    void same_shape(const char* name, const df_view* view, const char* like_name, const df_view* like);
    /// Exactly one element.
    void scalar(const char* name, const df_view* view);

    int64_t dim(const char* name) const;
    int dtype() const { return dtype_; }
    df_device* device() const { return device_; }
    bool on_cpu() const;
    const char* op() const { return op_; }

    /// The output may be exactly this input (in place), as well as disjoint from it.
    void may_be(const df_view* output, const df_view* input);
    /// After all arguments: no output overlaps an input or another output.
    void check_overlap() const;

    [[noreturn]] void refuse(const char* format, ...) const __attribute__((format(printf, 2, 3)));

private:
    struct Argument {
        const char* name;
        const df_view* view;
        bool is_output;
    };
    struct Dimension {
        const char* name;
        int64_t size;
    };
    const df_view* add(const char* name, const df_tensor* tensor, Kind kind, bool is_output);
    void check_dtype(const char* name, int dtype, Kind kind);
    void check_dims(const char* name, const df_view& view, std::initializer_list<const char*> dims);

    static constexpr int kMaxArguments = 20, kMaxDimensions = 12, kMaxPairs = 8;
    const char* op_;
    const char* leading_ = nullptr;
    df_device* device_ = nullptr;
    int dtype_ = -1;
    int arguments_count_ = 0, dimensions_count_ = 0, pairs_count_ = 0;
    Argument arguments_[kMaxArguments];
    Dimension dimensions_[kMaxDimensions];
    struct {
        const df_view *output, *input;
    } pairs_[kMaxPairs];
};

/// Runs one op of the device's backend and throws when it does not come to DF_OK. Under capture it is recorded. check_values looks at the
/// contents of arguments, on the CPU, before each run.
template <class Args>
void run(const Arguments& call, Op<Args> op, const Args& args, CheckValues<Args> check_values = nullptr) {
    df_device* device = call.device();
    Capture* capture = Capture::of_this_thread(device);
    if (capture != nullptr && capture->records_calls()) return capture->record(op, args, call.op(), check_values);
    if (check_values != nullptr && call.on_cpu()) check_values(call.op(), args);
    df_error error;
    error.text[0] = 0;
    const int status = (device->backend->ops.*op)(device->queue, &args, &error);
    if (capture != nullptr && status != DF_OK) capture->op_failed(static_cast<df_status>(status), error.text);
    check(status, error);
}

}  // namespace dualform
