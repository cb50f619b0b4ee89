package org.dualform.lab.icl;

import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.icl.TokenTask.Example;
import org.dualform.lab.metrics.Comparison;
import org.dualform.lab.metrics.DemonstrationRecord;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.metrics.RecordFiles.Setting;
import org.dualform.lab.metrics.RecordWriter;
import org.dualform.lab.metrics.Similarities;
import org.dualform.nn.Gpt;

/**
 * One episode in the three settings of Dai et al. 2022 (arXiv:2212.10559), compared: the bare query (ZSL), the query after the
 * demonstrations (ICL), and the bare query asked of the model finetuned on the same demonstrations (FT).
 *
 * <p>Threading: immutable.
 *
 * @param demonstrations how many; all fitted
 * @param learningRate of finetuning
 * @param losses of finetuning, one for each demonstration before its step
 * @param finetuned answers of the finetuned model to all queries, also those that were not recorded
 * @param similarities over the recorded queries, each beside its floor and its baselines
 * @param nextTokens agreement of next-token distributions over the recorded queries: {@code overlap_icl_ft}, {@code ocs_icl_ft}, and beside
 *     them {@code overlap_icl_zsl}, {@code ocs_icl_zsl} (Shen et al. 2023, arXiv:2310.08540)
 */
public record EpisodeComparison(int demonstrations, LearningRate learningRate, List<Double> losses, Predictions finetuned,
        Similarities similarities, Map<String, Estimate> nextTokens) {
    /** Seed of the random baselines; that of the {@code icl metrics} command, which so reads the same numbers from the records. */
    public static final long METRICS_SEED = 0;

    private static final JsonMapper JSON = JsonMapper.builder().build();

    /**
     * Compares.
     *
     * @param gpt the model; its weights are not changed
     * @param task of the episode
     * @param episode demonstrations, at least one, that {@link Episode#fitted fit}; queries
     * @param learningRate of finetuning, fixed or chosen
     * @param options of finetuning, whose own rate is not used
     * @param recorded queries to record and compare, from the first; the others are only answered by the finetuned model
     * @param records folder to write records to, with their tokens in {@code episode.json}; null for none
     * @return the comparison
     * @throws IOException if records cannot be written
     * @throws InvalidArgumentException if there is no demonstration or query
     * @throws DivergedException if finetuning ends in numbers that are not finite
     */
    public static EpisodeComparison of(Gpt gpt, TokenTask task, Episode episode, LearningRate learningRate, Finetuning.Options options,
            int recorded, Path records) throws IOException {
        if (episode.demonstrations().isEmpty() || episode.queries().isEmpty() || recorded < 1) {
            throw new InvalidArgumentException("episode: " + episode.demonstrations().size() + " demonstrations and "
                    + Math.min(recorded, episode.queries().size()) + " queries to record, expected at least one of each");
        }
        try (Finetuning finetuning = new Finetuning(gpt, task)) {
            List<DemonstrationRecord> steps = new ArrayList<>();
            Finetuning.Course course = finetuning.run(episode.demonstrations(), options.withLearningRate(learningRate.value()), steps::add);
            if (!course.finite()) {
                throw new DivergedException("learning rate: finetuning diverged at " + learningRate.value() + " after "
                        + course.losses().size() + " of " + episode.demonstrations().size() + " demonstrations, expected a smaller one");
            }
            Comparison comparison = new Comparison(METRICS_SEED);
            Map<String, double[]> agreement = new LinkedHashMap<>();
            List<double[]> scores = new ArrayList<>();
            try (Writers writers = records == null ? null : new Writers(records)) {
                if (writers != null) {
                    writeEpisode(task, episode.first(recorded), options.withLearningRate(learningRate.value()), course, records);
                }
                compare(gpt, finetuning.model(), task, episode, recorded, comparison, writers, agreement, scores);
                for (DemonstrationRecord step : steps) {
                    comparison.add(step);
                    if (writers != null) {
                        writers.finetuning.write(step);
                    }
                }
                if (writers != null) {
                    writers.finish();
                }
            }
            Map<String, Estimate> nextTokens = new LinkedHashMap<>();
            agreement.forEach((key, values) -> nextTokens.put(key, Estimate.ofValues(values)));
            return new EpisodeComparison(episode.demonstrations().size(), learningRate, course.losses(),
                    Predictions.of(episode.queries(), scores), comparison.result(), nextTokens);
        }
    }

    private static void compare(Gpt gpt, Gpt tuned, TokenTask task, Episode episode, int recorded, Comparison comparison, Writers writers,
            Map<String, double[]> agreement, List<double[]> scores) throws IOException {
        int[] context = episode.context(task);
        int[] bare = {task.beginning()};
        int count = Math.min(recorded, episode.queries().size());
        for (String key : List.of("overlap_icl_ft", "ocs_icl_ft", "overlap_icl_zsl", "ocs_icl_zsl")) {
            agreement.put(key, new double[count]);
        }
        try (ModelScorer zeroShot = new ModelScorer(gpt);
                ModelScorer inContext = new ModelScorer(gpt);
                ModelScorer finetuned = new ModelScorer(tuned)) {
            zeroShot.share(bare);
            inContext.share(context);
            finetuned.share(bare);
            for (int i = 0; i < episode.queries().size(); i++) {
                Example query = episode.queries().get(i);
                if (i >= count) {
                    scores.add(finetuned.score(Episode.joined(bare, query.input()), task.answers()));
                    continue;
                }
                Observation zs = Observation.of(zeroShot, task, bare, query);
                Observation icl = Observation.of(inContext, task, context, query);
                Observation ft = Observation.of(finetuned, task, bare, query);
                scores.add(ft.reply().scores());
                comparison.add(zs.record(), icl.record(), ft.record());
                if (writers != null) {
                    writers.write(zs, icl, ft);
                }
                double[] withFinetuned = NextTokens.agreement(icl.reply().next(), ft.reply().next());
                double[] withZeroShot = NextTokens.agreement(icl.reply().next(), zs.reply().next());
                agreement.get("overlap_icl_ft")[i] = withFinetuned[0];
                agreement.get("ocs_icl_ft")[i] = withFinetuned[1];
                agreement.get("overlap_icl_zsl")[i] = withZeroShot[0];
                agreement.get("ocs_icl_zsl")[i] = withZeroShot[1];
            }
        }
    }

    /** What the records are of, in tokens, so that anybody can make them again. */
    private static void writeEpisode(TokenTask task, Episode episode, Finetuning.Options options, Finetuning.Course course, Path folder)
            throws IOException {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("beginning", task.beginning());
        fields.put("separator", task.separator());
        fields.put("answers", task.answers());
        fields.put("learning_rate", options.learningRate());
        fields.put("label_only", options.labelOnly());
        fields.put("layer_causal", options.layerCausal());
        fields.put("finetuning_losses", course.losses());
        fields.put("demonstrations", episode.demonstrations());
        fields.put("queries", episode.queries());
        Files.writeString(folder.resolve("episode.json"), JSON.writeValueAsString(fields) + "\n");
    }

    /** The four record files; closed before they are finished, they leave nothing. */
    private static final class Writers implements AutoCloseable {
        private final List<RecordWriter> open = new ArrayList<>();
        private final RecordWriter zeroShot;
        private final RecordWriter inContext;
        private final RecordWriter finetuned;
        private final RecordWriter finetuning;

        Writers(Path folder) throws IOException {
            try {
                zeroShot = open(folder, Setting.ZERO_SHOT);
                inContext = open(folder, Setting.IN_CONTEXT);
                finetuned = open(folder, Setting.FINETUNED);
                finetuning = open(folder, Setting.FINETUNING);
            } catch (IOException e) {
                close();
                throw e;
            }
        }

        private RecordWriter open(Path folder, Setting setting) throws IOException {
            RecordWriter writer = new RecordWriter(setting.file(folder));
            open.add(writer);
            return writer;
        }

        void write(Observation zs, Observation icl, Observation ft) throws IOException {
            zeroShot.write(zs.record());
            inContext.write(icl.record());
            finetuned.write(ft.record());
        }

        void finish() throws IOException {
            for (RecordWriter writer : open) {
                writer.finish();
            }
        }

        @Override
        public void close() throws IOException {
            for (RecordWriter writer : open) {
                writer.close();
            }
        }
    }

    /**
     * For JSON: the similarities' keys at the top, beside them how finetuning went.
     *
     * @return a new map
     */
    public Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("effective_shots", demonstrations);
        fields.put("learning_rate", learningRate.fields());
        fields.put("finetuning_losses", losses);
        fields.put("finetuned_correct", finetuned.correct());
        fields.put("finetuned_examples", finetuned.count());
        fields.putAll(similarities.fields());
        Map<String, Object> next = new LinkedHashMap<>();
        nextTokens.forEach((key, estimate) -> next.put(key, estimate.fields()));
        fields.put("next_token", next);
        return fields;
    }
}
