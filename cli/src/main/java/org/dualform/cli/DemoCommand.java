package org.dualform.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.function.IntFunction;
import java.util.stream.Stream;
import org.dualform.Backend;
import org.dualform.Device;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.study.ComparisonOptions;
import org.dualform.lab.study.FewShotReport;
import org.dualform.lab.study.FewShotStudy;
import org.dualform.lab.study.FewShotStudy.Look;
import org.dualform.lab.study.FewShotStudy.ModelRun;
import org.dualform.lab.study.ModelComparison;
import org.dualform.lab.train.TrainingListener;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Identities first, then a plain and a momentum GPT that learn to learn in context, and how that compares with finetuning. */
@Command(
        name = "demo",
        description = {
            "Checks the dual form of gradient descent, then trains a plain and a momentum GPT from the same seed until they learn from",
            "examples in the prompt, compares that with finetuning, and writes a report. Exit code 1 if an identity fails."
        },
        sortOptions = false,
        showDefaultValues = true,
        mixinStandardHelpOptions = true)
final class DemoCommand implements Callable<Integer> {
    private static final int WATCH_EVERY = 25;
    private static final int WATCHED = 128;
    private static final int HELD_OUT = 512;
    private static final int SETS = 6;
    private static final int DEMONSTRATIONS = 12;
    private static final int QUERIES = 40;

    @Spec
    private CommandSpec spec;

    @Option(names = "--out", paramLabel = "DIR", defaultValue = "dualform-demo", description = "where the report goes")
    private Path folder;

    @Option(names = "--seed", defaultValue = "1", description = "of the first pair of models and their corpus")
    private long seed;

    @Option(names = "--seeds", defaultValue = "1", paramLabel = "N",
            description = "pairs of models; the interval of a difference needs some")
    private int seeds;

    @Option(names = "--steps", defaultValue = "700", paramLabel = "N", description = "of training per model")
    private int steps;

    @Option(names = "--eta", defaultValue = "0.9", paramLabel = "X", description = "of the momentum model, at least 0 and less than 1")
    private double eta;

    @Option(names = "--full",
            description = "four times as many demonstration sets, more queries and orders, and layer-causal gradient descent")
    private boolean full;

    @Option(names = "--device", paramLabel = "DEVICE", description = "auto, cpu or cuda; without it DUALFORM_BACKEND, else auto")
    private String device;

    private PrintWriter out;
    private PrintWriter err;
    private final Map<String, Double> seconds = new LinkedHashMap<>();

    @Override
    public Integer call() throws IOException {
        out = spec.commandLine().getOut();
        err = spec.commandLine().getErr();
        FewShotStudy.Options options = new FewShotStudy.Options(seed, seeds, steps, eta, WATCH_EVERY, WATCHED, HELD_OUT,
                full ? new ComparisonOptions(4 * SETS, DEMONSTRATIONS, 100, 10, true)
                        : new ComparisonOptions(SETS, DEMONSTRATIONS, QUERIES, 3, false), folder);
        Backend backend = OpCommand.demanded(device);
        new OutputFolder(folder).names(); // refuses what cannot be a folder
        prepare();
        if (!new Tour(out).holds()) {
            out.println();
            out.println("AN IDENTITY FAILED: see the lines marked with FAILED.");
            return ExitCode.INTERNAL;
        }
        out.println();
        long start = System.nanoTime();
        try (Device where = Device.open(backend); Display display = new Display()) {
            out.println("3. In-context learning, with plain and with momentum attention, on " + where.description());
            out.println("   Two small GPTs read rows of examples `w w w w label`; what a label means is hidden in each document.");
            out.println("   Half of the documents rename the labels: those can be answered from the examples in the prompt only.");
            out.flush();
            FewShotStudy.Result result = new FewShotStudy(where, options, display).run();
            display.close();
            FewShotReport report = new FewShotReport(result);
            report.save(folder);
            seconds.put("all", (System.nanoTime() - start) / 1e9);
            saveTiming();
            print(result, report);
        }
        return ExitCode.OK;
    }

    /** Finds out now, not after the training, whether the folder can be written; what an earlier run left in parts of its own goes. */
    private void prepare() throws IOException {
        Files.createDirectories(folder);
        Files.delete(Files.createTempFile(folder, "demo", null));
        for (String part : new String[] {"records", "models"}) {
            if (Files.isDirectory(folder.resolve(part))) {
                try (Stream<Path> files = Files.walk(folder.resolve(part))) {
                    for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
                        Files.delete(file);
                    }
                }
            }
        }
    }

    private void saveTiming() throws IOException {
        new ObjectMapper().writerWithDefaultPrettyPrinter().writeValue(folder.resolve("timing.json").toFile(), seconds);
    }

    private void print(FewShotStudy.Result result, FewShotReport report) {
        int last = result.bayes().right().length - 1;
        int[] shots = {0, 1, 2, 4, 8, 12, last};
        out.println();
        row("demonstrations in the prompt", shots, n -> String.valueOf(n));
        for (String kind : new String[] {"plain", "momentum"}) {
            row("accuracy, " + kind, shots, n -> percent(report.accuracy(kind, n, false).mean()));
            row("  labels permuted", shots, n -> percent(report.accuracy(kind, n, true).mean()));
        }
        row("best possible (Bayes)", shots, n -> percent(result.bayes().accuracy(n, false)));
        row("  labels permuted", shots, n -> percent(result.bayes().accuracy(n, true)));
        out.println("   chance 25.0 %");
        out.println();
        for (String kind : new String[] {"plain", "momentum"}) {
            Estimate gain = report.gain(kind, FewShotStudy.MANY_SHOTS);
            out.println(String.format(Locale.ROOT, "   %-9s %d+ demonstrations add %.1f points (95 %% interval %.1f to %.1f)", kind,
                    FewShotStudy.MANY_SHOTS, 100 * gain.mean(), 100 * gain.low(), 100 * gain.high()));
        }
        out.println();
        for (ModelRun run : result.runs()) {
            out.println(String.format(Locale.ROOT, "   %-9s seed %d: in-context learning %s; held-out perplexity %.4f", run.kind(),
                    run.seed(),
                    run.onset() < 0 ? "not within these steps" : "from step " + run.onset(), run.shots().perplexity()));
            ModelComparison comparison = run.comparison();
            if (comparison == null) {
                out.println("             finetuning diverged at every learning rate");
                continue;
            }
            Estimate recovered = comparison.recovery().percent();
            out.println(String.format(Locale.ROOT, "             permuted labels: bare query %s, in context %s, finetuned %s; Rec2FTP %s",
                    percent(comparison.zeroShot().mean()).strip(), percent(comparison.inContext().mean()).strip(),
                    percent(comparison.finetuned().mean()).strip(),
                    Double.isFinite(recovered.mean()) ? percent(recovered.mean() / 100).strip() : "undefined, nothing gained",
                    percent(comparison.recovery().baseline().mean() / 100).strip()));
            out.println(String.format(Locale.ROOT, "             SimAOU %.3f (noise floor %.3f, untrained model %.3f), not normalised %.3f",
                    mean(comparison.curve("sim_aou")), mean(comparison.curve("sim_aou_floor")),
                    untrained(comparison), mean(comparison.curve("sim_aou_raw"))));
        }
        out.println();
        for (String sentence : report.verdicts()) {
            out.println("   " + sentence);
        }
        out.println();
        out.println("   Report: " + folder.resolve("report.html"));
    }

    private static double untrained(ModelComparison comparison) {
        Map<String, double[]> curves = comparison.curves().get(ModelComparison.UNTRAINED);
        return curves == null ? Double.NaN : mean(curves.get("sim_aou"));
    }

    private static double mean(double[] values) {
        double sum = 0;
        for (double value : values) {
            sum += value;
        }
        return sum / values.length;
    }

    private void row(String name, int[] shots, IntFunction<String> cell) {
        StringBuilder row = new StringBuilder(String.format("   %-30s", name));
        for (int n : shots) {
            row.append(String.format("%9s", cell.apply(n)));
        }
        out.println(row);
    }

    private static String percent(double share) {
        return String.format(Locale.ROOT, "%.1f %%", 100 * share);
    }

    /** A bar per model on a terminal, lines elsewhere. */
    private final class Display implements FewShotStudy.Progress, AutoCloseable {
        private final List<String> parts = new ArrayList<>();
        private TrainingDisplay training;
        private long since;

        @Override
        public void begins(String sentence) {
            close();
            parts.add(sentence);
            since = System.nanoTime();
            err.println("   " + sentence);
            err.flush();
        }

        @Override
        public void trainingBegins() {
            training = new TrainingDisplay(err, steps);
            training.started(0, false);
        }

        @Override
        public void stepped(TrainingListener.Step step) {
            training.stepped(step);
            if (step.step() == steps) {
                training.close();
                training = null;
            }
        }

        @Override
        public void looked(Look look) {
            if (look.step() % (4 * WATCH_EVERY) == 0) {
                String words = String.format(Locale.ROOT, "   step %4d: accuracy after %d+ demonstrations %.1f %%, labels permuted %.1f %%",
                        look.step(), FewShotStudy.MANY_SHOTS, 100 * look.accuracy(), 100 * look.remappedAccuracy());
                if (training != null) {
                    training.line(words);
                } else { // after the last step the bar is gone
                    err.println(words);
                    err.flush();
                }
            }
        }

        @Override
        public void close() {
            if (training != null) {
                training.close();
                training = null;
            }
            if (!parts.isEmpty()) {
                seconds.put(parts.remove(parts.size() - 1), (System.nanoTime() - since) / 1e9);
            }
        }
    }
}
