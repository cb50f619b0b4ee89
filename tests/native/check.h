// What every check is given: where to run, how much, and where to say how it went.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "case.h"
#include "fixture.h"
#include "tolerance.h"

namespace dualform::test {

/// For df_backend_set_option.
struct BackendOption {
    std::string backend, key, value;
};

struct Options {
    std::string check = "parity", backend = "cpu", plugin, op;
    int dtype = -1;     // all
    int64_t cases = 0;  // 0: the check's own number
    uint64_t seed = 1;
    bool exact_heap = false, aligned = false, contiguous = false;
    int64_t T = 65536;  // of the memory check; of the hopper check the most
    int threads = 0;    // 0: all
    int64_t repeat = 0; // of the determinism check on a device, 0: its own number; of the hopper check
    std::vector<BackendOption> backend_options;
    std::map<std::string, int64_t> draw;  // dimensions and options of the cases that are given, by name

    int64_t number(int64_t own) const { return cases > 0 ? cases : own; }
    bool wants(const std::string& name) const { return op.empty() || op == name; }
    std::vector<int> dtypes() const { return dtype >= 0 ? std::vector<int>{dtype} : std::vector<int>{DF_F32, DF_BF16, DF_F64}; }
    Placement placement() const {
        return exact_heap ? Placement::kExactHeap : aligned ? Placement::kAligned : contiguous ? Placement::kPlain : Placement::kPadded;
    }
};

/// Counts, and prints what failed or was skipped.
class Report {
public:
    void pass() { ++passed; }
    void fail(const char* format, ...) __attribute__((format(printf, 2, 3)));
    void skip(const std::string& what, const std::string& reason, int64_t n = 1);
    void expect(bool ok, const std::string& sentence) { ok ? pass() : fail("%s", sentence.c_str()); }

    int64_t passed = 0, failed = 0, skipped = 0;
};

/// An open device, closed at the end; tensors left open are a failure.
class Device {
public:
    explicit Device(const Options& options, int threads = -1);
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    operator df_device*() const { return device_; }

private:
    df_device* device_ = nullptr;
};

/// A contiguous tensor with values.
class Array {
public:
    Array(df_device* device, int dtype, Shape shape, const std::vector<double>& values = {});
    Array(df_device* device, int dtype, Shape shape, const Distribution& values, Random& random);
    Array(Array&& other) noexcept : shape_(std::move(other.shape_)), tensor_(other.tensor_) { other.tensor_ = nullptr; }
    ~Array() { df_tensor_destroy(tensor_); }
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    operator df_tensor*() const { return tensor_; }
    std::vector<double> read() const;
    std::vector<unsigned char> bits() const;
    /// Rows from..to of axis 1 as a view.
    Array slice(int64_t from, int64_t to) const;

private:
    Array(Shape shape, df_tensor* tensor) : shape_(std::move(shape)), tensor_(tensor) {}
    Shape shape_;
    df_tensor* tensor_ = nullptr;
};

/// A case drawn from a seed.
struct Drawn {
    std::unique_ptr<Case> op;
    Values values;
    std::string text;
};
Drawn draw_case(const std::string& op, int dtype, uint64_t seed, bool differentiable, const std::map<std::string, int64_t>& given = {});

/// Runs forward, and backward where there is one.
df_status call(Case& c, const Handles& handles);

/// Of one output: its error and the naive op's in the same dtype, both relative as the rule has it.
struct Errors {
    double own = 0, naive = 0;
};

/// What the rule says about the outputs of a call: the worst ratio, and a sentence when one of them fails.
struct Judgement {
    double ratio = 0;
    std::string failure;
    std::map<std::string, Errors> errors;  // by output; none in float64
};
Judgement judge_outputs(const Case& c, const Values& values, const Fixture& fixture);

void check_parity(const Options&, Report&);
void check_gradients(const Options&, Report&);
void check_identities(const Options&, Report&);
void check_masked(const Options&, Report&);
void check_memory(const Options&, Report&);
void check_determinism(const Options&, Report&);
void check_hostile(const Options&, Report&);
void check_errors(const Options&, Report&);
void check_out_of_memory(const Options&, Report&);
void check_steady_state(const Options&, Report&);
void check_graph(const Options&, Report&);
void check_vectors(const Options&, Report&);
void check_threads(const Options&, Report&);
void check_hopper(const Options&, Report&);
void check_pool(const Options&, Report&);

}  // namespace dualform::test
