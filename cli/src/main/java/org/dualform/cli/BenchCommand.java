package org.dualform.cli;

import java.io.PrintWriter;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Kernels;
import org.dualform.Precision;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Compares one work's results with float64, times it, and says what the device could do at most. */
@Command(
        name = "bench",
        description = {
            "Compares one work on random data with float64, then times it. A wrong answer is not timed.",
            "",
            "  attention momentum-attention   B,T,NH,HS or B,T,S,NH,NKV,HS",
            "  linear-attention               B,T,NH,HS",
            "  linear-attention-step          B,NH,HS: one token after a state",
            "  dual-form                      N,M,O,I or P,N,M,O,I for P problems",
            "  delta-accumulate               N,O,I",
            "  delta-apply                    M,O,I",
            "  matmul matmul-gelu             M,N,K",
            "  gpt-step                       B,T,layers,width,heads",
            "  layernorm residual-layernorm   N,C",
            "  gelu bias-backward             N,C",
            "  cross-entropy                  N,V",
            "  embedding                      B,T,V,C",
            "  reduce-sum -mean -max -min     N,C; argmax too",
            "  adamw adamw-ranges sgd         N",
            "  squared-norm clip-scale        N",
            "  copy fill affine neg exp log sqrt rsqrt reciprocal square abs tanh sigmoid relu sin cos add sub mul div max min",
            "  random-uniform random-normal   N",
            ""
        },
        sortOptions = false,
        mixinStandardHelpOptions = true)
final class BenchCommand implements Callable<Integer> {
    private static final Map<String, DType> DTYPES = Map.of("f32", DType.F32, "bf16", DType.BF16);
    private static final Map<String, Pass> PASSES = Map.of("forward", Pass.FORWARD, "backward", Pass.BACKWARD, "both", Pass.BOTH);
    private static final Map<String, Boolean> YES_OR_NO = Map.of("true", true, "false", false);
    private static final double MOST_SECONDS = 3600;
    private static final int MOST_SETS = 256;
    private static final double MOST_ROTATED = 1 << 20; // MiB
    private static final double ROTATED_ON_CUDA = 160; // MiB, more than any L2 there is
    private static final long PEAK_SIZE = 8192;

    @Spec
    private CommandSpec spec;

    @Parameters(index = "0", paramLabel = "NAME", description = "which work, one of those above")
    private String name;

    @Option(names = "--shape", required = true, paramLabel = "SIZES", description = "its sizes, with commas between them")
    private String shape;

    @Option(names = "--dtype", defaultValue = "f32", paramLabel = "f32|bf16", description = "of all tensors (f32)")
    private String dtype;

    @Option(names = "--pass", paramLabel = "forward|backward|both", description = "what is timed (forward; gpt-step: both)")
    private String pass;

    @Option(names = "--threads", paramLabel = "N", description = "CPU threads, 0 for all (default: dualform.threads, else all)")
    private Integer threads;

    @Option(names = "--device", paramLabel = "DEVICE", description = "auto, cpu or cuda (default: DUALFORM_BACKEND, else auto)")
    private String device;

    @Option(names = "--seconds", defaultValue = "1", paramLabel = "S", description = "time for samples, of which there are at least 7 (1)")
    private double seconds;

    @Option(names = "--causal", paramLabel = "true|false", description = "attention: whether queries see no later keys (true)")
    private String causal;

    @Option(names = "--eta", paramLabel = "X", description = "momentum-attention: the momentum of every head, in [0, 1) (0.9)")
    private Double eta;

    @Option(names = "--decay", paramLabel = "X", description = "linear attention: decay of the state, in [0, 1] (1, which is none)")
    private Double decay;

    @Option(names = "--vocabulary", paramLabel = "N", description = "gpt-step: how many tokens there are (256)")
    private Integer vocabulary;

    @Option(names = "--graphs", paramLabel = "true|false", description = "gpt-step: replay captured graphs (false)")
    private String graphs;

    @Option(names = "--rotate", paramLabel = "MIB",
            description = "let several sets of tensors take turns, of together so much (160 on CUDA, else 0)")
    private Double rotate;

    @Option(names = "--json", arity = "0", description = "print one JSON object in one line")
    private boolean json;

    @Override
    public Integer call() {
        BenchWork work = BenchWork.parse(name);
        long[] sizes = work.shape(shape);
        DType type = Choice.of("--dtype", dtype, DTYPES);
        Pass timed = pass == null ? work.usualPass() : Choice.of("--pass", pass, PASSES);
        if (!(seconds >= 0 && seconds <= MOST_SECONDS)) {
            throw new UsageException("--seconds " + seconds + ": expected 0 to " + MOST_SECONDS);
        }
        if (threads != null && threads < 0) {
            throw new UsageException("--threads " + threads + ": expected at least 0");
        }
        if (timed.backward() && !work.isDifferentiable()) {
            throw new UsageException("--pass " + timed.id() + ": " + work.id() + " has no backward pass, expected forward");
        }
        BenchSettings settings = settings(work, timed);
        Backend backend = OpCommand.demanded(device);
        Map<String, Object> report = new LinkedHashMap<>();
        try (Device opened = threads == null ? Device.open(backend) : Device.open(backend, 0, threads)) {
            report.put("op", work.id());
            report.put("shape", Arrays.stream(sizes).boxed().toList());
            report.put("dtype", dtype);
            report.put("pass", timed.id());
            report.put("threads", opened.threads());
            measure(report, opened, work, work.normalized(sizes), type, timed, settings);
        }
        PrintWriter out = spec.commandLine().getOut();
        out.println(json ? Json.line(report) : sentence(report));
        return ExitCode.OK;
    }

    private BenchSettings settings(BenchWork work, Pass timed) {
        BenchSettings usual = BenchSettings.USUAL;
        only("--causal", causal, work, BenchWork.ATTENTION);
        only("--eta", eta, work, BenchWork.MOMENTUM_ATTENTION);
        only("--decay", decay, work, BenchWork.LINEAR_ATTENTION, BenchWork.LINEAR_ATTENTION_STEP);
        only("--vocabulary", vocabulary, work, BenchWork.GPT_STEP);
        only("--graphs", graphs, work, BenchWork.GPT_STEP);
        if (rotate != null && work == BenchWork.GPT_STEP) {
            throw new UsageException("--rotate: gpt-step has none, a model is one set of tensors");
        }
        require(eta == null || eta >= 0 && eta < 1, "--eta", eta, "0 to less than 1");
        require(decay == null || decay >= 0 && decay <= 1, "--decay", decay, "0 to 1");
        require(vocabulary == null || vocabulary >= 1, "--vocabulary", vocabulary, "at least 1");
        require(rotate == null || rotate >= 0 && rotate <= MOST_ROTATED, "--rotate", rotate, "0 to " + MOST_ROTATED);
        boolean replayed = graphs != null && Choice.of("--graphs", graphs, YES_OR_NO);
        if (replayed && timed != Pass.BOTH) {
            throw new UsageException("--graphs true: a pass alone is no step, expected --pass both");
        }
        return new BenchSettings(causal == null ? usual.causal() : Choice.of("--causal", causal, YES_OR_NO), eta == null ? usual.eta() : eta,
                decay == null ? usual.decay() : decay, vocabulary == null ? usual.vocabulary() : vocabulary, replayed, false);
    }

    private static void only(String option, Object given, BenchWork work, BenchWork... works) {
        if (given != null && !List.of(works).contains(work)) {
            throw new UsageException(option + ": " + work.id() + " has none, expected "
                    + String.join(" or ", Arrays.stream(works).map(BenchWork::id).toList()));
        }
    }

    private static void require(boolean inside, String option, Object given, String expected) {
        if (!inside) {
            throw new UsageException(option + " " + given + ": expected " + expected);
        }
    }

    private void measure(Map<String, Object> report, Device device, BenchWork work, long[] sizes, DType type, Pass timed,
            BenchSettings settings) {
        boolean cpu = device.backend() == Backend.CPU;
        double error = Accuracy.check(String.join(" ", work.id(), shape, dtype, timed.id()), device, type,
                Accuracy.bound(work, device.backend(), type),
                tensors -> work.make(tensors, work.compared(sizes, timed, settings), timed, settings.forResults()));
        device.trim();
        double peak = cpu ? device.peakGflops(type) : 0;
        Sampling times;
        double bytes;
        try (Sets sets = new Sets(device, type, tensors -> work.make(tensors, sizes, timed, settings), rotated(device, work))) {
            times = Sampling.of(device, seconds, sets.first().preparation(), sets::run);
            bytes = sets.first().bytes();
        }
        device.trim();
        peak = cpu ? Math.max(peak, device.peakGflops(type)) : matmulPeak(device, type);
        double flops = work.flops(sizes, timed, settings);
        report.put("median_ms", rounded(times.median() * 1e3));
        report.put("min_ms", rounded(times.fastest() * 1e3));
        report.put("gflops", flops == 0 ? null : rounded(flops / times.median() / 1e9));
        report.put("gbytes_per_s", rounded(bytes / times.median() / 1e9));
        report.put("relative_error", rounded(error));
        report.put("peak_gflops", rounded(peak));
    }

    /** Bytes of the sets of tensors that take turns. */
    private double rotated(Device device, BenchWork work) {
        double usual = device.backend() == Backend.CPU ? 0 : ROTATED_ON_CUDA;
        return work == BenchWork.GPT_STEP ? 0 : (rotate == null ? usual : rotate) * (1 << 20);
    }

    /**
     * What a large product reaches, by cuBLASLt where it is found: the most that can be measured where there are no threads of ours. In bfloat16,
     * or float32 where that is what multiplies.
     */
    private double matmulPeak(Device device, DType type) {
        Kernels chosen = Backends.kernels();
        boolean tensorCores = type == DType.BF16 || chosen != Kernels.PLAIN && Backends.precision() != Precision.FLOAT32;
        Backends.setKernels(Kernels.MMA); // the plain kernels do without cuBLASLt
        try {
            return matmul(device, tensorCores ? DType.BF16 : DType.F32);
        } finally {
            Backends.setKernels(chosen);
        }
    }

    private double matmul(Device device, DType type) {
        long[] sizes = {PEAK_SIZE, PEAK_SIZE, PEAK_SIZE};
        BenchSettings settings = BenchSettings.USUAL;
        double seconds = Math.min(0.1, 0.1 * this.seconds);
        try (BenchTensors tensors = BenchTensors.drawn(device, type, 0)) {
            Workload product = BenchWork.MATMUL.make(tensors, sizes, Pass.FORWARD, settings);
            return BenchWork.MATMUL.flops(sizes, Pass.FORWARD, settings) / Sampling.of(device, seconds, null, product::run).fastest() / 1e9;
        } finally {
            device.trim();
        }
    }

    /** A work on one or several sets of tensors, one after the other, so that no set is in a cache when its turn comes. */
    private static final class Sets implements AutoCloseable {
        private final List<BenchTensors> tensors = new ArrayList<>();
        private final List<Workload> workloads = new ArrayList<>();
        private int next;

        /** As many as hold so many bytes, one at least. */
        Sets(Device device, DType type, Accuracy.Maker maker, double bytes) {
            try {
                do {
                    BenchTensors set = BenchTensors.drawn(device, type, tensors.size());
                    tensors.add(set);
                    workloads.add(maker.make(set));
                } while (tensors.size() * tensors.get(0).bytes() < bytes && tensors.size() < MOST_SETS);
            } catch (RuntimeException e) {
                close();
                throw e;
            }
        }

        Workload first() {
            return workloads.get(0);
        }

        void run() {
            workloads.get(next).run();
            next = (next + 1) % workloads.size();
        }

        @Override
        public void close() {
            tensors.forEach(BenchTensors::close);
        }
    }

    private static double rounded(double value) {
        return new BigDecimal(value).round(new MathContext(6)).doubleValue();
    }

    private static String sentence(Map<String, Object> r) {
        String shape = r.get("shape").toString().replaceAll("[\\[\\] ]", "");
        String rate = r.get("gflops") == null ? "" : String.format(Locale.ROOT, "  %.1f GFLOP/s", (double) r.get("gflops"));
        String share = r.get("gflops") == null || r.get("peak_gflops") == null ? "" : String.format(Locale.ROOT, " (%.0f%% of %.0f)",
                100 * (double) r.get("gflops") / (double) r.get("peak_gflops"), (double) r.get("peak_gflops"));
        return String.format(Locale.ROOT, "%s %s %s %s, %d threads: median %.4g ms, fastest %.4g ms%s%s  %.1f GB/s  error %.1e",
                r.get("op"), shape, r.get("dtype"), r.get("pass"), (int) r.get("threads"), (double) r.get("median_ms"),
                (double) r.get("min_ms"), rate, share, (double) r.get("gbytes_per_s"), (double) r.get("relative_error"));
    }
}
