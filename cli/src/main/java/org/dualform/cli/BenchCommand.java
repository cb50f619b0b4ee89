package org.dualform.cli;

import java.io.PrintWriter;
import java.math.BigDecimal;
import java.math.MathContext;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import org.dualform.Backend;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Times one work, compares its results with float64, and says what the device could do at most. */
@Command(
        name = "bench",
        description = {
            "Times one work on random data and compares its results with float64. Attention is causal; eta is 0.9, there is no decay.",
            "",
            "  attention momentum-attention   B,T,NH,HS or B,T,S,NH,NKV,HS",
            "  linear-attention               B,T,NH,HS",
            "  dual-form                      N,M,O,I or P,N,M,O,I for P problems",
            "  matmul                         M,N,K",
            "  gpt-step                       B,T,layers,width,heads",
            "  layernorm gelu                 N,C",
            "  cross-entropy                  N,V",
            "  adamw                          N",
            ""
        },
        sortOptions = false,
        mixinStandardHelpOptions = true)
final class BenchCommand implements Callable<Integer> {
    private static final Map<String, DType> DTYPES = Map.of("f32", DType.F32, "bf16", DType.BF16);
    private static final Map<String, Pass> PASSES = Map.of("forward", Pass.FORWARD, "backward", Pass.BACKWARD, "both", Pass.BOTH);
    private static final double MOST_SECONDS = 3600;

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
        Backend backend = OpCommand.demanded(device);
        Map<String, Object> report = new LinkedHashMap<>();
        try (Device opened = threads == null ? Device.open(backend) : Device.open(backend, 0, threads)) {
            report.put("op", work.id());
            report.put("shape", Arrays.stream(sizes).boxed().toList());
            report.put("dtype", dtype);
            report.put("pass", timed.id());
            report.put("threads", opened.threads());
            measure(report, opened, work, work.normalized(sizes), type, timed);
        }
        PrintWriter out = spec.commandLine().getOut();
        out.println(json ? Json.line(report) : sentence(report));
        return ExitCode.OK;
    }

    private void measure(Map<String, Object> report, Device device, BenchWork work, long[] sizes, DType type, Pass timed) {
        double peak = peak(device, type);
        Sampling times;
        double bytes;
        try (BenchTensors tensors = new BenchTensors(device, type, null)) {
            Workload workload = work.make(tensors, sizes, timed);
            double shortest = device.backend() == Backend.CPU ? Sampling.SHORT : Sampling.SHORT_WHEN_QUEUED;
            times = Sampling.of(seconds, shortest, workload.preparation(), workload::run, device::synchronize);
            bytes = workload.bytes();
        }
        peak = Math.max(peak, peak(device, type));
        device.trim();
        double flops = work.flops(sizes, timed);
        report.put("median_ms", rounded(times.median() * 1e3));
        report.put("min_ms", rounded(times.fastest() * 1e3));
        report.put("gflops", flops == 0 ? null : rounded(flops / times.median() / 1e9));
        report.put("gbytes_per_s", rounded(bytes / times.median() / 1e9));
        report.put("relative_error", rounded(error(device, work, work.compared(sizes, timed), type, timed)));
        report.put("peak_gflops", peak == 0 ? null : rounded(peak));
    }

    /** 0 where it cannot be measured. */
    private static double peak(Device device, DType type) {
        return device.backend() == Backend.CPU ? device.peakGflops(type) : 0;
    }

    /** One run of the work on fresh tensors, next to the same in float64 on the same values. */
    private static double error(Device device, BenchWork work, long[] sizes, DType type, Pass timed) {
        try (Device cpu = Device.cpu(device.backend() == Backend.CPU ? device.threads() : 0);
                BenchTensors ours = new BenchTensors(device, type, null);
                BenchTensors exact = new BenchTensors(cpu, DType.F64, ours)) {
            Workload run = work.make(ours, sizes, timed);
            Workload reference = work.make(exact, sizes, timed);
            double largest = 0;
            for (Workload workload : List.of(run, reference)) {
                if (workload.preparation() != null) {
                    workload.preparation().run();
                }
                workload.run();
            }
            List<Tensor> results = run.results();
            List<Tensor> expected = reference.results();
            for (int i = 0; i < results.size(); i++) {
                largest = Math.max(largest, difference(results.get(i).toDoubles(), expected.get(i).toDoubles()));
            }
            return largest;
        }
    }

    /** The largest difference, relative to the largest value. */
    private static double difference(double[] values, double[] expected) {
        double difference = 0;
        double largest = 0;
        for (int i = 0; i < values.length; i++) {
            difference = Math.max(difference, Math.abs(values[i] - expected[i]));
            largest = Math.max(largest, Math.abs(expected[i]));
        }
        double relative = difference == 0 ? 0 : difference / largest;
        if (!Double.isFinite(relative)) {
            throw new IllegalStateException("a result is not finite, or not 0 where float64 has only 0");
        }
        return relative;
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
