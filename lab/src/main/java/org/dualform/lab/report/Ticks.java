package org.dualform.lab.report;

/** Round numbers (1, 2 or 5 times a power of ten) along a range. */
final class Ticks {
    private Ticks() {
    }

    /** From at or below {@code low} to at or above {@code high}: at most {@code most} and, from 8 allowed, at least 4. */
    static double[] covering(double low, double high, int most) {
        double step = smallest(low, high);
        while (true) {
            double first = Math.floor(low / step + 1e-9);
            double last = Math.ceil(high / step - 1e-9);
            if (last - first + 1 <= most) {
                return multiples(first, last, step);
            }
            step = next(step);
        }
    }

    /** Within the range: at most {@code most} and, from 8 allowed, at least 3. */
    static double[] inside(double low, double high, int most) {
        double step = smallest(low, high);
        while (true) {
            double first = Math.ceil(low / step - 1e-9);
            double last = Math.floor(high / step + 1e-9);
            if (last - first + 1 <= most) {
                return multiples(first, last, step);
            }
            step = next(step);
        }
    }

    private static double smallest(double low, double high) {
        return power((int) StrictMath.floor(StrictMath.log10((high - low) / 100)));
    }

    private static double next(double step) {
        int exponent = (int) StrictMath.floor(StrictMath.log10(step) + 1e-9);
        long digit = Math.round(step / power(exponent));
        return digit == 1 ? 2 * power(exponent) : digit == 2 ? 5 * power(exponent) : power(exponent + 1);
    }

    private static double[] multiples(double first, double last, double step) {
        double[] ticks = new double[(int) Math.max(0, last - first + 1)];
        for (int i = 0; i < ticks.length; i++) {
            double value = (first + i) * step;
            ticks[i] = value == 0 ? 0.0 : value;
        }
        return ticks;
    }

    /** The double nearest to the decimal, so that multiples print short. */
    private static double power(int exponent) {
        return Double.parseDouble("1e" + exponent);
    }
}
