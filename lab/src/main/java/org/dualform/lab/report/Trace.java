package org.dualform.lab.report;

import java.util.Arrays;

/**
 * A line through points in the plane, written as an SVG path of small steps in tenths. Of very many points, only those stay that can be
 * seen: the first, least, greatest and last of each column.
 */
final class Trace {
    /** Columns narrower than this are below what a screen shows. */
    private static final double COLUMN = 1.5;

    private final boolean stairs;
    private double[] xs = new double[64];
    private double[] ys = new double[64];
    private int size;

    Trace(boolean stairs) {
        this.stairs = stairs;
    }

    /** The next point, to the right of the last; NaN in either is a gap. */
    void add(double x, double y) {
        if (size == xs.length) {
            xs = Arrays.copyOf(xs, 2 * size);
            ys = Arrays.copyOf(ys, 2 * size);
        }
        xs[size] = x;
        ys[size++] = y;
    }

    String path(double width) {
        boolean thin = size > 2 * width / COLUMN;
        Path path = new Path();
        int i = 0;
        while (i < size) {
            if (isGap(i)) {
                path.lift();
                i++;
                continue;
            }
            int end = i + 1;
            while (thin && end < size && !isGap(end) && StrictMath.floor(xs[end] / COLUMN) == StrictMath.floor(xs[i] / COLUMN)) {
                end++;
            }
            int least = i;
            int greatest = i;
            for (int k = i; k < end; k++) {
                least = ys[k] < ys[least] ? k : least;
                greatest = ys[k] > ys[greatest] ? k : greatest;
            }
            int last = -1;
            for (int k : new int[] {i, Math.min(least, greatest), Math.max(least, greatest), end - 1}) {
                if (k != last) {
                    path.to(Math.round(xs[k] * 10), Math.round(ys[k] * 10), stairs);
                    last = k;
                }
            }
            i = end;
        }
        path.lift();
        return path.text.toString();
    }

    private boolean isGap(int i) {
        return Double.isNaN(xs[i]) || Double.isNaN(ys[i]);
    }

    static String tenths(long value) {
        long whole = Math.abs(value) / 10;
        long tenth = Math.abs(value) % 10;
        return (value < 0 ? "-" : "") + (tenth == 0 ? Long.toString(whole) : whole + "." + tenth);
    }

    /** The text of a path; steps are differences of rounded places, so that they do not drift. */
    private static final class Path {
        private final StringBuilder text = new StringBuilder();
        private long x;
        private long y;
        private int points;

        void to(long nextX, long nextY, boolean stairs) {
            if (points == 0) {
                text.append('M').append(tenths(nextX)).append(' ').append(tenths(nextY));
            } else if (stairs) {
                text.append('h').append(tenths(nextX - x)).append('v').append(tenths(nextY - y));
            } else {
                text.append('l').append(tenths(nextX - x)).append(' ').append(tenths(nextY - y));
            }
            x = nextX;
            y = nextY;
            points++;
        }

        /** Ends a stretch; a point alone becomes a dot, which round line ends make visible. */
        void lift() {
            if (points == 1) {
                text.append("h0");
            }
            points = 0;
        }
    }
}
