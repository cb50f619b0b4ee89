package org.dualform.lab.metrics;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.Random;
import java.util.stream.IntStream;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;

class KendallTest {
    /** Over all pairs, by the definition. */
    static double bruteForce(double[] x, double[] y) {
        long score = 0;
        long pairsX = 0;
        long pairsY = 0;
        for (int i = 0; i < x.length; i++) {
            for (int j = 0; j < i; j++) {
                double dx = Math.signum(x[i] - x[j]);
                double dy = Math.signum(y[i] - y[j]);
                score += (long) (dx * dy);
                pairsX += dx == 0 ? 0 : 1;
                pairsY += dy == 0 ? 0 : 1;
            }
        }
        return score / Math.sqrt((double) pairsX * pairsY);
    }

    @Test
    void agreesWithAllPairsWithAndWithoutTies() {
        Random random = new Random(1);
        for (int round = 0; round < 400; round++) {
            int n = 2 + random.nextInt(120);
            int levels = new int[] {2, 3, 10, 1000, 0}[round % 5];
            double[] x = random.doubles(n).map(v -> levels == 0 ? v : Math.floor(v * levels)).toArray();
            double[] y = IntStream.range(0, n)
                    .mapToDouble(i -> x[i] + (levels == 0 ? random.nextDouble() : random.nextInt(levels)))
                    .toArray();
            double expected = bruteForce(x, y);
            assertEquals(expected, Kendall.tauB(x, y), 1e-12, "n " + n + " levels " + levels);
            assertEquals(expected, Kendall.tauB(y, x), 1e-12);
        }
    }

    /** From scipy.stats.kendalltau 1.17. */
    @Test
    void agreesWithScipyOnTies() {
        golden(0.6666666666666666, new int[] {2, 0, 0, 0, 0}, new int[] {4, 2, 1, 0, 0});
        golden(0.13046561461068845, new int[] {1, 1, 2, 1, 1, 0, 2, 2, 0, 0, 1, 1}, new int[] {4, 3, 3, 2, 3, 2, 2, 4, 3, 3, 4, 2});
        golden(
                0.6526722934999112,
                new int[] {1, 3, 3, 4, 5, 1, 5, 0, 0, 5, 5, 1, 0, 1, 0, 5, 3, 3, 1, 2, 1, 4, 2, 0, 1, 4, 3, 2, 1, 0},
                new int[] {4, 6, 6, 9, 10, 2, 8, 3, 1, 6, 7, 5, 1, 5, 3, 6, 5, 7, 6, 5, 1, 8, 3, 4, 6, 6, 8, 6, 2, 5});
        golden(
                0.4214070391171102,
                new int[] {76, 20, 118, 169, 131, 78, 180, 95, 77, 29, 42, 139, 159, 58, 125, 174, 29, 55, 104, 112, 79, 79, 25, 122, 186},
                new int[] {115, 179, 154, 177, 280, 114, 330, 161, 190, 217, 226, 234, 200, 108, 295, 291, 62, 232, 296, 305, 203, 274, 146,
                        222, 380});
    }

    private static void golden(double expected, int[] x, int[] y) {
        double found = Kendall.tauB(Arrays.stream(x).asDoubleStream().toArray(), Arrays.stream(y).asDoubleStream().toArray());
        assertEquals(expected, found, 1e-15);
    }

    @Test
    void isOneForTheSameOrderAndMinusOneForTheReverse() {
        double[] x = new Random(2).doubles(1900).toArray();
        double[] reversed = Arrays.stream(x).map(v -> -Math.exp(v)).toArray();
        assertEquals(1, Kendall.tauB(x, x));
        assertEquals(-1, Kendall.tauB(x, reversed));
    }

    @Test
    void isUndefinedForConstantsSinglesAndNaN() {
        assertTrue(Double.isNaN(Kendall.tauB(new double[] {1, 1, 1}, new double[] {1, 2, 3})));
        assertTrue(Double.isNaN(Kendall.tauB(new double[] {1, 2, 3}, new double[] {0.0, -0.0, 0.0})));
        assertTrue(Double.isNaN(Kendall.tauB(new double[] {1}, new double[] {2})));
        assertTrue(Double.isNaN(Kendall.tauB(new double[0], new double[0])));
        assertTrue(Double.isNaN(Kendall.tauB(new double[] {1, Double.NaN}, new double[] {1, 2})));
        assertThrows(InvalidArgumentException.class, () -> Kendall.tauB(new double[2], new double[3]));
    }

    /** A softmax in double ends at gaps of about 745, and what was ordered becomes tied. */
    @Test
    void logitsKeepTheOrderThatTheirSoftmaxLoses() {
        double[] logits = IntStream.range(0, 50).mapToDouble(i -> 40.0 * i).toArray();
        double[] other = IntStream.range(0, 50).mapToDouble(i -> i).toArray();
        assertEquals(1, Kendall.tauB(logits, other));
        assertTrue(Kendall.tauB(AttentionMass.softmax(logits), other) < 0.8);
    }
}
