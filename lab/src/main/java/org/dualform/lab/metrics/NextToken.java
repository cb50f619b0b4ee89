package org.dualform.lab.metrics;

import org.dualform.InvalidArgumentException;

/**
 * Agreement of two distributions over the next token, after Shen et al. 2023 (arXiv:2310.08540): the models' outputs, not their insides.
 *
 * <p>Threading: only pure functions.
 */
public final class NextToken {
    private NextToken() {}

    /**
     * Token overlap.
     *
     * @param p probabilities over the vocabulary
     * @param q as many probabilities
     * @param k size of both sets of most probable tokens; the paper takes 10
     * @return {@code |top_k(p) and top_k(q)| / k}
     * @throws InvalidArgumentException when the lengths differ or k is out of range
     */
    public static double overlap(double[] p, double[] q, int k) {
        return AttentionMass.topRecall(p, q, k);
    }

    /**
     * Overlap-cosine similarity over the set O of tokens which both top k share:
     * {@code sum_O p q / sqrt(sum_O p^2 sum_O q^2 max(1, k - |O|))}.
     *
     * <p>The printed formula has {@code k - |O|}, which is 0 and leaves nothing defined when all k are shared; there 1 is taken, so that
     * full
     * agreement gives the plain cosine, the same as with one token missing.
     *
     * @param p probabilities over the vocabulary
     * @param q as many probabilities
     * @param k size of both sets of most probable tokens; the paper takes 10
     * @return in [0, 1]; 0 when no token is shared
     * @throws InvalidArgumentException when the lengths differ or k is out of range
     */
    public static double overlapCosine(double[] p, double[] q, int k) {
        if (p.length != q.length) {
            throw new InvalidArgumentException("q: " + q.length + " values, expected " + p.length);
        }
        boolean[] inP = new boolean[p.length];
        for (int token : AttentionMass.top(p, k)) {
            inP[token] = true;
        }
        double pq = 0;
        double pp = 0;
        double qq = 0;
        int shared = 0;
        for (int token : AttentionMass.top(q, k)) {
            if (inP[token]) {
                shared++;
                pq += p[token] * q[token];
                pp += p[token] * p[token];
                qq += q[token] * q[token];
            }
        }
        double scale = Math.sqrt(pp) * Math.sqrt(qq) * Math.sqrt(Math.max(1, k - shared));
        return scale == 0 ? 0 : pq / scale;
    }
}
