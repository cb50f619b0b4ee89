package org.dualform.lab.study;

import java.util.ArrayList;
import java.util.List;
import org.dualform.DType;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.data.LabelMapping;
import org.dualform.nn.Gpt;

/**
 * How well a model labels the examples of {@link LabelMapping} documents, by how many examples came before, and how well it predicts all
 * their tokens. One pass over a document answers for every number of shots: the label of its n-th example is predicted from n
 * demonstrations.
 *
 * <p>Threading: immutable; made by one thread.
 *
 * @param right per document and example, whether the likeliest of the labels is the right one
 * @param remapped per document, whether its labels are permuted, so that they can only be known from the examples before
 * @param nats mean loss over all tokens
 */
public record ShotAccuracy(List<boolean[]> right, boolean[] remapped, double nats) {
    private static final int ROWS = 32;

    /**
     * Asks a model.
     *
     * @param gpt the model
     * @param corpus whose documents
     * @param seed of the documents
     * @param documents how many, from the first
     * @return its answers
     */
    public static ShotAccuracy of(Gpt gpt, LabelMapping corpus, long seed, int documents) {
        int shots = corpus.examplesIn(gpt.config().context());
        List<LabelMapping.Document> drawn = new ArrayList<>();
        for (int i = 0; i < documents; i++) {
            drawn.add(corpus.document(seed, i, shots));
        }
        List<boolean[]> right = new ArrayList<>();
        double nats = 0;
        long tokens = 0;
        for (int from = 0; from < documents; from += ROWS) {
            List<LabelMapping.Document> rows = drawn.subList(from, Math.min(documents, from + ROWS));
            int length = corpus.tokens(rows.get(0)).length;
            double[] logits = logits(gpt, corpus, rows, length);
            int vocabulary = gpt.config().vocabulary();
            for (int row = 0; row < rows.size(); row++) {
                int[] document = corpus.tokens(rows.get(row));
                boolean[] answers = new boolean[shots];
                for (int t = 0; t + 1 < length; t++) {
                    int at = (row * length + t) * vocabulary;
                    nats -= logProbability(logits, at, vocabulary, document[t + 1]);
                    int example = corpus.labelledAt(t + 1);
                    if (example >= 0) {
                        answers[example] = likeliestLabel(corpus, logits, at) == rows.get(row).examples().get(example).label();
                    }
                }
                tokens += length - 1;
                right.add(answers);
            }
        }
        boolean[] remapped = new boolean[documents];
        for (int i = 0; i < documents; i++) {
            remapped[i] = !drawn.get(i).isCanonical();
        }
        return new ShotAccuracy(right, remapped, nats / tokens);
    }

    private static double[] logits(Gpt gpt, LabelMapping corpus, List<LabelMapping.Document> rows, int length) {
        int[] ids = new int[rows.size() * length];
        for (int row = 0; row < rows.size(); row++) {
            System.arraycopy(corpus.tokens(rows.get(row)), 0, ids, row * length, length);
        }
        try (Tape tape = new Tape(gpt.device()); Tensor input = Tensor.of(gpt.device(), ids, rows.size(), length)) {
            Tensor logits = gpt.logits(tape, gpt.hidden(tape, input));
            try (Tensor wide = logits.cast(DType.F32)) {
                float[] values = wide.toFloats();
                double[] result = new double[values.length];
                for (int i = 0; i < values.length; i++) {
                    result[i] = values[i];
                }
                return result;
            }
        }
    }

    private static int likeliestLabel(LabelMapping corpus, double[] logits, int at) {
        int best = 0;
        for (int label = 1; label < corpus.clusters(); label++) {
            if (logits[at + corpus.labelToken(label)] > logits[at + corpus.labelToken(best)]) {
                best = label;
            }
        }
        return best;
    }

    private static double logProbability(double[] logits, int at, int vocabulary, int token) {
        double most = Double.NEGATIVE_INFINITY;
        for (int v = 0; v < vocabulary; v++) {
            most = Math.max(most, logits[at + v]);
        }
        double sum = 0;
        for (int v = 0; v < vocabulary; v++) {
            sum += StrictMath.exp(logits[at + v] - most);
        }
        return logits[at + token] - most - StrictMath.log(sum);
    }

    /**
     * Numbers of demonstrations there are answers for.
     *
     * @return one more than the most
     */
    public int shots() {
        return right.get(0).length;
    }

    /**
     * How many documents were asked about.
     *
     * @param onlyRemapped whether those with permuted labels alone
     * @return their number
     */
    public int documents(boolean onlyRemapped) {
        int count = 0;
        for (boolean permuted : remapped) {
            count += permuted || !onlyRemapped ? 1 : 0;
        }
        return count;
    }

    /**
     * Right answers after some demonstrations.
     *
     * @param shots how many came before
     * @param onlyRemapped whether documents with permuted labels alone count
     * @return their number
     */
    public int correct(int shots, boolean onlyRemapped) {
        int correct = 0;
        for (int i = 0; i < right.size(); i++) {
            correct += right.get(i)[shots] && (remapped[i] || !onlyRemapped) ? 1 : 0;
        }
        return correct;
    }

    /**
     * Share of right answers over a range of numbers of demonstrations.
     *
     * @param from fewest
     * @param to one more than the most
     * @param onlyRemapped whether documents with permuted labels alone count
     * @return the share
     */
    public double accuracy(int from, int to, boolean onlyRemapped) {
        int correct = 0;
        for (int shots = from; shots < to; shots++) {
            correct += correct(shots, onlyRemapped);
        }
        return correct / (double) ((to - from) * documents(onlyRemapped));
    }

    /**
     * Perplexity over all tokens.
     *
     * @return the exponential of the mean loss
     */
    public double perplexity() {
        return StrictMath.exp(nats);
    }
}
