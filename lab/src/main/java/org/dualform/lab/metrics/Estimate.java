package org.dualform.lab.metrics;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import org.dualform.InvalidArgumentException;

/**
 * A number with its spread and a 95 % interval: Student's t for means, Wilson's score interval for shares.
 *
 * <p>Threading: immutable.
 *
 * @param count values it is made of
 * @param mean their mean, or the share of successes; NaN without values
 * @param sd standard deviation of the values, with count - 1; NaN below two values
 * @param low lower end of the 95 % interval; NaN where there is none
 * @param high upper end
 */
public record Estimate(int count, double mean, double sd, double low, double high) {
    private static final double NORMAL = 1.959963984540054;

    /**
     * Mean with a t interval, which takes the values as independent draws. NaN values are left out.
     *
     * @param values such as one per example or one per seed
     * @return the estimate; its interval needs two values
     */
    public static Estimate ofValues(double... values) {
        double[] defined = Arrays.stream(values).filter(v -> !Double.isNaN(v)).toArray();
        int n = defined.length;
        double mean = n == 0 ? Double.NaN : Arrays.stream(defined).sum() / n;
        if (n < 2) {
            return new Estimate(n, mean, Double.NaN, Double.NaN, Double.NaN);
        }
        double squares = 0;
        for (double v : defined) {
            squares += (v - mean) * (v - mean);
        }
        double sd = Math.sqrt(squares / (n - 1));
        double half = tQuantile(n - 1) * sd / Math.sqrt(n);
        return new Estimate(n, mean, sd, mean - half, mean + half);
    }

    /**
     * A share with Wilson's score interval, which stays inside [0, 1] and is sensible at 0 and at 1.
     *
     * @param successes in 0..count
     * @param count trials
     * @return the estimate; its sd is that of one trial, with count - 1
     * @throws InvalidArgumentException when the successes are not in 0..count
     */
    public static Estimate ofShare(int successes, int count) {
        if (successes < 0 || successes > count) {
            throw new InvalidArgumentException("successes: " + successes + ", expected 0 to " + count);
        }
        if (count == 0) {
            return new Estimate(0, Double.NaN, Double.NaN, Double.NaN, Double.NaN);
        }
        double n = count;
        double p = successes / n;
        double z2 = NORMAL * NORMAL;
        double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
        double half = NORMAL / (1 + z2 / n) * Math.sqrt(p * (1 - p) / n + z2 / (4 * n * n));
        double low = successes == 0 ? 0 : centre - half;
        double high = successes == count ? 1 : centre + half;
        return new Estimate(count, p, count < 2 ? Double.NaN : Math.sqrt(p * (1 - p) * n / (n - 1)), low, high);
    }

    /**
     * The same in other units.
     *
     * @param factor such as 100 for percent; not negative
     * @return mean, sd and interval times the factor
     */
    public Estimate times(double factor) {
        return new Estimate(count, mean * factor, sd * factor, low * factor, high * factor);
    }

    /**
     * For JSON: {@code count}, {@code mean}, {@code sd}, {@code low}, {@code high}, with null for NaN.
     *
     * @return a new map, in this order
     */
    public Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("count", count);
        fields.put("mean", finite(mean));
        fields.put("sd", finite(sd));
        fields.put("low", finite(low));
        fields.put("high", finite(high));
        return fields;
    }

    static Double finite(double value) {
        return Double.isFinite(value) ? value : null;
    }

    /** The 97.5 % point of Student's t, by bisection on the finite series of its distribution (Abramowitz and Stegun 26.7.3-4). */
    static double tQuantile(int freedom) {
        if (freedom > 2000) { // the next term of the expansion in 1/freedom is below 1e-9
            double z = NORMAL;
            double first = (Math.pow(z, 3) + z) / 4;
            double second = (5 * Math.pow(z, 5) + 16 * Math.pow(z, 3) + 3 * z) / 96;
            return z + first / freedom + second / ((double) freedom * freedom);
        }
        double low = NORMAL;
        double high = 13;
        while (true) {
            double t = (low + high) / 2;
            if (t <= low || t >= high) {
                return t;
            }
            if (within(t, freedom) < 0.95) {
                low = t;
            } else {
                high = t;
            }
        }
    }

    /** Probability that |T| is below t. */
    private static double within(double t, int freedom) {
        double angle = Math.atan(t / Math.sqrt(freedom));
        double cos2 = Math.cos(angle) * Math.cos(angle);
        boolean odd = freedom % 2 == 1;
        double term = odd ? Math.cos(angle) : 1;
        double sum = 0;
        for (int k = odd ? 3 : 2; k <= freedom; k += 2) { // term of cos^(k-2)
            sum += term;
            term *= cos2 * (k - 1) / k;
        }
        double series = Math.sin(angle) * sum;
        return odd ? 2 / Math.PI * (angle + series) : series;
    }
}
