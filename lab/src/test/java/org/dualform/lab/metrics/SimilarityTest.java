package org.dualform.lab.metrics;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Random;
import java.util.stream.IntStream;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;

class SimilarityTest {
    private static final double[] ZS = {1, 0, 0};
    private static final double[] ICL = {1, 1, 0};
    private static final double[] FT = {1, 0, 2};

    @Test
    void cosineIsByHand() {
        assertEquals(1 / Math.sqrt(2), Similarity.cosine(ZS, ICL), 1e-15);
        assertEquals(0, Similarity.cosine(ZS, new double[3]));
        assertThrows(InvalidArgumentException.class, () -> Similarity.cosine(ZS, new double[2]));
        assertThrows(InvalidArgumentException.class, () -> Similarity.noiseFloor(ZS, ICL, new double[4]));
    }

    /** Orthogonal updates: nothing raw, yet exactly the floor once lengths are scaled to 1. */
    @Test
    void normalisationAloneMakesSimilarity() {
        assertEquals(0, Similarity.rawAttentionOutputUpdate(ZS, ICL, FT), 1e-15);
        double floor = 0.5 * Math.sqrt((1 - 1 / Math.sqrt(2)) * (1 - 1 / Math.sqrt(5)));
        assertEquals(floor, Similarity.noiseFloor(ZS, ICL, FT), 1e-15);
        assertEquals(floor, Similarity.attentionOutputUpdate(ZS, ICL, FT), 1e-15);
        assertEquals(0, Similarity.rawFloor(ZS, ICL, FT), 1e-15);
    }

    @Test
    void theRawFloorOfUnitVectorsIsTheNoiseFloor() {
        Random random = new Random(4);
        for (int round = 0; round < 50; round++) {
            double[] zs = gaussian(random, 40, 1);
            double[] icl = gaussian(random, 40, 3);
            double[] ft = plus(zs, gaussian(random, 40, 0.1));
            assertEquals(
                    Similarity.noiseFloor(zs, icl, ft),
                    Similarity.rawFloor(Similarity.unit(zs), Similarity.unit(icl), Similarity.unit(ft)), 1e-12);
        }
    }

    @Test
    void theFloorIsExactlyZeroWhenNothingMoves() {
        double[] zs = gaussian(new Random(5), 99, 1);
        assertEquals(0, Similarity.noiseFloor(zs, gaussian(new Random(6), 99, 1), zs));
        assertEquals(0.5, Similarity.noiseFloor(zs, new double[99], new double[99]));
    }

    /** Deutch et al.: noise with three times the variance of the signal gives a similarity of 1/4 without any relation. */
    @Test
    void pureNoiseLandsOnTheFloor() {
        assertEquals(0.25, simulated(3, 3), 0.003);
        assertEquals(0.1464, simulated(1, 1), 0.003);
        assertEquals(0.0763, simulated(0.1, 3), 0.003);
    }

    /** Mean normalised SimAOU of noise; the measured floor must say the same, and the raw cosine 0. */
    private static double simulated(double inContextVariance, double finetunedVariance) {
        Random random = new Random(7);
        int rounds = 200;
        int width = 4096;
        double normalised = 0;
        double floor = 0;
        double raw = 0;
        for (int i = 0; i < rounds; i++) {
            double[] zs = gaussian(random, width, 1);
            double[] icl = plus(zs, gaussian(random, width, Math.sqrt(inContextVariance)));
            double[] ft = plus(zs, gaussian(random, width, Math.sqrt(finetunedVariance)));
            normalised += Similarity.attentionOutputUpdate(zs, icl, ft) / rounds;
            floor += Similarity.noiseFloor(zs, icl, ft) / rounds;
            raw += Similarity.rawAttentionOutputUpdate(zs, icl, ft) / rounds;
        }
        assertEquals(floor, normalised, 0.003);
        assertEquals(0, raw, 0.003);
        return normalised;
    }

    /** The trap of the unscaled update similarities: three vectors with nothing in common have 1/2, and their floor says so. */
    @Test
    void unrelatedVectorsHaveRawSimilarityOneHalf() {
        Random random = new Random(8);
        double raw = 0;
        double floor = 0;
        int rounds = 100;
        for (int i = 0; i < rounds; i++) {
            double[] zs = gaussian(random, 1000, 1);
            double[] icl = gaussian(random, 1000, 1);
            double[] ft = gaussian(random, 1000, 1);
            raw += Similarity.rawAttentionOutputUpdate(zs, icl, ft) / rounds;
            floor += Similarity.rawFloor(zs, icl, ft) / rounds;
        }
        assertEquals(0.5, raw, 0.01);
        assertEquals(0.5, floor, 0.01);
    }

    @Test
    void massPerDemonstrationIsByHand() {
        double[] logits = {Math.log(1), Math.log(2), Math.log(3), Math.log(4)};
        assertArrayEquals(new double[] {0.1, 0.2, 0.3, 0.4}, AttentionMass.softmax(logits), 1e-15);
        assertArrayEquals(new double[] {0.3, 0.7}, AttentionMass.perDemonstration(logits, new int[] {2, 2}), 1e-15);
        assertThrows(InvalidArgumentException.class, () -> AttentionMass.perDemonstration(logits, new int[] {2, 1}));
        assertArrayEquals(new double[] {1, 0}, AttentionMass.softmax(new double[] {800, 0}), 0);
    }

    @Test
    void demonstrationsWithTheSameLogitsTieInAnyOrder() {
        double[] logits = gaussian(new Random(9), 60, 2);
        for (int i = 0; i < 30; i++) {
            logits[59 - i] = logits[i];
        }
        double[] mass = AttentionMass.perDemonstration(logits, new int[] {30, 30});
        assertEquals(mass[0], mass[1], 0);
    }

    @Test
    void topRecallCountsWhatIsInBoth() {
        double[] x = {9, 8, 7, 1, 0};
        double[] y = {0, 8, 9, 7, 1};
        assertEquals(2 / 3.0, AttentionMass.topRecall(x, y, 3), 1e-15);
        assertEquals(1, AttentionMass.topRecall(x, y, 5));
        assertEquals(1, AttentionMass.topRecall(new double[] {1, 1, 0}, new double[] {3, 2, 2}, 2)); // ties go to the lower index
        assertThrows(InvalidArgumentException.class, () -> AttentionMass.topRecall(x, y, 6));
    }

    @Test
    void nextTokenAgreementIsByHand() {
        double[] p = {0.5, 0.3, 0.1, 0.1, 0};
        double[] q = {0.4, 0.1, 0.3, 0.1, 0.1};
        assertEquals(0.5, NextToken.overlap(p, q, 2));
        assertEquals(1, NextToken.overlapCosine(p, q, 2), 1e-15); // one shared token
        double shared = (0.5 * 0.4 + 0.3 * 0.1 + 0.1 * 0.3) / Math.sqrt((0.25 + 0.09 + 0.01) * (0.16 + 0.01 + 0.09));
        assertEquals(shared, NextToken.overlapCosine(p, q, 3), 1e-15); // all shared, where the printed formula divides by 0
        assertEquals(0, NextToken.overlapCosine(new double[] {1, 0}, new double[] {0, 1}, 1));
        double[] far = {0.1, 0.1, 0.1, 0.3, 0.4};
        assertEquals(0, NextToken.overlap(p, far, 2));
        double[] half = {0.5, 0.2, 0.2, 0.05, 0.05};
        double[] other = {0.4, 0, 0, 0.3, 0.3};
        assertEquals(1 / Math.sqrt(2), NextToken.overlapCosine(half, other, 3), 1e-15);
    }

    @Test
    void recoveryCountsAToyConfusion() {
        boolean[] both = {false, true};
        Recovery recovery = Recovery.NONE;
        int[] times = {3, 2, 4, 5}; // zero-shot wrong: neither, finetuned only, in-context only, both
        for (int kind = 0; kind < 4; kind++) {
            for (int i = 0; i < times[kind]; i++) {
                recovery = recovery.plus(false, both[kind / 2], both[kind % 2]);
                recovery = recovery.plus(true, both[kind % 2], both[kind / 2]); // never counts
            }
        }
        assertEquals(new Recovery(14, 9, 7, 5), recovery);
        assertEquals(500 / 7.0, recovery.percent().mean(), 1e-12);
        assertEquals(900 / 14.0, recovery.baseline().mean(), 1e-12);
        assertTrue(Double.isNaN(Recovery.NONE.plus(false, true, false).percent().mean()));
    }

    static double[] gaussian(Random random, int n, double sd) {
        return IntStream.range(0, n).mapToDouble(i -> sd * random.nextGaussian()).toArray();
    }

    private static double[] plus(double[] a, double[] b) {
        return IntStream.range(0, a.length).mapToDouble(i -> a[i] + b[i]).toArray();
    }
}
