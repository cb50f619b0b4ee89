// The CPU backend takes memory with posix_memalign. This definition, in the executable, comes before the C library's, so that the
// n-th request and all after it can be made to fail.
#include <errno.h>
#include <stdlib.h>

#include <atomic>

#include "check.h"

namespace {
std::atomic<int64_t> requests_left{-1};  // below 0: no limit
std::atomic<int64_t> refused{0};
}  // namespace

extern "C" __attribute__((visibility("default"))) int posix_memalign(void** out, size_t alignment, size_t bytes) {
    if (requests_left.load() >= 0 && requests_left.fetch_sub(1) <= 0) {
        requests_left.store(0);
        refused.fetch_add(1);
        return ENOMEM;
    }
    *out = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    return *out == nullptr ? ENOMEM : 0;
}

namespace dualform::test {

namespace {

/// Takes all memory of a device in ever smaller pieces, asks ops for more, gives it back and asks again.
class Exhausted {
public:
    explicit Exhausted(df_device* device) {
        for (int64_t n = int64_t{1} << 32; n >= 256; n /= 2)  // elements of four bytes: from 16 GiB down to 1 KiB
            for (;;) {
                df_tensor* t = nullptr;
                if (const df_status status = df_tensor_create(device, DF_F32, 1, &n, &t); status != DF_OK) {
                    refusal = status;
                    break;
                }
                taken_.push_back(t);
                bytes += 4 * n;
            }
    }
    ~Exhausted() {
        for (df_tensor* t : taken_) df_tensor_destroy(t);
    }
    Exhausted(const Exhausted&) = delete;
    Exhausted& operator=(const Exhausted&) = delete;
    df_status refusal = DF_OK;
    int64_t bytes = 0;

private:
    std::vector<df_tensor*> taken_;
};

void exhaust_device(const Options& options, Report& report) {
    Device device(options);
    const int64_t huge = int64_t{1} << 44;
    df_tensor* t = nullptr;
    const df_status status = df_tensor_create(device, DF_F32, 1, &huge, &t);
    report.expect(status == DF_OUT_OF_MEMORY && t == nullptr, "64 TiB: status " + std::to_string(status) + ", expected DF_OUT_OF_MEMORY");
    // Emulated device memory is the host's, which is not to be used up.
    const bool exhausts = options.backend == "cuda";
    int64_t refused_ops = 0;
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes()) {
            if (dtype == DF_F64) continue;  // served by the cpu only
            Drawn d = draw_case(name, dtype, options.seed, false, options.draw);
            Fixture fixture(device, *d.op, d.values, options.placement(), options.seed);
            std::string failure;
            require_ok(call(*d.op, fixture.handles()), name.c_str());
            const std::vector<unsigned char> good = fixture.output_bits();
            fixture.restore();
            require_ok(df_device_trim(device), "trim");
            if (exhausts) {
                const Exhausted memory(device);
                if (memory.refusal != DF_OUT_OF_MEMORY) failure = "memory used up: status " + std::to_string(memory.refusal);
                // An op that needs no scratch is right, one that does is refused; neither writes where it must not.
                const df_status under = call(*d.op, fixture.handles());
                if (under == DF_OUT_OF_MEMORY)
                    ++refused_ops;
                else if (under != DF_OK)
                    failure = std::string("without memory: ") + df_last_error();
                else if (fixture.output_bits() != good)
                    failure = "without memory: other bits";
                if (failure.empty()) failure = fixture.damage();
            }
            require_ok(df_device_trim(device), "trim");
            fixture.restore();
            if (failure.empty() && call(*d.op, fixture.handles()) != DF_OK) failure = std::string("after recovery: ") + df_last_error();
            if (failure.empty() && fixture.output_bits() != good) failure = "after recovery: other bits";
            if (failure.empty())
                report.pass();
            else
                report.fail("%s %s: %s", name.c_str(), dtype_name(dtype), failure.c_str());
        }
    }
    if (exhausts && options.op.empty()) report.expect(refused_ops > 0, "no op was refused memory");
    report.expect(df_device_stat(device, DF_STAT_BYTES_IN_USE) == 0, "bytes in use after the last tensor is closed");
}

}  // namespace

void check_out_of_memory(const Options& options, Report& report) {
    if (options.backend != "cpu") return exhaust_device(options, report);
    Device device(options);
    int64_t injected = 0;
    for (const auto& [name, make] : cases()) {
        if (!options.wants(name)) continue;
        for (const int dtype : options.dtypes())
            for (int64_t i = 0; i < options.number(4); ++i) {
                const uint64_t seed = options.seed + static_cast<uint64_t>(i);
                Drawn d = draw_case(name, dtype, seed, false);
                Fixture fixture(device, *d.op, d.values, Placement::kPadded, seed);
                std::string failure;
                require_ok(call(*d.op, fixture.handles()), name.c_str());
                const std::vector<unsigned char> good = fixture.output_bits();
                for (int64_t n = 0; failure.empty(); ++n) {
                    fixture.restore();
                    require_ok(df_device_trim(device), "trim");
                    refused = 0;
                    requests_left = n;
                    const df_status status = call(*d.op, fixture.handles());
                    requests_left = -1;
                    if (refused == 0) {
                        if (status != DF_OK || fixture.output_bits() != good) failure = "the call after a failed one is not right";
                        break;
                    }
                    ++injected;
                    if (status != DF_OUT_OF_MEMORY)
                        failure =
                            "allocation " + std::to_string(n) + " failed, status " + std::to_string(status) + ", expected DF_OUT_OF_MEMORY";
                    else if (!fixture.damage().empty())
                        failure = fixture.damage();
                }
                if (failure.empty())
                    report.pass();
                else
                    report.fail("%s %s --seed %llu: %s", name.c_str(), dtype_name(dtype), static_cast<unsigned long long>(seed),
                                failure.c_str());
            }
    }
    df_tensor* t = nullptr;
    const int64_t n = 1000;
    require_ok(df_device_trim(device), "trim");
    requests_left = 0;
    const df_status status = df_tensor_create(device, DF_F32, 1, &n, &t);
    requests_left = -1;
    report.expect(status == DF_OUT_OF_MEMORY && t == nullptr, "df_tensor_create: no DF_OUT_OF_MEMORY");
    report.expect(injected > 0, "no allocation was made to fail");
    const int64_t in_use = df_device_stat(device, DF_STAT_BYTES_IN_USE);
    report.expect(in_use == 0, "bytes in use after the last tensor is closed: " + std::to_string(in_use));
}

}  // namespace dualform::test
