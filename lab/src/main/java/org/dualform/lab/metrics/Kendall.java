package org.dualform.lab.metrics;

import org.dualform.InvalidArgumentException;

/**
 * Kendall's tau-b, which allows ties, by counting the exchanges of a merge sort (Knight 1966):
 * {@code (concordant - discordant) / sqrt((pairs - ties in x) (pairs - ties in y))} in O(n log n).
 *
 * <p>Threading: only pure functions.
 */
public final class Kendall {
    private Kendall() {}

    /**
     * Rank correlation of two vectors.
     *
     * @param x values, of which only the order matters
     * @param y as many values
     * @return tau-b in [-1, 1]; NaN when it is undefined: fewer than two values, a NaN among them, or one vector all equal
     * @throws InvalidArgumentException when the lengths differ
     */
    public static double tauB(double[] x, double[] y) {
        if (x.length != y.length) {
            throw new InvalidArgumentException("y: " + y.length + " values, expected " + x.length);
        }
        int n = x.length;
        int[] order = new int[n];
        for (int i = 0; i < n; i++) {
            if (Double.isNaN(x[i]) || Double.isNaN(y[i])) {
                return Double.NaN;
            }
            order[i] = i;
        }
        int[] spare = new int[n];
        sort(order, spare, y, 0, n);
        long tiesY = tiedPairs(order, y, null);
        sort(order, spare, x, 0, n); // stable, so now ordered by x, then by y
        long tiesX = tiedPairs(order, x, null);
        long tiesBoth = tiedPairs(order, x, y);
        long discordant = sort(order, spare, y, 0, n);

        long pairs = (long) n * (n - 1) / 2;
        if (tiesX == pairs || tiesY == pairs) {
            return Double.NaN;
        }
        long difference = pairs - tiesX - tiesY + tiesBoth - 2 * discordant;
        double tau = difference / Math.sqrt(pairs - tiesX) / Math.sqrt(pairs - tiesY);
        return Math.max(-1, Math.min(1, tau));
    }

    /** Pairs of neighbours' runs which are equal in {@code first} and, where given, in {@code second}; the order has equals together. */
    private static long tiedPairs(int[] order, double[] first, double[] second) {
        long tied = 0;
        long run = 0;
        for (int i = 1; i < order.length; i++) {
            boolean equal = first[order[i]] == first[order[i - 1]] && (second == null || second[order[i]] == second[order[i - 1]]);
            run = equal ? run + 1 : 0;
            tied += run;
        }
        return tied;
    }

    /** Stable merge sort of indices by their values; returns how many pairs stood in strictly the wrong order. */
    private static long sort(int[] order, int[] spare, double[] values, int from, int to) {
        if (to - from < 2) {
            return 0;
        }
        int middle = (from + to) >>> 1;
        long exchanges = sort(order, spare, values, from, middle) + sort(order, spare, values, middle, to);
        int left = from;
        int right = middle;
        for (int i = from; i < to; i++) {
            if (right >= to || left < middle && values[order[left]] <= values[order[right]]) {
                spare[i] = order[left++];
            } else {
                exchanges += middle - left;
                spare[i] = order[right++];
            }
        }
        System.arraycopy(spare, from, order, from, to - from);
        return exchanges;
    }
}
