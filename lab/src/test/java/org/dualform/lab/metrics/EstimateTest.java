package org.dualform.lab.metrics;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;

class EstimateTest {
    /** From scipy.stats.t.ppf(0.975, freedom). */
    @Test
    void studentsQuantilesAreScipys() {
        double[][] golden = {
            {1, 12.706204736174694}, {2, 4.302652729749462}, {3, 3.1824463052837078}, {4, 2.7764451051977934}, {9, 2.262157162798205},
            {30, 2.0422724563012378}, {99, 1.9842169515864174}, {999, 1.9623414611334493}, {1999, 1.9611514201705613},
            {2001, 1.9611502326224413}, {5000, 1.9604385517065073}
        };
        for (double[] row : golden) {
            assertEquals(row[1], Estimate.tQuantile((int) row[0]), 1e-9, "freedom " + row[0]);
        }
    }

    /** From scipy.stats.binomtest(k, n).proportion_ci(method="wilson"). */
    @Test
    void sharesHaveWilsonsInterval() {
        interval(Estimate.ofShare(0, 10), 0, 0.27753279986288926);
        interval(Estimate.ofShare(7, 10), 0.39677814746114526, 0.892208732593699);
        interval(Estimate.ofShare(10, 10), 0.7224672001371109, 1);
        interval(Estimate.ofShare(45, 49), 0.8081087240342871, 0.9677971823322363);
        assertThrows(InvalidArgumentException.class, () -> Estimate.ofShare(3, 2));
        assertTrue(Double.isNaN(Estimate.ofShare(0, 0).mean()));
    }

    private static void interval(Estimate estimate, double low, double high) {
        assertEquals(low, estimate.low(), 1e-12);
        assertEquals(high, estimate.high(), 1e-12);
    }

    @Test
    void meansHaveStudentsInterval() {
        Estimate estimate = Estimate.ofValues(1, Double.NaN, 2, 3, 6);
        assertEquals(4, estimate.count());
        assertEquals(3, estimate.mean(), 1e-15);
        assertEquals(Math.sqrt(14 / 3.0), estimate.sd(), 1e-15);
        interval(estimate, 3 - 3.1824463052837078 * Math.sqrt(14 / 12.0), 3 + 3.1824463052837078 * Math.sqrt(14 / 12.0));
        assertTrue(Double.isNaN(Estimate.ofValues(1).low()));
        assertTrue(Double.isNaN(Estimate.ofValues().mean()));
        assertNull(Estimate.ofValues(1).fields().get("sd"));
        assertEquals(300, Estimate.ofValues(1, 2, 3, 6).times(100).mean(), 1e-12);
    }
}
