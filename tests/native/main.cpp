// df_tests: the native checks over the C ABI.
//   df_tests [--check NAME] [--backend cpu|cuda|cuda-emulated] [--plugin PATH] [--op NAME] [--dtype F32|BF16|F64] [--cases N] [--seed N]
//   [--threads N]
//            [--exact-heap | --aligned | --contiguous] [--T N] [--option BACKEND.KEY=VALUE]... [--draw NAME=NUMBER]... [--list]
// Exit code 0: all passed; 1: something failed; 77: everything was skipped.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "check.h"

using namespace dualform::test;

namespace {

struct Check {
    const char* name;
    void (*run)(const Options&, Report&);
    const char* meaning;
};

const Check kChecks[] = {
    {"parity", check_parity, "random cases of every op against the plain op in float64; canaries around every buffer"},
    {"gradients", check_gradients, "every gradient against finite differences in float64"},
    {"identities", check_identities, "identities of the ops in float64"},
    {"masked", check_masked, "masked keys and values change no bit; rows with nothing to attend"},
    {"memory", check_memory, "attention and momentum attention over a long sequence stay within their memory"},
    {"determinism", check_determinism, "same bits with 1, 2, 3 and 8 threads; on a device, in every one of --repeat runs"},
    {"hostile", check_hostile, "extreme numbers"},
    {"errors", check_errors, "wrong calls are refused with a sentence that names the argument"},
    {"out-of-memory", check_out_of_memory, "every allocation failing in turn; on a device, memory that is used up"},
    {"steady-state", check_steady_state, "nothing is allocated from the system after the first call"},
    {"graph", check_graph, "every op captured and replayed; a training loop by replay; what a capture refuses; whose memory is whose"},
    {"vectors", check_vectors, "memory-bound ops over whole accesses of 16 bytes, against the plain op in float64"},
    {"threads", check_threads, "several threads on one device"},
    {"hopper", check_hopper, "cases that the kernels of sm_90a serve, and that it is they who do (--option cuda.kernels=hopper)"},
    {"pool", check_pool, "the thread pool: every piece once, nested, from several callers, oversubscribed, quiet when idle, after fork"},
};

int usage(const char* what) {
    std::fprintf(stderr, "df_tests: %s\n", what);
    return 2;
}

void list() {
    for (const Check& c : kChecks) std::printf("check %-14s %s\n", c.name, c.meaning);
    for (const auto& [name, make] : cases()) std::printf("op %s\n", name.c_str());
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string flag = argv[i];
        if (flag == "--list") return list(), 0;
        if (flag == "--exact-heap" || flag == "--aligned" || flag == "--contiguous") {
            (flag == "--aligned" ? options.aligned : flag == "--contiguous" ? options.contiguous : options.exact_heap) = true;
            continue;
        }
        if (i + 1 == argc) return usage((flag + " needs a value").c_str());
        const std::string value = argv[++i];
        if (flag == "--check")
            options.check = value;
        else if (flag == "--backend")
            options.backend = value;
        else if (flag == "--plugin")
            options.plugin = value;
        else if (flag == "--op")
            options.op = value;
        else if (flag == "--cases")
            options.cases = std::atoll(value.c_str());
        else if (flag == "--repeat")
            options.repeat = std::atoll(value.c_str());
        else if (flag == "--seed")
            options.seed = std::strtoull(value.c_str(), nullptr, 10);
        else if (flag == "--threads")
            options.threads = std::atoi(value.c_str());
        else if (flag == "--T")
            options.T = std::atoll(value.c_str());
        else if (flag == "--option") {
            const size_t dot = value.find('.'), equals = value.find('=', dot == std::string::npos ? 0 : dot);
            if (dot == std::string::npos || equals == std::string::npos) return usage("--option is BACKEND.KEY=VALUE");
            options.backend_options.push_back({value.substr(0, dot), value.substr(dot + 1, equals - dot - 1), value.substr(equals + 1)});
        } else if (flag == "--draw") {
            const size_t equals = value.find('=');
            if (equals == std::string::npos) return usage("--draw is NAME=NUMBER, a name that parity prints");
            options.draw[value.substr(0, equals)] = std::atoll(value.c_str() + equals + 1);
        } else if (flag == "--dtype") {
            for (const int d : {DF_F32, DF_BF16, DF_F64})
                if (value == dtype_name(d)) options.dtype = d;
            if (options.dtype < 0) return usage("--dtype is F32, BF16 or F64");
        } else
            return usage((flag + " is unknown").c_str());
    }
    if (!options.op.empty() && cases().count(options.op) == 0) return usage((options.op + " is no op").c_str());
    const Check* check = nullptr;
    for (const Check& c : kChecks)
        if (options.check == c.name) check = &c;
    if (check == nullptr) return usage((options.check + " is no check").c_str());

    const auto chosen = [&](const char* key, const char* variable) {
        std::string value = std::getenv(variable) != nullptr ? std::getenv(variable) : "";
        for (const BackendOption& o : options.backend_options)
            if (o.backend == options.backend && o.key == key) value = o.value;
        return value;
    };
    if (const std::string kernels = chosen("kernels", "DUALFORM_KERNELS"); options.backend != "cpu" && (kernels == "mma" || kernels == "hopper")) {
        const std::string precision = chosen("precision", "DUALFORM_PRECISION");
        float32_operands() = precision == "tf32" ? Operands::kTf32 : precision == "bf16x3" ? Operands::kBf16x3 : Operands::kFloat32;
    }

    Report report;
    df_device* probe = nullptr;
    const bool loaded = options.plugin.empty() || df_backend_load(options.plugin.c_str()) == DF_OK;
    for (const BackendOption& o : options.backend_options)
        if (loaded && df_backend_set_option(o.backend.c_str(), o.key.c_str(), o.value.c_str()) != DF_OK) return usage(df_last_error());
    if (!loaded || df_device_open(options.backend.c_str(), 0, 0, &probe) != DF_OK) {
        const std::string reason = df_last_error();
        for (const auto& [name, make] : cases())
            if (options.wants(name)) report.skip(name + " on " + options.backend, reason);
    } else {
        df_device_close(probe);
        try {
            check->run(options, report);
        } catch (const Failure& failure) {
            report.fail("%s: %s", check->name, failure.sentence.c_str());
        }
    }
    std::printf("%lld passed, %lld failed, %lld skipped\n", static_cast<long long>(report.passed), static_cast<long long>(report.failed),
                static_cast<long long>(report.skipped));
    if (report.failed > 0) return 1;
    return report.passed == 0 ? 77 : 0;
}
