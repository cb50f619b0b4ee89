package org.dualform.lab.metrics;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.IntFunction;
import org.dualform.InvalidArgumentException;

/**
 * Compares in-context learning with finetuning, one example at a time: first all examples, then all demonstrations, then the result.
 *
 * <p>The semantics are those of the code published with Dai et al. 2022 (arXiv:2212.10559), LMOps understand_icl: means over heads,
 * then over examples; Kendall over the first 100 examples, against queries recorded during finetuning, with beginning and separators left
 * out.
 * Deliberately different: token-level Kendall ranks logits instead of their softmax, which can underflow into ties, and a pair for which
 * Kendall is undefined is left out and counted instead of making the whole layer undefined.
 *
 * <p>Threading: one thread at a time.
 */
public final class Comparison {
    /** Examples over which Kendall and recall are taken. */
    public static final int RANKED = 100;

    private static final int TOP_TOKENS = 100;
    private static final int TOP_DEMONSTRATIONS = 5;
    /** From {@link Similarity}, over attention outputs and logits; then from {@link Kendall} and {@link AttentionMass}. */
    private static final List<String> VECTOR_KEYS = List.of(
            "sim_aou", "sim_aou_floor", "sim_aou_norm_matched", "sim_aou_gaussian", "sim_aou_uniform", "sim_aou_raw", "sim_aou_raw_floor",
            "sim_aou_raw_gaussian",
            "sim_am_before", "sim_am", "sim_am_norm_matched", "sim_am_delta", "sim_am_delta_floor",
            "sim_am_delta_gaussian");
    private static final List<String> RANK_KEYS = List.of(
            "kendall_token", "kendall_token_random", "kendall_example", "kendall_example_random",
            "recall_token", "recall_token_random", "recall_example", "recall_example_random");

    private final Random random;
    private final Map<String, List<double[]>> values = new LinkedHashMap<>(); // per key, per example, per layer
    private final List<double[][]> contextMaps = new ArrayList<>();
    private final List<double[][]> testQueries = new ArrayList<>();
    /** Per demonstration [example][layer][token]. */
    private final List<double[][][]> finetuningMaps = new ArrayList<>();
    private ExampleRecord first;
    private int contextTokens;
    private int examples;
    private int goldMismatches;
    private int zeroShotRight;
    private int inContextRight;
    private int finetunedRight;
    private Recovery recovery = Recovery.NONE;

    /**
     * Nothing compared yet.
     *
     * @param seed of the random baselines
     */
    public Comparison(long seed) {
        random = new Random(seed);
        VECTOR_KEYS.forEach(key -> values.put(key, new ArrayList<>()));
        RANK_KEYS.forEach(key -> values.put(key, new ArrayList<>()));
    }

    /**
     * Compares what is in memory.
     *
     * @param zeroShot one per example: the bare query
     * @param inContext the same examples after the demonstrations
     * @param finetuned the same bare queries, asked of the finetuned model
     * @param demonstrations in training order
     * @param seed of the random baselines
     * @return the similarities
     * @throws InvalidArgumentException when the lists or their records do not fit each other
     */
    public static Similarities of(
            List<ExampleRecord> zeroShot, List<ExampleRecord> inContext, List<ExampleRecord> finetuned,
            List<DemonstrationRecord> demonstrations, long seed) {
        if (inContext.size() != zeroShot.size() || finetuned.size() != zeroShot.size()) {
            throw new InvalidArgumentException(
                    "inContext and finetuned: " + inContext.size() + " and " + finetuned.size() + " examples, expected " + zeroShot.size());
        }
        Comparison comparison = new Comparison(seed);
        for (int i = 0; i < zeroShot.size(); i++) {
            comparison.add(zeroShot.get(i), inContext.get(i), finetuned.get(i));
        }
        demonstrations.forEach(comparison::add);
        return comparison.result();
    }

    /**
     * One example in the three settings.
     *
     * @param zeroShot the bare query
     * @param inContext the same query after the demonstrations
     * @param finetuned the bare query, asked of the finetuned model
     * @throws InvalidArgumentException when the records do not fit each other or earlier ones, or demonstrations were added already
     */
    public void add(ExampleRecord zeroShot, ExampleRecord inContext, ExampleRecord finetuned) {
        if (!finetuningMaps.isEmpty()) {
            throw new InvalidArgumentException("examples: one after the demonstrations, expected all before them");
        }
        if (first == null) {
            first = zeroShot;
            contextTokens = inContext.attnMapContext().length == 0 ? 0 : inContext.attnMapContext()[0].length;
        }
        demand("zeroShot", zeroShot.misfit(first, false, "the first example"));
        demand("inContext", inContext.misfit(zeroShot, true, "zeroShot"));
        demand("finetuned", finetuned.misfit(zeroShot, true, "zeroShot"));
        demand("inContext", contextMisfit(inContext, "the first example"));
        demand("finetuned", finetuned.attnQ().length == 0 ? "attn_q is missing" : null);
        int queryWidth = testQueries.isEmpty() ? finetuned.attnQ()[0].length : testQueries.get(0)[0].length;
        demand("finetuned", finetuned.attnQ()[0].length == queryWidth ? null : "attn_q[0] has " + finetuned.attnQ()[0].length
                + " numbers, expected " + queryWidth + " as in the first example");

        if (examples < RANKED) {
            contextMaps.add(inContext.attnMapContext());
            testQueries.add(finetuned.attnQ());
        }
        examples++;
        goldMismatches += zeroShot.gold().equals(inContext.gold()) && zeroShot.gold().equals(finetuned.gold()) ? 0 : 1;
        zeroShotRight += zeroShot.right() ? 1 : 0;
        inContextRight += inContext.right() ? 1 : 0;
        finetunedRight += finetuned.right() ? 1 : 0;
        recovery = recovery.plus(zeroShot.right(), inContext.right(), finetuned.right());
        compareVectors(zeroShot, inContext, finetuned);
    }

    /** Why the context of an example cannot stand beside the first one's, or null. */
    String contextMisfit(ExampleRecord inContext, String of) {
        if (inContext.attnMapContext().length == 0) {
            return "attn_map_ctx is missing";
        }
        int length = inContext.attnMapContext()[0].length;
        return first == null || length == contextTokens ? null : "attn_map_ctx[0] has " + length + " context tokens, expected "
                + contextTokens + " as in " + of;
    }

    private void compareVectors(ExampleRecord zeroShot, ExampleRecord inContext, ExampleRecord finetuned) {
        Map<String, double[]> rows = rows(VECTOR_KEYS);
        for (int l = 0; l < first.layers(); l++) {
            double[] zs = zeroShot.attnOut()[l];
            double[] icl = inContext.attnOut()[l];
            double[] ft = finetuned.attnOut()[l];
            double[] noise = gaussian(zs.length);
            double[] unitUpdate = Similarity.minus(Similarity.unit(icl), Similarity.unit(zs));
            rows.get("sim_aou")[l] = Similarity.attentionOutputUpdate(zs, icl, ft);
            rows.get("sim_aou_floor")[l] = Similarity.noiseFloor(zs, icl, ft);
            rows.get("sim_aou_norm_matched")[l] = Similarity.attentionOutputUpdate(zs, icl, matched(zs, ft, noise));
            rows.get("sim_aou_gaussian")[l] = Similarity.cosine(unitUpdate, noise);
            rows.get("sim_aou_uniform")[l] = Similarity.cosine(unitUpdate, uniform(zs.length));
            rows.get("sim_aou_raw")[l] = Similarity.rawAttentionOutputUpdate(zs, icl, ft);
            rows.get("sim_aou_raw_floor")[l] = Similarity.rawFloor(zs, icl, ft);
            rows.get("sim_aou_raw_gaussian")[l] = Similarity.cosine(Similarity.minus(icl, zs), noise);
            compareMaps(rows, l, zeroShot.attnMap()[l], inContext.attnMap()[l], finetuned.attnMap()[l]);
        }
        rows.forEach((key, row) -> values.get(key).add(row));
    }

    /** The mean over heads. */
    private void compareMaps(Map<String, double[]> rows, int l, double[][] zeroShot, double[][] inContext, double[][] finetuned) {
        int heads = zeroShot.length;
        double before = 0;
        double after = 0;
        double afterNoise = 0;
        double delta = 0;
        double deltaFloor = 0;
        double deltaNoise = 0;
        for (int h = 0; h < heads; h++) {
            double[] zs = zeroShot[h];
            double[] icl = inContext[h];
            double[] ft = finetuned[h];
            double[] noise = gaussian(zs.length);
            before += Similarity.cosine(icl, zs);
            after += Similarity.cosine(icl, ft);
            afterNoise += Similarity.cosine(icl, matched(zs, ft, noise));
            delta += Similarity.rawAttentionOutputUpdate(zs, icl, ft);
            deltaFloor += Similarity.rawFloor(zs, icl, ft);
            deltaNoise += Similarity.cosine(Similarity.minus(icl, zs), noise);
        }
        rows.get("sim_am_before")[l] = before / heads;
        rows.get("sim_am")[l] = after / heads;
        rows.get("sim_am_norm_matched")[l] = afterNoise / heads;
        rows.get("sim_am_delta")[l] = delta / heads;
        rows.get("sim_am_delta_floor")[l] = deltaFloor / heads;
        rows.get("sim_am_delta_gaussian")[l] = deltaNoise / heads;
    }

    /**
     * The next finetuning step.
     *
     * @param demonstration queries at the weights before its update
     * @throws InvalidArgumentException when it does not fit the examples, or there are none yet
     */
    public void add(DemonstrationRecord demonstration) {
        if (first == null) {
            throw new InvalidArgumentException("examples: none, expected all before the demonstrations");
        }
        demand("demonstration", demonstration.misfit(first.layers(), testQueries.get(0)[0].length, "the examples"));
        double[][][] maps = new double[testQueries.size()][first.layers()][demonstration.tokens()];
        for (int e = 0; e < maps.length; e++) {
            for (int l = 0; l < maps[e].length; l++) {
                for (int t = 0; t < maps[e][l].length; t++) {
                    maps[e][l][t] = Similarity.dot(demonstration.attnQ()[l][t + 1], testQueries.get(e)[l]); // row 0 is the beginning
                }
            }
        }
        finetuningMaps.add(maps);
    }

    int layers() {
        return first.layers();
    }

    /** Width of the finetuned model's queries, once there is an example. */
    int queryWidth() {
        return testQueries.get(0)[0].length;
    }

    /** Why the demonstrations do not make up the context, or null. */
    String lengthsMisfit() {
        int expected = 1 + Arrays.stream(lengths()).map(length -> length + 1).sum();
        return contextTokens == expected ? null : "attn_map_ctx[0] has " + contextTokens + " context tokens, expected " + expected
                + ": the beginning and the " + finetuningMaps.size() + " demonstrations of attn_q, each with its separator";
    }

    /**
     * The comparison of everything added.
     *
     * @return the similarities
     * @throws InvalidArgumentException when there are no examples or no demonstrations, or the demonstrations do not make up the context
     */
    public Similarities result() {
        if (finetuningMaps.isEmpty()) {
            throw new InvalidArgumentException("demonstrations: none, expected examples and then demonstrations");
        }
        demand("inContext", lengthsMisfit());
        RANK_KEYS.forEach(key -> values.get(key).clear());
        int[] lengths = lengths();
        for (int e = 0; e < contextMaps.size(); e++) {
            compareRanks(e, lengths);
        }
        Map<String, double[]> layers = new LinkedHashMap<>();
        Map<String, Estimate> overall = new LinkedHashMap<>();
        Map<String, Integer> undefined = new LinkedHashMap<>();
        values.forEach((key, rows) -> {
            layers.put(key, means(first.layers(), l -> column(rows, l)));
            overall.put(key, Estimate.ofValues(means(rows.size(), rows::get)));
            if (key.equals("kendall_token") || key.equals("kendall_example")) {
                undefined.put(key, (int) rows.stream().flatMapToDouble(Arrays::stream).filter(Double::isNaN).count());
            }
        });
        return new Similarities(
                examples, lengths.length, Arrays.stream(lengths).sum(), first.heads(), contextMaps.size(), goldMismatches,
                Estimate.ofShare(zeroShotRight, examples), Estimate.ofShare(inContextRight, examples),
                Estimate.ofShare(finetunedRight, examples),
                recovery, layers, overall, undefined);
    }

    private void compareRanks(int example, int[] lengths) {
        Map<String, double[]> rows = rows(RANK_KEYS);
        for (int l = 0; l < first.layers(); l++) {
            double[] context = demonstrationTokens(contextMaps.get(example)[l], lengths);
            double[] trained = finetuningMap(example, l, context.length);
            double[] contextMass = AttentionMass.perDemonstration(context, lengths);
            double[] trainedMass = AttentionMass.perDemonstration(trained, lengths);
            int tokens = Math.min(TOP_TOKENS, context.length);
            int demonstrations = Math.min(TOP_DEMONSTRATIONS, lengths.length);
            rows.get("kendall_token")[l] = Kendall.tauB(context, trained);
            rows.get("kendall_token_random")[l] = Kendall.tauB(context, uniform(context.length));
            rows.get("kendall_example")[l] = Kendall.tauB(contextMass, trainedMass);
            rows.get("kendall_example_random")[l] = Kendall.tauB(contextMass, uniform(lengths.length));
            rows.get("recall_token")[l] = AttentionMass.topRecall(trained, context, tokens);
            rows.get("recall_token_random")[l] = (double) tokens / context.length;
            rows.get("recall_example")[l] = AttentionMass.topRecall(trainedMass, contextMass, demonstrations);
            rows.get("recall_example_random")[l] = (double) demonstrations / lengths.length;
        }
        rows.forEach((key, row) -> values.get(key).add(row));
    }

    private int[] lengths() {
        return finetuningMaps.stream().mapToInt(maps -> maps[0][0].length).toArray();
    }

    /** Leaves out the beginning, and the separator after each demonstration. */
    private static double[] demonstrationTokens(double[] context, int[] lengths) {
        double[] out = new double[Arrays.stream(lengths).sum()];
        int from = 1;
        int to = 0;
        for (int length : lengths) {
            System.arraycopy(context, from, out, to, length);
            from += length + 1;
            to += length;
        }
        return out;
    }

    private double[] finetuningMap(int example, int layer, int tokens) {
        double[] out = new double[tokens];
        int to = 0;
        for (double[][][] maps : finetuningMaps) {
            double[] part = maps[example][layer];
            System.arraycopy(part, 0, out, to, part.length);
            to += part.length;
        }
        return out;
    }

    /** The finetuned vector with its update replaced by noise of the same length. */
    private static double[] matched(double[] zeroShot, double[] finetuned, double[] noise) {
        double scale = Similarity.norm(Similarity.minus(finetuned, zeroShot)) / Similarity.norm(noise);
        double[] out = new double[noise.length];
        for (int i = 0; i < out.length; i++) {
            out[i] = zeroShot[i] + scale * noise[i];
        }
        return out;
    }

    private double[] gaussian(int n) {
        double[] out = new double[n];
        for (int i = 0; i < n; i++) {
            out[i] = random.nextGaussian();
        }
        return out;
    }

    private double[] uniform(int n) {
        double[] out = new double[n];
        for (int i = 0; i < n; i++) {
            out[i] = random.nextDouble();
        }
        return out;
    }

    private Map<String, double[]> rows(List<String> keys) {
        Map<String, double[]> rows = new LinkedHashMap<>();
        keys.forEach(key -> rows.put(key, new double[first.layers()]));
        return rows;
    }

    private static double[] column(List<double[]> rows, int at) {
        return rows.stream().mapToDouble(row -> row[at]).toArray();
    }

    /** Of n vectors, the mean of each over what is not NaN. */
    private static double[] means(int n, IntFunction<double[]> vectors) {
        double[] out = new double[n];
        for (int i = 0; i < n; i++) {
            out[i] = Arrays.stream(vectors.apply(i)).filter(v -> !Double.isNaN(v)).average().orElse(Double.NaN);
        }
        return out;
    }

    private static void demand(String argument, String misfit) {
        if (misfit != null) {
            throw new InvalidArgumentException(argument + ": " + misfit);
        }
    }
}
