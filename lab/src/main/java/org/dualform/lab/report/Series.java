package org.dualform.lab.report;

import java.util.Arrays;
import org.dualform.InvalidArgumentException;

/**
 * Numbers under one name in a {@link Chart}. A series comes from {@link #line}, {@link #dashed}, {@link #step}, {@link #points} or
 * {@link #bars}; the other methods return a copy with something added. NaN is a gap.
 *
 * <p>Threading: immutable.
 */
public final class Series {
    enum Style { LINE, DASHED, STEP, POINTS, BARS }

    enum Smoothing { NONE, EMA, MEDIAN }

    /** Numbers beyond this are drawn as gaps: no float32 comes near it, and sums and ratios of such numbers stay finite. */
    private static final double LARGEST = 1e100;

    final String name;
    final Style style;
    final double[] x;
    final double[] y;
    final double[] low;
    final double[] high;
    final boolean band;
    final String floorName;
    final double[] floor;
    final Smoothing smoothing;
    final double amount;
    /** Of the palette, or -1 for the next free one. */
    final int colour;

    private Series(String name, Style style, double[] x, double[] y, double[] low, double[] high, boolean band, String floorName,
            double[] floor, Smoothing smoothing, double amount, int colour) {
        this.name = name;
        this.style = style;
        this.x = x;
        this.y = y;
        this.low = low;
        this.high = high;
        this.band = band;
        this.floorName = floorName;
        this.floor = floor;
        this.smoothing = smoothing;
        this.amount = amount;
        this.colour = colour;
    }

    /**
     * Points joined by a line; the points are marked when they are few.
     *
     * @param name in the legend
     * @param x in ascending order
     * @param y one for each x
     * @return the series
     * @throws InvalidArgumentException when x and y differ in length
     */
    public static Series line(String name, double[] x, double[] y) {
        return of(name, Style.LINE, x, y);
    }

    /**
     * A dashed grey line, for what the others are measured against, such as a Bayes ceiling.
     *
     * @param name in the legend
     * @param x in ascending order
     * @param y one for each x
     * @return the series
     * @throws InvalidArgumentException when x and y differ in length
     */
    public static Series dashed(String name, double[] x, double[] y) {
        return of(name, Style.DASHED, x, y);
    }

    /**
     * A line that keeps each value until the next point.
     *
     * @param name in the legend
     * @param x in ascending order
     * @param y one for each x
     * @return the series
     * @throws InvalidArgumentException when x and y differ in length
     */
    public static Series step(String name, double[] x, double[] y) {
        return of(name, Style.STEP, x, y);
    }

    /**
     * Points without a line; over named places, those of several series stand side by side.
     *
     * @param name in the legend
     * @param x of the points
     * @param y one for each x
     * @return the series
     * @throws InvalidArgumentException when x and y differ in length
     */
    public static Series points(String name, double[] x, double[] y) {
        return of(name, Style.POINTS, x, y);
    }

    /**
     * Bars from zero; those of several series stand side by side. For an axis of named places.
     *
     * @param name in the legend
     * @param x of the bars
     * @param y one for each x
     * @return the series
     * @throws InvalidArgumentException when x and y differ in length
     */
    public static Series bars(String name, double[] x, double[] y) {
        return of(name, Style.BARS, x, y);
    }

    private static Series of(String name, Style style, double[] x, double[] y) {
        if (x.length != y.length) {
            throw new InvalidArgumentException("series " + name + ": " + x.length + " x and " + y.length + " y, expected as many");
        }
        return new Series(name, style, finite(x), finite(y), null, null, false, null, null, Smoothing.NONE, 0, -1);
    }

    /**
     * With a shaded band between two bounds.
     *
     * @param lower bounds, one for each point
     * @param upper bounds, one for each point
     * @return a copy with them
     * @throws InvalidArgumentException when there are more or fewer than points
     */
    public Series band(double[] lower, double[] upper) {
        return bounds(lower, upper, true);
    }

    /**
     * With a vertical bar between two bounds at every point.
     *
     * @param lower bounds, one for each point
     * @param upper bounds, one for each point
     * @return a copy with them
     * @throws InvalidArgumentException when there are more or fewer than points
     */
    public Series errorBars(double[] lower, double[] upper) {
        return bounds(lower, upper, false);
    }

    private Series bounds(double[] lower, double[] upper, boolean shaded) {
        requireLength(lower, "lower");
        requireLength(upper, "upper");
        return new Series(name, style, x, y, finite(lower), finite(upper), shaded, floorName, floor, smoothing, amount, colour);
    }

    /**
     * With a mark at the value that chance or noise alone would give, joined to the point by a thin line.
     *
     * @param label of the marks in the legend, shared by series that give the same one
     * @param values one for each point
     * @return a copy with them
     * @throws InvalidArgumentException when there are more or fewer than points
     */
    public Series floor(String label, double[] values) {
        requireLength(values, "floor");
        return new Series(name, style, x, y, low, high, band, label, finite(values), smoothing, amount, colour);
    }

    /**
     * Drawn as an exponential moving average, corrected for its start, over the faint values themselves. It lags behind a fast change;
     * {@link #median} does not.
     *
     * @param decay of the past at each point, in [0, 1)
     * @return a copy that is smoothed
     * @throws InvalidArgumentException when decay is out of range
     */
    public Series averaged(double decay) {
        if (!(decay >= 0 && decay < 1)) {
            throw new InvalidArgumentException("decay: " + decay + ", expected in [0, 1)");
        }
        return new Series(name, style, x, y, low, high, band, floorName, floor, Smoothing.EMA, decay, colour);
    }

    /**
     * Drawn as a running median over the faint values themselves.
     *
     * @param window points around each, an odd number
     * @return a copy that is smoothed
     * @throws InvalidArgumentException when window is not odd
     */
    public Series median(int window) {
        if (window < 1 || window % 2 == 0) {
            throw new InvalidArgumentException("window: " + window + ", expected an odd number");
        }
        return new Series(name, style, x, y, low, high, band, floorName, floor, Smoothing.MEDIAN, window, colour);
    }

    /**
     * In a colour of its own, so that one model has one colour on a whole page.
     *
     * @param slot of the palette: 0 blue, 1 vermilion, 2 green, 3 purple, 4 orange, 5 sky blue
     * @return a copy in that colour
     * @throws InvalidArgumentException when there is no such colour
     */
    public Series colour(int slot) {
        if (slot < 0 || slot >= Theme.COLOURS) {
            throw new InvalidArgumentException("slot: " + slot + ", expected 0 to " + (Theme.COLOURS - 1));
        }
        return new Series(name, style, x, y, low, high, band, floorName, floor, smoothing, amount, slot);
    }

    boolean isLine() {
        return style == Style.LINE || style == Style.DASHED || style == Style.STEP;
    }

    /** What the strong line shows: the values, or their smoothed course. */
    double[] course() {
        return switch (smoothing) {
            case NONE -> y;
            case EMA -> movingAverage(y, amount);
            case MEDIAN -> runningMedian(y, (int) amount / 2);
        };
    }

    private static double[] movingAverage(double[] values, double decay) {
        double[] out = new double[values.length];
        double sum = 0;
        double weight = 0;
        for (int i = 0; i < values.length; i++) {
            if (Double.isNaN(values[i])) {
                out[i] = Double.NaN;
                continue;
            }
            sum = decay * sum + (1 - decay) * values[i];
            weight = decay * weight + (1 - decay);
            out[i] = sum / weight;
        }
        return out;
    }

    private static double[] runningMedian(double[] values, int reach) {
        double[] out = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            double[] near = Arrays.stream(values, Math.max(0, i - reach), Math.min(values.length, i + reach + 1))
                .filter(v -> !Double.isNaN(v)).sorted().toArray();
            int half = near.length / 2;
            out[i] = Double.isNaN(values[i]) ? Double.NaN : near.length % 2 == 1 ? near[half] : (near[half - 1] + near[half]) / 2;
        }
        return out;
    }

    private void requireLength(double[] values, String what) {
        if (values.length != x.length) {
            throw new InvalidArgumentException(
                "series " + name + ": " + values.length + " values of " + what + ", expected " + x.length + " as of points");
        }
    }

    private static double[] finite(double[] values) {
        return Arrays.stream(values).map(v -> Math.abs(v) <= LARGEST ? v : Double.NaN).toArray();
    }
}
