#include <cmath>
#include <cstdio>

#include "check.h"

namespace dualform::test {

namespace {

struct Sizes {
    const char* op;
    const char* rows;
    std::vector<int64_t> row_counts;
    const char* columns;
    std::vector<int64_t> column_counts;
};

/// Rows that whole accesses of 16 bytes cover, below, at and above what one warp, one block and one thread of the kernels hold.
const Sizes kSizes[] = {
    {"residual_layernorm", "N", {1, 3, 17, 150}, "C", {8, 24, 256, 768, 1024, 1032, 2048, 8192, 8200}},
    {"bias_gelu", "N", {1, 9, 70, 129}, "C", {8, 40, 256, 264, 768}},
    {"cross_entropy", "N", {1, 5}, "V", {8, 64, 768, 4096, 4104, 8192}},
    {"adamw_ranges", "K", {1, 5}, "N", {8, 4096, 12288}},
};

/// A vocabulary padded to whole accesses, of which the last does not count.
void padded_vocabulary(Report& report, df_device* device, int dtype) {
    const int64_t N = 3, V = 13, padded = 16, shape[] = {N, V}, stride[] = {padded, 1};
    const int acc = accumulation_dtype(dtype);
    Random random(5);
    const Array logits(device, dtype, {N, padded}, [](Random& r) { return 3 * r.normal(); }, random), dlogits(device, dtype, {N, padded}),
        targets(device, DF_I32, {N}, {12, 0, 5}), loss(device, acc, {}), losses(device, acc, {N});
    df_tensor *logits_view = nullptr, *dlogits_view = nullptr;
    require_ok(df_tensor_view(logits, 2, shape, stride, 0, &logits_view), "view");
    require_ok(df_tensor_view(dlogits, 2, shape, stride, 0, &dlogits_view), "view");
    require_ok(df_fill(dlogits, 77), "fill");
    require_ok(df_cross_entropy(loss, losses, dlogits_view, logits_view, targets, -100), "cross_entropy");
    df_tensor_destroy(logits_view);
    df_tensor_destroy(dlogits_view);
    const std::vector<double> x = logits.read(), dx = dlogits.read(), ids = targets.read();
    double sum = 0, worst = 0;
    bool padding_kept = true;
    for (int64_t n = 0; n < N; ++n) {
        const double* row = &x[static_cast<size_t>(n * padded)];
        double total = 0;
        for (int64_t v = 0; v < V; ++v) total += std::exp(row[v]);
        const int64_t target = static_cast<int64_t>(ids[static_cast<size_t>(n)]);
        sum += std::log(total) - row[target];
        for (int64_t v = 0; v < padded; ++v) {
            const double found = dx[static_cast<size_t>(n * padded + v)];
            if (v >= V)
                padding_kept = padding_kept && found == 77;
            else
                worst = std::fmax(worst, std::fabs(found - (std::exp(row[v]) / total - (v == target)) / static_cast<double>(N)));
        }
    }
    const std::string name = std::string("vectors: a padded vocabulary in ") + dtype_name(dtype);
    report.expect(std::fabs(loss.read()[0] - sum / static_cast<double>(N)) < 4 * epsilon(acc) * sum, name + ": the loss is wrong");
    report.expect(worst <= epsilon(dtype), name + ": a gradient is wrong by " + std::to_string(worst));
    report.expect(padding_kept, name + ": the padding was written");
}

}  // namespace

void check_vectors(const Options& options, Report& report) {
    Device device(options);
    for (const Sizes& sizes : kSizes) {
        if (!options.wants(sizes.op)) continue;
        for (const int dtype : options.dtypes()) {
            if (dtype == DF_F64 && options.backend != "cpu") continue;
            double worst = 0;
            uint64_t seed = options.seed;
            for (const int64_t columns : sizes.column_counts)
                for (const int64_t rows : sizes.row_counts) {
                    if (rows * columns > 100000) continue;
                    for (int64_t i = 0; i < options.number(2); ++i) {
                        ++seed;
                        Drawn d = draw_case(sizes.op, dtype, seed, false, {{"B", 1}, {sizes.rows, rows}, {sizes.columns, columns}});
                        Fixture fixture(device, *d.op, d.values, Placement::kPlain, seed);
                        require_ok(call(*d.op, fixture.handles()), sizes.op);
                        std::string failure = fixture.damage();
                        if (failure.empty()) {
                            const Judgement j = judge_outputs(*d.op, d.values, fixture);
                            if (!(j.ratio <= worst)) worst = j.ratio;
                            failure = j.failure;
                        }
                        if (failure.empty())
                            report.pass();
                        else
                            report.fail("vectors: %s %s --seed %llu (%s): %s", sizes.op, dtype_name(dtype), static_cast<unsigned long long>(seed),
                                        d.text.c_str(), failure.c_str());
                    }
                }
            std::printf("%-20s %-4s worst error/tolerance %.3f\n", sizes.op, dtype_name(dtype), worst);
        }
    }
    if (!options.wants("cross_entropy")) return;
    for (const int dtype : options.dtypes())
        if (dtype != DF_F64 || options.backend == "cpu") padded_vocabulary(report, device, dtype);
}

}  // namespace dualform::test
