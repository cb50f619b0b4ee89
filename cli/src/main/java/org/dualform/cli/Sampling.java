package org.dualform.cli;

import java.util.Arrays;
import org.dualform.Backend;
import org.dualform.Device;

/**
 * Times of one call by the device's timer: warmed up, then one sample after the other.
 *
 * @param median in seconds
 * @param fastest in seconds
 */
record Sampling(double median, double fastest) {
    private static final int LEAST = 7;
    private static final int MOST = 1 << 20;
    private static final int MOST_CALLS = 100_000;
    private static final double WARM_UP = 0.2; // of the time for samples
    /** A sample shorter than this many seconds is made of several calls. */
    private static final double SHORT = 2e-5;
    /** On a device that queues calls, where the timer ends when the last is done. */
    private static final double SHORT_WHEN_QUEUED = 2e-3;

    /** At least so many seconds, and {@value #LEAST} samples; prepare, if any, goes before each call and is not timed. */
    static Sampling of(Device device, double seconds, Runnable prepare, Runnable call) {
        boolean queued = device.backend() != Backend.CPU;
        double shortest = queued ? SHORT_WHEN_QUEUED : SHORT;
        double fastest = Double.POSITIVE_INFINITY;
        long start = System.nanoTime();
        for (int i = 0; i < 2 || since(start) < WARM_UP * seconds; i++) {
            fastest = Math.min(fastest, time(device, 1, prepare, call, false));
        }
        int calls = prepare != null ? 1 : (int) Math.min(MOST_CALLS, Math.ceil(shortest / Math.max(fastest, 1e-8)));
        // With a call ahead of it the device never waits for the host in between; a long call needs none.
        boolean fill = queued && prepare == null && fastest < shortest / 2;
        double[] samples = new double[LEAST];
        int count = 0;
        start = System.nanoTime();
        while (count < LEAST || since(start) < seconds && count < MOST) {
            if (count == samples.length) {
                samples = Arrays.copyOf(samples, 2 * count);
            }
            samples[count++] = time(device, calls, prepare, call, fill);
        }
        Arrays.sort(samples, 0, count);
        double median = (samples[(count - 1) / 2] + samples[count / 2]) / 2;
        return new Sampling(median, samples[0]);
    }

    /** Seconds of one call. */
    private static double time(Device device, int calls, Runnable prepare, Runnable call, boolean fill) {
        if (prepare != null) {
            prepare.run();
        }
        if (fill) {
            call.run();
        }
        device.startTimer();
        for (int i = 0; i < calls; i++) {
            call.run();
        }
        return device.stopTimer() / calls;
    }

    private static double since(long start) {
        return (System.nanoTime() - start) / 1e9;
    }
}
