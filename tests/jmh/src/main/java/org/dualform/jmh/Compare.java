package org.dualform.jmh;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;
import java.util.regex.Pattern;
import org.bytedeco.javacpp.PointerScope;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Dualform;

/**
 * Each work against a peer in this JVM, sample by sample in turns, with as many threads for both. Results must agree first. A ratio above 1
 * means that we are faster.
 *
 * <p>Arguments: a regular expression for names, threads, seconds of samples for each work, and the JSON file to write.
 */
public final class Compare {
    private static final int LEAST_SAMPLES = 7;
    private static final int TRIALS = 3;

    /** A work, and how it is made when its turn comes. */
    private record Entry(String name, Supplier<Duel> duel) {}

    /** What came of one. Times in milliseconds. */
    private record Row(String name, String peer, double ours, double theirs, double oursLeast, double theirsLeast, int blasThreads,
            double difference, boolean agrees) {
        double ratio() {
            return theirs / ours;
        }

        String json() {
            return String.format(Locale.ROOT, "{\"work\": \"%s\", \"peer\": \"%s\", \"ours_median_ms\": %.6g, \"peer_median_ms\": %.6g, "
                    + "\"ours_min_ms\": %.6g, \"peer_min_ms\": %.6g, \"ratio\": %.4g, \"peer_blas_threads\": %d, \"difference\": %.3g, "
                    + "\"agrees\": %b}", name, peer, ours, theirs, oursLeast, theirsLeast, ratio(), blasThreads, difference, agrees);
        }
    }

    private final int threads;
    private final double seconds;
    private final Device device;

    private Compare(int threads, double seconds, Device device) {
        this.threads = threads;
        this.seconds = seconds;
        this.device = device;
    }

    /**
     * Runs the works whose names match.
     *
     * @param arguments see above
     * @throws IOException if the JSON file cannot be written
     */
    public static void main(String[] arguments) throws IOException {
        Pattern names = Pattern.compile(arguments[0]);
        int threads = Integer.parseInt(arguments[1]);
        double seconds = Double.parseDouble(arguments[2]);
        Path file = Path.of(arguments[3]);
        boolean agree = true;
        try (Device device = Device.cpu(threads)) {
            Map<String, String> about = new LinkedHashMap<>();
            about.put("ours", "dualform " + Dualform.version() + ", build " + Dualform.buildId() + ", " + device.description());
            about.put("torch", Torch.version());
            about.put("java", System.getProperty("java.version"));
            about.forEach((key, value) -> System.out.println(key + ": " + value));
            System.out.printf(Locale.ROOT, "%-52s %-7s %11s %11s %7s %5s %9s%n", "work", "peer", "ours ms", "peer ms", "ratio", "blas",
                    "differ");
            Compare compare = new Compare(threads, seconds, device);
            List<Row> rows = new ArrayList<>();
            for (Entry entry : compare.entries()) {
                if (names.matcher(entry.name).find()) {
                    Row row = compare.run(entry);
                    rows.add(row);
                    agree &= row.agrees;
                    System.out.printf(Locale.ROOT, "%-52s %-7s %11.5g %11.5g %7.2f %5d %9.1e%s%n", row.name, row.peer, row.ours,
                            row.theirs, row.ratio(), row.blasThreads, row.difference, row.agrees ? "" : "  RESULTS DIFFER");
                }
            }
            write(file, about, threads, rows);
        }
        if (!agree) {
            System.exit(1);
        }
    }

    private static void write(Path file, Map<String, String> about, int threads, List<Row> rows) throws IOException {
        StringBuilder json = new StringBuilder("{\n");
        about.forEach((key, value) -> json.append("  \"").append(key).append("\": \"").append(value).append("\",\n"));
        json.append("  \"threads\": ").append(threads).append(",\n  \"works\": [");
        for (int i = 0; i < rows.size(); i++) {
            json.append(i == 0 ? "\n    " : ",\n    ").append(rows.get(i).json());
        }
        Files.writeString(file, json.append("\n  ]\n}\n"));
    }

    // ---- which works ----

    private List<Entry> entries() {
        List<Entry> entries = new ArrayList<>();
        entries.add(new Entry("call", () -> new CallDuel("call", ours(DType.F32))));
        for (DType dtype : List.of(DType.F32, DType.BF16)) {
            for (String pass : List.of("forward", "both")) {
                for (long[] shape : new long[][] {{4, 256, 12, 64}, {1, 1024, 12, 64}, {1, 2048, 12, 64}, {1, 1024, 8, 128}}) {
                    attention(entries, false, dtype, pass, shape);
                }
            }
        }
        for (DType dtype : List.of(DType.F32, DType.BF16)) {
            for (long[] shape : new long[][] {{4, 256, 12, 64}, {1, 1024, 12, 64}, {1, 2048, 12, 64}}) {
                attention(entries, true, dtype, "both", shape);
            }
        }
        for (DType dtype : List.of(DType.F32, DType.BF16)) {
            dualForm(entries, dtype, 96, 1024, 1024, 64, 64);
            dualForm(entries, dtype, 1, 2048, 2048, 768, 768);
            for (String pass : List.of("forward", "both")) {
                String name = name("linear-attention", dtype, pass, 1, 4096, 8, 64);
                entries.add(new Entry(name, () -> new LinearAttentionDuel(name, ours(dtype), pass.equals("both"), 1, 4096, 8, 64)));
            }
        }
        String step = name("gpt-step", DType.F32, "both", 8, 256, 6, 384, 6);
        entries.add(new Entry(step, () -> new GptDuel(step, ours(DType.F32), 8, 256, 6, 384, 6)));
        for (DType dtype : List.of(DType.F32, DType.BF16)) {
            for (long[] layer : new long[][] {{2048, 1152, 384}, {2048, 384, 384}, {2048, 1536, 384}, {2048, 384, 1536}}) {
                for (MatmulDuel.Form form : MatmulDuel.Form.values()) {
                    matmul(entries, dtype, form, layer);
                }
            }
        }
        return entries;
    }

    private void attention(List<Entry> entries, boolean momentum, DType dtype, String pass, long[] shape) {
        String name = name(momentum ? "momentum-attention" : "attention", dtype, pass, shape);
        entries.add(new Entry(name, () -> new AttentionDuel(name, ours(dtype), momentum, pass.equals("both"), shape)));
    }

    private void dualForm(List<Entry> entries, DType dtype, long... s) {
        String name = name("dual-form", dtype, "forward", s);
        entries.add(new Entry(name, () -> new DualFormDuel(name, ours(dtype), s[0], s[1], s[2], s[3], s[4])));
    }

    private void matmul(List<Entry> entries, DType dtype, MatmulDuel.Form form, long[] s) {
        String name = name("matmul", dtype, form.name().toLowerCase(Locale.ROOT), s);
        entries.add(new Entry(name + " onednn", () -> new OneDnnDuel(name, ours(dtype), form, s[0], s[1], s[2])));
        entries.add(new Entry(name + " torch", () -> new MatmulDuel(name, ours(dtype), form, s[0], s[1], s[2])));
    }

    private Ours ours(DType dtype) {
        return new Ours(device, dtype);
    }

    private static String name(String work, DType dtype, String pass, long... shape) {
        return work + " " + dtype.name().toLowerCase(Locale.ROOT) + " " + pass + " "
                + Arrays.toString(shape).replaceAll("[\\[\\] ]", "");
    }

    // ---- one work ----

    private Row run(Entry entry) {
        try (PointerScope scope = new PointerScope(); Duel duel = entry.duel.get()) {
            Torch.threads(threads, 1);
            duel.runOurs();
            double difference = difference(duel.ourResults(), duel.peerResults());
            int blas = fasterBlas(duel);
            List<Double> ours = new ArrayList<>();
            List<Double> theirs = new ArrayList<>();
            double spent = 0;
            for (int i = 0; i < LEAST_SAMPLES || spent < seconds; i++) {
                if (i % 2 == 0) {
                    ours.add(time(duel, duel::runOurs));
                }
                theirs.add(time(duel, duel::runPeer));
                if (i % 2 == 1) {
                    ours.add(time(duel, duel::runOurs));
                }
                spent += duel.callsPerSample() * (ours.get(i) + theirs.get(i));
            }
            device.trim();
            return new Row(duel.name(), duel.peer(), 1e3 * median(ours), 1e3 * median(theirs), 1e3 * Collections.min(ours),
                    1e3 * Collections.min(theirs), blas, difference, difference <= duel.tolerance());
        }
    }

    /** PyTorch splits some works itself and calls BLAS inside, and leaves others whole to BLAS: the peer gets what is faster for it. */
    private int fasterBlas(Duel duel) {
        int faster = 1;
        double least = Double.POSITIVE_INFINITY;
        for (int blas : threads == 1 ? new int[] {1} : new int[] {1, threads}) {
            Torch.threads(threads, blas);
            List<Double> trial = new ArrayList<>();
            for (int i = 0; i < TRIALS; i++) {
                trial.add(time(duel, duel::runPeer));
            }
            double median = median(trial);
            if (median < least) {
                least = median;
                faster = blas;
            }
        }
        Torch.threads(threads, faster);
        return faster;
    }

    /** Seconds of one call. */
    private static double time(Duel duel, Runnable run) {
        int calls = duel.callsPerSample();
        long start = System.nanoTime();
        for (int i = 0; i < calls; i++) {
            run.run();
        }
        return (System.nanoTime() - start) / 1e9 / calls;
    }

    private static double median(List<Double> values) {
        double[] sorted = values.stream().mapToDouble(Double::doubleValue).sorted().toArray();
        return (sorted[(sorted.length - 1) / 2] + sorted[sorted.length / 2]) / 2;
    }

    /** The largest difference, relative to the largest value of its tensor. */
    private static double difference(List<float[]> ours, List<float[]> theirs) {
        double worst = 0;
        for (int i = 0; i < ours.size(); i++) {
            double difference = 0;
            double largest = 0;
            for (int j = 0; j < ours.get(i).length; j++) {
                difference = Math.max(difference, Math.abs(ours.get(i)[j] - theirs.get(i)[j]));
                largest = Math.max(largest, Math.abs(theirs.get(i)[j]));
            }
            double relative = difference == 0 ? 0 : difference / largest;
            worst = Double.isNaN(relative) ? Double.POSITIVE_INFINITY : Math.max(worst, relative);
        }
        return worst;
    }
}
