package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.icl.TokenTask.Example;

/**
 * A learning rate chosen by trying several: that with the most right answers to the bare queries of some examples after finetuning; among
 * equals that with the largest log-probability of the right answers, then the smallest. A rate whose losses, weights or answers are not
 * finite never wins.
 *
 * <p>Threading: immutable.
 *
 * @param value the chosen one
 * @param trials all that were tried, in the order of the grid
 */
public record LearningRate(double value, List<Trial> trials) {
    private static final double[] DECADES = {0.0001, 0.001, 0.01, 0.1};

    /**
     * What came of one learning rate.
     *
     * <p>Threading: immutable.
     *
     * @param learningRate the rate
     * @param finite whether losses, weights and answers were; if not, the other numbers mean nothing
     * @param correct right answers
     * @param examples questions
     * @param rightLogProbability mean log-probability of the right answer among the answers
     */
    public record Trial(double learningRate, boolean finite, int correct, int examples, double rightLogProbability) {
        private boolean isBetter(Trial other) {
            if (!finite || !other.finite) {
                return finite;
            }
            if (correct != other.correct) {
                return correct > other.correct;
            }
            return rightLogProbability != other.rightLogProbability ? rightLogProbability > other.rightLogProbability
                    : learningRate < other.learningRate;
        }

        private Map<String, Object> fields() {
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("learning_rate", learningRate);
            fields.put("finite", finite);
            fields.put("correct", finite ? correct : null);
            fields.put("examples", examples);
            fields.put("right_log_probability", finite ? rightLogProbability : null);
            return fields;
        }
    }

    /**
     * The grid of the paper: 1 to 9 times 0.1, 0.01, 0.001 and 0.0001.
     *
     * @return 36 rates, ascending
     */
    public static List<Double> publishedGrid() {
        return grid(1, 2, 3, 4, 5, 6, 7, 8, 9);
    }

    /**
     * A grid over the same range in fewer steps: 1 and 3 times 0.1, 0.01, 0.001 and 0.0001.
     *
     * @return 8 rates, ascending
     */
    public static List<Double> coarseGrid() {
        return grid(1, 3);
    }

    private static List<Double> grid(int... factors) {
        List<Double> grid = new ArrayList<>();
        for (double decade : DECADES) {
            for (int factor : factors) {
                grid.add(Math.round(factor * decade * 1e4) / 1e4); // 3 * 0.1 is not 0.3
            }
        }
        return Collections.unmodifiableList(grid);
    }

    /**
     * One rate, not chosen by anybody.
     *
     * @param value the rate
     * @return without trials
     */
    public static LearningRate fixed(double value) {
        return new LearningRate(value, List.of());
    }

    /**
     * Tries rates.
     *
     * @param finetuning which model
     * @param demonstrations it is finetuned on
     * @param selection examples that are neither demonstrations nor evaluated
     * @param task of all of them
     * @param grid rates to try
     * @param options of finetuning, whose own rate is not used
     * @return the best, and all trials
     * @throws InvalidArgumentException if there is nothing to try or to choose by
     * @throws DivergedException if no rate gave finite numbers
     */
    public static LearningRate choose(Finetuning finetuning, List<Example> demonstrations, List<Example> selection, TokenTask task,
            List<Double> grid, Finetuning.Options options) {
        if (grid.isEmpty() || selection.isEmpty()) {
            throw new InvalidArgumentException("learning rate: " + grid.size() + " rates and " + selection.size()
                    + " examples to choose by, expected at least one of each");
        }
        Episode bare = new Episode(List.of(), selection);
        List<Trial> trials = new ArrayList<>();
        Trial best = null;
        for (double rate : grid) {
            Finetuning.Course course = finetuning.run(demonstrations, options.withLearningRate(rate), null);
            Trial trial = new Trial(rate, false, 0, selection.size(), Double.NaN);
            if (course.finite()) {
                try (ModelScorer scorer = new ModelScorer(finetuning.model())) {
                    Predictions answers = Predictions.of(scorer, task, bare);
                    trial = new Trial(rate, answers.undefined() == 0, answers.correct(), answers.count(), answers.rightLogProbability());
                }
            }
            trials.add(trial);
            best = best == null || trial.isBetter(best) ? trial : best;
        }
        if (!best.finite) {
            throw new DivergedException("learning rate: finetuning diverged at all of " + grid + ", expected a smaller one");
        }
        return new LearningRate(best.learningRate, List.copyOf(trials));
    }

    /**
     * For JSON.
     *
     * @return a new map
     */
    public Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("value", value);
        fields.put("trials", trials.stream().map(Trial::fields).toList());
        return fields;
    }
}
