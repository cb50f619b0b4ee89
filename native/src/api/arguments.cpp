#include "api/arguments.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

namespace dualform {

namespace {

std::string shape_text(const df_view& v) {
    std::string s = "(";
    for (int i = 0; i < v.rank; ++i) s += (i ? "," : "") + std::to_string(v.shape[i]);
    return s + ")";
}

}  // namespace

void Arguments::refuse(const char* format, ...) const {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    raise(DF_INVALID_ARGUMENT, "%s: %s", op_, text);
}

bool Arguments::on_cpu() const { return strcmp(device_->backend->name, "cpu") == 0; }

int64_t Arguments::dim(const char* name) const {
    for (int i = 0; i < dimensions_count_; ++i)
        if (strcmp(dimensions_[i].name, name) == 0) return dimensions_[i].size;
    raise(DF_INTERNAL, "%s: dimension %s was never bound", op_, name);
}

void Arguments::check_dtype(const char* name, int dtype, Kind kind) {
    const auto expect = [&](bool ok, const char* what) {
        if (!ok) refuse("%s: dtype %s, expected %s", name, dtype_name(dtype), what);
    };
    switch (kind) {
        case Kind::kCall:
            expect(is_floating(dtype), "F32, BF16 or F64");
            if (dtype_ < 0) dtype_ = dtype;
            expect(dtype == dtype_, dtype_name(dtype_));
            break;
        case Kind::kAccumulate: expect(dtype == accumulation_dtype(dtype_), dtype_name(accumulation_dtype(dtype_))); break;
        case Kind::kCallOrAccumulate:
            expect(dtype == dtype_ || dtype == accumulation_dtype(dtype_), dtype_ == DF_BF16 ? "BF16 or F32" : dtype_name(dtype_));
            break;
        case Kind::kFloat: expect(is_floating(dtype), "F32, BF16 or F64"); break;
        case Kind::kI32: expect(dtype == DF_I32, "I32"); break;
        case Kind::kAny: break;
    }
}

const df_view* Arguments::add(const char* name, const df_tensor* tensor, Kind kind, bool is_output) {
    if (tensor == nullptr) refuse("%s: null, expected a tensor", name);
    if (device_ == nullptr) device_ = tensor->device;
    if (tensor->device != device_) refuse("%s: on another device, expected that of the other tensors", name);
    check_dtype(name, tensor->view.dtype, kind);
    if (Capture* capture = Capture::of_this_thread(device_); capture != nullptr && tensor->storage->owned)
        device_->pool.hold(tensor->storage->memory);
    arguments_[arguments_count_++] = {name, &tensor->view, is_output};
    return &tensor->view;
}

void Arguments::check_dims(const char* name, const df_view& view, std::initializer_list<const char*> named) {
    const char* dims[DF_MAX_RANK + 1];
    int rank = 0;
    if (leading_ != nullptr) dims[rank++] = leading_;
    for (const char* d : named) dims[rank++] = d;
    bool ok = view.rank == rank;
    const int known = dimensions_count_;
    for (int axis = 0; ok && axis < rank; ++axis) {
        const char* d = dims[axis];
        const int64_t size = view.shape[axis];
        int i = 0;
        while (i < dimensions_count_ && strcmp(dimensions_[i].name, d) != 0) ++i;
        if (i == dimensions_count_)
            dimensions_[dimensions_count_++] = {d, size};
        else
            ok = dimensions_[i].size == size;
    }
    if (ok) return;
    dimensions_count_ = known;
    std::string expected = "(";
    for (int axis = 0; axis < rank; ++axis) {
        const char* d = dims[axis];
        if (axis > 0) expected += ",";
        expected += d;
        for (int i = 0; i < dimensions_count_; ++i)
            if (strcmp(dimensions_[i].name, d) == 0) expected += "=" + std::to_string(dimensions_[i].size);
    }
    refuse("%s: shape %s, expected %s)", name, shape_text(view).c_str(), expected.c_str());
}

const df_view* Arguments::input(const char* name, const df_tensor* tensor, Kind kind) { return add(name, tensor, kind, false); }
const df_view* Arguments::output(const char* name, df_tensor* tensor, Kind kind) { return add(name, tensor, kind, true); }

const df_view* Arguments::input(const char* name, const df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind) {
    const df_view* view = add(name, tensor, kind, false);
    check_dims(name, *view, dims);
    return view;
}
const df_view* Arguments::output(const char* name, df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind) {
    const df_view* view = add(name, tensor, kind, true);
    check_dims(name, *view, dims);
    return view;
}
const df_view* Arguments::input_if(const char* name, const df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind) {
    return tensor == nullptr ? nullptr : input(name, tensor, dims, kind);
}
const df_view* Arguments::output_if(const char* name, df_tensor* tensor, std::initializer_list<const char*> dims, Kind kind) {
    return tensor == nullptr ? nullptr : output(name, tensor, dims, kind);
}

void Arguments::same_shape(const char* name, const df_view* view, const char* like_name, const df_view* like) {
    if (view == nullptr || like == nullptr) return;
    bool ok = view->rank == like->rank;
    for (int i = 0; ok && i < view->rank; ++i) ok = view->shape[i] == like->shape[i];
    if (!ok) refuse("%s: shape %s, expected %s (that of %s)", name, shape_text(*view).c_str(), shape_text(*like).c_str(), like_name);
}

void Arguments::scalar(const char* name, const df_view* view) {
    if (view == nullptr) return;
    for (int i = 0; i < view->rank; ++i)
        if (view->shape[i] != 1) refuse("%s: shape %s, expected one element", name, shape_text(*view).c_str());
}

void Arguments::may_be(const df_view* output, const df_view* input) {
    if (output != nullptr && input != nullptr && same_elements(*output, *input)) pairs_[pairs_count_++] = {output, input};
}

void Arguments::check_overlap() const {
    for (int i = 0; i < arguments_count_; ++i) {
        if (!arguments_[i].is_output) continue;
        for (int j = 0; j < arguments_count_; ++j) {
            if (i == j || (arguments_[j].is_output && j < i)) continue;
            const df_view &a = *arguments_[i].view, &b = *arguments_[j].view;
            bool allowed = false;
            for (int p = 0; p < pairs_count_; ++p) allowed = allowed || (pairs_[p].output == &a && pairs_[p].input == &b);
            if (!allowed && may_overlap(a, b)) refuse("%s: overlaps %s, expected memory of its own", arguments_[i].name, arguments_[j].name);
        }
    }
}

}  // namespace dualform
