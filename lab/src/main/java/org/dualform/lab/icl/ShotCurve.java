package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.metrics.Estimate;
import org.dualform.lab.report.Csv;

/**
 * Accuracy over the number of demonstrations, for several draws of demonstrations, next to chance and to the answer that is always the most
 * frequent label.
 *
 * <p>Threading: immutable.
 *
 * @param task name of the task
 * @param labels how many there are
 * @param majority right answers of who always gives the most frequent label of the examples that demonstrations are drawn from
 * @param runs by shots, then by seed
 */
public record ShotCurve(String task, int labels, Estimate majority, List<Run> runs) {
    /**
     * One draw of demonstrations.
     *
     * <p>Threading: immutable.
     *
     * @param shots demonstrations asked for
     * @param seed of the draw
     * @param fewest demonstrations that fitted into the prompt, in the episode where these were fewest
     * @param most where they were most
     * @param correct right answers
     * @param undefined queries without an answer because a score was not a number; they count as wrong
     * @param examples queries
     */
    public record Run(int shots, long seed, int fewest, int most, int correct, int undefined, int examples) {
        /**
         * Its accuracy.
         *
         * @return with Wilson's interval over the queries
         */
        public Estimate accuracy() {
            return Estimate.ofShare(correct, examples);
        }

        private Run askedFor(int otherShots, long otherSeed) {
            return new Run(otherShots, otherSeed, fewest, most, correct, undefined, examples);
        }
    }

    /**
     * Measures.
     *
     * @param scorer whom to ask
     * @param episodes what to ask
     * @param shots numbers of demonstrations
     * @param seeds of the draws
     * @param modelContext tokens the model can read
     * @param progress is told after every run
     * @return the curve
     * @throws InvalidArgumentException if there is no number of shots or no seed, too few examples, or a query longer than the context
     */
    public static ShotCurve measure(Scorer scorer, Episodes episodes, List<Integer> shots, List<Long> seeds, int modelContext,
            Consumer<Run> progress) {
        if (shots.isEmpty() || seeds.isEmpty()) {
            throw new InvalidArgumentException("shots and seeds: " + shots + " and " + seeds + ", expected at least one of each");
        }
        TokenTask task = episodes.task();
        int[] right = new int[2];
        for (Episode episode : episodes.episodes(0, seeds.get(0))) {
            right[0] += (int) episode.queries().stream().filter(query -> query.label() == episodes.majority()).count();
            right[1] += episode.queries().size();
        }
        List<Run> runs = new ArrayList<>();
        Map<List<Episode>, Run> known = new HashMap<>(); // without demonstrations, or cut to as many, the prompts are the same once more
        for (int count : shots) {
            for (long seed : seeds) {
                List<Episode> asked = fitted(episodes.episodes(count, seed), task, modelContext);
                Run run = known.containsKey(asked) ? known.get(asked).askedFor(count, seed) : run(scorer, task, asked, count, seed);
                known.putIfAbsent(asked, run);
                runs.add(run);
                progress.accept(run);
            }
        }
        return new ShotCurve(task.name(), task.answers().size(), Estimate.ofShare(right[0], right[1]), List.copyOf(runs));
    }

    private static List<Episode> fitted(List<Episode> episodes, TokenTask task, int modelContext) {
        return episodes.stream().map(episode -> episode.fitted(task, modelContext)).toList();
    }

    private static Run run(Scorer scorer, TokenTask task, List<Episode> episodes, int shots, long seed) {
        int fewest = episodes.stream().mapToInt(episode -> episode.demonstrations().size()).min().orElseThrow();
        int most = episodes.stream().mapToInt(episode -> episode.demonstrations().size()).max().orElseThrow();
        int correct = 0;
        int undefined = 0;
        int examples = 0;
        for (Episode episode : episodes) {
            Predictions answers = Predictions.of(scorer, task, episode);
            correct += answers.correct();
            undefined += answers.undefined();
            examples += answers.count();
        }
        return new Run(shots, seed, fewest, most, correct, undefined, examples);
    }

    /**
     * Accuracy of who answers at random.
     *
     * @return one over the number of labels
     */
    public double chance() {
        return 1.0 / labels;
    }

    /**
     * Numbers of demonstrations.
     *
     * @return as measured, in that order
     */
    public List<Integer> shots() {
        return runs.stream().map(Run::shots).distinct().toList();
    }

    /**
     * The runs of one number of demonstrations.
     *
     * @param shots one of {@link #shots}
     * @return one for each seed
     */
    public List<Run> runs(int shots) {
        return runs.stream().filter(run -> run.shots == shots).toList();
    }

    /**
     * Accuracy at one number of demonstrations: the mean over seeds. Two things make it uncertain, which demonstrations were drawn and
     * which queries were asked; the interval is the wider of Student's over seeds and Wilson's over queries, of which all seeds have the
     * same.
     *
     * @param shots one of {@link #shots}
     * @return mean and 95 % interval; the count is that of the queries, the standard deviation that over seeds
     */
    public Estimate accuracy(int shots) {
        List<Run> drawn = runs(shots);
        Estimate seeds = Estimate.ofValues(drawn.stream().mapToDouble(run -> run.accuracy().mean()).toArray());
        return widened(seeds, drawn.get(0).examples);
    }

    /** An accuracy over seeds with the wider of its interval and Wilson's over queries. */
    static Estimate widened(Estimate seeds, int examples) {
        Estimate queries = Estimate.ofShare((int) Math.round(seeds.mean() * examples), examples);
        double low = seeds.count() < 2 ? queries.low() : Math.max(0, Math.min(queries.low(), seeds.low()));
        double high = seeds.count() < 2 ? queries.high() : Math.min(1, Math.max(queries.high(), seeds.high()));
        return new Estimate(examples, seeds.mean(), seeds.sd(), low, high);
    }

    /**
     * How many demonstrations the prompts really had.
     *
     * @param shots one of {@link #shots}
     * @return a number, or the fewest and the most such as {@code 21-23}
     */
    public String effective(int shots) {
        int fewest = runs(shots).stream().mapToInt(Run::fewest).min().orElseThrow();
        int most = runs(shots).stream().mapToInt(Run::most).max().orElseThrow();
        return fewest == most ? String.valueOf(most) : fewest + "-" + most;
    }

    /**
     * For JSON.
     *
     * @return a new map
     */
    public Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("task", task);
        fields.put("labels", labels);
        fields.put("chance", chance());
        fields.put("majority", majority.fields());
        List<Object> points = new ArrayList<>();
        for (int count : shots()) {
            Map<String, Object> point = new LinkedHashMap<>();
            point.put("shots", count);
            point.put("effective_shots", effective(count));
            point.put("accuracy", accuracy(count).fields());
            points.add(point);
        }
        fields.put("curve", points);
        fields.put("runs", runs.stream().map(ShotCurve::fields).toList());
        return fields;
    }

    private static Map<String, Object> fields(Run run) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("shots", run.shots);
        fields.put("seed", run.seed);
        fields.put("effective_shots_fewest", run.fewest);
        fields.put("effective_shots_most", run.most);
        fields.put("correct", run.correct);
        fields.put("undefined", run.undefined);
        fields.put("examples", run.examples);
        return fields;
    }

    /**
     * Every run as a row.
     *
     * @return setting, shots, seed, effective shots, right answers, queries and accuracy with its interval
     */
    public Csv csv() {
        Csv csv = new Csv("setting", "shots", "seed", "effective_fewest", "effective_most", "correct", "examples", "accuracy", "low",
                "high");
        for (Run run : runs) {
            Estimate accuracy = run.accuracy();
            csv.row(run.most == 0 ? "zsl" : "icl", run.shots, run.seed, run.fewest, run.most, run.correct, run.examples, accuracy.mean(),
                    accuracy.low(), accuracy.high());
        }
        return csv;
    }
}
