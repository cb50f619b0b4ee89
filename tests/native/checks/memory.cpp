#include <cmath>
#include <cstdio>
#include <cstring>

#include "check.h"

namespace dualform::test {

namespace {

constexpr int64_t kHeadSize = 64;
constexpr int64_t kFullT = 65536;
constexpr int64_t kFullLimit = int64_t{64} << 20;

/// Largest resident size of this process so far, in bytes.
int64_t resident_peak() {
    std::FILE* f = std::fopen("/proc/self/status", "r");
    if (f == nullptr) return 0;
    char line[256];
    long long kib = 0;
    while (std::fgets(line, sizeof line, f) != nullptr) std::sscanf(line, "VmHWM: %lld kB", &kib);
    std::fclose(f);
    return kib * 1024;
}

}  // namespace

// B = 1, NH = 1: forward and backward over a long sequence need at most 64 MiB beyond inputs and outputs at T = 65,536, and in
// proportion below.
void check_memory(const Options& options, Report& report) {
    const int64_t T = options.T,
                  limit = static_cast<int64_t>(static_cast<double>(kFullLimit) * static_cast<double>(T) / static_cast<double>(kFullT));
    for (const bool momentum : {false, true}) {
        const char* name = momentum ? "momentum_attention" : "attention";
        if (!options.wants(name)) continue;
        Device device(options);
        Random random(options.seed);
        const Shape shape = {1, T, 1, kHeadSize};
        const Distribution normal = [](Random& r) { return r.uniform(-1, 1); };
        const int dtype = options.dtype >= 0 ? options.dtype : int{DF_F32}, acc = accumulation_dtype(dtype);
        std::vector<Array> tensors;  // q k v dout out attn dq dk dv
        for (int i = 0; i < 4; ++i) tensors.emplace_back(device, dtype, shape, normal, random);
        for (int i = 4; i < 9; ++i) {
            tensors.emplace_back(device, dtype, shape);
            require_ok(df_fill(tensors.back(), 0), "fill");
        }
        const Array lse(device, acc, {1, 1, T}), eta(device, acc, {1}, {0.9}), deta(device, acc, {1});
        require_ok(df_fill(lse, 0), "fill");
        const double scale = 1 / std::sqrt(static_cast<double>(kHeadSize));
        const int64_t before = df_device_stat(device, DF_STAT_BYTES_IN_USE), resident = resident_peak();
        df_device_reset_peak(device);
        auto& t = tensors;
        if (momentum) {
            require_ok(df_momentum_attention_forward(t[4], t[5], lse, nullptr, t[0], t[1], t[2], nullptr, eta, nullptr, scale), "forward");
            require_ok(df_momentum_attention_backward(t[6], t[7], t[8], deta, t[3], t[0], t[1], t[2], t[5], lse, nullptr, eta, scale, 0),
                       "backward");
        } else {
            require_ok(df_attention_forward(t[4], lse, t[0], t[1], t[2], nullptr, scale, 1), "forward");
            require_ok(df_attention_backward(t[6], t[7], t[8], t[3], t[0], t[1], t[2], t[4], lse, nullptr, scale, 1), "backward");
        }
        const int64_t beyond = df_device_stat(device, DF_STAT_PEAK_BYTES) - before, grown = resident_peak() - resident;
        std::printf("%-20s T=%lld: %.2f MiB beyond inputs and outputs, process grew by %.2f MiB, limit %.0f MiB\n", name,
                    static_cast<long long>(T), static_cast<double>(beyond) / 1048576, static_cast<double>(grown) / 1048576,
                    static_cast<double>(limit) / 1048576);
        report.expect(beyond <= limit, std::string(name) + ": more memory than the limit");
        // On a device the process holds a context and whatever machine code its driver loads; the tensors are elsewhere.
        if (options.backend == "cpu")
            report.expect(resident > 0 && grown <= limit, std::string(name) + ": the process grew by more than the limit");
        double sum = 0;
        for (int i = 6; i < 9; ++i)
            for (const double x : tensors[static_cast<size_t>(i)].read()) sum += x;
        report.expect(std::isfinite(sum), std::string(name) + ": gradients are not finite");
    }
    if (!options.wants("linear_attention")) return;
    // The same state whatever T: scratch of linear attention must not grow faster than T.
    int64_t beyond[2];
    for (int i = 0; i < 2; ++i) {
        Device device(options);
        Random random(options.seed);
        const Shape shape = {1, T / 16 << (2 * i), 1, kHeadSize};
        const Distribution normal = [](Random& r) { return r.uniform(-1, 1); };
        std::vector<Array> t;
        for (int n = 0; n < 8; ++n) t.emplace_back(device, DF_F32, shape, normal, random);
        const int64_t before = df_device_stat(device, DF_STAT_BYTES_IN_USE);
        df_device_reset_peak(device);
        require_ok(df_linear_attention_forward(t[4], nullptr, t[0], t[1], t[2], nullptr, nullptr), "forward");
        require_ok(df_linear_attention_backward(t[5], t[6], t[7], nullptr, nullptr, t[3], nullptr, t[0], t[1], t[2], nullptr, nullptr, 0),
                   "backward");
        beyond[i] = df_device_stat(device, DF_STAT_PEAK_BYTES) - before;
    }
    std::printf("%-20s T=%lld: %.2f MiB, T=%lld: %.2f MiB beyond inputs and outputs\n", "linear_attention", static_cast<long long>(T / 16),
                static_cast<double>(beyond[0]) / 1048576, static_cast<long long>(T / 4), static_cast<double>(beyond[1]) / 1048576);
    // A quarter more than four times, for the pool's size classes.
    report.expect(beyond[1] <= 5 * beyond[0] && beyond[1] <= kFullLimit, "linear_attention: memory grows faster than T");
}

}  // namespace dualform::test
