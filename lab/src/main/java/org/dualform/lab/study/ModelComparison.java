package org.dualform.lab.study;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.icl.DivergedException;
import org.dualform.lab.icl.Episode;
import org.dualform.lab.icl.EpisodeComparison;
import org.dualform.lab.icl.Finetuning;
import org.dualform.lab.icl.LearningRate;
import org.dualform.lab.icl.TokenTask;
import org.dualform.lab.icl.Untrained;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.metrics.Recovery;
import org.dualform.lab.metrics.Similarities;
import org.dualform.nn.Gpt;

/**
 * In-context learning against finetuning of keys and values on the same demonstrations, for one model, over several sets of demonstrations.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param sets of demonstrations, each a document of its own
 * @param demonstrations in a set
 * @param queries asked after each set
 * @param learningRates of finetuning by name of what was compared: chosen on other documents for the trained model, lower where it diverged
 * @param zeroShot accuracy of the bare model
 * @param inContext accuracy with demonstrations
 * @param finetuned accuracy after finetuning
 * @param recovery Rec2FTP over all queries
 * @param curves name of who was finetuned or compared, then key of the similarity, then its value per layer, averaged over sets
 * @param spread the same, standard deviation over sets
 */
public record ModelComparison(int sets, int demonstrations, int queries, Map<String, Double> learningRates, Estimate zeroShot,
        Estimate inContext, Estimate finetuned, Recovery recovery, Map<String, Map<String, double[]>> curves,
        Map<String, Map<String, double[]>> spread) {
    /** The trained model, finetuned by plain gradient descent. */
    public static final String TRAINED = "trained";
    /** A model of the same shape with fresh weights. */
    public static final String UNTRAINED = "untrained";
    /** Fresh weights, but the trained embeddings and LayerNorms. */
    public static final String EMBEDDINGS = "untrained_embeddings";
    /** The trained model, finetuned by layer-causal gradient descent. */
    public static final String LAYER_CAUSAL = "layer_causal";
    /** The trained model with its demonstrations in other orders: the mean over orders, and the spread over orders, not over sets. */
    public static final String ORDERS = "orders";

    private static final long SETS_SEED = 3_000_017;
    /** Documents that the learning rate is chosen on, and queries of each. */
    private static final int CHOOSING = 2;
    private static final int CHOOSING_QUERIES = 32;

    /**
     * One curve of the trained model.
     *
     * @param key such as {@code sim_aou}
     * @return a value per layer
     */
    public double[] curve(String key) {
        return curves.get(TRAINED).get(key);
    }

    /**
     * The rate the trained model was finetuned at.
     *
     * @return its learning rate
     */
    public double learningRate() {
        return learningRates.get(TRAINED);
    }

    /**
     * Compares.
     *
     * @param gpt the model; its weights are not changed
     * @param corpus it was trained on
     * @param options how much
     * @param seed of the untrained models
     * @param records folder to write the records of each set to, as published; null for none
     * @return the comparison; null where finetuning diverges at every learning rate
     * @throws IOException if records cannot be written
     */
    static ModelComparison of(Gpt gpt, LabelMapping corpus, ComparisonOptions options, long seed, Path records) throws IOException {
        TokenTask task = corpus.task();
        List<Episode> documents = permutedDocuments(corpus, options, CHOOSING + options.sets());
        List<Episode> sets = documents.subList(CHOOSING, documents.size());
        double rate = choose(gpt, task, documents.subList(0, CHOOSING));
        Finetuning.Options published = Finetuning.Options.published(rate);
        Map<String, Found> found = new LinkedHashMap<>();
        Found first = compare(gpt, task, sets, rate, published, options, records);
        if (first == null) {
            return null;
        }
        found.put(TRAINED, first);
        try (Gpt untrained = Untrained.random(gpt, seed, FewShotStudy.INITIALIZATION)) {
            found.put(UNTRAINED, compare(untrained, task, sets, rate, published, options, null));
        }
        try (Gpt untrained = Untrained.withEmbeddings(gpt, seed, FewShotStudy.INITIALIZATION)) {
            found.put(EMBEDDINGS, compare(untrained, task, sets, rate, published, options, null));
        }
        if (options.layerCausal()) {
            found.put(LAYER_CAUSAL, compare(gpt, task, sets, rate, published.withLayerCausal(true), options, null));
        }
        found.values().removeIf(Objects::isNull);
        Map<String, Map<String, double[]>> curves = new LinkedHashMap<>();
        Map<String, Map<String, double[]>> spread = new LinkedHashMap<>();
        Map<String, Double> rates = new LinkedHashMap<>();
        found.forEach((model, one) -> {
            List<Similarities> similarities = one.similarities();
            rates.put(model, one.learningRate());
            curves.put(model, new LinkedHashMap<>());
            spread.put(model, new LinkedHashMap<>());
            for (String key : similarities.get(0).layers().keySet()) {
                List<Estimate> estimates = perLayer(similarities, key);
                curves.get(model).put(key, estimates.stream().mapToDouble(Estimate::mean).toArray());
                spread.get(model).put(key, estimates.stream().mapToDouble(Estimate::sd).toArray());
            }
        });
        overOrders(gpt, task, sets, first.learningRate(), published, options, curves, spread);
        List<Similarities> trained = found.get(TRAINED).similarities();
        Recovery recovery = trained.stream().map(Similarities::recovery).reduce(Recovery.NONE, (a, b) -> new Recovery(a.wrong() + b.wrong(),
                a.inContextRight() + b.inContextRight(), a.gained() + b.gained(), a.recovered() + b.recovered()));
        return new ModelComparison(options.sets(), options.demonstrations(), options.queries(), rates,
                overSets(trained.stream().map(Similarities::zeroShot).toList()),
                overSets(trained.stream().map(Similarities::inContext).toList()),
                overSets(trained.stream().map(Similarities::finetuned).toList()), recovery, curves, spread);
    }

    /** Demonstrations and queries of documents with permuted labels, each from a document of its own. */
    private static List<Episode> permutedDocuments(LabelMapping corpus, ComparisonOptions options, int count) {
        List<Episode> documents = new ArrayList<>();
        for (long index = 0; documents.size() < count; index++) {
            LabelMapping.Document document = corpus.document(SETS_SEED, index, options.demonstrations() + options.queries());
            if (!document.isCanonical()) {
                List<TokenTask.Example> examples = LabelMapping.taskExamples(document.examples());
                documents.add(new Episode(examples.subList(0, options.demonstrations()),
                        examples.subList(options.demonstrations(), examples.size())));
            }
        }
        return documents;
    }

    /** The rate with the most right answers over all documents; among equals the one whose answers were likeliest. */
    private static double choose(Gpt gpt, TokenTask task, List<Episode> documents) {
        List<Double> grid = LearningRate.coarseGrid();
        int[] correct = new int[grid.size()];
        double[] likelihood = new double[grid.size()];
        try (Finetuning finetuning = new Finetuning(gpt, task)) {
            for (Episode document : documents) {
                List<TokenTask.Example> queries = document.queries().subList(0, Math.min(CHOOSING_QUERIES, document.queries().size()));
                List<LearningRate.Trial> trials;
                try {
                    trials = LearningRate.choose(finetuning, document.demonstrations(), queries, task, grid,
                            Finetuning.Options.published(1)).trials();
                } catch (DivergedException e) { // at every rate
                    return grid.get(0);
                }
                for (int i = 0; i < trials.size(); i++) {
                    LearningRate.Trial trial = trials.get(i);
                    correct[i] = trial.finite() ? correct[i] + trial.correct() : Integer.MIN_VALUE / 2;
                    likelihood[i] += trial.finite() ? trial.rightLogProbability() : 0;
                }
            }
        }
        int best = 0;
        for (int i = 1; i < correct.length; i++) {
            if (correct[i] > correct[best] || correct[i] == correct[best] && likelihood[i] > likelihood[best]) {
                best = i;
            }
        }
        return grid.get(best);
    }

    /** What was found for one model, and the rate it was finetuned at. */
    private record Found(List<Similarities> similarities, double learningRate) {}

    /** At the rate given, or, where finetuning on a set diverges, at the next lower one at which it does not; null if there is none. */
    private static Found compare(Gpt gpt, TokenTask task, List<Episode> sets, double rate, Finetuning.Options finetuning,
            ComparisonOptions options, Path records) throws IOException {
        List<Double> grid = LearningRate.coarseGrid();
        for (int at = grid.indexOf(rate); ; at--) {
            LearningRate tried = LearningRate.fixed(grid.get(at));
            List<Similarities> similarities = new ArrayList<>();
            try {
                for (int i = 0; i < sets.size(); i++) {
                    similarities.add(EpisodeComparison.of(gpt, task, sets.get(i), tried, finetuning, options.queries(),
                            records == null ? null : records.resolve("set-" + (i + 1))).similarities());
                }
                return new Found(similarities, tried.value());
            } catch (DivergedException e) {
                if (at == 0) {
                    return null;
                }
            }
        }
    }

    /** Averages over the sets for each order, then mean and spread over the orders. */
    private static void overOrders(Gpt gpt, TokenTask task, List<Episode> sets, double rate, Finetuning.Options published,
            ComparisonOptions options, Map<String, Map<String, double[]>> curves, Map<String, Map<String, double[]>> spread)
            throws IOException {
        Map<String, List<double[]>> perOrder = new LinkedHashMap<>();
        for (int order = 0; order < options.orders(); order++) {
            int number = order;
            Found found = compare(gpt, task, sets.stream().map(set -> shuffled(set, number)).toList(), rate, published, options, null);
            if (found != null) {
                for (String key : found.similarities().get(0).layers().keySet()) {
                    perOrder.computeIfAbsent(key, k -> new ArrayList<>()).add(perLayer(found.similarities(), key).stream()
                            .mapToDouble(Estimate::mean).toArray());
                }
            }
        }
        perOrder.forEach((key, orders) -> {
            double[] mean = new double[orders.get(0).length];
            double[] sd = new double[mean.length];
            for (int layer = 0; layer < mean.length; layer++) {
                int at = layer;
                Estimate estimate = Estimate.ofValues(orders.stream().mapToDouble(values -> values[at]).toArray());
                mean[layer] = estimate.mean();
                sd[layer] = estimate.sd();
            }
            curves.computeIfAbsent(ORDERS, k -> new LinkedHashMap<>()).put(key, mean);
            spread.computeIfAbsent(ORDERS, k -> new LinkedHashMap<>()).put(key, sd);
        });
    }

    private static Episode shuffled(Episode episode, int order) {
        List<TokenTask.Example> demonstrations = new ArrayList<>(episode.demonstrations());
        Collections.shuffle(demonstrations, new Random(order));
        return new Episode(demonstrations, episode.queries());
    }

    private static List<Estimate> perLayer(List<Similarities> sets, String key) {
        List<Estimate> estimates = new ArrayList<>();
        for (int layer = 0; layer < sets.get(0).layers(key).length; layer++) {
            int at = layer;
            estimates.add(Estimate.ofValues(sets.stream().mapToDouble(set -> set.layers(key)[at]).toArray()));
        }
        return estimates;
    }

    /** Accuracy over sets: the interval is that of the mean over sets, since queries of one set share their demonstrations. */
    private static Estimate overSets(List<Estimate> sets) {
        return Estimate.ofValues(sets.stream().mapToDouble(Estimate::mean).toArray());
    }
}
