#include <cmath>
#include <cstring>
#include <functional>

#include "check.h"

namespace dualform::test {

namespace {

/// Refused with that status and a sentence that has the word in it.
class Refusals {
public:
    explicit Refusals(Report& report) : report_(report) {}
    void expect(const char* what, df_status status, df_status expected, const char* word) {
        const char* sentence = df_last_error();
        if (status == expected && std::strstr(sentence, word) != nullptr && std::strlen(sentence) > std::strlen(word))
            return report_.pass();
        report_.fail("%s: status %d, expected %d; sentence \"%s\", expected \"%s\" in it", what, status, expected, sentence, word);
    }
    void refused(const char* what, df_status status, const char* word) { expect(what, status, DF_INVALID_ARGUMENT, word); }

private:
    Report& report_;
};

/// Each tensor of every op in turn: null, another dtype, another rank, another size, another device; outputs over inputs.
void every_argument(const Options& options, Report& report, df_device* device, df_device* other) {
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (int64_t i = 0; i < options.number(3); ++i) {
            const uint64_t seed = options.seed + static_cast<uint64_t>(i);
            Drawn d = draw_case(name, DF_F32, seed, false);
            Fixture fixture(device, *d.op, d.values, Placement::kPlain, seed);
            require_ok(call(*d.op, fixture.handles()), name.c_str());
            const std::vector<unsigned char> good = fixture.output_bits();
            for (const Tensor& t : d.op->tensors) {
                Shape deeper = t.shape, larger = t.shape;
                deeper.insert(deeper.begin(), 2);
                if (!larger.empty()) larger[0] += 1;
                const int wrong = t.dtype == DF_I32 ? DF_F32 : DF_I32;
                const Array null_dtype(device, wrong, t.shape), null_rank(device, t.dtype, deeper), elsewhere(other, t.dtype, t.shape);
                const auto with = [&](df_tensor* replacement) {
                    return [&fixture, &t, replacement](const char* asked) { return t.name == asked ? replacement : fixture.tensor(asked); };
                };
                // A refusal names the argument, or the one that it no longer agrees with; so that some sentence is left is what counts
                // here.
                const auto refused = [&](const char* what, df_tensor* replacement) {
                    const df_status status = call(*d.op, with(replacement));
                    if (status == DF_INVALID_ARGUMENT && std::strchr(df_last_error(), ':') != nullptr) return report.pass();
                    report.fail("%s --seed %llu: %s %s is taken, status %d (%s)", name.c_str(), static_cast<unsigned long long>(seed),
                                t.name.c_str(), what, status, df_last_error());
                };
                const bool any_dtype = name == "fill" || name == "copy" || name == "binary";  // these serve I32 too
                if (!any_dtype) refused("of another dtype", null_dtype);
                const bool any_rank = name == "fill" || name == "binary" || (name.rfind("random_", 0) == 0 && t.name == "out") ||
                                      name == "squared_norm" || (name == "copy" && t.name == "out") || name == "affine" || name == "unary";
                if (!any_rank && !(name == "bias_backward" && t.name == "dout") && !(name == "clip_scale"))
                    refused("of another rank", null_rank);
                if (!(name == "fill" || name == "random_uniform" || name == "random_normal")) refused("of another device", elsewhere);
            }
            fixture.restore();
            require_ok(call(*d.op, fixture.handles()), name.c_str());
            report.expect(fixture.output_bits() == good, name + ": another result after refused calls");
        }
    }
}

}  // namespace

void check_errors(const Options& options, Report& report) {
    Device device(options), other(options);
    every_argument(options, report, device, other);

    Refusals r(report);
    const int dtype = DF_F32;
    df_device* none = nullptr;
    r.refused("open without a place for the device", df_device_open("cpu", 0, 0, nullptr), "out");
    r.refused("open without a name", df_device_open(nullptr, 0, 0, &none), "backend");
    r.expect("open an unknown backend", df_device_open("tpu", 0, 0, &none), DF_UNAVAILABLE, "tpu");
    if (options.backend == "cpu") {
        r.refused("open cpu 1", df_device_open("cpu", 1, 0, &none), "index");
        r.refused("open with -1 threads", df_device_open("cpu", 0, -1, &none), "threads");
        r.refused("open with too many threads", df_device_open("cpu", 0, 1 << 30, &none), "threads");
        r.expect("a stream on the cpu", df_device_set_stream(device, nullptr), DF_UNSUPPORTED, "stream");
    }
    r.refused("load without a path", df_backend_load(nullptr), "path");
    r.refused("load a relative path", df_backend_load("libx.so"), "path");
    r.expect("load what is not there", df_backend_load("/nowhere/libx.so"), DF_UNAVAILABLE, "/nowhere/libx.so");
    int count_out = 0;
    r.refused("count without a place", df_backend_device_count("cpu", nullptr), "count");
    r.expect("count an unknown backend", df_backend_device_count("tpu", &count_out), DF_UNAVAILABLE, "tpu");
    r.refused("describe without a buffer", df_backend_describe("cpu", nullptr, 0), "text");
    r.refused("describe no device", df_device_describe(nullptr, nullptr, 0), "device");
    r.refused("synchronize no device", df_device_synchronize(nullptr), "device");

    df_tensor* t = nullptr;
    const int64_t shape[] = {2, 3}, zero[] = {0}, negative[] = {-1}, huge[] = {int64_t{1} << 31, int64_t{1} << 31},
                  large[] = {int64_t{1} << 58};
    r.refused("create on no device", df_tensor_create(nullptr, DF_F32, 2, shape, &t), "device");
    r.refused("create without a place", df_tensor_create(device, DF_F32, 2, shape, nullptr), "out");
    r.refused("create of dtype 9", df_tensor_create(device, static_cast<df_dtype>(9), 2, shape, &t), "dtype");
    r.refused("create of rank 9", df_tensor_create(device, DF_F32, 9, shape, &t), "rank");
    r.refused("create of rank -1", df_tensor_create(device, DF_F32, -1, shape, &t), "rank");
    r.refused("create without a shape", df_tensor_create(device, DF_F32, 2, nullptr, &t), "shape");
    r.refused("create of an empty shape", df_tensor_create(device, DF_F32, 1, zero, &t), "shape");
    r.refused("create of a negative shape", df_tensor_create(device, DF_F32, 1, negative, &t), "shape");
    r.refused("create of 2^62 elements", df_tensor_create(device, DF_F32, 2, huge, &t), "shape");
    r.expect("create of 2^60 bytes", df_tensor_create(device, DF_F32, 1, large, &t), DF_OUT_OF_MEMORY, "bytes");
    const Array a(device, dtype, {4, 6}, std::vector<double>(24, 1));
    const int64_t view_shape[] = {2, 3}, past[] = {20, 1}, twice[] = {1, 1}, gap[] = {6, 2}, backwards[] = {-6, 1},
                  far[] = {int64_t{1} << 61, 1};
    const int64_t whole[] = {6, 1};
    r.refused("a view past the end", df_tensor_view(a, 2, view_shape, past, 10, &t), "view");
    r.refused("a view that reaches an element twice", df_tensor_view(a, 2, view_shape, twice, 0, &t), "strides");
    r.refused("a view with gaps in its rows", df_tensor_view(a, 2, view_shape, gap, 0, &t), "strides");
    r.refused("a view with a negative stride", df_tensor_view(a, 2, view_shape, backwards, 6, &t), "strides");
    r.refused("a view with a negative offset", df_tensor_view(a, 2, view_shape, whole, -1, &t), "offset");
    r.refused("a view with strides beyond 2^62", df_tensor_view(a, 2, huge, far, 0, &t), "shape");
    r.refused("a view of nothing", df_tensor_view(nullptr, 2, view_shape, whole, 0, &t), "tensor");
    r.refused("a view without strides", df_tensor_view(a, 2, view_shape, nullptr, 0, &t), "strides");
    alignas(8) char memory[64];
    r.refused("wrap of too little memory", df_tensor_wrap(device, DF_F32, 2, shape, memory, 20, &t), "data");
    r.refused("wrap of a crooked address", df_tensor_wrap(device, DF_F32, 2, shape, memory + 1, 60, &t), "data");
    r.refused("wrap of null", df_tensor_wrap(device, DF_F32, 2, shape, nullptr, 60, &t), "data");
    float floats[24] = {};
    int32_t ints[24] = {};
    r.refused("write too few", df_tensor_write_f32(a, floats, 3), "values");
    r.refused("write null", df_tensor_write_f32(a, nullptr, 24), "values");
    r.refused("write to null", df_tensor_write_f32(nullptr, floats, 24), "tensor");
    r.refused("write i32 to F32", df_tensor_write_i32(a, ints, 24), "tensor");
    r.refused("read too few bytes", df_tensor_read_bytes(a, floats, 95), "bytes");
    report.expect(t == nullptr, "a refused call gives a tensor");

    // Numbers and enums out of range, overlap.
    const Array q(device, dtype, {1, 3, 2, 4}, std::vector<double>(24, 1)), k(device, dtype, {1, 3, 2, 4}, std::vector<double>(24, 1)),
        v(device, dtype, {1, 3, 2, 4}, std::vector<double>(24, 1));
    const Array out(device, dtype, {1, 3, 2, 4}), lse(device, DF_F32, {1, 2, 3}), eta(device, DF_F32, {2}, {0.5, 1.0}),
        nan_eta(device, DF_F32, {2}, {0.5, NAN}), good_eta(device, DF_F32, {2}, {0.5, 0});
    const Array lengths(device, DF_I32, {1}, {4}), minus(device, DF_I32, {1}, {-1}), three(device, dtype, {1, 3, 3, 4}),
        wide(device, dtype, {1, 1, 1, 257}), wide_lse(device, DF_F32, {1, 1, 1});
    const Array wide_out(device, dtype, {1, 1, 1, 257}), wide_k(device, dtype, {1, 1, 1, 257});
    const Array state(device, DF_F32, {1, 2, 4});
    const double nan = std::nan(""), inf = INFINITY;
    r.refused("scale nan", df_attention_forward(out, lse, q, k, v, nullptr, nan, 1), "scale");
    r.refused("scale inf", df_attention_forward(out, lse, q, k, v, nullptr, inf, 1), "scale");
    r.refused("out over q", df_attention_forward(q, lse, q, k, v, nullptr, 1, 1), "out");
    r.refused("heads that do not divide", df_attention_forward(out, lse, q, three, three, nullptr, 1, 1), "k");
    r.refused("head size 257", df_attention_forward(wide_out, wide_lse, wide, wide_k, wide_k, nullptr, 1, 1), "head size");
    if (options.backend == "cpu") {
        r.refused("length above S", df_attention_forward(out, lse, q, k, v, lengths, 1, 1), "lengths");
        r.refused("negative length", df_attention_forward(out, lse, q, k, v, minus, 1, 1), "lengths");
        r.refused("eta 1", df_momentum_attention_forward(out, nullptr, lse, nullptr, q, k, v, nullptr, eta, nullptr, 1), "eta");
        r.refused("eta nan", df_momentum_attention_forward(out, nullptr, lse, nullptr, q, k, v, nullptr, nan_eta, nullptr, 1), "eta");
        const Array decay(device, DF_F32, {2}, {0.5, 1.5});
        r.refused("decay 1.5", df_linear_attention_forward(out, nullptr, q, k, v, decay, nullptr), "decay");
    }
    r.refused("no eta", df_momentum_attention_forward(out, nullptr, lse, nullptr, q, k, v, nullptr, nullptr, nullptr, 1), "eta");
    const Array one_key(device, dtype, {1, 1, 2, 4});
    r.refused("a state with more queries than keys",
              df_momentum_attention_forward(out, nullptr, lse, nullptr, q, one_key, one_key, nullptr, good_eta, state, 1), "state_in");
    const Array m23(device, dtype, {2, 3}, std::vector<double>(6, 1)), m32(device, dtype, {3, 2}, std::vector<double>(6, 1)),
        m22(device, dtype, {2, 2}), m33(device, dtype, {3, 3}), v2(device, dtype, {2}), v3(device, dtype, {3});
    r.refused("inner sizes that differ", df_matmul(m22, m23, m23, nullptr, 0, 0, 0), "b");
    r.refused("out of another shape", df_matmul(m33, m23, m32, nullptr, 0, 0, 0), "out");
    r.refused("bias of another size", df_matmul(m22, m23, m32, v3, 0, 0, 0), "bias");
    r.refused("form 7", df_dual_form_forward(m22, nullptr, m23, m32, m33, m23, static_cast<df_form>(7)), "form");
    r.refused("unary 99", df_unary_forward(m22, m22, static_cast<df_unary>(99)), "op");
    r.refused("binary -1", df_binary_forward(m22, m22, m22, static_cast<df_binary>(-1)), "op");
    r.refused("shapes that do not broadcast", df_binary_forward(m23, m32, m23, DF_BINARY_ADD), "a");
    r.refused("reduce 9", df_reduce_forward(v2, m23, static_cast<df_reduction>(9), 2), "op");
    r.refused("an axis beyond the rank", df_reduce_forward(v2, m23, DF_REDUCE_SUM, 4), "axes");
    r.refused("gelu 5", df_bias_gelu_forward(m23, m23, nullptr, static_cast<df_gelu>(5)), "kind");
    r.refused("matmul gelu 5", df_matmul_gelu_forward(m22, nullptr, m23, m32, nullptr, 0, 0, static_cast<df_gelu>(5)), "kind");
    r.refused("pre of another shape", df_matmul_gelu_forward(m22, m33, m23, m32, nullptr, 0, 0, DF_GELU_TANH), "pre");
    r.refused("dbias of another size", df_matmul_gelu_backward(m22, v3, m23, m32, m33, 0, DF_GELU_TANH, 0), "dbias");
    r.refused("w that does not follow dout", df_matmul_gelu_backward(m22, nullptr, m23, m32, m22, 1, DF_GELU_TANH, 0), "w");
    r.refused("negative eps", df_residual_layernorm_forward(nullptr, m22, v2, v2, m22, nullptr, v2, v2, -1), "eps");
    r.refused("residual without sum", df_residual_layernorm_forward(nullptr, m22, v2, v2, m22, m22, v2, v2, 1e-5), "sum");
    const Array ids(device, DF_I32, {1, 2}, {0, 2}), rows(device, dtype, {1, 2, 3}), targets(device, DF_I32, {2}, {0, 5}),
        loss(device, DF_F32, {}), losses(device, DF_F32, {2});
    r.refused("an id beyond the table", df_embedding_forward(rows, ids, m23, nullptr, 0), "ids");
    r.refused("a negative position", df_embedding_forward(rows, ids, m33, m33, -1), "position");
    r.refused("a position beyond the table", df_embedding_forward(rows, ids, m33, m33, 2), "position");
    r.refused("a target beyond the vocabulary", df_cross_entropy(loss, losses, nullptr, m23, targets, -1), "targets");
    r.refused("fill of I32 with a fraction", df_fill(ids, 0.5), "value");
    const Array p(device, dtype, {2}), m(device, dtype, {2}), s(device, dtype, {2}), g(device, dtype, {2}), norm(device, dtype, {});
    r.refused("step 0", df_adamw_step(p, m, s, nullptr, g, nullptr, 1, 0.9, 0.9, 1e-8, 0, 0), "step");
    r.refused("beta 1", df_adamw_step(p, m, s, nullptr, g, nullptr, 1, 1, 0.9, 1e-8, 0, 1), "beta1");
    r.refused("rate nan", df_adamw_step(p, m, s, nullptr, g, nullptr, nan, 0.9, 0.9, 1e-8, 0, 1), "lr");
    r.refused("momentum without a buffer", df_sgd_step(p, nullptr, nullptr, g, nullptr, 1, 0.9, 0), "momentum_buffer");
    r.refused("norm 0", df_clip_scale(norm, loss, 0), "max_norm");
    {
        const Array flat(device, dtype, {6}), fm(device, dtype, {6}), fv(device, dtype, {6}), fg(device, dtype, {6}), rates(device, dtype, {2}),
            count(device, DF_I32, {}), two(device, DF_I32, {2}), three_words(device, DF_I32, {3});
        const int64_t good[] = {0, 3, 3, 6}, overlapping[] = {0, 4, 3, 6}, empty[] = {0, 3, 4, 4}, beyond[] = {0, 3, 3, 7}, before[] = {-1, 3, 3, 6};
        const double decays[] = {0.1, 0}, bad_decays[] = {nan, 0};
        const auto adamw = [&](df_tensor* param, const df_tensor* r1, const df_tensor* s1, const int64_t* bounds, const double* weight_decays, int n,
                               double lr, int64_t step) {
            return df_adamw_ranges(param, fm, fv, nullptr, fg, nullptr, r1, s1, bounds, weight_decays, n, lr, 0.9, 0.9, 1e-8, step);
        };
        require_ok(adamw(flat, nullptr, nullptr, good, decays, 0, 0.1, 1), "no part");
        r.refused("parts that overlap", adamw(flat, nullptr, nullptr, overlapping, decays, 2, 0.1, 1), "bounds: part 1");
        r.refused("an empty part", adamw(flat, nullptr, nullptr, empty, decays, 2, 0.1, 1), "bounds: part 1");
        r.refused("a part beyond the end", adamw(flat, nullptr, nullptr, beyond, decays, 2, 0.1, 1), "bounds: part 1");
        r.refused("a part before the start", adamw(flat, nullptr, nullptr, before, decays, 2, 0.1, 1), "bounds: part 0");
        r.refused("no bounds", adamw(flat, nullptr, nullptr, nullptr, decays, 2, 0.1, 1), "bounds");
        r.refused("no decays", adamw(flat, nullptr, nullptr, good, nullptr, 2, 0.1, 1), "weight_decays");
        r.refused("a decay nan", adamw(flat, nullptr, nullptr, good, bad_decays, 2, 0.1, 1), "weight_decays");
        r.refused("fewer than no parts", adamw(flat, nullptr, nullptr, good, decays, -1, 0.1, 1), "count");
        r.refused("rates without steps", adamw(flat, rates, nullptr, good, decays, 2, 0.1, 1), "steps");
        r.refused("steps without rates", adamw(flat, nullptr, count, good, decays, 2, 0.1, 1), "rates");
        r.refused("two counts of steps", adamw(flat, rates, two, good, decays, 2, 0.1, 1), "steps");
        r.refused("step 0 of all parts", adamw(flat, nullptr, nullptr, good, decays, 2, 0.1, 0), "step");
        r.refused("rate nan of all parts", adamw(flat, nullptr, nullptr, good, decays, 2, nan, 1), "lr");
        r.refused("a state of three words", df_random_normal_next(flat, three_words, 0, 1), "state");
        r.refused("a state that is none", df_random_uniform_next(flat, nullptr, 0, 1), "state");
    }
    r.refused("an empty range", df_random_uniform(p, 1, 0, 2, 2), "hi");
    r.refused("a negative deviation", df_random_normal(p, 1, 0, 0, -1), "std");
    // Bounds that the dtype of out would round to infinity, and a range wider than any number.
    const Array half(device, DF_BF16, {2}), wide_range(device, DF_F64, {2});
    require_ok(df_random_uniform(p, 1, 0, -3e38, 3e38), "bounds within F32");
    require_ok(df_random_uniform(half, 1, 0, -3e38, 3e38), "bounds within BF16");
    r.refused("lo beyond F32", df_random_uniform(p, 1, 0, -1e39, 0), "lo");
    r.refused("hi beyond F32", df_random_uniform(p, 1, 0, 0, 1e39), "hi");
    r.refused("hi beyond BF16", df_random_uniform(half, 1, 0, 0, 3.4e38), "hi");
    r.refused("mean beyond F32", df_random_normal(p, 1, 0, -1e39, 1), "mean");
    r.refused("deviation beyond BF16", df_random_normal(half, 1, 0, 0, 3.4e38), "std");
    r.refused("hi nan", df_random_uniform(p, 1, 0, 0, nan), "hi");
    if (options.backend != "cpu") {
        const char* cuda = options.backend.c_str();
        r.refused("kernels there are none of", df_backend_set_option(cuda, "kernels", "fast"), "kernels");
        r.refused("a precision there is none of", df_backend_set_option(cuda, "precision", "fp8"), "precision");
        r.refused("neither true nor false", df_backend_set_option(cuda, "deterministic", "yes"), "deterministic");
        r.refused("an option there is none of", df_backend_set_option(cuda, "level", "avx2"), "option");
    }
    if (options.backend == "cpu")  // CUDA serves no F64
        r.refused("hi - lo beyond F64", df_random_uniform(wide_range, 1, 0, -1.7e308, 1.7e308), "hi - lo");

    // The stopwatch.
    double seconds = -1;
    r.refused("a timer of no device", df_device_start_timer(nullptr), "device");
    r.refused("a timer without a place", df_device_stop_timer(device, nullptr), "seconds");
    r.expect("a timer that was not started", df_device_stop_timer(device, &seconds), DF_INVALID_STATE, "timer");
    require_ok(df_device_start_timer(device), "start");
    require_ok(df_fill(p, 1), "fill");
    require_ok(df_device_stop_timer(device, &seconds), "stop");
    report.expect(seconds >= 0 && seconds < 60, "a fill took " + std::to_string(seconds) + " seconds");
    r.expect("a timer stopped twice", df_device_stop_timer(device, &seconds), DF_INVALID_STATE, "timer");

    // A device with live tensors refuses to close and goes on working.
    df_device* busy = nullptr;
    require_ok(df_device_open(options.backend.c_str(), 0, 1, &busy), "device");
    require_ok(df_tensor_create(busy, DF_F32, 2, shape, &t), "create");
    r.expect("closing a device in use", df_device_close(busy), DF_INVALID_STATE, "device");
    require_ok(df_fill(t, 1), "fill");
    df_tensor_destroy(t);
    require_ok(df_device_close(busy), "close");
    require_ok(df_device_close(nullptr), "close nothing");
    df_tensor_destroy(nullptr);
    report.expect(df_tensor_rank(nullptr) == -1 && df_tensor_data(nullptr) == nullptr && df_device_stat(nullptr, DF_STAT_THREADS) == -1,
                  "questions about null");
}

}  // namespace dualform::test
