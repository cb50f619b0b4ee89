package org.dualform.lab.icl;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import java.util.function.ToDoubleFunction;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.report.Csv;
import org.dualform.nn.Gpt;

/**
 * In-context learning compared with finetuning, for several draws of demonstrations, and beside it what tells whether a likeness means
 * anything: other ways to finetune, untrained models of the same shape, and other orders of the same demonstrations. The baselines are
 * measured on the first draw.
 *
 * <p>Threading: immutable.
 *
 * @param shots demonstrations asked for
 * @param seeds one comparison for each draw
 * @param baselines by name: {@code layer_causal}; {@code label_only}, or {@code all_tokens} where that is the loss of the comparison;
 *     {@code untrained}, with random weights; {@code untrained_embeddings}, with trained embeddings and LayerNorms
 * @param orders the first draw in its own order, then in others
 * @param diverged baselines whose finetuning was not finite, with the sentence that says so
 */
public record FinetuningStudy(int shots, Map<Long, EpisodeComparison> seeds, Map<String, EpisodeComparison> baselines,
        List<EpisodeComparison> orders, Map<String, String> diverged) {
    private static final String TRAINED = "trained";
    private static final String ORDER = "order";

    /**
     * What to measure.
     *
     * <p>Threading: immutable.
     *
     * @param shots demonstrations; only those that fit are used
     * @param seeds of the draws, at least one
     * @param recorded queries to record and compare
     * @param learningRates one rate, or a grid to choose from for every draw and every way to finetune
     * @param selection examples to choose the learning rate on
     * @param labelOnly whether only the answer's tokens count in the loss
     * @param orders orders of the first draw's demonstrations, its own included
     */
    public record Plan(int shots, List<Long> seeds, int recorded, List<Double> learningRates, int selection, boolean labelOnly,
            int orders) {
        /**
         * Checks the numbers.
         *
         * @param shots demonstrations; only those that fit are used
         * @param seeds of the draws, at least one
         * @param recorded queries to record and compare
         * @param learningRates one rate, or a grid
         * @param selection examples to choose the learning rate on
         * @param labelOnly whether only the answer's tokens count in the loss
         * @param orders orders of the first draw's demonstrations, its own included
         * @throws InvalidArgumentException if one is out of range
         */
        public Plan {
            at(shots >= 1, "shots", shots);
            at(!seeds.isEmpty(), "seeds", seeds.size());
            at(recorded >= 1, "recorded", recorded);
            at(!learningRates.isEmpty(), "learning rates", learningRates.size());
            at(selection >= 1, "selection", selection);
            at(orders >= 1, "orders", orders);
        }

        private static void at(boolean holds, String name, int value) {
            if (!holds) {
                throw new InvalidArgumentException(name + ": " + value + ", expected at least 1");
            }
        }
    }

    /**
     * Measures.
     *
     * @param gpt the model; its weights are not changed
     * @param episodes where demonstrations and queries come from
     * @param plan what to measure
     * @param records folder with the records of every draw, in {@code seed-1} and so on; null for none
     * @param progress is told what begins
     * @return the study
     * @throws IOException if records cannot be written
     * @throws InvalidArgumentException if no demonstration fits into the prompt, or there are too few examples
     * @throws DivergedException if finetuning of a draw ends in numbers that are not finite
     */
    public static FinetuningStudy measure(Gpt gpt, Episodes episodes, Plan plan, Path records, Consumer<String> progress)
            throws IOException {
        Map<Long, EpisodeComparison> seeds = new LinkedHashMap<>();
        Finetuning.Options options = new Finetuning.Options(1, plan.labelOnly, false);
        for (long seed : plan.seeds) {
            Episode episode = fitted(gpt, episodes, plan, seed);
            progress.accept("finetuning on " + episode.demonstrations().size() + " demonstrations, seed " + seed);
            seeds.put(seed, EpisodeComparison.of(gpt, episodes.task(), episode, rate(gpt, episodes, episode, plan, seed, options), options,
                    plan.recorded, records == null ? null : records.resolve("seed-" + seed)));
        }
        long first = plan.seeds.get(0);
        Episode episode = fitted(gpt, episodes, plan, first).first(plan.recorded);
        LearningRate rate = LearningRate.fixed(seeds.get(first).learningRate().value());
        Map<String, EpisodeComparison> baselines = new LinkedHashMap<>();
        Map<String, String> diverged = new LinkedHashMap<>();
        Map<String, Finetuning.Options> others = new LinkedHashMap<>();
        others.put("layer_causal", options.withLayerCausal(true));
        others.put(plan.labelOnly ? "all_tokens" : "label_only", new Finetuning.Options(1, !plan.labelOnly, false));
        for (Map.Entry<String, Finetuning.Options> other : others.entrySet()) {
            progress.accept("baseline " + other.getKey());
            attempt(other.getKey(), baselines, diverged, () -> EpisodeComparison.of(gpt, episodes.task(), episode,
                    rate(gpt, episodes, episode, plan, first, other.getValue()), other.getValue(), plan.recorded, null));
        }
        Map<String, BiFunction<Gpt, Long, Gpt>> untrained = new LinkedHashMap<>();
        untrained.put("untrained", Untrained::random);
        untrained.put("untrained_embeddings", Untrained::withEmbeddings);
        for (Map.Entry<String, BiFunction<Gpt, Long, Gpt>> kind : untrained.entrySet()) {
            progress.accept("baseline " + kind.getKey());
            try (Gpt other = kind.getValue().apply(gpt, first)) {
                attempt(kind.getKey(), baselines, diverged,
                        () -> EpisodeComparison.of(other, episodes.task(), episode, rate, options, plan.recorded, null));
            }
        }
        Map<String, EpisodeComparison> orders = new LinkedHashMap<>();
        orders.put(ORDER + " 0", seeds.get(first));
        for (int order = 1; order < plan.orders; order++) {
            progress.accept("order " + (order + 1) + " of " + plan.orders);
            Episode ordered = episode.reordered(order);
            attempt(ORDER + " " + order, orders, diverged,
                    () -> EpisodeComparison.of(gpt, episodes.task(), ordered, rate, options, plan.recorded, null));
        }
        return new FinetuningStudy(plan.shots, seeds, baselines, List.copyOf(orders.values()), diverged);
    }

    /** A comparison that may diverge. */
    private interface Attempt {
        EpisodeComparison compare() throws IOException;
    }

    private static void attempt(String name, Map<String, EpisodeComparison> done, Map<String, String> diverged, Attempt attempt)
            throws IOException {
        try {
            done.put(name, attempt.compare());
        } catch (DivergedException e) {
            diverged.put(name, e.getMessage());
        }
    }

    private static Episode fitted(Gpt gpt, Episodes episodes, Plan plan, long seed) {
        Episode episode = episodes.comparison(plan.shots, seed).fitted(episodes.task(), gpt.config().context());
        if (episode.demonstrations().isEmpty()) {
            throw new InvalidArgumentException("demonstrations: not one of seed " + seed + " fits with the longest query into the context"
                    + " of " + gpt.config().context() + " tokens");
        }
        return episode;
    }

    private static LearningRate rate(Gpt gpt, Episodes episodes, Episode episode, Plan plan, long seed, Finetuning.Options options) {
        if (plan.learningRates.size() == 1) {
            return LearningRate.fixed(plan.learningRates.get(0));
        }
        try (Finetuning finetuning = new Finetuning(gpt, episodes.task())) {
            return LearningRate.choose(finetuning, episode.demonstrations(), episodes.selection(plan.shots, seed, plan.selection),
                    episodes.task(), plan.learningRates, options);
        }
    }

    /**
     * Accuracy of finetuning over all queries: the mean over seeds with the wider of Student's interval over seeds and Wilson's over
     * queries.
     *
     * @return the estimate
     */
    public Estimate finetunedAccuracy() {
        Estimate over = Estimate.ofValues(seeds.values().stream()
                .mapToDouble(one -> (double) one.finetuned().correct() / one.finetuned().count()).toArray());
        int count = seeds.values().iterator().next().finetuned().count();
        return ShotCurve.widened(over, count);
    }

    /**
     * One number of every draw.
     *
     * @param key a key of the similarities, its mean over layers, or {@code rec2ftp}, {@code rec2ftp_baseline}, {@code accuracy_zs},
     *     {@code accuracy_icl}, {@code accuracy_ftzs} or a key of the next-token agreement
     * @return mean and Student's interval over seeds
     */
    public Estimate overSeeds(String key) {
        return Estimate.ofValues(seeds.values().stream().mapToDouble(value(key)).toArray());
    }

    /**
     * The same over orders of the first draw's demonstrations: its standard deviation is what the order alone changes.
     *
     * @param key as for {@link #overSeeds}
     * @return mean and Student's interval over orders
     */
    public Estimate overOrders(String key) {
        return Estimate.ofValues(orders.stream().mapToDouble(value(key)).toArray());
    }

    /**
     * One number of a baseline.
     *
     * @param baseline one of {@link #baselines}
     * @param key as for {@link #overSeeds}
     * @return the number; NaN if the baseline is not there
     */
    public double ofBaseline(String baseline, String key) {
        return baselines.containsKey(baseline) ? value(key).applyAsDouble(baselines.get(baseline)) : Double.NaN;
    }

    private static ToDoubleFunction<EpisodeComparison> value(String key) {
        return switch (key) {
            case "rec2ftp" -> one -> one.similarities().recovery().percent().mean();
            case "rec2ftp_baseline" -> one -> one.similarities().recovery().baseline().mean();
            case "accuracy_zs" -> one -> one.similarities().zeroShot().mean();
            case "accuracy_icl" -> one -> one.similarities().inContext().mean();
            case "accuracy_ftzs" -> one -> one.similarities().finetuned().mean();
            default -> one -> one.nextTokens().containsKey(key) ? one.nextTokens().get(key).mean() : one.similarities().mean(key);
        };
    }

    /**
     * The keys of {@link #overSeeds}.
     *
     * @return in a fixed order
     */
    public List<String> keys() {
        EpisodeComparison any = seeds.values().iterator().next();
        List<String> keys = new ArrayList<>(List.of("accuracy_zs", "accuracy_icl", "accuracy_ftzs", "rec2ftp", "rec2ftp_baseline"));
        keys.addAll(any.similarities().layers().keySet());
        keys.addAll(any.nextTokens().keySet());
        return keys;
    }

    /**
     * For JSON.
     *
     * @return a new map
     */
    public Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("shots", shots);
        fields.put("finetuned_accuracy", finetunedAccuracy().fields());
        Map<String, Object> means = new LinkedHashMap<>();
        Map<String, Object> spread = new LinkedHashMap<>();
        for (String key : keys()) {
            means.put(key, overSeeds(key).fields());
            spread.put(key, overOrders(key).fields());
        }
        fields.put("over_seeds", means);
        fields.put("over_orders", spread);
        List<Object> draws = new ArrayList<>();
        seeds.forEach((seed, one) -> {
            Map<String, Object> draw = new LinkedHashMap<>();
            draw.put("seed", seed);
            draw.putAll(one.fields());
            draws.add(draw);
        });
        fields.put("seeds", draws);
        Map<String, Object> others = new LinkedHashMap<>();
        baselines.forEach((name, one) -> others.put(name, one.fields()));
        fields.put("baselines", others);
        fields.put("diverged", diverged);
        return fields;
    }

    /**
     * Every similarity of every layer as a row.
     *
     * @return model or way to finetune, seed or number of the order, key, layer from 0 and value; NaN where it is undefined
     */
    public Csv csv() {
        Csv csv = new Csv("source", "number", "key", "layer", "value");
        seeds.forEach((seed, one) -> rows(csv, TRAINED, seed, one));
        long first = seeds.keySet().iterator().next();
        baselines.forEach((name, one) -> rows(csv, name, first, one));
        for (int order = 0; order < orders.size(); order++) {
            rows(csv, ORDER, order, orders.get(order));
        }
        return csv;
    }

    private static void rows(Csv csv, String source, long number, EpisodeComparison one) {
        one.similarities().layers().forEach((key, values) -> {
            for (int layer = 0; layer < values.length; layer++) {
                csv.row(source, number, key, layer, values[layer]);
            }
        });
    }
}
