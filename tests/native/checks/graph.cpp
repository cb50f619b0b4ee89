#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "check.h"

namespace dualform::test {

namespace {

/// A captured graph, destroyed at the end.
class Graph {
public:
    template <class Step>
    Graph(df_device* device, Step&& step) {
        require_ok(df_device_capture_begin(device), "begin");
        try {
            step();
        } catch (const Failure&) {
            df_device_capture_abandon(device);
            throw;
        }
        require_ok(df_device_capture_end(device, &graph_), "end");
    }
    ~Graph() { df_graph_destroy(graph_); }
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    void replay() const { require_ok(df_graph_replay(graph_), "replay"); }
    operator df_graph*() const { return graph_; }
    void destroy() {
        df_graph_destroy(graph_);
        graph_ = nullptr;
    }

private:
    df_graph* graph_ = nullptr;
};

/// The same bits by replay as by a call, twice, and none at all from the capture itself.
void every_op(const Options& options, Report& report, df_device* device) {
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes())
            for (int64_t i = 0; i < options.number(6); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false);
                Fixture fixture(device, *d.op, d.values, Placement::kPadded, seed);
                const std::vector<unsigned char> before = fixture.output_bits();
                const df_status status = call(*d.op, fixture.handles());
                if (status == DF_UNSUPPORTED) {
                    report.skip(name + " " + dtype_name(dtype) + " on " + options.backend, df_last_error());
                    break;
                }
                require_ok(status, name.c_str());
                const std::vector<unsigned char> good = fixture.output_bits();
                fixture.restore();
                const Graph graph(device, [&] { require_ok(call(*d.op, fixture.handles()), name.c_str()); });
                std::string failure = fixture.output_bits() == before ? "" : "the capture ran the op";
                for (int round = 0; round < 2 && failure.empty(); ++round) {
                    fixture.restore();
                    graph.replay();
                    failure = fixture.damage();
                    if (failure.empty() && fixture.output_bits() != good) failure = "other bits by replay";
                }
                if (failure.empty())
                    report.pass();
                else
                    report.fail("graph: %s %s --seed %llu (%s): %s", name.c_str(), dtype_name(dtype), static_cast<unsigned long long>(seed),
                                d.text.c_str(), failure.c_str());
            }
    }
}

constexpr int64_t kRows = 24, kIn = 7, kOut = 5;

/// A regression on random inputs whose step needs nothing from the host: the random state, the count, the rates and the limit are on the
/// device. Targets are x teacher^T.
class Regression {
public:
    Regression(df_device* device, int dtype)
        : device_(device),
          dtype_(dtype),
          acc_(accumulation_dtype(dtype)),
          state_(device, DF_I32, {4}, {7, 0, 0, 0}),
          w_(device, dtype, {kSize}, numbers(0.1)),
          m_(device, acc_, {kSize}, numbers(0)),
          v_(device, acc_, {kSize}, numbers(0)),
          master_(device, acc_, {kSize}, numbers(0.1)),
          grad_(device, acc_, {kSize}, numbers(0)),
          teacher_(device, dtype, {kOut, kIn}, numbers(0.3)),
          factor_(device, dtype, {}, {1}),
          rates_(device, acc_, {3}, {0.02, 0.04, 0.01}),
          steps_(device, DF_I32, {}, {0}),
          limit_(device, acc_, {}, {0.5}),
          scale_(device, acc_, {}, {0}),
          sumsq_(device, acc_, {}, {0}),
          loss_(device, acc_, {}, {0}) {}

    void step() {
        df_tensor* w = view(w_);
        df_tensor* dw = view(grad_);
        {
            const Array x(device_, dtype_, {kRows, kIn}), out(device_, dtype_, {kRows, kOut}), target(device_, dtype_, {kRows, kOut}),
                error(device_, dtype_, {kRows, kOut}), square(device_, dtype_, {kRows, kOut});
            require_ok(df_random_normal_next(x, state_, 0, 1), "x");
            require_ok(df_matmul(target, x, teacher_, nullptr, 0, 1, 0), "target");
            require_ok(df_matmul(out, x, w, nullptr, 0, 1, 0), "out");
            require_ok(df_binary_forward(error, out, target, DF_BINARY_SUB), "error");
            require_ok(df_binary_forward(error, error, factor_, DF_BINARY_MUL), "factor");
            require_ok(df_unary_forward(square, error, DF_UNARY_SQUARE), "square");
            require_ok(df_reduce_forward(loss_, square, DF_REDUCE_MEAN, 3), "loss");
            require_ok(df_matmul(dw, error, x, nullptr, 1, 0, 0), "dw");
        }
        df_tensor_destroy(w);
        df_tensor_destroy(dw);
        require_ok(df_squared_norm(sumsq_, grad_, 0), "sumsq");
        require_ok(df_clip_step(scale_, steps_, sumsq_, loss_, limit_), "clip");
        const int64_t bounds[] = {0, 11, 11, kSize};
        const double decays[] = {0.1, 0};
        require_ok(df_adamw_ranges(w_, m_, v_, dtype_ == acc_ ? nullptr : static_cast<df_tensor*>(master_), grad_, scale_, rates_, steps_, bounds,
                                   decays, 2, 0, 0.9, 0.95, 1e-8, 0),
                   "adamw");
    }
    std::vector<unsigned char> bits() const {
        std::vector<unsigned char> all;
        for (const Array* a : {&w_, &m_, &v_, &master_, &state_, &steps_, &loss_, &scale_}) {
            const std::vector<unsigned char> part = a->bits();
            all.insert(all.end(), part.begin(), part.end());
        }
        return all;
    }
    std::vector<unsigned char> weights() const { return w_.bits(); }
    double loss() const { return loss_.read()[0]; }
    double scale() const { return scale_.read()[0]; }
    double steps() const { return steps_.read()[0]; }
    void spoil(double factor) const {
        const float f = static_cast<float>(factor);
        require_ok(df_tensor_write_f32(factor_, &f, 1), "factor");
    }

private:
    static constexpr int64_t kSize = kIn * kOut;
    static std::vector<double> numbers(double spread) {
        std::vector<double> x;
        for (int64_t i = 0; i < kSize; ++i) x.push_back(spread * std::sin(static_cast<double>(3 * i + 1)));
        return x;
    }
    static df_tensor* view(df_tensor* flat) {
        const int64_t shape[] = {kOut, kIn}, stride[] = {kIn, 1};
        df_tensor* out = nullptr;
        require_ok(df_tensor_view(flat, 2, shape, stride, 0, &out), "view");
        return out;
    }

    df_device* const device_;
    const int dtype_, acc_;
    const Array state_, w_, m_, v_, master_, grad_, teacher_, factor_, rates_, steps_, limit_, scale_, sumsq_, loss_;
};

void training(const Options& options, Report& report, df_device* device) {
    for (const int dtype : options.dtypes()) {
        if (dtype == DF_F64 && options.backend != "cpu") continue;
        const std::string name = std::string("graph: training in ") + dtype_name(dtype) + ": ";
        Regression eager(device, dtype), replayed(device, dtype);
        eager.step();
        const double first = eager.loss();
        std::vector<std::vector<unsigned char>> bits;
        for (int i = 0; i < 40; ++i) {
            eager.step();
            bits.push_back(eager.bits());
        }
        replayed.step();
        const Graph graph(device, [&] { replayed.step(); });
        const int64_t allocations = df_device_stat(device, DF_STAT_SYSTEM_ALLOCS);
        for (size_t i = 0; i < bits.size(); ++i) {
            graph.replay();
            if (i % 10 == 9 || i < 3) report.expect(replayed.bits() == bits[i], name + "other bits than the eager step " + std::to_string(i));
        }
        report.expect(df_device_stat(device, DF_STAT_SYSTEM_ALLOCS) == allocations, name + "allocated from the system");
        report.expect(eager.steps() == 41, name + "counted " + std::to_string(eager.steps()) + " steps, expected 41");
        report.expect(eager.loss() < first / 2, name + "the loss went from " + std::to_string(first) + " to " + std::to_string(eager.loss()));
        // A step that is not finite changes no weight and is not counted; the next one goes on.
        const std::vector<unsigned char> kept = replayed.weights();
        replayed.spoil(std::numeric_limits<double>::infinity());
        graph.replay();
        report.expect(std::isnan(replayed.scale()), name + "the scale of a step that is not finite is no NaN");
        report.expect(replayed.weights() == kept && replayed.steps() == 41, name + "a step that is not finite was taken");
        replayed.spoil(1);
        graph.replay();
        report.expect(replayed.weights() != kept && replayed.steps() == 42, name + "the step after one that was not finite was not taken");
    }
}

/// The numbers of a step give the same bits from the host and from the device, and all parts at once the same as each by itself.
void numbers_of_a_step(const Options& options, Report& report, df_device* device) {
    const int64_t N = 9001, step = 3;
    const std::vector<int64_t> bounds = {0, 5, 5, 4101, 4104, 8193, 8195, 9001};
    const std::vector<double> decays = {0.1, 0, 0.1, 0.25};
    const double lr = 0.0625; /* a number of every dtype */
    for (const int dtype : options.dtypes()) {
        if (dtype == DF_F64 && options.backend != "cpu") continue;
        const std::string name = std::string("graph: numbers of a step in ") + dtype_name(dtype) + ": ";
        const int acc = accumulation_dtype(dtype);
        const Distribution normal = [](Random& r) { return r.normal(); }, square = [](Random& r) { return r.uniform(0, 1); };
        const Array scale(device, acc, {}, {0.75}), rates(device, acc, {2}, {1, lr}), steps(device, DF_I32, {}, {step});
        struct State {
            Array param, m, v, master, grad;
            State(df_device* d, int type, int wide, int64_t n, const Distribution& values, const Distribution& squares, Random random)
                : param(d, type, {n}, values, random),
                  m(d, wide, {n}, values, random),
                  v(d, wide, {n}, squares, random),
                  master(d, wide, {n}, values, random),
                  grad(d, wide, {n}, values, random) {}
            df_tensor* master_or_null(int type, int wide) const { return type == wide ? nullptr : static_cast<df_tensor*>(master); }
            std::vector<unsigned char> bits() const {
                std::vector<unsigned char> all;
                for (const Array* a : {&param, &m, &v, &master}) {
                    const std::vector<unsigned char> part = a->bits();
                    all.insert(all.end(), part.begin(), part.end());
                }
                return all;
            }
        };
        const State each(device, dtype, acc, N, normal, square, Random(1)), host(device, dtype, acc, N, normal, square, Random(1)),
            there(device, dtype, acc, N, normal, square, Random(1));
        for (size_t part = 0; part < decays.size(); ++part) {
            const int64_t from = bounds[2 * part], shape[] = {bounds[2 * part + 1] - from}, stride[] = {1};
            df_tensor* views[5] = {};
            df_tensor* const of[5] = {each.param, each.m, each.v, each.master_or_null(dtype, acc), each.grad};
            for (int i = 0; i < 5; ++i)
                if (of[i] != nullptr) require_ok(df_tensor_view(of[i], 1, shape, stride, from, &views[i]), "view");
            require_ok(df_adamw_step(views[0], views[1], views[2], views[3], views[4], scale, lr, 0.9, 0.95, 1e-8, decays[part], step), "adamw");
            for (df_tensor* view : views) df_tensor_destroy(view);
        }
        const int parts = static_cast<int>(decays.size());
        require_ok(df_adamw_ranges(host.param, host.m, host.v, host.master_or_null(dtype, acc), host.grad, scale, nullptr, nullptr, bounds.data(),
                                   decays.data(), parts, lr, 0.9, 0.95, 1e-8, step),
                   "adamw of the host");
        require_ok(df_adamw_ranges(there.param, there.m, there.v, there.master_or_null(dtype, acc), there.grad, scale, rates, steps,
                                   bounds.data(), decays.data(), parts, 0, 0.9, 0.95, 1e-8, 0),
                   "adamw of the device");
        report.expect(host.bits() == each.bits(), name + "adamw of all parts at once gives other bits than of each");
        report.expect(there.bits() == host.bits(), name + "adamw with numbers from the device gives other bits");

        const Array sumsq(device, acc, {}, {9}), limit(device, acc, {}, {0.5}), by_host(device, acc, {}), by_device(device, acc, {});
        require_ok(df_clip_scale(by_host, sumsq, 0.5), "clip");
        require_ok(df_clip_step(by_device, steps, sumsq, nullptr, limit), "clip step");
        report.expect(by_host.bits() == by_device.bits() && steps.read()[0] == step + 1, name + "clip_step is not clip_scale and a count");

        const Array drawn(device, dtype, {101}), again(device, dtype, {101}), state(device, DF_I32, {4}, {11, 1, -1, 2});
        for (const uint64_t offset : {(uint64_t{2} << 32) + 0xffffffffu, (uint64_t{3} << 32) + 25}) {
            require_ok(df_random_normal(drawn, (uint64_t{1} << 32) + 11, offset, 0, 1), "random");
            require_ok(df_random_normal_next(again, state, 0, 1), "random next");
            report.expect(drawn.bits() == again.bits(), name + "other random numbers with the state on the device");
        }
    }
}

void refused(Report& report, const char* what, df_status status, const char* word) {
    const char* sentence = df_last_error();
    if (status == DF_INVALID_STATE && std::strstr(sentence, word) != nullptr) return report.pass();
    report.fail("graph: %s: status %d, expected %d; sentence \"%s\", expected \"%s\" in it", what, status, DF_INVALID_STATE, sentence, word);
}

/// What a capture refuses, with a sentence, and a device that is as before.
void refusals(Report& report, df_device* device) {
    const Array x(device, DF_F32, {3}, {1, 2, 3}), y(device, DF_F32, {3}, {0, 0, 0});
    float values[3] = {4, 5, 6};
    df_graph* graph = nullptr;
    refused(report, "an end without a beginning", df_device_capture_end(device, &graph), "none was begun");
    refused(report, "abandoning nothing", df_device_capture_abandon(device), "none was begun");
    report.expect(df_device_capture_begin(nullptr) == DF_INVALID_ARGUMENT && df_graph_replay(nullptr) == DF_INVALID_ARGUMENT, "graph: null is taken");
    require_ok(df_device_capture_begin(device), "begin");
    report.expect(df_device_capture_end(device, nullptr) == DF_INVALID_ARGUMENT, "graph: null is given a graph");
    refused(report, "a second end", df_device_capture_abandon(device), "none was begun");
    df_graph_destroy(nullptr);

    struct Call {
        const char* what;
        const char* word;
        std::function<df_status()> call;
    };
    const Call calls[] = {
        {"a read", "reading", [&] { return df_tensor_read_f32(x, values, 3); }},
        {"a write", "writing", [&] { return df_tensor_write_f32(x, values, 3); }},
        {"waiting", "waiting", [&] { return df_device_synchronize(device); }},
        {"trimming", "memory", [&] { return df_device_trim(device); }},
        {"another stream", "stream", [&] { return df_device_set_stream(device, nullptr); }},
        {"an allocation", "run the step once",
         [&] {
             const int64_t shape[] = {int64_t{3} << 20};
             df_tensor* t = nullptr;
             return df_tensor_create(device, DF_F32, 1, shape, &t);
         }},
    };
    for (const Call& c : calls) {
        require_ok(df_device_capture_begin(device), "begin");
        refused(report, c.what, c.call(), c.word);
        require_ok(df_affine(y, x, 2, 0), "an op after a refusal");
        refused(report, c.what, df_device_capture_end(device, &graph), c.word);
        report.expect(graph == nullptr, std::string("graph: a graph came of ") + c.what);
        require_ok(df_affine(y, x, 3, 0), "an op after a failed capture");
        report.expect(y.read()[2] == 9, std::string("graph: a wrong result after ") + c.what);
    }

    // Scratch memory that the pool does not have: the op's own sentence would not say why.
    {
        const Array wide(device, DF_F32, {1 << 16}, std::vector<double>(1 << 16, 1)), sum(device, DF_F32, {});
        require_ok(df_device_trim(device), "trim");
        require_ok(df_device_capture_begin(device), "begin");
        const df_status status = df_squared_norm(sum, wide, 0);
        if (std::strcmp(df_device_backend(device), "cpu") == 0)
            report.expect(status == DF_OK, "graph: scratch memory counts on the cpu, whose ops run later");
        else
            refused(report, "scratch memory", status, "run the step once");
        require_ok(df_device_capture_abandon(device), "abandon");
        require_ok(df_squared_norm(sum, wide, 0), "sum");
        report.expect(sum.read()[0] == 1 << 16, "graph: a wrong sum after a failed capture");
    }

    require_ok(df_device_capture_begin(device), "begin");
    refused(report, "a capture in a capture", df_device_capture_begin(device), "already");
    std::thread([&] {
        refused(report, "another thread's op", df_affine(y, x, 5, 0), "another thread");
        refused(report, "another thread's read", df_tensor_read_f32(x, values, 3), "another thread");
        refused(report, "another thread's end", df_device_capture_end(device, &graph), "another thread");
    }).join();
    require_ok(df_affine(y, x, 4, 0), "op");
    require_ok(df_device_capture_end(device, &graph), "end");
    require_ok(df_device_capture_begin(device), "begin");
    refused(report, "a replay in a capture", df_graph_replay(graph), "replaying");
    require_ok(df_device_capture_abandon(device), "abandon");
    require_ok(df_graph_replay(graph), "replay");
    report.expect(y.read()[2] == 12, "graph: a wrong result by replay");
    report.expect(df_device_stat(device, DF_STAT_LIVE_GRAPHS) == 1, "graph: graphs are miscounted");
    df_graph_destroy(graph);
    report.expect(df_device_stat(device, DF_STAT_LIVE_GRAPHS) == 0, "graph: graphs are miscounted");
}

/// What an op reads is looked at when it runs, not when it is captured.
void values(const Options& options, Report& report, df_device* device) {
    const int64_t T = 3;
    const Array q(device, DF_F32, {1, T, 1, 1}, {1, 2, 3}), out(device, DF_F32, {1, T, 1, 1}), lse(device, DF_F32, {1, 1, T}),
        lengths(device, DF_I32, {1}, {1}), wte(device, DF_F32, {2, 1}, {5, 6}), ids(device, DF_I32, {1, 2}, {0, 77}), rows(device, DF_F32, {1, 2, 1});
    const int32_t good = 2, zero = 0, beyond = 99;
    require_ok(df_attention_forward(out, lse, q, q, q, lengths, 1, 1), "attention");
    require_ok(df_tensor_write_i32(lengths, &beyond, 1), "write");
    const Graph attention(device, [&] { require_ok(df_attention_forward(out, lse, q, q, q, lengths, 1, 1), "attention"); });
    if (options.backend == "cpu") report.expect(df_graph_replay(attention) == DF_INVALID_ARGUMENT, "graph: lengths out of range are taken");
    require_ok(df_tensor_write_i32(lengths, &good, 1), "write");
    attention.replay();
    report.expect(std::isfinite(out.read()[2]), "graph: attention by replay is not finite");
    // An id out of range: the CPU says so, a queue that nobody waits for makes it NaN.
    require_ok(df_fill(ids, zero), "fill");
    require_ok(df_embedding_forward(rows, ids, wte, nullptr, 0), "embedding");
    const Graph embedding(device, [&] { require_ok(df_embedding_forward(rows, ids, wte, nullptr, 0), "embedding"); });
    const int32_t bad[] = {1, 77};
    require_ok(df_tensor_write_i32(ids, bad, 2), "write");
    if (options.backend == "cpu") {
        report.expect(df_graph_replay(embedding) == DF_INVALID_ARGUMENT, "graph: an id out of range is taken");
        return;
    }
    embedding.replay();
    report.expect(rows.read()[0] == 6 && std::isnan(rows.read()[1]), "graph: the row of an id out of range is no NaN");
    const Array logits(device, DF_F32, {2, 3}, {1, 2, 3, 4, 5, 6}), dlogits(device, DF_F32, {2, 3}), loss(device, DF_F32, {}),
        losses(device, DF_F32, {2}), targets(device, DF_I32, {2}, {0, 1});
    require_ok(df_cross_entropy(loss, losses, dlogits, logits, targets, -100), "loss");
    const Graph cross_entropy(device, [&] { require_ok(df_cross_entropy(loss, losses, dlogits, logits, targets, -100), "loss"); });
    require_ok(df_tensor_write_i32(targets, bad, 2), "write");
    cross_entropy.replay();
    report.expect(std::isnan(loss.read()[0]), "graph: the loss of a target out of range is no NaN");
}

/// A graph keeps the memory of tensors that are closed, whether they were there before it or came and went in it.
void memory(const Options& options, Report& report) {
    Device device(options);
    const int64_t n = 1000;
    const std::vector<double> ones(n, 1), sevens(n, 7);
    Array result(device, DF_F32, {n}, ones);
    const auto step = [&](df_tensor* x) {
        const Array twice(device, DF_F32, {n}), more(device, DF_F32, {n});
        require_ok(df_affine(twice, x, 2, 0), "twice");
        require_ok(df_affine(more, twice, 1, 1), "more");
        require_ok(df_binary_forward(result, twice, more, DF_BINARY_ADD), "sum");
    };
    auto x = std::make_unique<Array>(device, DF_F32, Shape{n}, ones);
    step(*x);
    const int64_t before = df_device_stat(device, DF_STAT_BYTES_IN_USE);
    Graph graph(device, [&] { step(*x); });
    report.expect(df_device_stat(device, DF_STAT_BYTES_IN_USE) > before, "graph: what a graph keeps is not counted");
    x.reset();
    // Everything that the pool would give away now.
    std::vector<Array> others;
    for (int i = 0; i < 6; ++i) others.emplace_back(device, DF_F32, Shape{n}, sevens);
    for (int round = 0; round < 2; ++round) {
        graph.replay();
        report.expect(result.read()[n - 1] == 5, "graph: a closed input's memory was given away");
        for (const Array& other : others) report.expect(other.read() == sevens, "graph: a replay wrote over another tensor");
    }
    df_device* closing = device;
    others.clear();
    report.expect(df_device_trim(device) == DF_OK, "graph: trim");
    graph.replay();
    report.expect(result.read()[0] == 5, "graph: trim took a graph's memory");
    const int64_t allocations = df_device_stat(device, DF_STAT_SYSTEM_ALLOCS);
    graph.destroy();
    const int64_t after = df_device_stat(device, DF_STAT_BYTES_IN_USE);
    report.expect(after < before, "graph: " + std::to_string(after) + " bytes in use after its end, " + std::to_string(before) + " before");
    {
        const Array a(device, DF_F32, {n}), b(device, DF_F32, {n}), c(device, DF_F32, {n});
        report.expect(df_device_stat(device, DF_STAT_SYSTEM_ALLOCS) == allocations, "graph: its memory did not go back to the pool");
    }
    {
        // A tensor that was there before and is closed under capture: its memory is not used again within, or a replay would read that.
        auto y = std::make_unique<Array>(device, DF_F32, Shape{n}, ones);
        const Graph second(device, [&] {
            require_ok(df_affine(result, *y, 3, 0), "thrice");
            y.reset();
            const Array fresh(device, DF_F32, {n});
            require_ok(df_fill(fresh, 100), "fill");
        });
        for (int round = 0; round < 2; ++round) second.replay();
        report.expect(result.read()[0] == 3, "graph: memory of a tensor closed under capture was used again within");
        report.expect(df_device_close(closing) == DF_INVALID_STATE, "graph: a device with a graph closes");
    }
}

}  // namespace

void check_graph(const Options& options, Report& report) {
    Device device(options);
    every_op(options, report, device);
    if (!options.op.empty()) return;
    numbers_of_a_step(options, report, device);
    training(options, report, device);
    refusals(report, device);
    values(options, report, device);
    memory(options, report);
}

}  // namespace dualform::test
