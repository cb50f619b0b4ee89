package org.dualform.lab.icl;

import java.util.Arrays;
import java.util.stream.IntStream;
import org.dualform.lab.metrics.NextToken;

/** How far the next-token distributions of two models agree, over the tokens that matter to the measures. */
final class NextTokens {
    private static final int TOP = 10;

    private NextTokens() {}

    /** Token overlap, then overlap-cosine, of the 10 most probable tokens (Shen et al. 2023, arXiv:2310.08540). */
    static double[] agreement(double[] p, double[] q) {
        int k = Math.min(TOP, p.length);
        int[] tokens = IntStream.concat(Arrays.stream(top(p, k)), Arrays.stream(top(q, k))).sorted().distinct().toArray();
        double[] a = Arrays.stream(tokens).mapToDouble(token -> Math.exp(p[token])).toArray();
        double[] b = Arrays.stream(tokens).mapToDouble(token -> Math.exp(q[token])).toArray();
        return new double[] {NextToken.overlap(a, b, k), NextToken.overlapCosine(a, b, k)};
    }

    /** The k largest, the lower index first among equals. */
    private static int[] top(double[] values, int k) {
        int[] top = new int[k];
        int filled = 0;
        for (int i = 0; i < values.length; i++) {
            if (filled == k && values[i] <= values[top[k - 1]]) {
                continue;
            }
            int at = Math.min(filled, k - 1);
            filled = Math.min(filled + 1, k);
            while (at > 0 && values[top[at - 1]] < values[i]) {
                top[at] = top[at - 1];
                at--;
            }
            top[at] = i;
        }
        return top;
    }
}
