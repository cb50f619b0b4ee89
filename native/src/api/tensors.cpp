// The C ABI's tensors: creation, views, and copies between host and device.
#include <string.h>

#include <memory>
#include <new>
#include <vector>

#include "core/graph.h"
#include "core/layout.h"
#include "core/tensor.h"

namespace {

using namespace dualform;

long long ll(int64_t x) { return static_cast<long long>(x); }

void require(const df_tensor* tensor) {
    if (tensor == nullptr) raise(DF_INVALID_ARGUMENT, "tensor: null");
}

void require_out(df_tensor** out) {
    if (out == nullptr) raise(DF_INVALID_ARGUMENT, "out: null");
    *out = nullptr;
}

/// A handle on storage, whose reference the caller has already counted.
std::unique_ptr<df_tensor> make_handle(df_device* device, Storage* storage, int dtype, int rank, const int64_t* shape) {
    auto tensor = std::make_unique<df_tensor>();
    tensor->view = {};
    tensor->view.dtype = dtype;
    tensor->view.rank = rank;
    if (rank > 0) memcpy(tensor->view.shape, shape, static_cast<size_t>(rank) * sizeof *shape);
    contiguous_strides(rank, tensor->view.shape, tensor->view.stride);
    tensor->storage = storage;
    tensor->device = device;
    return tensor;
}

void release(Storage* storage) noexcept {
    if (storage->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    if (storage->owned) storage->device->pool.release(storage->memory);
    delete storage;
}

df_tensor* publish(std::unique_ptr<df_tensor> tensor) {
    tensor->device->live_tensors.fetch_add(1);
    return tensor.release();
}

/// A contiguous tensor of the caller's dtype that copies run through when the tensor is strided.
class Staging {
public:
    Staging(const df_tensor* like) {
        check_status(df_tensor_create(like->device, static_cast<df_dtype>(like->view.dtype), like->view.rank, like->view.shape, &tensor_));
    }
    ~Staging() { df_tensor_destroy(tensor_); }
    df_tensor* get() { return tensor_; }
    static void check_status(df_status status) {
        if (status != DF_OK) throw Error{status, df_last_error()};
    }

private:
    df_tensor* tensor_ = nullptr;
};

void write_raw(df_tensor* tensor, const void* values) {
    const size_t bytes = static_cast<size_t>(tensor->numel) * element_size(tensor->view.dtype);
    df_device* device = tensor->device;
    refuse_under_capture(device, "writing a tensor from the host");
    df_error error = {};
    if (is_contiguous(tensor->view)) {
        check(device->backend->write(device->queue, tensor->view.data, values, bytes, &error), error);
        return;
    }
    Staging staging(tensor);
    check(device->backend->write(device->queue, staging.get()->view.data, values, bytes, &error), error);
    Staging::check_status(df_copy(tensor, staging.get()));
}

void read_raw(const df_tensor* tensor, void* values) {
    const size_t bytes = static_cast<size_t>(tensor->numel) * element_size(tensor->view.dtype);
    df_device* device = tensor->device;
    refuse_under_capture(device, "reading a tensor back to the host");
    df_error error = {};
    if (is_contiguous(tensor->view)) {
        check(device->backend->read(device->queue, values, tensor->view.data, bytes, &error), error);
        return;
    }
    Staging staging(tensor);
    Staging::check_status(df_copy(staging.get(), tensor));
    check(device->backend->read(device->queue, values, staging.get()->view.data, bytes, &error), error);
}

void require_count(const df_tensor* tensor, const void* values, int64_t n) {
    require(tensor);
    if (values == nullptr) raise(DF_INVALID_ARGUMENT, "values: null");
    if (n != tensor->numel) raise(DF_INVALID_ARGUMENT, "values: %lld elements, expected %lld", ll(n), ll(tensor->numel));
}

void require_floating(const df_tensor* tensor) {
    if (!is_floating(tensor->view.dtype)) raise(DF_INVALID_ARGUMENT, "tensor: dtype I32, expected F32, BF16 or F64");
}

uint16_t bf16_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

/// double to bfloat16 with one rounding: to float with round-to-odd, then to nearest even.
uint16_t bf16_bits(double x) {
    float f = static_cast<float>(x);
    if (static_cast<double>(f) != x && x == x) {
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        const bool above = (static_cast<double>(f) > x) == (x > 0);  // the float is larger in magnitude
        if ((u & 0x7f800000u) != 0x7f800000u || above) {
            if (above) --u;
            u |= 1u;
            memcpy(&f, &u, sizeof f);
        }
    }
    return bf16_bits(f);
}

float bf16_value(uint16_t bits) {
    const uint32_t u = static_cast<uint32_t>(bits) << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

template <class Host>
void write_converted(df_tensor* tensor, const Host* values, int64_t n, int host_dtype) {
    require_count(tensor, values, n);
    require_floating(tensor);
    if (tensor->view.dtype == host_dtype) return write_raw(tensor, values);
    const auto convert = [&](auto* to, auto&& f) {
        for (int64_t i = 0; i < n; ++i) to[i] = f(values[i]);
    };
    std::vector<char> bytes(static_cast<size_t>(n) * element_size(tensor->view.dtype));
    switch (tensor->view.dtype) {
        case DF_F32: convert(reinterpret_cast<float*>(bytes.data()), [](Host x) { return static_cast<float>(x); }); break;
        case DF_F64: convert(reinterpret_cast<double*>(bytes.data()), [](Host x) { return static_cast<double>(x); }); break;
        default: convert(reinterpret_cast<uint16_t*>(bytes.data()), [](Host x) { return bf16_bits(x); }); break;
    }
    write_raw(tensor, bytes.data());
}

template <class Host>
void read_converted(const df_tensor* tensor, Host* values, int64_t n, int host_dtype) {
    require_count(tensor, values, n);
    require_floating(tensor);
    if (tensor->view.dtype == host_dtype) return read_raw(tensor, values);
    std::vector<char> bytes(static_cast<size_t>(n) * element_size(tensor->view.dtype));
    read_raw(tensor, bytes.data());
    const auto convert = [&](const auto* from, auto&& f) {
        for (int64_t i = 0; i < n; ++i) values[i] = static_cast<Host>(f(from[i]));
    };
    const auto same = [](auto x) { return x; };
    switch (tensor->view.dtype) {
        case DF_F32: convert(reinterpret_cast<const float*>(bytes.data()), same); break;
        case DF_F64: convert(reinterpret_cast<const double*>(bytes.data()), same); break;
        default: convert(reinterpret_cast<const uint16_t*>(bytes.data()), bf16_value); break;
    }
}

void require_i32(const df_tensor* tensor) {
    if (tensor->view.dtype != DF_I32) raise(DF_INVALID_ARGUMENT, "tensor: dtype %s, expected I32", dtype_name(tensor->view.dtype));
}

void require_bytes(const df_tensor* tensor, const void* bytes, int64_t n) {
    require(tensor);
    if (bytes == nullptr) raise(DF_INVALID_ARGUMENT, "bytes: null");
    const int64_t expected = tensor->numel * static_cast<int64_t>(element_size(tensor->view.dtype));
    if (n != expected) raise(DF_INVALID_ARGUMENT, "bytes: %lld, expected %lld", ll(n), ll(expected));
}

}  // namespace

extern "C" {

df_status df_tensor_create(df_device* device, df_dtype dtype, int rank, const int64_t* shape, df_tensor** out) {
    return guard([&] {
        require_out(out);
        if (device == nullptr) raise(DF_INVALID_ARGUMENT, "device: null");
        const int64_t n = checked_numel(dtype, rank, shape);
        auto storage = std::make_unique<Storage>();
        auto tensor = make_handle(device, storage.get(), dtype, rank, shape);
        storage->device = device;
        storage->bytes = static_cast<size_t>(n) * element_size(dtype);
        storage->owned = true;
        storage->memory = static_cast<char*>(allocate(device, storage->bytes));
        storage.release();
        tensor->view.data = tensor->storage->memory;
        tensor->numel = n;
        *out = publish(std::move(tensor));
    });
}

df_status df_tensor_view(const df_tensor* base, int rank, const int64_t* shape, const int64_t* strides, int64_t offset, df_tensor** out) {
    return guard([&] {
        require_out(out);
        require(base);
        const int dtype = base->view.dtype;
        const int64_t n = checked_numel(dtype, rank, shape);
        if (rank > 0 && strides == nullptr) raise(DF_INVALID_ARGUMENT, "strides: null");
        auto tensor = make_handle(base->device, base->storage, dtype, rank, shape);
        int64_t* stride = tensor->view.stride;
        for (int i = 0; i < rank; ++i) {
            if (shape[i] == 1) continue;  // never stepped over: the contiguous stride stands
            if (strides[i] < 1) raise(DF_INVALID_ARGUMENT, "strides: stride %d is %lld, expected at least 1", i, ll(strides[i]));
            stride[i] = strides[i];
        }
        if (rank > 0 && shape[rank - 1] != 1 && stride[rank - 1] != 1)
            raise(DF_INVALID_ARGUMENT, "strides: last stride is %lld, expected 1", ll(stride[rank - 1]));
        if (offset < 0) raise(DF_INVALID_ARGUMENT, "offset: %lld, expected at least 0", ll(offset));
        const int64_t size = static_cast<int64_t>(element_size(dtype));
        const int64_t start = (static_cast<const char*>(base->view.data) - base->storage->memory) / size;
        const int64_t room = static_cast<int64_t>(base->storage->bytes) / size - start;
        const int64_t reach = extent(rank, shape, stride);
        if (offset > room || reach > room - offset)
            raise(DF_INVALID_ARGUMENT, "view: reaches element %lld, expected at most %lld elements from the tensor's first", ll(offset + reach), ll(room));
        if (!reaches_once(rank, shape, stride)) raise(DF_INVALID_ARGUMENT, "strides: the view reaches an element twice");
        tensor->view.data = static_cast<char*>(base->view.data) + offset * size;
        tensor->numel = n;
        base->storage->references.fetch_add(1, std::memory_order_relaxed);
        *out = publish(std::move(tensor));
    });
}

df_status df_tensor_wrap(df_device* device, df_dtype dtype, int rank, const int64_t* shape, void* data, size_t bytes, df_tensor** out) {
    return guard([&] {
        require_out(out);
        if (device == nullptr) raise(DF_INVALID_ARGUMENT, "device: null");
        if (data == nullptr) raise(DF_INVALID_ARGUMENT, "data: null");
        const int64_t n = checked_numel(dtype, rank, shape);
        const size_t size = element_size(dtype);
        if (reinterpret_cast<uintptr_t>(data) % size != 0) raise(DF_INVALID_ARGUMENT, "data: address not a multiple of the element size %zu", size);
        if (static_cast<size_t>(n) * size > bytes)
            raise(DF_INVALID_ARGUMENT, "data: %zu bytes, expected at least %zu", bytes, static_cast<size_t>(n) * size);
        auto storage = std::make_unique<Storage>();
        auto tensor = make_handle(device, storage.get(), dtype, rank, shape);
        storage->device = device;
        storage->bytes = bytes;
        storage->owned = false;
        storage->memory = static_cast<char*>(data);
        storage.release();
        tensor->view.data = data;
        tensor->numel = n;
        *out = publish(std::move(tensor));
    });
}

void df_tensor_destroy(df_tensor* tensor) {
    if (tensor == nullptr) return;
    df_device* device = tensor->device;
    release(tensor->storage);
    delete tensor;
    device->live_tensors.fetch_sub(1);
}

int df_tensor_dtype(const df_tensor* tensor) { return tensor == nullptr ? -1 : tensor->view.dtype; }
int df_tensor_rank(const df_tensor* tensor) { return tensor == nullptr ? -1 : tensor->view.rank; }
int64_t df_tensor_dim(const df_tensor* tensor, int axis) {
    return tensor == nullptr || axis < 0 || axis >= tensor->view.rank ? -1 : tensor->view.shape[axis];
}
int64_t df_tensor_stride(const df_tensor* tensor, int axis) {
    return tensor == nullptr || axis < 0 || axis >= tensor->view.rank ? -1 : tensor->view.stride[axis];
}
int64_t df_tensor_numel(const df_tensor* tensor) { return tensor == nullptr ? -1 : tensor->numel; }
void* df_tensor_data(const df_tensor* tensor) { return tensor == nullptr ? nullptr : tensor->view.data; }

df_status df_tensor_write_f32(df_tensor* tensor, const float* values, int64_t n) {
    return guard([&] { write_converted(tensor, values, n, DF_F32); });
}
df_status df_tensor_write_f64(df_tensor* tensor, const double* values, int64_t n) {
    return guard([&] { write_converted(tensor, values, n, DF_F64); });
}
df_status df_tensor_write_i32(df_tensor* tensor, const int32_t* values, int64_t n) {
    return guard([&] {
        require_count(tensor, values, n);
        require_i32(tensor);
        write_raw(tensor, values);
    });
}
df_status df_tensor_read_f32(const df_tensor* tensor, float* values, int64_t n) {
    return guard([&] { read_converted(tensor, values, n, DF_F32); });
}
df_status df_tensor_read_f64(const df_tensor* tensor, double* values, int64_t n) {
    return guard([&] { read_converted(tensor, values, n, DF_F64); });
}
df_status df_tensor_read_i32(const df_tensor* tensor, int32_t* values, int64_t n) {
    return guard([&] {
        require_count(tensor, values, n);
        require_i32(tensor);
        read_raw(tensor, values);
    });
}
df_status df_tensor_write_bytes(df_tensor* tensor, const void* bytes, int64_t n) {
    return guard([&] {
        require_bytes(tensor, bytes, n);
        write_raw(tensor, bytes);
    });
}
df_status df_tensor_read_bytes(const df_tensor* tensor, void* bytes, int64_t n) {
    return guard([&] {
        require_bytes(tensor, bytes, n);
        read_raw(tensor, bytes);
    });
}

}  // extern "C"
