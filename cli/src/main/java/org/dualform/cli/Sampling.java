package org.dualform.cli;

import java.util.Arrays;

/**
 * Times of one call: warmed up, then one sample after the other.
 *
 * @param median in seconds
 * @param fastest in seconds
 */
record Sampling(double median, double fastest) {
    private static final int LEAST = 7;
    private static final int MOST = 1 << 20;
    private static final double WARM_UP = 0.2; // of the time for samples
    /** A sample shorter than this many seconds is made of several calls. */
    private static final double SHORT = 2e-5;

    /** At least so many seconds, and {@value #LEAST} samples; prepare, if any, goes before each call and is not timed. */
    static Sampling of(double seconds, Runnable prepare, Runnable call) {
        double fastest = Double.POSITIVE_INFINITY;
        long start = System.nanoTime();
        for (int i = 0; i < 2 || since(start) < WARM_UP * seconds; i++) {
            fastest = Math.min(fastest, time(1, prepare, call));
        }
        int calls = prepare != null ? 1 : (int) Math.ceil(SHORT / Math.max(fastest, 1e-8));
        double[] samples = new double[LEAST];
        int count = 0;
        start = System.nanoTime();
        while (count < LEAST || since(start) < seconds && count < MOST) {
            if (count == samples.length) {
                samples = Arrays.copyOf(samples, 2 * count);
            }
            samples[count++] = time(calls, prepare, call);
        }
        Arrays.sort(samples, 0, count);
        double median = (samples[(count - 1) / 2] + samples[count / 2]) / 2;
        return new Sampling(median, samples[0]);
    }

    /** Seconds of one call. */
    private static double time(int calls, Runnable prepare, Runnable call) {
        if (prepare != null) {
            prepare.run();
        }
        long start = System.nanoTime();
        for (int i = 0; i < calls; i++) {
            call.run();
        }
        long total = System.nanoTime() - start;
        return total / 1e9 / calls;
    }

    private static double since(long start) {
        return (System.nanoTime() - start) / 1e9;
    }
}
