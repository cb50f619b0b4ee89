#include "fixture.h"

#include <cstdlib>
#include <cstring>

namespace dualform::test {

void require_ok(df_status status, const char* what) {
    if (status != DF_OK) throw Failure{std::string(what) + ": " + df_last_error()};
}

size_t element_size(int dtype) { return dtype == DF_BF16 ? 2 : dtype == DF_F64 ? 8 : 4; }

void encode(int dtype, double value, unsigned char* to) {
    switch (dtype) {
        case DF_F64:
            std::memcpy(to, &value, 8);
            break;
        case DF_I32: {
            const int32_t i = static_cast<int32_t>(value);
            std::memcpy(to, &i, 4);
            break;
        }
        case DF_F32: {
            const float f = static_cast<float>(value);
            std::memcpy(to, &f, 4);
            break;
        }
        default: {
            const float f = static_cast<float>(round_to_bf16(value));
            std::memcpy(to, reinterpret_cast<const unsigned char*>(&f) + 2, 2);
            if (value != value) to[0] |= 0x40;
        }
    }
}

double decode(int dtype, const unsigned char* from) {
    switch (dtype) {
        case DF_F64: {
            double d;
            std::memcpy(&d, from, 8);
            return d;
        }
        case DF_I32: {
            int32_t i;
            std::memcpy(&i, from, 4);
            return i;
        }
        case DF_F32: {
            float f;
            std::memcpy(&f, from, 4);
            return static_cast<double>(f);
        }
        default: {
            float f = 0;
            std::memcpy(reinterpret_cast<unsigned char*>(&f) + 2, from, 2);
            return static_cast<double>(f);
        }
    }
}

namespace {

/// NaN with a payload that no computation gives (negative as an id).
void canary(int dtype, unsigned char* to) {
    static const unsigned char f32[] = {0x5a, 0xa5, 0xc5, 0xff}, bf16[] = {0xe5, 0xff},
                               f64[] = {0x5a, 0xa5, 0x5a, 0xa5, 0x5a, 0xa5, 0xf8, 0xff};
    const unsigned char* bits = dtype == DF_BF16 ? bf16 : dtype == DF_F64 ? f64 : f32;
    std::memcpy(to, bits, element_size(dtype));
}

Shape contiguous(const Shape& shape) {
    Shape stride(shape.size());
    int64_t s = 1;
    for (size_t i = shape.size(); i-- > 0; s *= shape[i]) stride[i] = s;
    return stride;
}

int64_t reach(const Shape& shape, const Shape& stride) {
    int64_t last = 0;
    for (size_t i = 0; i < shape.size(); ++i) last += (shape[i] - 1) * stride[i];
    return last + 1;
}

}  // namespace

Fixture::Fixture(df_device* device, const Case& c, const Values& values, Placement placement, uint64_t seed) : device_(device) {
    Random random(seed ^ 0x5157u);
    for (const Tensor& t : c.tensors) {
        Placed p{&t, blocks_.size(), nullptr, contiguous(t.shape), 0};
        const size_t rank = t.shape.size();
        const Placed* twin = t.same_as.empty() ? nullptr : placed(t.same_as);
        const Placed* fused = nullptr;
        for (const Placed& other : placed_)
            if (t.fused > 0 && other.of->fused == t.fused && placement != Placement::kPlain) fused = &other;
        if (twin != nullptr) {
            p.block = twin->block;
            p.stride = twin->stride;
            p.offset = twin->offset;
        } else if (fused != nullptr) {  // (B,T,slices,...): one slice further in each row
            p.block = fused->block;
            p.stride = fused->stride;
            p.offset = fused->offset + count(t.shape) / (t.shape[0] * t.shape[1]);
        } else {
            Block b;
            b.dtype = t.dtype;
            int64_t slices = 0;
            for (const Tensor& other : c.tensors) slices += t.fused > 0 && other.fused == t.fused;
            const int64_t unit = placement == Placement::kAligned ? 16 / static_cast<int64_t>(element_size(t.dtype)) : 1;
            int64_t before = 0, after = 0;
            if (placement != Placement::kPlain && slices > 0) {
                p.stride[1] = slices * p.stride[1];
                p.stride[0] = slices * p.stride[0];
            } else if (placement != Placement::kPlain && rank > 1 && random.chance(0.5)) {
                int64_t s = 1;
                for (size_t i = rank; i-- > 0;) {
                    p.stride[i] = s;
                    s = s * t.shape[i] + (i > 0 ? unit * random.one_of({0, 0, 1, 3}) : 0);
                }
            }
            if (placement == Placement::kPadded || placement == Placement::kAligned) {
                before = unit * (1 + random.below(37));
                after = unit * (1 + random.below(37));
            }
            p.offset = before;
            b.elements = before + reach(t.shape, p.stride) + after;
            if (slices > 0 && placement != Placement::kPlain) b.elements += (slices - 1) * count(t.shape) / (t.shape[0] * t.shape[1]);
            b.image.resize(static_cast<size_t>(b.elements) * element_size(b.dtype));
            b.writable.assign(static_cast<size_t>(b.elements), 0);
            for (int64_t i = 0; i < b.elements; ++i) canary(b.dtype, &b.image[static_cast<size_t>(i) * element_size(b.dtype)]);
            if (placement == Placement::kExactHeap) {
                b.heap = std::malloc(b.image.size());
                require_ok(df_tensor_wrap(device, static_cast<df_dtype>(b.dtype), 1, &b.elements, b.heap, b.image.size(), &b.base), "wrap");
            } else {
                require_ok(df_tensor_create(device, static_cast<df_dtype>(b.dtype), 1, &b.elements, &b.base), "create");
            }
            blocks_.push_back(std::move(b));
        }
        Block& b = blocks_[p.block];
        b.names += (b.names.empty() ? "" : "+") + t.name;
        require_ok(df_tensor_view(b.base, static_cast<int>(rank), t.shape.data(), p.stride.data(), p.offset, &p.handle), t.name.c_str());
        if (values.has(t.name)) encode(p, values.at(t.name));
        if (t.role != Role::kInput) for_elements(p, [&](int64_t at) { b.writable[static_cast<size_t>(at)] = 1; });
        placed_.push_back(std::move(p));
    }
    restore();
}

Fixture::~Fixture() {
    for (const Placed& p : placed_) df_tensor_destroy(p.handle);
    for (const Block& b : blocks_) {
        df_tensor_destroy(b.base);
        std::free(b.heap);
    }
}

const Fixture::Placed* Fixture::placed(const std::string& name) const {
    for (const Placed& p : placed_)
        if (p.of->name == name) return &p;
    return nullptr;
}

df_tensor* Fixture::tensor(const char* name) const {
    const Placed* p = placed(name);
    return p == nullptr ? nullptr : p->handle;
}

template <class F>
void Fixture::for_elements(const Placed& p, F&& f) const {
    const Shape& shape = p.of->shape;
    Shape index(shape.size(), 0);
    int64_t at = p.offset;
    for (int64_t n = count(shape); n > 0; --n) {
        f(at);
        for (size_t i = shape.size(); i-- > 0;) {
            at += p.stride[i];
            if (++index[i] < shape[i]) break;
            at -= p.stride[i] * shape[i];
            index[i] = 0;
        }
    }
}

void Fixture::encode(const Placed& p, const std::vector<double>& values) {
    Block& b = blocks_[p.block];
    const size_t size = element_size(b.dtype);
    size_t i = 0;
    for_elements(p, [&](int64_t at) { test::encode(b.dtype, values[i++], &b.image[static_cast<size_t>(at) * size]); });
}

void Fixture::restore() {
    for (const Block& b : blocks_) require_ok(df_tensor_write_bytes(b.base, b.image.data(), static_cast<int64_t>(b.image.size())), "write");
}

void Fixture::write(const std::string& name, const std::vector<double>& values) {
    const Placed* p = placed(name);
    encode(*p, values);
    const Block& b = blocks_[p->block];
    require_ok(df_tensor_write_bytes(b.base, b.image.data(), static_cast<int64_t>(b.image.size())), "write");
}

std::vector<unsigned char> Fixture::block_bytes(const Block& b) const {
    std::vector<unsigned char> bytes(b.image.size());
    require_ok(df_tensor_read_bytes(b.base, bytes.data(), static_cast<int64_t>(bytes.size())), "read");
    return bytes;
}

std::vector<double> Fixture::read(const std::string& name) const {
    const Placed* p = placed(name);
    const Block& b = blocks_[p->block];
    const std::vector<unsigned char> bytes = block_bytes(b);
    const size_t size = element_size(b.dtype);
    std::vector<double> values;
    values.reserve(static_cast<size_t>(count(p->of->shape)));
    for_elements(*p, [&](int64_t at) { values.push_back(decode(b.dtype, &bytes[static_cast<size_t>(at) * size])); });
    return values;
}

std::string Fixture::damage() const {
    for (const Block& b : blocks_) {
        const std::vector<unsigned char> bytes = block_bytes(b);
        const size_t size = element_size(b.dtype);
        for (int64_t i = 0; i < b.elements; ++i) {
            const size_t at = static_cast<size_t>(i) * size;
            if (!b.writable[static_cast<size_t>(i)] && std::memcmp(&bytes[at], &b.image[at], size) != 0)
                return b.names + ": element " + std::to_string(i) + " of its buffer changed, an input or outside every view";
        }
    }
    return "";
}

std::vector<unsigned char> Fixture::output_bits() const {
    std::vector<unsigned char> bits;
    for (const Block& b : blocks_) {
        const std::vector<unsigned char> bytes = block_bytes(b);
        const size_t size = element_size(b.dtype);
        for (int64_t i = 0; i < b.elements; ++i)
            if (b.writable[static_cast<size_t>(i)])
                bits.insert(bits.end(), &bytes[static_cast<size_t>(i) * size], &bytes[static_cast<size_t>(i) * size] + size);
    }
    return bits;
}

}  // namespace dualform::test
