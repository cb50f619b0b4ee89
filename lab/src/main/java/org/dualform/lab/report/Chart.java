package org.dualform.lab.report;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.dualform.InvalidArgumentException;

/**
 * A chart of one or several {@link Series} over a common axis.
 *
 * <pre>{@code
 * Chart.titled("Accuracy over shots")
 *     .xPlaces("examples in the prompt", 0, 1, 2, 4, 8)
 *     .y("accuracy").percent()
 *     .add(Series.line("momentum", shots, accuracy).band(low, high))
 *     .add(Series.dashed("Bayes ceiling", shots, ceiling))
 *     .reference("chance", 0.25)
 *     .build().save(file);
 * }</pre>
 *
 * <p>Threading: immutable; a builder is for one thread.
 */
public final class Chart extends Figure {
    record Reference(String label, double y) {
    }

    final String title;
    final String note;
    final String xLabel;
    final String yLabel;
    final List<Series> series;
    final List<Reference> references;
    final int[] colours;
    private final String description;
    private final Scale xScale;
    private final Scale yScale;
    private final double[] slots;
    private final List<String> slotNames;
    private final boolean percent;
    private final double yLow;
    private final double yHigh;

    private Chart(Builder builder) {
        title = builder.title;
        note = builder.note;
        description = builder.description;
        xLabel = builder.xLabel;
        yLabel = builder.yLabel;
        xScale = builder.xScale;
        yScale = builder.yScale;
        slots = builder.slots;
        slotNames = builder.slotNames;
        percent = builder.percent;
        yLow = builder.yLow;
        yHigh = builder.yHigh;
        series = List.copyOf(builder.series);
        references = List.copyOf(builder.references);
        colours = new int[series.size()];
        int next = 0;
        for (int i = 0; i < colours.length; i++) {
            Series s = series.get(i);
            colours[i] = s.colour >= 0 ? s.colour : s.style == Series.Style.DASHED ? Theme.GREY : next++ % Theme.COLOURS;
        }
    }

    /**
     * Starts a chart.
     *
     * @param title what it shows, in a few words
     * @return a builder with linear axes
     */
    public static Builder titled(String title) {
        return new Builder(title);
    }

    /**
     * Collects what a {@link Chart} shows.
     *
     * <p>Threading: one thread at a time.
     */
    public static final class Builder {
        private final String title;
        private final List<Series> series = new ArrayList<>();
        private final List<Reference> references = new ArrayList<>();
        private String note = "";
        private String description;
        private String xLabel = "";
        private String yLabel = "";
        private Scale xScale = Scale.LINEAR;
        private Scale yScale = Scale.LINEAR;
        private double[] slots;
        private List<String> slotNames;
        private boolean percent;
        private double yLow = Double.NaN;
        private double yHigh = Double.NaN;

        private Builder(String title) {
            this.title = title;
        }

        /**
         * A line in smaller type under the title.
         *
         * @param text such as how many examples each point counts
         * @return this
         */
        public Builder note(String text) {
            note = text;
            return this;
        }

        /**
         * What the picture shows, for those who cannot see it; without it, the first and last value of every series are said.
         *
         * @param text a sentence or two
         * @return this
         */
        public Builder description(String text) {
            description = text;
            return this;
        }

        /**
         * Names the horizontal axis.
         *
         * @param label with the unit in it
         * @return this
         */
        public Builder x(String label) {
            xLabel = label;
            return this;
        }

        /**
         * Names the horizontal axis and gives it equal room for each of a few numbers, however far apart: 0, 1, 2, 4, 8 shots.
         *
         * @param label with the unit in it
         * @param values the only x that series may have
         * @return this
         */
        public Builder xPlaces(String label, double... values) {
            xLabel = label;
            slots = values.clone();
            slotNames = Arrays.stream(values).mapToObj(v -> Numbers.significant(v, 6)).toList();
            return this;
        }

        /**
         * Names the horizontal axis and gives it equal room for each of a few names; series have x 0, 1, 2 and so on.
         *
         * @param label of the whole axis
         * @param names from left to right
         * @return this
         */
        public Builder xNames(String label, String... names) {
            xLabel = label;
            slots = new double[names.length];
            Arrays.setAll(slots, i -> i);
            slotNames = List.of(names);
            return this;
        }

        /**
         * Names the vertical axis.
         *
         * @param label with the unit in it
         * @return this
         */
        public Builder y(String label) {
            yLabel = label;
            return this;
        }

        /**
         * Scales the axes.
         *
         * @param horizontal of x, when it has no named places
         * @param vertical of y
         * @return this
         */
        public Builder scales(Scale horizontal, Scale vertical) {
            xScale = horizontal;
            yScale = vertical;
            return this;
        }

        /**
         * Writes shares as percent on the vertical axis: 0.25 is 25 %.
         *
         * @return this
         */
        public Builder percent() {
            percent = true;
            return this;
        }

        /**
         * Fixes ends of the vertical axis; what lies beyond is cut off.
         *
         * @param low end, or NaN to have it from the data
         * @param high end, or NaN to have it from the data
         * @return this
         */
        public Builder yRange(double low, double high) {
            yLow = low;
            yHigh = high;
            return this;
        }

        /**
         * Adds a series; the first comes first in the legend.
         *
         * @param added what to draw
         * @return this
         */
        public Builder add(Series added) {
            series.add(added);
            return this;
        }

        /**
         * Adds a horizontal line over the whole width.
         *
         * @param label beside it, such as {@code chance 25 %}
         * @param y where
         * @return this
         */
        public Builder reference(String label, double y) {
            references.add(new Reference(label, y));
            return this;
        }

        /**
         * The chart.
         *
         * @return it
         * @throws InvalidArgumentException when a series has an x that is not among the places, bars have no places to stand at or no zero
         *     to stand on, or the vertical axis cannot have these ends
         */
        public Chart build() {
            for (Series s : series) {
                if (s.style == Series.Style.BARS && (slots == null || yScale != Scale.LINEAR)) {
                    throw new InvalidArgumentException(
                        "series " + s.name + ": bars, expected xPlaces or xNames below them and a linear scale beside them");
                }
                for (double x : s.x) {
                    if (slots != null && Arrays.stream(slots).noneMatch(slot -> slot == x)) {
                        throw new InvalidArgumentException("series " + s.name + ": x " + x + ", expected one of " + Arrays.toString(slots));
                    }
                }
            }
            if (yLow >= yHigh || Double.isInfinite(yLow) || Double.isInfinite(yHigh)
                    || yScale != Scale.LINEAR && (yLow <= 0 || yHigh <= 0)) {
                throw new InvalidArgumentException("yRange: " + yLow + " to " + yHigh
                    + ", expected the lower end first, both finite, and above zero on a logarithmic scale");
            }
            return new Chart(this);
        }
    }

    boolean isPercent() {
        return percent;
    }

    /** The horizontal axis over all of these charts. */
    static Axis xAxis(List<Chart> charts, int most) {
        Chart first = charts.get(0);
        if (first.slots != null) {
            return Axis.ordinal(first.slots, first.slotNames);
        }
        Extent extent = new Extent(first.xScale);
        for (Chart chart : charts) {
            for (Series s : chart.series) {
                for (int i = 0; i < s.x.length; i++) {
                    extent.add(s.x[i]);
                }
            }
        }
        extent.finish(false);
        double low = extent.low;
        // A run's first step is 1, but people look for 0.
        if (first.xScale == Scale.LINEAR && low > 0 && low <= 0.02 * extent.high) {
            low = 0;
        }
        return first.xScale == Scale.LINEAR ? Axis.horizontal(low, extent.high, most)
            : Axis.logarithmic(first.xScale, low, extent.high, most);
    }

    /** The vertical axis over all of these charts. */
    static Axis yAxis(List<Chart> charts, int most) {
        Chart first = charts.get(0);
        Extent extent = new Extent(first.yScale);
        for (Chart chart : charts) {
            for (Series s : chart.series) {
                extent.addAll(s.y);
                extent.addAll(s.low);
                extent.addAll(s.high);
                extent.addAll(s.floor);
                // Lengths from zero, and excess over a floor, are read against zero.
                if (s.style == Series.Style.BARS || s.floor != null) {
                    extent.add(0);
                }
            }
            chart.references.forEach(reference -> extent.add(reference.y));
        }
        extent.finish(first.percent);
        double low = Double.isNaN(first.yLow) ? extent.low : first.yLow;
        double high = Double.isNaN(first.yHigh) ? extent.high : first.yHigh;
        if (low >= high) {
            // One end was given, and all data lie beyond it.
            double room = Math.max(1, Math.abs(low));
            if (Double.isNaN(first.yHigh)) {
                high = low + room;
            } else {
                low = high - room;
            }
        }
        return first.yScale == Scale.LINEAR
            ? Axis.vertical(low, !Double.isNaN(first.yLow), high, !Double.isNaN(first.yHigh), first.percent, most)
            : Axis.logarithmic(first.yScale, Double.isNaN(first.yLow) ? low / extent.room() : low,
                Double.isNaN(first.yHigh) ? high * extent.room() : high, most);
    }

    /** What the picture says to those who cannot see it. */
    String spoken(Axis x) {
        if (description != null) {
            return description;
        }
        StringBuilder out = new StringBuilder();
        out.append(yLabel.isEmpty() ? title : yLabel).append(" over ").append(xLabel.isEmpty() ? "x" : xLabel).append('.');
        for (Series s : series) {
            int first = 0;
            int last = s.y.length - 1;
            while (first <= last && (Double.isNaN(s.y[first]) || Double.isNaN(s.x[first]))) {
                first++;
            }
            while (last > first && (Double.isNaN(s.y[last]) || Double.isNaN(s.x[last]))) {
                last--;
            }
            out.append(' ').append(s.name).append(": ");
            if (first > last) {
                out.append("no values.");
            } else {
                out.append(value(s.y[first])).append(" at ").append(x.name(s.x[first]));
                if (last > first) {
                    out.append(", ").append(value(s.y[last])).append(" at ").append(x.name(s.x[last]));
                }
                out.append('.');
            }
        }
        references.forEach(r -> out.append(' ').append(r.label).append(": ").append(value(r.y)).append('.'));
        return out.toString();
    }

    String value(double y) {
        return percent ? Numbers.percent(y, 1) : Numbers.significant(y, 4);
    }

    @Override
    String render(String id, int width, boolean standalone) {
        return new Painter(id, width, standalone).paint(this);
    }

    /** The least and greatest of the numbers a scale can show. */
    private static final class Extent {
        private final Scale scale;
        private double low = Double.POSITIVE_INFINITY;
        private double high = Double.NEGATIVE_INFINITY;

        Extent(Scale scale) {
            this.scale = scale;
        }

        void add(double value) {
            if (Double.isFinite(scale.forward(value))) {
                low = Math.min(low, value);
                high = Math.max(high, value);
            }
        }

        void addAll(double[] values) {
            if (values != null) {
                for (double value : values) {
                    add(value);
                }
            }
        }

        /** A twentieth of the range of ratios, so that the outermost points are not on the edge. */
        double room() {
            return StrictMath.pow(high / low, 0.05);
        }

        /** Makes a range of it even when there was one number, or none. */
        void finish(boolean share) {
            if (low > high) {
                low = scale == Scale.LINEAR ? 0 : 1;
                high = scale == Scale.LINEAR ? 1 : 10;
            } else if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) {
                double room = share ? 0.1 : low == 0 ? 1 : Math.abs(low) * 0.1;
                low -= room;
                high += room;
            }
        }
    }
}
