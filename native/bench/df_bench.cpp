// df_bench: checks a work's answer, then times it, beside what the device could do at most. Needs no JVM; the same works, shapes and keys as
// `dualform bench`, and every other op. docs/cli.md has its keys, docs/gpu/README.md how to read them, df_bench --help the options.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <optional>

#include "run.h"

namespace dualform::bench {

namespace {

constexpr char kUsage[] =
    "df_bench WORK --shape SIZES [--shape SIZES]... [options]\n"
    "df_bench --list\n"
    "df_bench --describe [--backend NAME --plugin FILE] [--option KEY=VALUE]   one JSON object about a backend, which needs no device\n"
    "  --dtype f32|bf16                 of all tensors (f32)\n"
    "  --pass forward|backward|both     what is timed (forward)\n"
    "  --backend NAME --plugin FILE     cpu (default), or cuda or cuda-emulated with the absolute path of its plug-in\n"
    "  --device N                       which of the backend's devices (0)\n"
    "  --threads N                      CPU threads, 0 for all (0)\n"
    "  --seconds S                      time for samples, of which there are at least 7 (1)\n"
    "  --option KEY=VALUE               an option of the backend, such as kernels=mma; may be repeated\n"
    "  --eta X --decay X --causal true|false\n"
    "  --rotate MIB                     several sets of tensors take turns, of together so much (cuda: 160; else 0)\n"
    "  --repeat N                       run the pass so often first; every result must have the same bits each time (0)\n"
    "  --ceilings true|false            measure copy and peak too (true); without, their keys are null\n"
    "  --check true|false               compare with float64 first (true); without, relative_error and correct are null\n"
    "  --json                           one JSON object in one line for each shape\n";

constexpr int64_t kLargestSize = 999999999;
constexpr double kMostSeconds = 3600;
/// An answer further from float64 than this is wrong; what is right is far below (the rule of the tests is the tight one). By precision of
/// the products, where tensor cores multiply float32.
constexpr double kWrongF32 = 1e-4, kWrongTf32 = 1e-2, kWrongBf16x3 = 1e-3, kWrongBf16 = 5e-2;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();  // null in JSON
constexpr int kLeastSamples = 7, kMostSamples = 1 << 20, kMostSets = 256;
constexpr double kWarmUp = 0.2;        // of the time for samples
constexpr double kShortOnCpu = 2e-5;   // a sample shorter than this many seconds is made of several calls
constexpr double kShortOnCuda = 2e-3;  // an event's resolution is half a microsecond

struct Options {
    std::string work;
    std::vector<std::string> shapes;
    df_dtype dtype = DF_F32;
    Pass pass = Pass::kForward;
    std::string backend = "cpu", plugin;
    int device = 0, threads = 0;
    double seconds = 1;
    std::vector<std::pair<std::string, std::string>> options;
    Settings settings;
    std::optional<double> rotate;
    int repeat = 0;
    bool ceilings = true, check = true, json = false, list = false, describe = false, help = false;
};

double number(const std::string& flag, const std::string& text, double least, double most) {
    char* end = nullptr;
    const double x = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != 0 || !(x >= least && x <= most)) {
        char expected[96];
        std::snprintf(expected, sizeof expected, ": expected %g to %g", least, most);
        throw Problem(2, flag + " " + text + expected);
    }
    return x;
}

int whole(const std::string& flag, const std::string& text, int most) {
    const double x = number(flag, text, 0, most);
    if (x != std::floor(x)) throw Problem(2, flag + " " + text + ": expected a whole number");
    return static_cast<int>(x);
}

template <class T>
T choice(const std::string& flag, const std::string& text, std::initializer_list<std::pair<const char*, T>> values) {
    std::string known;
    for (const auto& [name, value] : values) {
        if (text == name) return value;
        known += (known.empty() ? "" : ", ") + std::string(name);
    }
    throw Problem(2, flag + " " + text + ": expected one of " + known);
}

Options parse(int argc, char** argv) {
    Options o;
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        if (flag.empty() || flag[0] != '-') {
            if (!o.work.empty()) throw Problem(2, flag + ": one work at a time, which is " + o.work);
            o.work = flag;
            continue;
        }
        if (flag == "--json" || flag == "--list" || flag == "--describe" || flag == "--help") {
            (flag == "--json" ? o.json : flag == "--list" ? o.list : flag == "--describe" ? o.describe : o.help) = true;
            continue;
        }
        static const char* const known[] = {"--shape", "--dtype", "--pass", "--backend", "--plugin", "--device", "--threads", "--seconds",
                                            "--option", "--eta", "--decay", "--causal", "--rotate", "--ceilings", "--check", "--repeat"};
        if (std::none_of(std::begin(known), std::end(known), [&](const char* k) { return flag == k; }))
            throw Problem(2, flag + ": no such option, see df_bench --help");
        if (i + 1 == argc) throw Problem(2, flag + ": a value is missing");
        const std::string value = argv[++i];
        if (flag == "--shape") o.shapes.push_back(value);
        if (flag == "--dtype") o.dtype = choice<df_dtype>(flag, value, {{"f32", DF_F32}, {"bf16", DF_BF16}});
        if (flag == "--pass")
            o.pass = choice<Pass>(flag, value, {{"forward", Pass::kForward}, {"backward", Pass::kBackward}, {"both", Pass::kBoth}});
        if (flag == "--backend") o.backend = value;
        if (flag == "--plugin") o.plugin = value;
        if (flag == "--device") o.device = whole(flag, value, 1023);
        if (flag == "--threads") o.threads = whole(flag, value, 1024);
        if (flag == "--seconds") o.seconds = number(flag, value, 0, kMostSeconds);
        if (flag == "--eta") o.settings.eta = number(flag, value, 0, 1 - 1e-12);
        if (flag == "--decay") o.settings.decay = number(flag, value, 0, 1);
        if (flag == "--causal") o.settings.causal = choice<bool>(flag, value, {{"true", true}, {"false", false}});
        if (flag == "--repeat") o.repeat = whole(flag, value, 1000000);
        if (flag == "--ceilings") o.ceilings = choice<bool>(flag, value, {{"true", true}, {"false", false}});
        if (flag == "--check") o.check = choice<bool>(flag, value, {{"true", true}, {"false", false}});
        if (flag == "--rotate") o.rotate = number(flag, value, 0, 1 << 20);
        if (flag == "--option") {
            const size_t equals = value.find('=');
            if (equals == std::string::npos || equals == 0) throw Problem(2, flag + " " + value + ": expected KEY=VALUE");
            o.options.emplace_back(value.substr(0, equals), value.substr(equals + 1));
        }
    }
    if (o.list || o.describe || o.help) return o;
    if (o.work.empty()) throw Problem(2, "a work is missing, see df_bench --list");
    const Work& work = find_work(o.work);
    if (o.shapes.empty()) throw Problem(2, "--shape is missing: " + o.work + " takes " + work.layouts.back());
    if (has_backward(o.pass) && !work.differentiable) throw Problem(2, "--pass: " + o.work + " has no backward pass, expected forward");
    if (o.work == "momentum-attention" && !o.settings.causal) throw Problem(2, "--causal false: momentum attention is causal");
    o.settings.master = o.dtype == DF_BF16;
    return o;
}

Sizes shape(const Work& work, const std::string& text) {
    Sizes sizes;
    std::string layouts;
    bool numbers = true, fits = false;
    size_t from = 0;
    while (from <= text.size()) {
        const size_t comma = std::min(text.find(',', from), text.size());
        const std::string word = text.substr(from, comma - from);
        numbers = numbers && !word.empty() && word.size() <= 9 && word[0] != '0' && word.find_first_not_of("0123456789") == std::string::npos;
        sizes.push_back(numbers ? std::atoll(word.c_str()) : 0);
        from = comma + 1;
    }
    for (const std::string& layout : work.layouts) {
        fits = fits || static_cast<size_t>(std::count(layout.begin(), layout.end(), ',')) + 1 == sizes.size();
        layouts += (layouts.empty() ? "" : " or ") + layout;
    }
    if (!numbers || !fits)
        throw Problem(2, "--shape " + text + ": expected " + layouts + ", each a whole number from 1 to " + std::to_string(kLargestSize));
    return sizes;
}

struct Device {
    Device(const std::string& backend, int index, int threads) { require(df_device_open(backend.c_str(), index, threads, &handle)); }
    ~Device() { df_device_close(handle); }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    df_device* handle = nullptr;
};

struct Timing {
    double median = 0, fastest = 0;  // seconds of one call
    int64_t samples = 0, calls = 0;  // calls in each sample
};

/// One sample after the other, each of so many calls that a clock can tell it. call(i) queues the i-th.
Timing time_calls(df_device* device, bool on_cuda, double seconds, const std::function<void(int64_t)>& call) {
    int64_t made = 0;
    const auto sample = [&](int64_t calls, bool fill) {
        // With a call ahead of it the device never waits for the host in between; a long call needs none.
        if (fill) call(made++);
        double elapsed = 0;
        require(df_device_start_timer(device));
        for (int64_t i = 0; i < calls; ++i) call(made++);
        require(df_device_stop_timer(device, &elapsed));
        return elapsed / static_cast<double>(calls);
    };
    double once = 1e30, spent = 0;
    for (int i = 0; i < 2 || spent < kWarmUp * seconds; ++i) {
        // Many calls a turn, where one is short: a call by itself is mostly waiting.
        const int64_t calls = i < 2 ? 1 : std::clamp<int64_t>(static_cast<int64_t>(kShortOnCuda / std::max(once, 1e-8)), 1, 1000);
        const double t = sample(calls, false);
        once = std::min(once, t);
        spent += std::max(t * static_cast<double>(calls), 1e-7);
    }
    Timing timing;
    const double least = on_cuda ? kShortOnCuda : kShortOnCpu;
    timing.calls = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(least / std::max(once, 1e-8))), 1, 100000);
    const bool fill = on_cuda && once < kShortOnCuda / 2;
    std::vector<double> times;
    for (double total = 0; times.size() < kLeastSamples || (total < seconds && times.size() < kMostSamples);) {
        times.push_back(sample(timing.calls, fill));
        total += times.back() * static_cast<double>(timing.calls + fill);
    }
    std::sort(times.begin(), times.end());
    timing.median = (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2;
    timing.fastest = times.front();
    timing.samples = static_cast<int64_t>(times.size());
    return timing;
}

/// What the device can do at most, measured in this run.
struct Ceilings {
    double peak_gflops = 0, copy_gbytes_per_s = 0;
    std::string peak_of;
};

/// A work of random numbers as it is timed, without a look at its answer.
double rate(df_device* device, bool on_cuda, double seconds, const char* name, const Sizes& sizes, df_dtype dtype, bool by_flops) {
    const Work& work = find_work(name);
    const Settings settings;
    Run run(device, dtype, work, sizes, Pass::kForward, settings);
    run.draw(0);
    const Timing t = time_calls(device, on_cuda, seconds, [&](int64_t) { run.call(); });
    return (by_flops ? work.flops(sizes, Pass::kForward, settings) : run.moved_bytes()) / t.fastest / 1e9;
}

double cpu_peak(df_device* device, df_dtype dtype) {
    double gflops = 0;
    require(df_device_peak_gflops(device, dtype, &gflops));
    return gflops;
}

/// A string member of the backend's description; "" when there is none of that name.
std::string described(const std::string& backend, const char* key) {
    std::vector<char> json(1 << 16);
    if (df_backend_describe(backend.c_str(), json.data(), json.size()) != DF_OK) return "";
    const std::string begins = std::string("\"") + key + "\":\"";
    const char* at = std::strstr(json.data(), begins.c_str());
    if (at == nullptr) return "";
    at += begins.size();
    return std::string(at, std::strcspn(at, "\""));
}

/// How often each kernel has been launched; none on the CPU.
std::map<std::string, int64_t> launches(const std::string& backend) {
    std::map<std::string, int64_t> counts;
    std::vector<char> json(1 << 16);
    require(df_backend_describe(backend.c_str(), json.data(), json.size()));
    const char* at = std::strstr(json.data(), "\"launches\":{");
    if (at == nullptr) return counts;
    at = std::strchr(at, '{') + 1;
    while (*at == '"') { /* "name":count, names have no quotes */
        const char* const end = std::strchr(at + 1, '"');
        if (end == nullptr || end[1] != ':') break;
        char* after = nullptr;
        counts[std::string(at + 1, end)] = std::strtoll(end + 2, &after, 10);
        at = *after == ',' ? after + 1 : after;
    }
    return counts;
}

/// Whether tensor cores multiply in this run: the peak that they have is what to compare with.
bool on_tensor_cores(const Options& o) {
    return o.dtype == DF_BF16 || (described(o.backend, "kernels") != "plain" && described(o.backend, "precision") != "float32");
}

Ceilings measure_ceilings(df_device* device, const Options& o) {
    Ceilings c;
    const bool emulated = o.backend == "cuda-emulated", on_cuda = o.backend != "cpu";
    const double seconds = std::min(0.1, 0.1 * o.seconds);
    // 256 MiB each way on CUDA: far larger than any L2. On the CPU 64 MiB.
    c.copy_gbytes_per_s = rate(device, on_cuda, seconds, "copy", {emulated ? 1 << 12 : on_cuda ? 1 << 26 : 1 << 24}, DF_F32, false);
    if (on_cuda) {
        const int64_t n = emulated ? 64 : 8192;
        // Through cuBLASLt where it is found, which plain kernels do not call.
        const df_dtype dtype = on_tensor_cores(o) ? DF_BF16 : DF_F32;
        const std::string kernels = described(o.backend, "kernels");
        require(df_backend_set_option(o.backend.c_str(), "kernels", "mma"));
        c.peak_gflops = rate(device, true, seconds, "matmul", {n, n, n}, dtype, true);
        const std::string provider = described(o.backend, "matmul");
        require(df_backend_set_option(o.backend.c_str(), "kernels", kernels.c_str()));
        const std::string size = std::to_string(n);
        c.peak_of = std::string("matmul ") + (dtype == DF_BF16 ? "bf16 " : "f32 ") + size + "," + size + "," + size + ", " + provider;
    } else {
        c.peak_gflops = cpu_peak(device, o.dtype);
        c.peak_of = "multiply-adds in registers";
    }
    require(df_device_trim(device));
    return c;
}

// ---- what is printed ----

/// A JSON object in one line, members in the order in which they are put.
class Object {
public:
    void put(const char* key, const std::string& text) {
        std::string quoted = "\"";
        for (const char c : text) {
            if (c == '"' || c == '\\') quoted += '\\';
            quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
        }
        raw(key, quoted + "\"");
    }
    void put(const char* key, const char* text) { put(key, std::string(text)); }
    void put(const char* key, double value) {
        char text[40];
        std::snprintf(text, sizeof text, "%.6g", value);
        raw(key, std::isfinite(value) ? text : "null");
    }
    void put(const char* key, int64_t value) { raw(key, std::to_string(value)); }
    void put(const char* key, bool value) { raw(key, value ? "true" : "false"); }
    void put_list(const char* key, const std::vector<std::string>& words, bool quoted) {
        std::string list;
        for (const std::string& w : words) list += (list.empty() ? "" : ", ") + (quoted ? "\"" + w + "\"" : w);
        raw(key, "[" + list + "]");
    }
    std::string text() const { return "{" + text_ + "}"; }

private:
    void raw(const char* key, const std::string& value) { text_ += (text_.empty() ? "\"" : ", \"") + std::string(key) + "\": " + value; }
    std::string text_;
};

struct Measured {
    std::vector<std::string> ran;  // kernels that were launched while it was timed
    Timing timing;
    Answer answer;
    double flops, bytes, rotated;
    int64_t sets;
};

Measured measure(df_device* device, df_device* cpu, const Options& o, const Work& work, const Sizes& sizes) {
    const bool on_cuda = o.backend != "cpu";
    Measured m{};
    m.flops = work.flops(sizes, o.pass, o.settings);
    if (o.check) check_small(m.answer, device, cpu, o.dtype, work, sizes, o.pass, o.settings);
    require(df_device_trim(device));

    std::vector<std::unique_ptr<Run>> sets;
    sets.push_back(std::make_unique<Run>(device, o.dtype, work, sizes, o.pass, o.settings));
    sets[0]->draw(0);
    if (!sets[0]->looks_drawn()) throw Problem(1, o.work + ": the device's random numbers are not random");
    if (o.check && !is_affordable(work, sizes, o.pass, o.settings)) {
        const Cuts cuts(*sets[0], cpu, work, sizes, o.pass, o.settings);
        sets[0]->prepare();
        sets[0]->call();
        cuts.check(m.answer);
    } else {
        sets[0]->prepare();
    }
    if (o.repeat > 0) {
        if (sets[0]->updates()) throw Problem(2, "--repeat: " + o.work + " changes what it reads");
        std::vector<unsigned char> first;
        for (int i = 0; i < o.repeat; ++i) {
            sets[0]->call();
            std::vector<unsigned char> bits = sets[0]->bits();
            if (i == 0)
                first = std::move(bits);
            else if (bits != first)
                throw Problem(1, o.work + ": run " + std::to_string(i + 1) + " gives other bits than the first");
        }
    }
    m.bytes = sets[0]->moved_bytes();
    const double rotate = o.rotate ? *o.rotate * 1048576 : o.backend == "cuda" ? 160.0 * 1048576 : 0;
    while (static_cast<double>(sets.size()) * sets[0]->held_bytes() < rotate && sets.size() < kMostSets) {
        sets.push_back(std::make_unique<Run>(device, o.dtype, work, sizes, o.pass, o.settings));
        sets.back()->draw(sets.size());
        sets.back()->prepare();
    }
    require(df_device_synchronize(device));
    m.sets = static_cast<int64_t>(sets.size());
    m.rotated = static_cast<double>(m.sets) * sets[0]->held_bytes();
    const std::map<std::string, int64_t> before = launches(o.backend);
    m.timing = time_calls(device, on_cuda, o.seconds, [&](int64_t i) { sets[static_cast<size_t>(i % m.sets)]->call(); });
    for (const auto& [kernel, count] : launches(o.backend)) {
        const auto earlier = before.find(kernel);
        if (earlier == before.end() || earlier->second < count) m.ran.push_back(kernel);
    }
    return m;
}

int report(const Options& o, const Sizes& sizes, int threads, const std::string& device, const Measured& m, const Ceilings& c) {
    const std::string precision = described(o.backend, "precision");
    const double wrong = o.dtype == DF_BF16 ? kWrongBf16 : precision == "tf32" ? kWrongTf32 : precision == "bf16x3" ? kWrongBf16x3 : kWrongF32;
    const double median = m.timing.median;
    const bool correct = m.answer.error <= wrong;
    const double gflops = m.flops / median / 1e9, gbytes = m.bytes / median / 1e9;
    const char* const dtype = o.dtype == DF_BF16 ? "bf16" : "f32";
    const char* const pass = o.pass == Pass::kForward ? "forward" : o.pass == Pass::kBackward ? "backward" : "both";
    std::vector<std::string> words;
    std::string shape_text;
    for (const int64_t s : sizes) words.push_back(std::to_string(s)), shape_text += (shape_text.empty() ? "" : ",") + words.back();
    if (o.json) {
        Object r;
        r.put("op", o.work);
        r.put_list("shape", words, false);
        r.put("dtype", dtype);
        r.put("pass", pass);
        r.put("threads", int64_t{threads});
        r.put("median_ms", median * 1e3);
        r.put("min_ms", m.timing.fastest * 1e3);
        r.put("gflops", m.flops == 0 ? kNone : gflops);
        r.put("gbytes_per_s", gbytes);
        r.put("relative_error", o.check ? m.answer.error : kNone);
        r.put("peak_gflops", o.ceilings ? c.peak_gflops : kNone);
        r.put("tflops", m.flops == 0 ? kNone : gflops / 1e3);
        r.put("copy_gbytes_per_s", o.ceilings ? c.copy_gbytes_per_s : kNone);
        r.put("fraction_of_peak", o.ceilings && m.flops != 0 ? gflops / c.peak_gflops : kNone);
        r.put("fraction_of_copy", o.ceilings ? gbytes / c.copy_gbytes_per_s : kNone);
        r.put("peak_of", c.peak_of);
        o.check ? r.put("correct", correct) : r.put("correct", kNone);
        r.put("worst", m.answer.worst);
        r.put_list("checked", m.answer.checked, true);
        if (o.repeat > 0) r.put("equal_runs", int64_t{o.repeat});
        r.put_list("ran", m.ran, true);
        r.put("samples", m.timing.samples);
        r.put("calls_per_sample", m.timing.calls);
        r.put("sets", m.sets);
        r.put("rotated_mib", m.rotated / 1048576);
        if (o.work == "momentum-attention") r.put("eta", o.settings.eta);
        if (o.work == "attention") r.put("causal", o.settings.causal);
        if (o.work == "linear-attention" || o.work == "linear-attention-step") r.put("decay", o.settings.decay);
        for (const char* key : {"kernels", "precision"})
            if (const std::string chosen = described(o.backend, key); !chosen.empty()) r.put(key, chosen);
        r.put("backend", o.backend);
        r.put("device", device);
        r.put("build", df_build_id());
        std::printf("%s\n", r.text().c_str());
    } else {
        std::printf("%s %s %s %s, ", o.work.c_str(), shape_text.c_str(), dtype, pass);
        o.backend == "cpu" ? (void)std::printf("%d threads: ", threads) : (void)std::printf("%s: ", o.backend.c_str());
        std::printf("median %.4g ms, fastest %.4g ms", median * 1e3, m.timing.fastest * 1e3);
        const auto print_share = [&](double rate, double most) {
            if (o.ceilings) std::printf(" (%.0f%% of %.0f)", 100 * rate / most, most);
        };
        if (m.flops != 0) std::printf("  %.1f GFLOP/s", gflops), print_share(gflops, c.peak_gflops);
        std::printf("  %.1f GB/s", gbytes), print_share(gbytes, c.copy_gbytes_per_s);
        o.check ? (void)std::printf("  error %.1e", m.answer.error) : (void)std::printf("  not checked");
        if (o.ceilings) std::printf("  peak: %s", c.peak_of.c_str());
        std::printf("\n");
    }
    std::fflush(stdout);
    if (correct) return 0;
    std::fprintf(stderr, "df_bench: wrong answer: %s %s %s %s: %s is off by %.3g of its largest value, at most %g was expected\n",
                 o.work.c_str(), shape_text.c_str(), dtype, pass, m.answer.worst.c_str(), m.answer.error, wrong);
    return 1;
}

int run(const Options& o) {
    if (o.help) return std::fputs(kUsage, stdout), 0;
    if (o.list) {
        for (const Work& w : works()) {
            std::string layouts;
            for (const std::string& layout : w.layouts) layouts += (layouts.empty() ? "" : " or ") + layout;
            std::printf("%-22s %s%s\n", w.name.c_str(), layouts.c_str(), w.differentiable ? "" : "   (forward only)");
        }
        return 0;
    }
    std::vector<Sizes> shapes;
    for (const std::string& text : o.shapes) shapes.push_back(shape(find_work(o.work), text));
    if (!o.plugin.empty()) require(df_backend_load(o.plugin.c_str()));
    for (const auto& [key, value] : o.options) require(df_backend_set_option(o.backend.c_str(), key.c_str(), value.c_str()));
    if (o.describe) {
        std::vector<char> json(1 << 16);
        require(df_backend_describe(o.backend.c_str(), json.data(), json.size()));
        std::printf("%s\n", json.data());
        return 0;
    }
    const Work& work = find_work(o.work);
    const Device device(o.backend, o.device, o.threads), cpu("cpu", 0, o.threads);
    char about[512];
    require(df_device_describe(device.handle, about, sizeof about));
    const int threads = static_cast<int>(df_device_stat(device.handle, DF_STAT_THREADS));
    std::optional<Ceilings> ceilings;
    int code = 0;
    for (const Sizes& sizes : shapes) {
        Measured m;
        const Sizes normalized = work.normalized(sizes);
        m = measure(device.handle, cpu.handle, o, work, normalized);
        require(df_device_trim(device.handle));
        if (!ceilings) ceilings = o.ceilings ? measure_ceilings(device.handle, o) : Ceilings{};
        if (o.ceilings && o.backend == "cpu") ceilings->peak_gflops = std::max(ceilings->peak_gflops, cpu_peak(device.handle, o.dtype));
        code = std::max(code, report(o, sizes, threads, about, m, *ceilings));
    }
    return code;
}

}  // namespace

}  // namespace dualform::bench

int main(int argc, char** argv) {
    using dualform::bench::Problem;
    try {
        return dualform::bench::run(dualform::bench::parse(argc, argv));
    } catch (const Problem& problem) {
        std::fprintf(stderr, "df_bench: %s\n", problem.what());
        return problem.code;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "df_bench: %s\n", e.what());
        return 1;
    }
}
