package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.List;
import org.dualform.lab.icl.TokenTask.Example;

/**
 * Answers to queries: for each, the label whose answer has the largest mean log-probability per token, the first of equals.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param gold right labels
 * @param predicted the model's labels; {@link #NONE} where a score was not a number
 * @param rightLogProbability mean over queries of the right answer's log-probability among the answers, in nats; NaN if one is not a number
 */
public record Predictions(int[] gold, int[] predicted, double rightLogProbability) {
    /** No label: the model's scores were not numbers. */
    public static final int NONE = -1;

    /**
     * Asks all queries of an episode.
     *
     * @param scorer whom to ask
     * @param task whose answers
     * @param episode demonstrations and queries
     * @return one answer for each query
     */
    public static Predictions of(Scorer scorer, TokenTask task, Episode episode) {
        int[] context = episode.context(task);
        scorer.share(context);
        List<double[]> scores = new ArrayList<>();
        for (Example query : episode.queries()) {
            scores.add(scorer.score(Episode.joined(context, query.input()), task.answers()));
        }
        return of(episode.queries(), scores);
    }

    static Predictions of(List<Example> queries, List<double[]> scores) {
        int[] gold = queries.stream().mapToInt(Example::label).toArray();
        int[] predicted = scores.stream().mapToInt(Predictions::likeliest).toArray();
        double sum = 0;
        for (int i = 0; i < gold.length; i++) {
            double[] row = scores.get(i);
            double total = 0;
            for (double score : row) {
                total += Math.exp(score - row[gold[i]]);
            }
            sum -= Math.log(total);
        }
        return new Predictions(gold, predicted, gold.length == 0 ? Double.NaN : sum / gold.length);
    }

    static int likeliest(double[] scores) {
        int best = 0;
        for (int i = 0; i < scores.length; i++) {
            if (Double.isNaN(scores[i])) {
                return NONE;
            }
            best = scores[i] > scores[best] ? i : best;
        }
        return best;
    }

    /**
     * Right answers.
     *
     * @return their number
     */
    public int correct() {
        int correct = 0;
        for (int i = 0; i < gold.length; i++) {
            correct += gold[i] == predicted[i] ? 1 : 0;
        }
        return correct;
    }

    /**
     * Queries without an answer, which count as wrong.
     *
     * @return their number
     */
    public int undefined() {
        int undefined = 0;
        for (int label : predicted) {
            undefined += label == NONE ? 1 : 0;
        }
        return undefined;
    }

    /**
     * Queries.
     *
     * @return their number
     */
    public int count() {
        return gold.length;
    }
}
