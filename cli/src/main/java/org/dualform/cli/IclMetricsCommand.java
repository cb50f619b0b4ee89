package org.dualform.cli;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.metrics.RecordFiles;
import org.dualform.lab.metrics.Recovery;
import org.dualform.lab.metrics.Similarities;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** The four published similarity metrics from records, each beside its floor or its baseline. */
@Command(
        name = "metrics",
        description = "Compare in-context learning with finetuning from recorded activations.",
        mixinStandardHelpOptions = true)
final class IclMetricsCommand implements Callable<Integer> {
    /** One printed block: a heading over the columns, then the keys of the columns and their titles. */
    private record Block(String heading, Map<String, String> columns) {}

    @Option(names = "--records", required = true, paramLabel = "DIR",
            description = "Folder with zs, icl, ftzs and ft, each holding a record_info.jsonl.")
    private Path records;

    @Option(names = "--json", description = "Print one JSON object, numbers in full.")
    private boolean json;

    @Option(names = "--seed", defaultValue = "0", description = "Seed of the random baselines (${DEFAULT-VALUE}).")
    private long seed;

    @Spec
    private CommandSpec spec;

    @Override
    public Integer call() throws IOException {
        Similarities similarities = RecordFiles.compare(records, seed);
        PrintWriter out = spec.commandLine().getOut();
        if (similarities.goldMismatches() > 0) {
            spec.commandLine().getErr().println("dualform: warning: " + similarities.goldMismatches()
                    + " examples have different gold labels in zs, icl and ftzs, which may not belong together");
        }
        if (json) {
            Map<String, Object> fields = similarities.fields();
            fields.put("seed", seed);
            out.println(Json.write(fields));
        } else {
            print(out, similarities);
        }
        return ExitCode.OK;
    }

    private static void print(PrintWriter out, Similarities found) {
        out.println(found.examples() + " examples, " + found.layers("sim_aou").length + " layers, " + found.heads() + " heads; "
                + found.demonstrations() + " demonstrations of " + found.tokens() + " tokens. Intervals are 95 %.");
        out.println();
        out.println("accuracy     zero-shot " + percent(found.zeroShot().times(100)) + ", in-context "
                + percent(found.inContext().times(100)) + ", finetuned " + percent(found.finetuned().times(100)));
        Recovery recovery = found.recovery();
        out.println("Rec2FTP      " + (recovery.gained() == 0
                ? "undefined: finetuning gained no example"
                : percent(recovery.percent()) + ", " + recovery.recovered() + " of " + recovery.gained()
                        + " gained by finetuning; of all zero-shot errors in-context learning repairs " + percent(recovery.baseline())));
        table(out, found, new Block("SimAOU: do both move the attention output the same way?", columns(
                "sim_aou", "SimAOU", "sim_aou_floor", "floor", "sim_aou_norm_matched", "norm-matched", "sim_aou_gaussian", "gaussian",
                "sim_aou_uniform", "uniform", "sim_aou_raw", "raw",
                "sim_aou_raw_floor", "raw floor", "sim_aou_raw_gaussian", "raw gaussian")));
        table(out, found, new Block("SimAM: are the attention logits over the query alike?", columns(
                "sim_am_before", "before", "sim_am", "after", "sim_am_norm_matched", "norm-matched", "sim_am_delta", "delta",
                "sim_am_delta_floor", "delta floor", "sim_am_delta_gaussian", "delta gaussian")));
        table(out, found, new Block("Order of attention to the demonstrations, first " + found.ranked() + " examples", columns(
                "kendall_token", "tau tokens", "kendall_token_random", "random", "kendall_example", "tau demos", "kendall_example_random",
                "random", "recall_token", "top tokens", "recall_token_random", "random", "recall_example",
                "top demos", "recall_example_random", "random")));
        found.undefined().forEach((key, count) -> {
            if (count > 0) {
                out.println(key + ": left out " + count + " of " + found.ranked() * found.layers(key).length
                        + " pairs of example and layer, where one vector has all entries equal");
            }
        });
        out.println();
        out.println("A similarity near its floor needs no relation of in-context learning to finetuning: docs/metrics.md says why.");
    }

    private static void table(PrintWriter out, Similarities found, Block block) {
        out.println();
        out.println(block.heading());
        out.println("  layer" + block.columns().values().stream().map(title -> "  " + pad(title)).collect(Collectors.joining()));
        int layers = found.layers("sim_aou").length;
        IntStream.range(0, layers).forEach(l -> out.println(row(Integer.toString(l), block,
                block.columns().keySet().stream().mapToDouble(key -> found.layers(key)[l]).toArray())));
        out.println(row("mean", block, block.columns().keySet().stream().mapToDouble(found::mean).toArray()));
        out.println(row("+/-", block, block.columns().keySet().stream()
                .mapToDouble(key -> (found.overall().get(key).high() - found.overall().get(key).low()) / 2)
                .toArray()));
    }

    private static String row(String name, Block block, double[] values) {
        String[] titles = block.columns().values().toArray(String[]::new);
        StringBuilder out = new StringBuilder(String.format(Locale.ROOT, "%7s", name));
        for (int i = 0; i < values.length; i++) {
            String value = Double.isFinite(values[i]) ? String.format(Locale.ROOT, "%.4f", values[i]) : "-";
            out.append("  ").append(" ".repeat(Math.max(0, pad(titles[i]).length() - value.length()))).append(value);
        }
        return out.toString();
    }

    private static String pad(String title) {
        return " ".repeat(Math.max(0, 7 - title.length())) + title;
    }

    private static String percent(Estimate share) {
        return Double.isNaN(share.mean()) ? "undefined"
                : String.format(Locale.ROOT, "%.1f %% (%.1f to %.1f)", share.mean(), share.low(), share.high());
    }

    /** Keys and titles in turn, order kept. */
    private static Map<String, String> columns(String... words) {
        return IntStream.range(0, words.length / 2).boxed().collect(Collectors.toMap(
                i -> words[2 * i], i -> words[2 * i + 1], (a, b) -> a, LinkedHashMap::new));
    }
}
