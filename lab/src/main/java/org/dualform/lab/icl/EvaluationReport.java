package org.dualform.lab.icl;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.stream.IntStream;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.report.Chart;
import org.dualform.lab.report.Page;
import org.dualform.lab.report.Panels;
import org.dualform.lab.report.Series;
import org.dualform.lab.report.Table;
import org.dualform.lab.report.Text;

/**
 * An evaluation for people: tables for the terminal and the sections of a page, with plain words where a difference is within noise.
 *
 * <p>Threading: immutable.
 *
 * @param curve accuracy over shots
 * @param study the comparison with finetuning; null if there is none
 */
public record EvaluationReport(ShotCurve curve, FinetuningStudy study) {
    /** A metric, and what it would be without any relation. */
    private record Row(String key, String name, String floor, String floorName) {}

    private static final List<Row> ROWS = List.of(
            new Row("rec2ftp", "Rec2FTP, %", "rec2ftp_baseline", "ICL's rate over all ZSL errors"),
            new Row("sim_aou", "SimAOU", "sim_aou_floor", "noise floor"),
            new Row("sim_aou", "SimAOU", "sim_aou_norm_matched", "norm-matched random update"),
            new Row("sim_aou_raw", "SimAOU raw", "sim_aou_raw_floor", "share of the ZSL direction"),
            new Row("sim_am", "SimAM after", "sim_am_before", "before"),
            new Row("sim_am", "SimAM after", "sim_am_norm_matched", "norm-matched random update"),
            new Row("sim_am_delta", "SimAM-delta", "sim_am_delta_floor", "share of the ZSL direction"),
            new Row("kendall_token", "Kendall tokens", "kendall_token_random", "random order"),
            new Row("kendall_example", "Kendall demonstrations", "kendall_example_random", "random order"),
            new Row("overlap_icl_ft", "top-10 overlap", "overlap_icl_zsl", "ICL against ZSL"),
            new Row("ocs_icl_ft", "overlap-cosine", "ocs_icl_zsl", "ICL against ZSL"));

    /**
     * Accuracy by number of demonstrations, with finetuning, chance and majority as its last rows.
     *
     * @return for terminal and page
     */
    public Table accuracies() {
        Table.Builder table = Table.titled("Accuracy with 95 % intervals").text("demonstrations").text("used").percent("accuracy", 1)
                .percent("from", 1).percent("to", 1).percent("sd over seeds", 1);
        for (int shots : curve.shots()) {
            Estimate accuracy = curve.accuracy(shots);
            table.row(shots == 0 ? "0 (ZSL)" : shots + " (ICL)", curve.effective(shots), accuracy.mean(), accuracy.low(), accuracy.high(),
                    shots == 0 ? Double.NaN : accuracy.sd());
        }
        if (study != null) {
            Estimate accuracy = study.finetunedAccuracy();
            table.row(study.shots() + " (FT)", used(), accuracy.mean(), accuracy.low(), accuracy.high(), accuracy.sd());
        }
        table.row("always the most frequent label", "", curve.majority().mean(), curve.majority().low(), curve.majority().high(),
                Double.NaN);
        table.row("chance", "", curve.chance(), Double.NaN, Double.NaN, Double.NaN);
        return table.build();
    }

    private String used() {
        int[] used = study.seeds().values().stream().mapToInt(EpisodeComparison::demonstrations).sorted().toArray();
        int most = used[used.length - 1];
        return used[0] == most ? String.valueOf(most) : used[0] + "-" + most;
    }

    /**
     * Every metric beside its floor and the other baselines; only where there is a study.
     *
     * @return for terminal and page
     */
    public Table similarities() {
        Table.Builder table = Table.titled("Likeness of ICL and FT, mean over layers and seeds").text("metric").number("value", 3)
                .number("+/-", 3).number("floor", 3).text("which floor").number("layer-causal", 3).number(otherLoss(), 3)
                .number("untrained", 3).number("only embeddings trained", 3).number("sd over orders", 3);
        for (Row row : ROWS) {
            Estimate value = study.overSeeds(row.key);
            table.row(row.name, value.mean(), (value.high() - value.low()) / 2, study.overSeeds(row.floor).mean(), row.floorName,
                    study.ofBaseline("layer_causal", row.key), study.ofBaseline(otherLoss().replace(' ', '_'), row.key),
                    study.ofBaseline("untrained", row.key), study.ofBaseline("untrained_embeddings", row.key),
                    study.overOrders(row.key).sd());
        }
        return table.build();
    }

    private String otherLoss() {
        return study.baselines().containsKey("all_tokens") || study.diverged().containsKey("all_tokens") ? "all tokens" : "label only";
    }

    /**
     * What came out, in a sentence or two.
     *
     * @return plain words that say when there is no difference to speak of
     */
    public String summary() {
        List<Integer> shots = curve.shots();
        int most = shots.get(shots.size() - 1);
        Estimate with = curve.accuracy(most);
        StringBuilder words = new StringBuilder(String.format(Locale.ROOT, "%s with %d demonstrations: %s right (%s to %s).", curve.task(),
                most, percent(with.mean()), percent(with.low()), percent(with.high())));
        if (shots.contains(0) && most > 0) {
            Estimate without = curve.accuracy(0);
            boolean overlap = with.low() <= without.high() && without.low() <= with.high();
            words.append(" Without any: ").append(percent(without.mean())).append(overlap
                    ? "; the intervals overlap, so no effect of the demonstrations is shown."
                    : with.mean() > without.mean() ? "; the demonstrations help." : "; the demonstrations hurt.");
        }
        boolean atChance = with.low() <= curve.chance() && curve.chance() <= with.high();
        boolean atMajority = with.low() <= curve.majority().high() && curve.majority().low() <= with.high();
        if (atChance || atMajority) {
            words.append(" This is within noise of ").append(atChance ? "chance (" + percent(curve.chance()) + ")" : "")
                    .append(atChance && atMajority ? " and of " : "")
                    .append(atMajority ? "always giving the most frequent label (" + percent(curve.majority().mean()) + ")" : "")
                    .append('.');
        }
        return words.toString();
    }

    private static String percent(double share) {
        return new BigDecimal(100 * share).setScale(1, RoundingMode.HALF_EVEN) + " %"; // as in tables
    }

    /**
     * Adds its sections to a page.
     *
     * @param page to add to
     */
    public void addTo(Page.Builder page) {
        page.section("Accuracy over demonstrations");
        page.figure(accuracyChart(), Text.of("The interval is the wider of that over seeds and that over queries. ").plain("Seeds draw"
                + " different demonstrations; all seeds have the same queries."));
        page.table(accuracies());
        if (study == null) {
            return;
        }
        page.section("In-context learning and finetuning");
        page.paragraph("ICL puts the demonstrations before the query. FT changes the key and value projections by one step of gradient"
                + " descent for each of the same demonstrations and asks the bare query. Each similarity stands beside what it would be"
                + " without any relation of the two; only what is clearly above its floor, and above an untrained model, says something.");
        page.figure(layers(), Text.of("Mean over seeds for FT; the baselines are measured on the first seed."));
        page.table(similarities());
        study.diverged().forEach((name, sentence) -> page.callout(Page.Tone.CAUTION, Text.of(name + ": " + sentence + ".")));
        page.section("What not to conclude");
        page.points(List.of(
                Text.of("A SimAOU above zero is no sign of gradient descent: scaling to length 1 alone gives the noise floor."),
                Text.of("SimAM is high before any finetuning, because the logits of one query resemble each other in any setting."),
                Text.of("A model near chance shows nothing about in-context learning, whatever its similarities."),
                Text.of("With the loss over all tokens finetuning learns mostly the template and the texts, not the labels."),
                Text.of("One draw and one order of demonstrations is one sample: see the spread over seeds and orders.")));
    }

    private Chart accuracyChart() {
        double[] shots = curve.shots().stream().mapToDouble(Integer::doubleValue).toArray();
        List<Estimate> estimates = curve.shots().stream().map(curve::accuracy).toList();
        Chart.Builder chart = Chart.titled("Accuracy over demonstrations: " + curve.task()).note(estimates.get(0).count() + " queries")
                .xPlaces("demonstrations asked for", shots).y("accuracy").percent()
                .add(Series.line("ICL", shots, estimates.stream().mapToDouble(Estimate::mean).toArray())
                        .band(estimates.stream().mapToDouble(Estimate::low).toArray(),
                                estimates.stream().mapToDouble(Estimate::high).toArray()));
        if (study != null && Arrays.stream(shots).anyMatch(place -> place == study.shots())) {
            Estimate accuracy = study.finetunedAccuracy();
            chart.add(Series.points("FT", new double[] {study.shots()}, new double[] {accuracy.mean()})
                    .errorBars(new double[] {accuracy.low()}, new double[] {accuracy.high()}));
        }
        return chart.reference("chance", curve.chance()).reference("most frequent label", curve.majority().mean()).build();
    }

    private Panels layers() {
        List<Chart> charts = new ArrayList<>();
        for (String key : List.of("sim_aou", "sim_aou_raw", "sim_am_delta", "kendall_token")) {
            Row row = ROWS.stream().filter(one -> one.key.equals(key)).findFirst().orElseThrow();
            double[] places = IntStream.range(0, layerCount()).asDoubleStream().toArray();
            Chart.Builder chart = Chart.titled(row.name).xPlaces("layer", places).y("similarity")
                    .add(Series.line("FT", places, meanOverSeeds(key)).floor("floor", meanOverSeeds(row.floor)));
            for (String[] baseline : new String[][] {{"layer_causal", "layer-causal FT"}, {"untrained", "untrained model"}}) {
                if (study.baselines().containsKey(baseline[0])) {
                    chart.add(Series.line(baseline[1], places, study.baselines().get(baseline[0]).similarities().layers(key)));
                }
            }
            charts.add(chart.build());
        }
        return new Panels("Similarity of ICL and FT by layer", "", 2, charts);
    }

    private int layerCount() {
        return study.seeds().values().iterator().next().similarities().layers("sim_aou").length;
    }

    private double[] meanOverSeeds(String key) {
        return IntStream.range(0, layerCount()).mapToDouble(layer -> study.seeds().values().stream()
                .mapToDouble(one -> one.similarities().layers(key)[layer]).filter(value -> !Double.isNaN(value)).average()
                .orElse(Double.NaN)).toArray();
    }
}
