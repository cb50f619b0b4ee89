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
    static final double SHORT = 2e-5;
    /** On a device that queues calls: waiting for it costs more than a short call. */
    static final double SHORT_WHEN_QUEUED = 2e-3;

    /**
     * At least so many seconds, and {@value #LEAST} samples; prepare, if any, goes before each call and is not timed. A sample ends when
     * wait returns, and is made of several calls where one is shorter than so many seconds.
     */
    static Sampling of(double seconds, double shortest, Runnable prepare, Runnable call, Runnable wait) {
        double fastest = Double.POSITIVE_INFINITY;
        long start = System.nanoTime();
        for (int i = 0; i < 2 || since(start) < WARM_UP * seconds; i++) {
            fastest = Math.min(fastest, time(1, prepare, call, wait));
        }
        int calls = prepare != null ? 1 : (int) Math.ceil(shortest / Math.max(fastest, 1e-8));
        double[] samples = new double[LEAST];
        int count = 0;
        start = System.nanoTime();
        while (count < LEAST || since(start) < seconds && count < MOST) {
            if (count == samples.length) {
                samples = Arrays.copyOf(samples, 2 * count);
            }
            samples[count++] = time(calls, prepare, call, wait);
        }
        Arrays.sort(samples, 0, count);
        double median = (samples[(count - 1) / 2] + samples[count / 2]) / 2;
        return new Sampling(median, samples[0]);
    }

    /** Seconds of one call. */
    private static double time(int calls, Runnable prepare, Runnable call, Runnable wait) {
        if (prepare != null) {
            prepare.run();
        }
        wait.run();
        long start = System.nanoTime();
        for (int i = 0; i < calls; i++) {
            call.run();
        }
        wait.run();
        long total = System.nanoTime() - start;
        return total / 1e9 / calls;
    }

    private static double since(long start) {
        return (System.nanoTime() - start) / 1e9;
    }
}
