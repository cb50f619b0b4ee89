package org.dualform.lab.metrics;

import java.util.Arrays;
import org.dualform.InvalidArgumentException;

/**
 * Attention to the demonstrations as a distribution, and how far two of them agree on their largest entries.
 *
 * <p>Semantics of the code published with Dai et al. 2022 (arXiv:2212.10559), but for ties, which here go to the lower index.
 *
 * <p>Threading: only pure functions.
 */
public final class AttentionMass {
    private AttentionMass() {}

    /**
     * Softmax, with the largest logit taken off first. Gaps above about 745 become exact zeros, and so ties: rank logits, not this.
     *
     * @param logits at least one
     * @return positive numbers of sum 1
     */
    public static double[] softmax(double[] logits) {
        double largest = Arrays.stream(logits).max().orElseThrow(() -> new InvalidArgumentException("logits: none, expected at least one"));
        double[] out = new double[logits.length];
        double sum = 0;
        for (int i = 0; i < out.length; i++) {
            out[i] = Math.exp(logits[i] - largest);
            sum += out[i];
        }
        for (int i = 0; i < out.length; i++) {
            out[i] /= sum;
        }
        return out;
    }

    /**
     * Softmax over all demonstration tokens, then the sum within each demonstration, smallest first: the same logits in another order tie.
     *
     * @param logits one per demonstration token, demonstrations one after another, separators left out
     * @param lengths tokens of each demonstration, of the sum {@code logits.length}
     * @return the mass of each demonstration
     * @throws InvalidArgumentException when the lengths do not add up
     */
    public static double[] perDemonstration(double[] logits, int[] lengths) {
        if (Arrays.stream(lengths).sum() != logits.length) {
            throw new InvalidArgumentException("lengths: sum " + Arrays.stream(lengths).sum() + ", expected " + logits.length);
        }
        double[] mass = softmax(logits);
        double[] out = new double[lengths.length];
        int from = 0;
        for (int d = 0; d < lengths.length; d++) {
            int to = from + lengths[d];
            Arrays.sort(mass, from, to);
            for (int t = from; t < to; t++) {
                out[d] += mass[t];
            }
            from = to;
        }
        return out;
    }

    /**
     * How much of one vector's top k is in the other's.
     *
     * @param x values
     * @param y as many values
     * @param k size of both top sets, at most all
     * @return the share, in [0, 1]; k indices drawn at random would have {@code k/n} on average
     * @throws InvalidArgumentException when the lengths differ or k is out of range
     */
    public static double topRecall(double[] x, double[] y, int k) {
        if (x.length != y.length) {
            throw new InvalidArgumentException("y: " + y.length + " values, expected " + x.length);
        }
        boolean[] inX = new boolean[x.length];
        for (int i : top(x, k)) {
            inX[i] = true;
        }
        int both = 0;
        for (int i : top(y, k)) {
            both += inX[i] ? 1 : 0;
        }
        return (double) both / k;
    }

    /**
     * Indices of the k largest values, the largest first; among equals the lower index first.
     *
     * @param values to choose from
     * @param k in 1..values.length
     * @return the indices
     * @throws InvalidArgumentException when k is out of range
     */
    static int[] top(double[] values, int k) {
        if (k < 1 || k > values.length) {
            throw new InvalidArgumentException("k: " + k + ", expected 1 to " + values.length);
        }
        Integer[] order = new Integer[values.length];
        Arrays.setAll(order, i -> i);
        // Objects are sorted stably; + 0.0 makes the two zeros equal.
        Arrays.sort(order, (a, b) -> Double.compare(values[b] + 0.0, values[a] + 0.0));
        int[] out = new int[k];
        Arrays.setAll(out, i -> order[i]);
        return out;
    }
}
