// The works of df_bench: which tensors an op has, how it is called, what its formula costs, and which parts of its results depend on a
// part of its inputs only. Names, shapes and counts are those of `dualform bench`.
#pragma once

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "dualform/df_ops.h"

namespace dualform::bench {

/// Ends the program with one sentence and an exit code: 1 wrong or internal, 2 bad usage, 3 backend unavailable.
struct Problem : std::runtime_error {
    Problem(int exit_code, const std::string& sentence) : std::runtime_error(sentence), code(exit_code) {}
    const int code;
};

/// A status that is not DF_OK as a Problem with the library's sentence.
void require(df_status status);

using Sizes = std::vector<int64_t>;

enum class Pass { kForward, kBackward, kBoth };
inline bool has_forward(Pass pass) { return pass != Pass::kBackward; }
inline bool has_backward(Pass pass) { return pass != Pass::kForward; }

/// Options of a work that are no sizes.
struct Settings {
    double eta = 0.9, decay = 1;
    bool causal = true;
    bool master = false;  // parameters have a copy in the dtype of their sums
};

/// Draws of an input: normal(0, a), uniform in [a, b), a itself, whole numbers below a. kNone: a result.
struct Draws {
    enum Kind { kNone, kNormal, kUniform, kConstant, kBelow } kind = kNone;
    double a = 0, b = 0;
};
inline Draws normal(double deviation = 1) { return {Draws::kNormal, deviation, 0}; }
inline Draws uniform(double from, double to) { return {Draws::kUniform, from, to}; }
inline Draws constant(double value) { return {Draws::kConstant, value, 0}; }
inline Draws below(int64_t bound) { return {Draws::kBelow, static_cast<double>(bound), 0}; }

/// The dtype of the run, the one its sums have, or ids.
enum class Type { kCompute, kSums, kIds };

struct Axis {
    std::string label;
    int64_t size;
};

/// A tensor of a work. moves: a letter for each time that a pass must move it, f forward, b backward. A result is judged after the pass
/// that computes it; of what has draws and is judged too (a parameter that is updated) both hold.
struct Declared {
    std::string name;
    std::vector<Axis> axes;
    Draws draws;
    Type type = Type::kCompute;
    std::string moves;
    enum Judged { kNo, kForward, kBackward } judged = kNo;
};

/// The handle of a tensor by name; null when the work has none of that name in this pass.
class Handles {
public:
    void put(const std::string& name, df_tensor* tensor) { map_[name] = tensor; }
    df_tensor* operator[](const char* name) const {
        const auto found = map_.find(name);
        return found == map_.end() ? nullptr : found->second;
    }

private:
    std::map<std::string, df_tensor*> map_;
};

/// The calls of a work on some tensors.
struct Calls {
    std::function<df_status()> forward, backward;
};

struct Work {
    std::string name;
    /// Axes by name, with commas; the last layout has the most and is the one that all else speaks of.
    std::vector<std::string> layouts;
    bool differentiable = false;
    /// Backward reads what forward saved.
    bool saves = false;
    std::function<Sizes(const Sizes&)> normalized = [](const Sizes& s) { return s; };
    std::function<std::vector<Declared>(const Sizes&, Pass, const Settings&)> tensors;
    std::function<Calls(const Handles&, const Sizes&, Pass, const Settings&)> calls;
    /// Of the formula, whatever the algorithm; 0 where bytes are what counts.
    std::function<double(const Sizes&, Pass, const Settings&)> flops = [](const Sizes&, Pass, const Settings&) { return 0.0; };
    /// Axes along which a part of the results comes from a part of the inputs, in the order in which they are cut; each list is a cut of
    /// its own, in which the results that have all its axes are judged.
    std::vector<std::vector<std::string>> cuts;
    /// Axes that are cut together: the second is the first times a whole number.
    std::map<std::string, std::string> tied;
    /// Results of which, when causal, the tail of one axis depends on the tail of another only: {its axis, the axis that is cut}.
    std::map<std::string, std::pair<std::string, std::string>> tails;
    bool always_causal = false;
    /// Results that hold a mean over an axis as a factor.
    std::map<std::string, std::string> averaged;

    std::vector<std::string> labels() const;
};

const std::vector<Work>& works();
/// Problem 2 with all names when there is none.
const Work& find_work(const std::string& name);

}  // namespace dualform::bench
