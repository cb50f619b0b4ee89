package org.dualform.lab.report;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.HashSet;
import java.util.Random;
import org.junit.jupiter.api.Test;

class TicksTest {
    @Test
    void coveringTicksHoldTheRangeAndAreFourToEight() {
        Random random = new Random(1);
        for (int i = 0; i < 20_000; i++) {
            double[] range = range(random);
            double[] ticks = Ticks.covering(range[0], range[1], 8);
            double step = ticks[1] - ticks[0];
            assertTrue(ticks.length >= 4 && ticks.length <= 8, ticks.length + " for " + range[0] + " to " + range[1]);
            assertTrue(ticks[0] <= range[0] + 1e-6 * step && ticks[ticks.length - 1] >= range[1] - 1e-6 * step);
            assertTrue(ticks[1] > range[0] - 1e-6 * step && ticks[ticks.length - 2] < range[1] + 1e-6 * step, "no tick to spare");
            requireRound(step);
        }
    }

    @Test
    void insideTicksStayInTheRangeAndAreThreeToEight() {
        Random random = new Random(2);
        for (int i = 0; i < 20_000; i++) {
            double[] range = range(random);
            double[] ticks = Ticks.inside(range[0], range[1], 8);
            double step = ticks[1] - ticks[0];
            assertTrue(ticks.length >= 3 && ticks.length <= 8, ticks.length + " for " + range[0] + " to " + range[1]);
            assertTrue(ticks[0] >= range[0] - 1e-6 * step && ticks[ticks.length - 1] <= range[1] + 1e-6 * step);
            requireRound(step);
        }
    }

    @Test
    void shareTicksAreTheUsualOnes() {
        assertArrayEquals(new double[] {0, 0.2, 0.4, 0.6000000000000001, 0.8, 1}, Ticks.covering(0, 1, 8));
        assertArrayEquals(new double[] {0, 100, 200, 300, 400, 500, 600, 700}, Ticks.inside(0, 700, 8));
    }

    @Test
    void labelsOfAnAxisDiffer() {
        Random random = new Random(3);
        for (int i = 0; i < 5_000; i++) {
            double[] range = range(random);
            for (boolean percent : new boolean[] {false, true}) {
                Axis axis = Axis.vertical(range[0], false, range[1], false, percent, 8);
                HashSet<String> labels = new HashSet<>();
                axis.ticks().forEach(tick -> labels.add(tick.label()));
                assertEquals(axis.ticks().size(), labels.size(), () -> range[0] + " to " + range[1] + ": " + axis.ticks());
            }
        }
    }

    @Test
    void numbersReadTheSameEverywhere() {
        assertEquals("\u22121,234.50", Numbers.fixed(-1234.5, 2));
        assertEquals("0.00", Numbers.fixed(-0.0001, 2));
        assertEquals("0", Numbers.fixed(-0.0, 0));
        assertEquals("0.12", Numbers.fixed(0.125, 2));
        assertEquals("\u2013", Numbers.fixed(Double.NaN, 2));
        assertEquals("2e\u22125", Numbers.significant(2e-5, 3));
        assertEquals("0.0003", Numbers.significant(3e-4, 3));
        assertEquals("1.23e9", Numbers.significant(1.234e9, 3));
        assertEquals("25\u00A0%", Numbers.percent(0.25, 0));
    }

    /** Magnitudes from 1e-12 to 1e12, spans down to a millionth of the magnitude. */
    private static double[] range(Random random) {
        double low = (random.nextDouble() - 0.5) * Math.pow(10, random.nextInt(25) - 12);
        double span = Math.abs(low) * Math.pow(10, random.nextDouble() * 12 - 6);
        return new double[] {low, low + Math.max(span, 1e-15)};
    }

    private static void requireRound(double step) {
        BigDecimal rounded = new BigDecimal(step).round(new java.math.MathContext(6, RoundingMode.HALF_EVEN)).stripTrailingZeros();
        int digits = rounded.unscaledValue().intValueExact();
        assertTrue(digits == 1 || digits == 2 || digits == 5, "step " + step);
    }
}
