// One work on tensors of its own, and its answer beside float64.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "work.h"

namespace dualform::bench {

/// A part of a tensor's axes, by label.
struct Range {
    int64_t start, length;
};
using Ranges = std::map<std::string, Range>;

class Run {
public:
    Run(df_device* device, df_dtype dtype, const Work& work, const Sizes& sizes, Pass pass, const Settings& settings);

    /// Draws every input on the device itself; another index gives other numbers.
    void draw(uint64_t index);
    /// Whether the normal inputs are: constant data would be multiplied faster, and compared with ease.
    bool looks_drawn() const;
    std::vector<double> read(const Declared& tensor, const Ranges& ranges = {}) const;
    void write(const Declared& tensor, const std::vector<double>& values);

    /// What a backward pass alone needs beforehand.
    void prepare() const;
    void call() const;

    /// The bits of every result of the pass.
    std::vector<unsigned char> bits() const;
    /// Whether the pass changes what it reads, as an optimizer does.
    bool updates() const;

    const std::vector<Declared>& tensors() const { return tensors_; }
    /// Bytes that a pass must move, and bytes of all tensors.
    double moved_bytes() const { return moved_; }
    double held_bytes() const { return held_; }

private:
    const bool saves_;
    const Pass pass_;
    std::vector<Declared> tensors_;
    std::vector<std::shared_ptr<df_tensor>> owned_;
    Handles handles_;
    Calls calls_;
    double moved_ = 0, held_ = 0;
};

/// How the results of a run compare with float64, and of which parts of the work.
struct Answer {
    double error = 0;          // the largest difference over float64's largest value, of each result by itself; the largest of them
    std::string worst;         // the result that has it
    std::vector<std::string> checked;
};

/// Compares a run of its own at the whole shape, or where that is too much for float64 at one with axes halved.
void check_small(Answer& answer, df_device* device, df_device* cpu, df_dtype dtype, const Work& work, const Sizes& sizes, Pass pass,
                 const Settings& settings);

/// Compares parts of a run at the whole shape that is too much for float64: before it is called, the parts' inputs are read.
class Cuts {
public:
    Cuts(const Run& run, df_device* cpu, const Work& work, const Sizes& sizes, Pass pass, const Settings& settings);
    void check(Answer& answer) const;

private:
    struct Cut {
        std::string text;
        Ranges ranges;
        std::map<std::string, Ranges> tails;  // results of which only the tail of an axis is judged
        std::map<std::string, double> factors;  // of results that are averages over an axis that is cut
        std::vector<std::string> judged;
        std::unique_ptr<Run> exact;
    };
    const Run& run_;
    const Pass pass_;
    std::vector<Cut> cuts_;
};

/// Whether float64 is quick enough at these sizes.
bool is_affordable(const Work& work, const Sizes& sizes, Pass pass, const Settings& settings);

}  // namespace dualform::bench
