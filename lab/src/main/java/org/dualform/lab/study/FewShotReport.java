package org.dualform.lab.study;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.DoubleUnaryOperator;
import java.util.function.ToDoubleFunction;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.report.Chart;
import org.dualform.lab.report.Csv;
import org.dualform.lab.report.Page;
import org.dualform.lab.report.Panels;
import org.dualform.lab.report.Series;
import org.dualform.lab.report.Table;
import org.dualform.lab.report.Text;
import org.dualform.lab.report.TextFile;
import org.dualform.lab.study.FewShotStudy.Look;
import org.dualform.lab.study.FewShotStudy.LossPoint;
import org.dualform.lab.study.FewShotStudy.ModelRun;
import org.dualform.lab.study.FewShotStudy.Result;

/**
 * What a {@link FewShotStudy} found, as a page, as JSON and as CSV. No file holds a time of day or a duration: the same seed gives the same
 * files.
 *
 * <p>Threading: one thread at a time.
 */
public final class FewShotReport {
    private static final String[] KINDS = {"plain", "momentum"};
    private static final String[] CURVES = {"sim_aou_raw", "sim_aou_raw_floor", "sim_aou_raw_gaussian", "sim_aou", "sim_aou_floor",
        "sim_aou_norm_matched", "sim_aou_gaussian", "sim_aou_uniform", "sim_am_before", "sim_am", "sim_am_norm_matched", "sim_am_delta",
        "sim_am_delta_floor", "sim_am_delta_gaussian", "kendall_token", "kendall_token_random", "kendall_example", "kendall_example_random",
        "recall_token", "recall_token_random", "recall_example", "recall_example_random"};

    private static final Map<String, String> TITLES = Map.of(ModelComparison.TRAINED, "trained", ModelComparison.UNTRAINED, "untrained",
            ModelComparison.EMBEDDINGS, "only embeddings and LayerNorms trained", ModelComparison.LAYER_CAUSAL, "layer-causal",
            ModelComparison.ORDERS, "mean over orders");

    private final Result result;
    private final int shots;

    /**
     * A report to write.
     *
     * @param result what was found
     */
    public FewShotReport(Result result) {
        this.result = result;
        shots = result.bayes().right().length;
    }

    // ---- numbers ----

    /**
     * Accuracy after some demonstrations, the mean over seeds.
     *
     * @param kind {@code plain} or {@code momentum}
     * @param n demonstrations
     * @param onlyRemapped whether documents with permuted labels alone count
     * @return the share; its interval is the wider of Wilson's over the documents, the same for all seeds, and Student's over seeds
     */
    public Estimate accuracy(String kind, int n, boolean onlyRemapped) {
        List<ModelRun> runs = result.runs(kind);
        int documents = runs.get(0).shots().documents(onlyRemapped);
        int correct = 0;
        double[] perSeed = new double[runs.size()];
        for (int i = 0; i < perSeed.length; i++) {
            correct += runs.get(i).shots().correct(n, onlyRemapped);
            perSeed[i] = runs.get(i).shots().accuracy(n, n + 1, onlyRemapped);
        }
        return wider(Estimate.ofShare((int) Math.round(correct / (double) runs.size()), documents), Estimate.ofValues(perSeed));
    }

    /** The mean over seeds, with the wider interval. */
    private static Estimate wider(Estimate overDocuments, Estimate overSeeds) {
        if (overSeeds.count() < 2) {
            return overDocuments;
        }
        if (overSeeds.high() - overSeeds.low() >= overDocuments.high() - overDocuments.low()) {
            return overSeeds;
        }
        return new Estimate(overDocuments.count(), overSeeds.mean(), overDocuments.sd(), overDocuments.low(), overDocuments.high());
    }

    /**
     * What demonstrations add.
     *
     * @param kind {@code plain} or {@code momentum}
     * @param from demonstrations from which the gain counts
     * @return mean accuracy after that many demonstrations or more, less the accuracy without, paired by document; its interval is the
     *     wider of those over documents and over seeds
     */
    public Estimate gain(String kind, int from) {
        List<ModelRun> runs = result.runs(kind);
        double[] perDocument = new double[result.bayes().documents()];
        double[] perSeed = new double[runs.size()];
        for (int run = 0; run < perSeed.length; run++) {
            List<boolean[]> right = runs.get(run).shots().right();
            for (int i = 0; i < perDocument.length; i++) {
                double gain = share(right.get(i), from, shots) - (right.get(i)[0] ? 1 : 0);
                perDocument[i] += gain / perSeed.length;
                perSeed[run] += gain / perDocument.length;
            }
        }
        return wider(Estimate.ofValues(perDocument), Estimate.ofValues(perSeed));
    }

    private static double share(boolean[] right, int from, int to) {
        int count = 0;
        for (int i = from; i < to; i++) {
            count += right[i] ? 1 : 0;
        }
        return count / (double) (to - from);
    }

    /** A difference between the models, momentum less plain, and whether it is taken over seeds or, with one seed, over documents. */
    private record Difference(String name, String unit, Estimate estimate, boolean overSeeds) {
        boolean isWithinNoise() {
            return !(estimate.low() > 0 || estimate.high() < 0);
        }
    }

    private List<Difference> differences() {
        List<Difference> differences = new ArrayList<>();
        boolean many = result.options().seeds() > 1;
        if (many) {
            boolean all = result.runs().stream().allMatch(run -> run.onset() >= 0);
            if (all) {
                differences.add(new Difference("onset of in-context learning", "steps", overSeeds(run -> run.onset()), true));
            }
            for (int n : new int[] {0, 1, 2, 4, 8}) {
                differences.add(new Difference("accuracy after " + n + " demonstrations", "points",
                        overSeeds(run -> 100 * run.shots().accuracy(n, n + 1, false)), true));
            }
            differences.add(new Difference("accuracy, mean over 0 to " + (shots - 1) + " demonstrations", "points",
                    overSeeds(run -> 100 * run.shots().accuracy(0, shots, false)), true));
            differences.add(new Difference("held-out perplexity", "", overSeeds(run -> run.shots().perplexity()), true));
        } else {
            ModelRun plain = result.runs(KINDS[0]).get(0);
            ModelRun momentum = result.runs(KINDS[1]).get(0);
            for (int[] range : new int[][] {{0, 1}, {1, 5}, {FewShotStudy.MANY_SHOTS, shots}, {0, shots}}) {
                double[] paired = new double[result.bayes().documents()];
                for (int i = 0; i < paired.length; i++) {
                    paired[i] = 100 * (share(momentum.shots().right().get(i), range[0], range[1])
                            - share(plain.shots().right().get(i), range[0], range[1]));
                }
                String name = range[1] == range[0] + 1 ? "accuracy without demonstrations"
                        : "accuracy, mean over " + range[0] + " to " + (range[1] - 1) + " demonstrations";
                differences.add(new Difference(name, "points", Estimate.ofValues(paired), false));
            }
        }
        return differences;
    }

    /**
     * What can be said of momentum against plain attention.
     *
     * @return one sentence per difference, each with its interval and whether it is within noise
     */
    public List<String> verdicts() {
        List<String> verdicts = new ArrayList<>();
        for (Difference difference : differences()) {
            Estimate e = difference.estimate();
            verdicts.add(String.format(Locale.ROOT, "momentum less plain, %s: %+.3f%s (95 %% interval %.3f to %.3f over %s): %s",
                    difference.name(), e.mean(), difference.unit().isEmpty() ? "" : " " + difference.unit(), e.low(), e.high(),
                    difference.overSeeds() ? "seeds" : "documents", difference.isWithinNoise() ? "within noise"
                            : difference.overSeeds() ? "beyond noise" : "beyond noise for these two models"));
        }
        verdicts.addAll(notes());
        return verdicts;
    }

    /** What no interval can be given for. */
    private List<String> notes() {
        List<String> notes = new ArrayList<>();
        long without = result.runs().stream().filter(run -> run.onset() < 0).count();
        if (result.options().seeds() == 1) {
            notes.add("onset and perplexity: one pair of models has no interval, see both numbers above");
            notes.add("One pair of models cannot tell momentum from luck: --seeds 5 trains five.");
        } else {
            if (without > 0) {
                notes.add("onset of in-context learning: no interval, " + without + " of " + result.runs().size()
                        + " models had none within these steps");
            }
            notes.add(earlier());
        }
        return notes;
    }

    /** Which model began earlier how often, those that never did coming last; a sign test needs no more than that. */
    private String earlier() {
        List<ModelRun> plain = result.runs(KINDS[0]);
        List<ModelRun> momentum = result.runs(KINDS[1]);
        int[] earlier = new int[2];
        for (int i = 0; i < plain.size(); i++) {
            long a = plain.get(i).onset() < 0 ? Long.MAX_VALUE : plain.get(i).onset();
            long b = momentum.get(i).onset() < 0 ? Long.MAX_VALUE : momentum.get(i).onset();
            earlier[0] += a < b ? 1 : 0;
            earlier[1] += b < a ? 1 : 0;
        }
        double p = signTest(earlier[0], earlier[1]);
        return String.format(Locale.ROOT, "in-context learning came earlier with momentum in %d of %d pairs, with plain attention in %d "
                + "(two-sided sign test, p = %.3f): %s", earlier[1], plain.size(), earlier[0], p,
                p < 0.05 ? "beyond noise" : "within noise");
    }

    /** Probability of a split at least as uneven between two equally likely outcomes. */
    static double signTest(int a, int b) {
        int n = a + b;
        double term = Math.pow(0.5, n);
        double sum = 0;
        for (int i = 0; i <= Math.min(a, b); i++) {
            sum += term;
            term *= (n - i) / (i + 1.0);
        }
        return Math.min(1, 2 * sum);
    }

    private Estimate overSeeds(ToDoubleFunction<ModelRun> value) {
        List<ModelRun> plain = result.runs(KINDS[0]);
        List<ModelRun> momentum = result.runs(KINDS[1]);
        double[] paired = new double[plain.size()];
        Arrays.setAll(paired, i -> value.applyAsDouble(momentum.get(i)) - value.applyAsDouble(plain.get(i)));
        return Estimate.ofValues(paired);
    }

    private String label(String kind) {
        return kind.equals("plain") ? "plain attention" : "momentum attention, η = " + result.options().eta();
    }

    // ---- files ----

    /**
     * Writes {@code report.html}, {@code results.json} and the CSV files.
     *
     * @param folder made if it is not there; files of these names are replaced
     * @throws IOException if a file cannot be written
     */
    public void save(Path folder) throws IOException {
        lossCsv().save(folder.resolve("losses.csv"));
        looksCsv().save(folder.resolve("onset.csv"));
        shotsCsv().save(folder.resolve("shots.csv"));
        similaritiesCsv().save(folder.resolve("similarities.csv"));
        ObjectMapper mapper = new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);
        TextFile.write(folder.resolve("results.json"), mapper.writeValueAsString(fields()) + "\n");
        page().save(folder.resolve("report.html"));
    }

    private Csv lossCsv() {
        Csv csv = new Csv("attention", "seed", "step", "loss");
        for (ModelRun run : result.runs()) {
            for (LossPoint point : run.losses()) {
                csv.row(run.kind(), run.seed(), point.step(), point.loss());
            }
        }
        return csv;
    }

    private Csv looksCsv() {
        Csv csv = new Csv("attention", "seed", "step", "accuracy_" + FewShotStudy.MANY_SHOTS + "_shots_or_more", "accuracy_permuted_labels",
                "accuracy_zero_shot");
        for (ModelRun run : result.runs()) {
            for (Look look : run.looks()) {
                csv.row(run.kind(), run.seed(), look.step(), look.accuracy(), look.remappedAccuracy(), look.bareAccuracy());
            }
        }
        return csv;
    }

    private Csv shotsCsv() {
        Csv csv = new Csv("attention", "seed", "shots", "documents", "correct", "accuracy", "low", "high", "permuted_documents",
                "permuted_correct", "permuted_accuracy", "bayes_accuracy", "bayes_permuted_accuracy");
        for (ModelRun run : result.runs()) {
            for (int n = 0; n < shots; n++) {
                Estimate all = Estimate.ofShare(run.shots().correct(n, false), result.bayes().documents());
                csv.row(run.kind(), run.seed(), n, result.bayes().documents(), run.shots().correct(n, false), all.mean(), all.low(),
                        all.high(), result.bayes().remapped(), run.shots().correct(n, true), run.shots().accuracy(n, n + 1, true),
                        bayes(n, false), bayes(n, true));
            }
        }
        return csv;
    }

    private Csv similaritiesCsv() {
        Csv csv = new Csv("attention", "seed", "model", "metric", "layer", "value", "sd");
        for (ModelRun run : result.runs()) {
            if (run.comparison() == null) {
                continue;
            }
            run.comparison().curves().forEach((model, curves) -> curves.forEach((key, values) -> {
                for (int layer = 0; layer < values.length; layer++) {
                    csv.row(run.kind(), run.seed(), model, key, layer, values[layer],
                            run.comparison().spread().get(model).get(key)[layer]);
                }
            }));
        }
        return csv;
    }

    private double bayes(int n, boolean onlyRemapped) {
        return result.bayes().accuracy(n, onlyRemapped);
    }

    private Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("corpus", "label mapping: 4 clusters of 16 words, 10 % noise, permuted labels in half of the documents");
        fields.put("layers", result.config().layers());
        fields.put("width", result.config().width());
        fields.put("heads", result.config().heads());
        fields.put("context", result.config().context());
        fields.put("parameters", result.parameters());
        fields.put("steps", result.options().steps());
        fields.put("seed", result.options().seed());
        fields.put("seeds", result.options().seeds());
        fields.put("eta", result.options().eta());
        fields.put("held_out_documents", result.bayes().documents());
        fields.put("chance", 1.0 / 4);
        fields.put("bayes_accuracy", curve(false));
        fields.put("bayes_accuracy_permuted", curve(true));
        for (String kind : KINDS) {
            Map<String, Object> model = new LinkedHashMap<>();
            model.put("accuracy", estimates(kind, false));
            model.put("accuracy_permuted", estimates(kind, true));
            model.put("gain_from_demonstrations", gain(kind, FewShotStudy.MANY_SHOTS).fields());
            List<Object> runs = new ArrayList<>();
            for (ModelRun run : result.runs(kind)) {
                runs.add(fields(run));
            }
            model.put("runs", runs);
            fields.put(kind, model);
        }
        List<Object> differences = new ArrayList<>();
        for (Difference difference : differences()) {
            Map<String, Object> one = new LinkedHashMap<>();
            one.put("momentum_minus_plain", difference.name());
            one.put("unit", difference.unit());
            one.put("paired_over", difference.overSeeds() ? "seeds" : "documents");
            one.putAll(difference.estimate().fields());
            one.put("within_noise", difference.isWithinNoise());
            differences.add(one);
        }
        fields.put("differences", differences);
        return fields;
    }

    private List<Double> curve(boolean onlyRemapped) {
        List<Double> curve = new ArrayList<>();
        for (int n = 0; n < shots; n++) {
            curve.add(bayes(n, onlyRemapped));
        }
        return curve;
    }

    private List<Object> estimates(String kind, boolean onlyRemapped) {
        List<Object> estimates = new ArrayList<>();
        for (int n = 0; n < shots; n++) {
            Map<String, Object> one = new LinkedHashMap<>();
            one.put("shots", n);
            one.putAll(accuracy(kind, n, onlyRemapped).fields());
            estimates.add(one);
        }
        return estimates;
    }

    private static Map<String, Object> fields(ModelRun run) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("seed", run.seed());
        fields.put("onset_step", run.onset() < 0 ? null : run.onset());
        fields.put("final_loss", run.losses().get(run.losses().size() - 1).loss());
        fields.put("held_out_perplexity", run.shots().perplexity());
        ModelComparison comparison = run.comparison();
        if (comparison != null) {
            Map<String, Object> compared = new LinkedHashMap<>();
            compared.put("demonstration_sets", comparison.sets());
            compared.put("demonstrations", comparison.demonstrations());
            compared.put("queries_per_set", comparison.queries());
            compared.put("finetuning_learning_rates", comparison.learningRates());
            compared.put("accuracy_zs", comparison.zeroShot().fields());
            compared.put("accuracy_icl", comparison.inContext().fields());
            compared.put("accuracy_ftzs", comparison.finetuned().fields());
            Estimate recovered = comparison.recovery().percent();
            compared.put("rec2ftp", finite(recovered.mean()));
            compared.put("rec2ftp_low", finite(recovered.low()));
            compared.put("rec2ftp_high", finite(recovered.high()));
            compared.put("rec2ftp_gained", comparison.recovery().gained());
            compared.put("rec2ftp_recovered", comparison.recovery().recovered());
            compared.put("rec2ftp_baseline", finite(comparison.recovery().baseline().mean()));
            comparison.curves().forEach((model, curves) -> {
                Map<String, Object> keys = new LinkedHashMap<>();
                curves.forEach((key, values) -> keys.put(key, Arrays.stream(values).mapToObj(FewShotReport::finite).toList()));
                compared.put(model, keys);
            });
            fields.put("comparison", compared);
        }
        return fields;
    }

    private static Double finite(double value) {
        return Double.isFinite(value) ? value : null;
    }

    // ---- the page ----

    private Page page() {
        Estimate gain = gain(KINDS[0], FewShotStudy.MANY_SHOTS);
        boolean learnt = gain.low() > 0;
        Text lead = Text.of("Two small GPTs read documents in which a label's meaning can be known from the examples before. ");
        lead = learnt
                ? lead.plain("The plain one learns to: ").strong(percent(gain.mean())).plain(" more right answers after "
                        + FewShotStudy.MANY_SHOTS + " or more demonstrations than without (95 % interval " + percent(gain.low()) + " to "
                        + percent(gain.high()) + "). Below: when it learns to, what momentum changes, and how alike demonstrations and "
                        + "finetuning are.")
                : lead.strong("That the plain one learns to within these steps is not beyond noise: ").plain("after "
                        + FewShotStudy.MANY_SHOTS + " or more demonstrations it has " + percent(gain.mean())
                        + " more right answers than without (95 % interval "
                        + percent(gain.low()) + " to " + percent(gain.high()) + ").");
        Page.Builder page = Page.titled("In-context learning beside gradient descent, with plain and with momentum attention").lead(lead);
        page.fact("corpus", "label mapping, 4 labels").fact("model", result.config().layers() + " layers, " + result.config().width()
                + " wide, " + result.config().heads() + " heads").fact("parameters", String.format(Locale.ROOT, "%,d", result.parameters()))
                .fact("steps", String.valueOf(result.options().steps()))
                .fact(result.options().seeds() == 1 ? "seed" : "seeds", seedsText())
                .fact("η", String.valueOf(result.options().eta()));
        training(page);
        shots(page);
        differences(page);
        comparison(page);
        page.section("Run it again").code(command())
                .paragraph("The same seed gives the same numbers in every file, bit for bit, on the same kind of processor. "
                        + "The numbers behind "
                        + "this page are in results.json, losses.csv, onset.csv, shots.csv and similarities.csv beside it.");
        return page.build();
    }

    private String seedsText() {
        long first = result.options().seed();
        return result.options().seeds() == 1 ? String.valueOf(first) : first + " to " + (first + result.options().seeds() - 1);
    }

    private String command() {
        FewShotStudy.Options options = result.options();
        return "./dualform demo --seed " + options.seed() + " --seeds " + options.seeds() + " --steps " + options.steps() + " --eta "
                + options.eta() + (options.comparison() != null && options.comparison().layerCausal() ? " --full" : "");
    }

    private void training(Page.Builder page) {
        Chart.Builder loss = Chart.titled("Training loss").note("Every step, and the median of 25 steps.").x("training step")
                .y("loss (nats per token)");
        Chart.Builder rise = Chart.titled("When in-context learning appears")
                .note("Documents with permuted labels: what they mean can be known from the prompt only.").x("training step")
                .y("accuracy after " + FewShotStudy.MANY_SHOTS + "+ demonstrations").percent().yRange(0, 1);
        for (int k = 0; k < KINDS.length; k++) {
            for (ModelRun run : result.runs(KINDS[k])) {
                String name = result.options().seeds() == 1 ? label(run.kind()) : label(run.kind()) + ", seed " + run.seed();
                double[] steps = run.losses().stream().mapToDouble(LossPoint::step).toArray();
                double[] losses = run.losses().stream().mapToDouble(LossPoint::loss).toArray();
                if (run.seed() == result.options().seed()) {
                    loss.add(Series.line(label(run.kind()), steps, losses).median(25).colour(k));
                }
                rise.add(Series.line(name, run.looks().stream().mapToDouble(Look::step).toArray(),
                        run.looks().stream().mapToDouble(Look::remappedAccuracy).toArray()).colour(k));
            }
        }
        page.section("Training").paragraph("Each document hides one of 24 ways to name four clusters of words; half of the "
                + "documents use the "
                + "usual one. A model that only knows words and the usual names is right as often as luck has it when the "
                + "names are others. "
                + "Both models have the same initial weights and read the same documents in the same order.")
                .figure(loss.build(), Text.of("Training loss" + (result.options().seeds() == 1 ? "." : ", seed "
                        + result.options().seed() + ".")))
                .figure(rise.reference("chance 25 %", 0.25).build(), Text.of(onsetSentence()));
    }

    private String onsetSentence() {
        StringBuilder sentence = new StringBuilder("In-context learning counts as there from the step after which accuracy stays above the "
                + "middle between chance and 1: ");
        String separator = "";
        for (ModelRun run : result.runs()) {
            sentence.append(separator).append(run.kind());
            if (result.options().seeds() > 1) {
                sentence.append(" seed ").append(run.seed());
            }
            sentence.append(run.onset() < 0 ? " not within these steps" : " from step " + run.onset());
            separator = ", ";
        }
        return sentence.append('.').toString();
    }

    private void shots(Page.Builder page) {
        page.section("Accuracy over shots")
                .figure(shotsChart("All documents", false), Text.of("Held-out documents, " + result.bayes().documents()
                        + " for each model. Bands: 95 % "
                        + "intervals over documents. No predictor can do better than the Bayes line, which knows the corpus's law and "
                        + "reads the same prompt."))
                .figure(shotsChart("Documents with permuted labels", true), Text.of("The " + result.bayes().remapped()
                        + " of them whose labels are not the usual ones."));
        Table.Builder table = Table.titled("Accuracy over shots, all documents").text("");
        int[] columns = {0, 1, 2, 4, 8, 12, shots - 1};
        for (int n : columns) {
            table.percent(String.valueOf(n), 1);
        }
        for (String kind : KINDS) {
            table.row(row(label(kind), columns, n -> accuracy(kind, (int) n, false).mean()));
            table.row(row("± half of the 95 % interval", columns, n -> (accuracy(kind, (int) n, false).high()
                    - accuracy(kind, (int) n, false).low()) / 2));
        }
        page.table(table.row(row("Bayes", columns, n -> bayes((int) n, false))).build());
        Table.Builder perplexity = Table.titled("Held-out perplexity per token").text("").number("seed", 0).number("perplexity", 4);
        for (ModelRun run : result.runs()) {
            perplexity.row(label(run.kind()), run.seed(), run.shots().perplexity());
        }
        page.table(perplexity.build());
    }

    private static Object[] row(String name, int[] columns, DoubleUnaryOperator value) {
        Object[] row = new Object[columns.length + 1];
        row[0] = name;
        for (int i = 0; i < columns.length; i++) {
            row[i + 1] = value.applyAsDouble(columns[i]);
        }
        return row;
    }

    private Chart shotsChart(String title, boolean onlyRemapped) {
        double[] n = new double[shots];
        double[] bayes = new double[shots];
        for (int i = 0; i < shots; i++) {
            n[i] = i;
            bayes[i] = bayes(i, onlyRemapped);
        }
        Chart.Builder chart = Chart.titled(title).x("demonstrations in the prompt").y("accuracy").percent().yRange(0, 1);
        for (int k = 0; k < KINDS.length; k++) {
            String kind = KINDS[k];
            double[] mean = new double[shots];
            double[] low = new double[shots];
            double[] high = new double[shots];
            for (int i = 0; i < shots; i++) {
                Estimate estimate = accuracy(kind, i, onlyRemapped);
                mean[i] = estimate.mean();
                low[i] = estimate.low();
                high[i] = estimate.high();
            }
            chart.add(Series.line(label(kind), n, mean).band(low, high).colour(k));
        }
        return chart.add(Series.dashed("Bayes", n, bayes)).reference("chance 25 %", 0.25).build();
    }

    private void differences(Page.Builder page) {
        boolean many = result.options().seeds() > 1;
        page.section("What momentum changes");
        Table.Builder table = Table.titled("Momentum less plain, paired over " + (many ? "seeds" : "documents")).text("")
                .number("difference", 3).number("low", 3).number("high", 3).text("unit").text("");
        List<String> beyond = new ArrayList<>();
        for (Difference difference : differences()) {
            Estimate e = difference.estimate();
            table.row(difference.name(), e.mean(), e.low(), e.high(), difference.unit(), difference.isWithinNoise() ? "within noise" : "");
            if (!difference.isWithinNoise()) {
                beyond.add(difference.name());
            }
        }
        page.table(table.build());
        if (many && !notes().isEmpty()) {
            page.paragraph(String.join(". ", notes()) + ".");
        }
        if (many) {
            page.callout(beyond.isEmpty() ? Page.Tone.CAUTION : Page.Tone.FINDING, beyond.isEmpty()
                    ? Text.of("Within noise. ").plain("With " + result.options().seeds() + " pairs of models no difference "
                            + "is larger than its "
                            + "95 % interval.")
                    : Text.of("Beyond noise over " + result.options().seeds() + " pairs of models: ").plain(String.join("; ", beyond)
                            + ". Each interval is for one comparison; with several, one in twenty is beyond noise by chance."));
        } else {
            page.callout(Page.Tone.CAUTION, Text.of("One pair of models. ").plain("These intervals are over documents and say something "
                    + "about these two trained models only. Whether momentum helps is a question over seeds: ").code("--seeds 5")
                    .plain(" asks it."));
        }
    }

    private void comparison(Page.Builder page) {
        List<ModelRun> compared = result.runs().stream().filter(run -> run.comparison() != null).toList();
        if (compared.isEmpty()) {
            if (result.options().comparison() != null) {
                page.callout(Page.Tone.CAUTION, Text.of("Finetuning diverged at every learning rate: nothing to compare with."));
            }
            return;
        }
        ModelComparison first = compared.get(0).comparison();
        page.section("Demonstrations against finetuning")
                .paragraph("The same " + first.demonstrations() + " demonstrations, shown in the prompt (in context) or "
                        + "learnt by one pass of "
                        + "gradient descent on the key and value projections, at a learning rate chosen on other documents (finetuned); "
                        + first.sets() + " sets of demonstrations with permuted labels, " + first.queries() + " queries after each.");
        Table.Builder table = Table.titled("Accuracy, and Rec2FTP: of what finetuning put right, how much demonstrations put right too")
                .text("")
                .number("seed", 0).percent("bare query", 1).percent("in context", 1).percent("finetuned", 1).number("Rec2FTP, %", 1)
                .text("of").number("over all errors, %", 1).number("learning rate", 4);
        for (ModelRun run : compared) {
            ModelComparison c = run.comparison();
            table.row(label(run.kind()), run.seed(), c.zeroShot().mean(), c.inContext().mean(), c.finetuned().mean(),
                    finite(c.recovery().percent().mean()), String.valueOf(c.recovery().gained()), finite(c.recovery().baseline().mean()),
                    c.learningRate());
        }
        page.table(table.build()).paragraph("Rec2FTP means something only beside the last but one column: the share of all "
                + "errors of the bare "
                + "model that demonstrations put right.");
        List<ModelRun> pair = compared.stream().filter(run -> run.seed() == result.options().seed()).toList();
        page.figure(new Panels("How alike are the two updates?", "Per layer; bars are the spread over sets of "
                + "demonstrations; grey marks are "
                + "what noise alone gives.", 2, List.of(
                        panel("SimAOU without normalisation", pair, "sim_aou_raw", "sim_aou_raw_floor"),
                        panel("SimAOU, as published", pair, "sim_aou", "sim_aou_floor"),
                        panel("SimAM-delta", pair, "sim_am_delta", "sim_am_delta_floor"),
                        panel("Kendall, tokens", pair, "kendall_token", "kendall_token_random"))),
                Text.of("Similarity of what demonstrations and finetuning do to attention outputs (SimAOU), to attention "
                        + "logits (SimAM) and to "
                        + "the ranking of the demonstrations' tokens (Kendall)."));
        page.callout(Page.Tone.CAUTION, Text.of("Read similarities beside their floors. ").plain("The published SimAOU compares normalised "
                + "outputs and is above zero for pure noise; an untrained network shows part of it too. The table below has all of them."));
        for (ModelRun run : pair) {
            page.folded("All similarities per layer, " + label(run.kind()), similarityTable(run));
        }
    }

    private Chart panel(String title, List<ModelRun> runs, String key, String floor) {
        int layers = result.config().layers();
        String[] names = new String[layers];
        double[] x = new double[layers];
        for (int layer = 0; layer < layers; layer++) {
            names[layer] = String.valueOf(layer);
            x[layer] = layer;
        }
        Chart.Builder chart = Chart.titled(title).xNames("layer", names).y("similarity");
        for (ModelRun run : runs) {
            double[] values = run.comparison().curve(key);
            double[] spread = run.comparison().spread().get(ModelComparison.TRAINED).get(key);
            double[] low = new double[layers];
            double[] high = new double[layers];
            for (int layer = 0; layer < layers; layer++) {
                double sd = Double.isFinite(spread[layer]) ? spread[layer] : 0;
                low[layer] = values[layer] - sd;
                high[layer] = values[layer] + sd;
            }
            Series series = Series.points(label(run.kind()), x, values).errorBars(low, high).colour(run.kind().equals("plain") ? 0 : 1);
            chart.add(floor == null ? series : series.floor("noise floor", run.comparison().curve(floor)));
        }
        return chart.build();
    }

    private static Table similarityTable(ModelRun run) {
        Table.Builder table = Table.titled("Mean over " + run.comparison().sets() + " sets of demonstrations").text("metric")
                .number("layer", 0);
        List<String> models = List.copyOf(run.comparison().curves().keySet());
        for (String model : models) {
            table.number(TITLES.getOrDefault(model, model), 4);
        }
        table.number("sd over orders", 4);
        Map<String, double[]> overOrders = run.comparison().spread().getOrDefault(ModelComparison.ORDERS, Map.of());
        for (String key : CURVES) {
            int layers = run.comparison().curve(key).length;
            for (int layer = 0; layer < layers; layer++) {
                Object[] row = new Object[models.size() + 3];
                row[0] = key;
                row[1] = layer;
                for (int m = 0; m < models.size(); m++) {
                    double[] values = run.comparison().curves().get(models.get(m)).get(key);
                    row[m + 2] = values == null || !Double.isFinite(values[layer]) ? null : values[layer];
                }
                row[models.size() + 2] = overOrders.containsKey(key) ? finite(overOrders.get(key)[layer]) : null;
                table.row(row);
            }
        }
        return table.build();
    }

    private static String percent(double share) {
        return String.format(Locale.ROOT, "%.1f points", 100 * share);
    }
}
