#include "run.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dualform::bench {

namespace {

/// Float64 is slow: results are compared with it at no more than so many flops, and elements of the largest tensor.
constexpr double kComparedFlops = 2e10, kComparedElements = 1 << 24;
constexpr uint64_t kSeed = 20221220;

/// The same numbers on every machine (splitmix64).
int32_t whole_number(uint64_t seed, uint64_t index, double bound) {
    uint64_t z = seed * 0x9E3779B97F4A7C15u + index * 0xBF58476D1CE4E5B9u + 0x94D049BB133111EBu;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return static_cast<int32_t>(z % static_cast<uint64_t>(bound));
}

size_t element_size(df_dtype dtype) { return dtype == DF_BF16 ? 2 : dtype == DF_F64 ? 8 : 4; }

df_dtype dtype_of(Type type, df_dtype compute) {
    return type == Type::kIds ? DF_I32 : type == Type::kCompute ? compute : compute == DF_F64 ? DF_F64 : DF_F32;
}

double elements(const Declared& t) {
    double n = 1;
    for (const Axis& axis : t.axes) n *= static_cast<double>(axis.size);
    return n;
}

bool is_judged(const Declared& t, Pass pass) {
    return (t.judged == Declared::kForward && has_forward(pass)) || (t.judged == Declared::kBackward && has_backward(pass));
}

/// The largest difference relative to the largest value; infinite when a result is not finite where float64's is.
double difference(const std::vector<double>& values, const std::vector<double>& expected) {
    double largest = 0, apart = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        if (values[i] == expected[i]) {
            if (std::isfinite(expected[i])) largest = std::max(largest, std::fabs(expected[i]));
            continue;
        }
        if (!std::isfinite(values[i]) || !std::isfinite(expected[i])) return std::numeric_limits<double>::infinity();
        apart = std::max(apart, std::fabs(values[i] - expected[i]));
        largest = std::max(largest, std::fabs(expected[i]));
    }
    return apart == 0 ? 0 : apart / largest;
}

void judge(Answer& answer, const std::string& name, const std::vector<double>& values, const std::vector<double>& expected) {
    const double error = difference(values, expected);
    if (error > answer.error || answer.worst.empty()) answer.error = error, answer.worst = name;
}

std::string text(const Sizes& sizes) {
    std::string s;
    for (const int64_t size : sizes) s += (s.empty() ? "" : ",") + std::to_string(size);
    return s;
}

}  // namespace

Run::Run(df_device* device, df_dtype dtype, const Work& work, const Sizes& sizes, Pass pass, const Settings& settings)
    : saves_(work.saves), pass_(pass), tensors_(work.tensors(sizes, pass, settings)) {
    for (const Declared& t : tensors_) {
        const df_dtype type = dtype_of(t.type, dtype);
        Sizes shape;
        for (const Axis& axis : t.axes) shape.push_back(axis.size);
        df_tensor* tensor = nullptr;
        require(df_tensor_create(device, type, static_cast<int>(shape.size()), shape.data(), &tensor));
        owned_.emplace_back(tensor, df_tensor_destroy);
        handles_.put(t.name, tensor);
        // A result that an op does not write must show.
        if (t.draws.kind == Draws::kNone) require(df_fill(tensor, type == DF_I32 ? -1 : std::numeric_limits<double>::quiet_NaN()));
        const double bytes = elements(t) * static_cast<double>(element_size(type));
        held_ += bytes;
        for (const char pass_of : t.moves)
            if (pass_of == 'f' ? has_forward(pass) : has_backward(pass)) moved_ += bytes;
    }
    calls_ = work.calls(handles_, sizes, pass, settings);
}

void Run::draw(uint64_t index) {
    uint64_t stream = 0;
    for (const Declared& t : tensors_) {
        df_tensor* tensor = handles_[t.name.c_str()];
        const uint64_t seed = kSeed + index, offset = ++stream << 40;
        switch (t.draws.kind) {
            case Draws::kNone: break;
            case Draws::kNormal: require(df_random_normal(tensor, seed, offset, 0, t.draws.a)); break;
            case Draws::kUniform: require(df_random_uniform(tensor, seed, offset, t.draws.a, t.draws.b)); break;
            case Draws::kConstant: require(df_fill(tensor, t.draws.a)); break;
            case Draws::kBelow: {
                std::vector<int32_t> values(static_cast<size_t>(df_tensor_numel(tensor)));
                for (size_t i = 0; i < values.size(); ++i) values[i] = whole_number(seed + stream, i, t.draws.a);
                require(df_tensor_write_i32(tensor, values.data(), df_tensor_numel(tensor)));
            }
        }
    }
}

bool Run::looks_drawn() const {
    for (const Declared& t : tensors_) {
        if (t.draws.kind != Draws::kNormal) continue;
        df_tensor* tensor = handles_[t.name.c_str()];
        const int64_t n = std::min<int64_t>(df_tensor_numel(tensor), 4096), one = 1;
        if (n < 1024) continue;
        df_tensor* view = nullptr;
        require(df_tensor_view(tensor, 1, &n, &one, df_tensor_numel(tensor) - n, &view));
        const std::unique_ptr<df_tensor, void (*)(df_tensor*)> owner(view, df_tensor_destroy);
        std::vector<double> x(static_cast<size_t>(n));
        require(df_tensor_read_f64(view, x.data(), n));
        double sum = 0, squares = 0;
        for (const double v : x) sum += v, squares += v * v;
        const double mean = sum / static_cast<double>(n), deviation = std::sqrt(squares / static_cast<double>(n));
        // Of 1024 draws these are some seven standard errors.
        if (!(std::fabs(mean) < 0.22 * t.draws.a && std::fabs(deviation / t.draws.a - 1) < 0.16)) return false;
    }
    return true;
}

std::vector<double> Run::read(const Declared& t, const Ranges& ranges) const {
    df_tensor* whole = handles_[t.name.c_str()];
    int64_t shape[DF_MAX_RANK], stride[DF_MAX_RANK], offset = 0;
    const int rank = df_tensor_rank(whole);
    for (int i = 0; i < rank; ++i) {
        shape[i] = df_tensor_dim(whole, i), stride[i] = df_tensor_stride(whole, i);
        const auto range = ranges.find(t.axes[static_cast<size_t>(i)].label);
        if (range == ranges.end()) continue;
        shape[i] = range->second.length;
        offset += range->second.start * stride[i];
    }
    df_tensor* view = nullptr;
    require(df_tensor_view(whole, rank, shape, stride, offset, &view));
    const std::unique_ptr<df_tensor, void (*)(df_tensor*)> owner(view, df_tensor_destroy);
    const int64_t n = df_tensor_numel(view);
    std::vector<double> values(static_cast<size_t>(n));
    if (df_tensor_dtype(view) == DF_I32) {
        std::vector<int32_t> numbers(values.size());
        require(df_tensor_read_i32(view, numbers.data(), n));
        std::copy(numbers.begin(), numbers.end(), values.begin());
    } else {
        require(df_tensor_read_f64(view, values.data(), n));
    }
    return values;
}

void Run::write(const Declared& t, const std::vector<double>& values) {
    df_tensor* tensor = handles_[t.name.c_str()];
    if (df_tensor_dtype(tensor) == DF_I32) {
        const std::vector<int32_t> numbers(values.begin(), values.end());
        require(df_tensor_write_i32(tensor, numbers.data(), static_cast<int64_t>(numbers.size())));
    } else {
        require(df_tensor_write_f64(tensor, values.data(), static_cast<int64_t>(values.size())));
    }
}

void Run::prepare() const {
    if (saves_ && !has_forward(pass_)) require(calls_.forward());
}

void Run::call() const {
    if (has_forward(pass_)) require(calls_.forward());
    if (has_backward(pass_)) require(calls_.backward());
}

std::vector<unsigned char> Run::bits() const {
    std::vector<unsigned char> all;
    for (const Declared& t : tensors_) {
        if (!is_judged(t, pass_)) continue;
        const df_tensor* tensor = handles_[t.name.c_str()];
        const int64_t bytes = df_tensor_numel(tensor) * static_cast<int64_t>(element_size(static_cast<df_dtype>(df_tensor_dtype(tensor))));
        all.resize(all.size() + static_cast<size_t>(bytes));
        require(df_tensor_read_bytes(tensor, all.data() + all.size() - bytes, bytes));
    }
    return all;
}

bool Run::updates() const {
    return std::any_of(tensors_.begin(), tensors_.end(), [&](const Declared& t) { return t.draws.kind != Draws::kNone && is_judged(t, pass_); });
}

bool is_affordable(const Work& work, const Sizes& sizes, Pass pass, const Settings& settings) {
    if (work.flops(sizes, pass, settings) > kComparedFlops) return false;
    for (const Declared& t : work.tensors(sizes, pass, settings))
        if (elements(t) > kComparedElements) return false;
    return true;
}

void check_small(Answer& answer, df_device* device, df_device* cpu, df_dtype dtype, const Work& work, const Sizes& sizes, Pass pass,
                 const Settings& settings) {
    Sizes small = sizes;
    const std::vector<std::string> labels = work.labels();
    for (size_t axis = 0; axis < small.size(); ++axis)
        while (small[axis] > 1 && !is_affordable(work, small, pass, settings)) {
            small[axis] = (small[axis] + 1) / 2;
            if (labels[axis] == "T" && axis + 1 < small.size() && labels[axis + 1] == "S") small[axis + 1] = (small[axis + 1] + 1) / 2;
        }
    Run run(device, dtype, work, small, pass, settings), exact(cpu, DF_F64, work, small, pass, settings);
    exact.draw(0);
    for (const Declared& t : run.tensors()) {
        if (t.draws.kind == Draws::kNone) continue;
        run.write(t, exact.read(t));
        exact.write(t, run.read(t));  // as rounded
    }
    for (const Run* each : {&run, &exact}) each->prepare(), each->call();
    for (const Declared& t : run.tensors())
        if (is_judged(t, pass)) judge(answer, t.name, run.read(t), exact.read(t));
    answer.checked.push_back(small == sizes ? "whole" : "at " + text(small));
}

Cuts::Cuts(const Run& run, df_device* cpu, const Work& work, const Sizes& sizes, Pass pass, const Settings& settings) : run_(run), pass_(pass) {
    const std::vector<std::string> labels = work.labels();
    const auto index = [&](const std::string& label) {
        return static_cast<size_t>(std::find(labels.begin(), labels.end(), label) - labels.begin());
    };
    for (const std::vector<std::string>& axes : work.cuts) {
        Cut cut;
        Sizes part = sizes;
        for (const std::string& label : axes) {
            const auto tied = work.tied.find(label);
            const size_t i = index(label), j = tied == work.tied.end() ? i : index(tied->second);
            if (sizes[j] % sizes[i] != 0) return;  // the op will refuse it
            const int64_t times = sizes[j] / sizes[i];
            while (part[i] > 1 && !is_affordable(work, part, pass, settings)) part[i] = (part[i] + 1) / 2, part[j] = part[i] * times;
            if (part[i] == sizes[i]) continue;
            // The end of an axis: what is masked, folded or padded lies there, and the largest offsets.
            cut.ranges[label] = {sizes[i] - part[i], part[i]};
            if (j != i) cut.ranges[tied->second] = {sizes[j] - part[j], part[j]};
        }
        if (cut.ranges.empty() || !is_affordable(work, part, pass, settings)) continue;
        for (const Declared& t : run.tensors()) {
            if (!is_judged(t, pass)) continue;
            const auto has = [&](const std::string& label) {
                return std::any_of(t.axes.begin(), t.axes.end(), [&](const Axis& axis) { return axis.label == label; });
            };
            const auto tail = work.tails.find(t.name);
            bool judged = true;
            for (const auto& [label, range] : cut.ranges) {
                if (has(label)) continue;
                // Of axes that are cut together a tensor has one.
                bool stands = false;
                for (const auto& [first, second] : work.tied)
                    stands = stands || (first == label && has(second)) || (second == label && has(first));
                if (stands) continue;
                const bool has_tail = tail != work.tails.end() && tail->second.second == label && (settings.causal || work.always_causal);
                const int64_t own = has_tail ? sizes[index(tail->second.first)] : 0;
                judged = judged && range.length <= own;
                cut.tails[t.name][has_tail ? tail->second.first : label] = {own - range.length, range.length};
            }
            if (judged) cut.judged.push_back(t.name);
        }
        if (cut.judged.empty()) continue;
        for (const auto& [name, axis] : work.averaged)
            if (cut.ranges.count(axis)) cut.factors[name] = static_cast<double>(part[index(axis)]) / static_cast<double>(sizes[index(axis)]);
        cut.exact = std::make_unique<Run>(cpu, DF_F64, work, part, pass, settings);
        for (const Declared& t : run.tensors())
            if (t.draws.kind != Draws::kNone) cut.exact->write(t, run.read(t, cut.ranges));
        for (const auto& [label, range] : cut.ranges)
            cut.text += (cut.text.empty() ? "" : " ") + label + " " + std::to_string(range.start) + ".." +
                        std::to_string(range.start + range.length - 1);
        std::string names;
        for (const std::string& name : cut.judged) names += (names.empty() ? "" : " ") + name;
        cut.text += ": " + names;
        cuts_.push_back(std::move(cut));
    }
}

void Cuts::check(Answer& answer) const {
    for (const Cut& cut : cuts_) {
        cut.exact->prepare();
        cut.exact->call();
        for (const Declared& t : run_.tensors()) {
            if (std::find(cut.judged.begin(), cut.judged.end(), t.name) == cut.judged.end()) continue;
            Ranges theirs = cut.ranges, ours;
            const auto tail = cut.tails.find(t.name);
            if (tail != cut.tails.end())
                for (const auto& [label, range] : tail->second) theirs[label] = ours[label] = range;
            std::vector<double> expected = cut.exact->read(t, ours);
            const auto factor = cut.factors.find(t.name);
            if (factor != cut.factors.end())
                for (double& x : expected) x *= factor->second;
            judge(answer, t.name, run_.read(t, theirs), expected);
        }
        answer.checked.push_back(cut.text);
    }
}

}  // namespace dualform::bench
