#include "check.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace dualform::test {

void Report::fail(const char* format, ...) {
    ++failed;
    va_list list;
    va_start(list, format);
    std::printf("FAILED: ");
    std::vprintf(format, list);
    std::printf("\n");
    std::fflush(stdout);
    va_end(list);
}

void Report::skip(const std::string& what, const std::string& reason, int64_t n) {
    skipped += n;
    std::printf("SKIPPED: %s: %s\n", what.c_str(), reason.c_str());
}

Device::Device(const Options& options, int threads) {
    require_ok(df_device_open(options.backend.c_str(), 0, threads >= 0 ? threads : options.threads, &device_), "device");
}

Device::~Device() {
    if (df_device_close(device_) != DF_OK) std::fprintf(stderr, "%s\n", df_last_error());
}

Array::Array(df_device* device, int dtype, Shape shape, const std::vector<double>& values) : shape_(std::move(shape)) {
    require_ok(df_tensor_create(device, static_cast<df_dtype>(dtype), static_cast<int>(shape_.size()), shape_.data(), &tensor_), "create");
    if (!values.empty()) {
        std::vector<unsigned char> bytes(values.size() * element_size(dtype));
        for (size_t i = 0; i < values.size(); ++i) encode(dtype, values[i], &bytes[i * element_size(dtype)]);
        require_ok(df_tensor_write_bytes(tensor_, bytes.data(), static_cast<int64_t>(bytes.size())), "write");
    }
}

namespace {
std::vector<double> drawn(const Shape& shape, const Distribution& values, Random& random) {
    std::vector<double> x(static_cast<size_t>(count(shape)));
    for (double& e : x) e = values(random);
    return x;
}
}  // namespace

Array::Array(df_device* device, int dtype, Shape shape, const Distribution& values, Random& random)
    : Array(device, dtype, shape, drawn(shape, values, random)) {}

std::vector<unsigned char> Array::bits() const {
    std::vector<unsigned char> bytes(static_cast<size_t>(count(shape_)) * element_size(df_tensor_dtype(tensor_)));
    require_ok(df_tensor_read_bytes(tensor_, bytes.data(), static_cast<int64_t>(bytes.size())), "read");
    return bytes;
}

std::vector<double> Array::read() const {
    const int dtype = df_tensor_dtype(tensor_);
    const std::vector<unsigned char> bytes = bits();
    std::vector<double> values;
    for (size_t i = 0; i < bytes.size(); i += element_size(dtype)) values.push_back(decode(dtype, &bytes[i]));
    return values;
}

Array Array::slice(int64_t from, int64_t to) const {
    Shape shape = shape_, stride;
    for (int i = 0; i < static_cast<int>(shape.size()); ++i) stride.push_back(df_tensor_stride(tensor_, i));
    shape[1] = to - from;
    df_tensor* view = nullptr;
    require_ok(df_tensor_view(tensor_, static_cast<int>(shape.size()), shape.data(), stride.data(), from * stride[1], &view), "slice");
    return Array(std::move(shape), view);
}

Drawn draw_case(const std::string& op, int dtype, uint64_t seed, bool differentiable, const std::map<std::string, int64_t>& given) {
    Draw d(seed, dtype, differentiable, given);
    Drawn drawn{cases().at(op)(), {}, ""};
    drawn.op->tensors.reserve(32);  // draw() keeps references while it declares
    drawn.op->draw(d);
    drawn.text = d.text();
    Random random(seed * 31 + 7);
    drawn.values = draw_values(*drawn.op, random);
    return drawn;
}

df_status call(Case& c, const Handles& handles) {
    const df_status status = c.forward(handles);
    return status != DF_OK || !c.has_backward() ? status : c.backward(handles);
}

namespace {

/// Largest gradient that arrives; 0 when the case has none.
double incoming_scale(const Case& c, const Values& v) {
    double scale = 0;
    for (const Case::Incoming& g : c.incoming) scale = std::max(scale, g.gradient.empty() ? 1 : largest_magnitude(v.at(g.gradient)));
    return scale;
}

double scale_of(const Tensor& t, const std::vector<double>& reference, double incoming) {
    return std::max({largest_magnitude(reference), t.is_gradient ? incoming : 0, t.least_scale});
}

}  // namespace

Judgement judge_outputs(const Case& c, const Values& values, const Fixture& fixture) {
    Values exact = values;
    c.expect(exact, true);
    std::map<std::string, double> naive_error;
    if (c.dtype != DF_F64) {
        Values naive = values;
        c.expect(naive, false);
        const double incoming = incoming_scale(c, values);
        for (const Tensor& t : c.tensors) {
            if (t.role == Role::kInput) continue;
            const double scale = scale_of(t, exact.at(t.name), incoming);
            const double error = largest_distance(naive.at(t.name), exact.at(t.name));
            if (!std::isfinite(error)) return {0, t.name + ": the naive op's own error is not finite, the case is out of range", {}};
            naive_error[t.name] = scale > 0 ? error / scale : 0;
        }
    }
    Judgement result;
    const double incoming = incoming_scale(c, values);
    for (const Tensor& t : c.tensors) {
        if (t.role == Role::kInput) continue;
        const std::vector<double>& reference = exact.at(t.name);
        const std::vector<double> candidate = fixture.read(t.name);
        int64_t where = 0;
        const double error = largest_distance(candidate, reference, &where);
        const double scale = scale_of(t, reference, incoming);
        if (c.dtype != DF_F64) result.errors[t.name] = {scale > 0 ? error / scale : 0, naive_error[t.name]};
        const Verdict verdict = judge(error, parity_tolerance(t.dtype, naive_error[t.name], scale, c.operands()));
        if (!(verdict.ratio <= result.ratio)) result.ratio = verdict.ratio;
        if (!verdict.pass && result.failure.empty()) {
            char text[256];
            const size_t at = static_cast<size_t>(where);
            std::snprintf(text, sizeof text, "%s[%lld of %zu]: %.9g, expected %.9g, error %.3g, tolerance %.3g", t.name.c_str(),
                          static_cast<long long>(where), reference.size(), candidate[at], reference[at], error, verdict.tolerance);
            result.failure = text;
        }
    }
    return result;
}

}  // namespace dualform::test
