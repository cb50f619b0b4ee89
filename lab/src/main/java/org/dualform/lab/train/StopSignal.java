package org.dualform.lab.train;

import java.util.concurrent.CountDownLatch;
import java.util.function.BooleanSupplier;

/**
 * Notices that the process is asked to end, by SIGTERM or SIGINT, and holds the end back until this is closed. The virtual machine then
 * ends with its own code, 143 or 130.
 *
 * <p>Open it around a run, give it to {@link Trainer#run(BooleanSupplier)}, and close it when everything is saved.
 *
 * <p>Threading: safe for concurrent use.
 */
public final class StopSignal implements BooleanSupplier, AutoCloseable {
    private final CountDownLatch finished = new CountDownLatch(1);
    private final Thread hook = new Thread(this::hold, "stop-signal");
    private volatile boolean requested;

    /** Starts to listen. */
    public StopSignal() {
        Runtime.getRuntime().addShutdownHook(hook);
    }

    /** Native memory is not freed here: other threads may be using it until the very end. */
    private void hold() {
        requested = true;
        boolean waiting = true;
        while (waiting) {
            try {
                finished.await();
                waiting = false;
            } catch (InterruptedException e) {
                // nobody may cut the saving short
                waiting = true;
            }
        }
    }

    /**
     * Whether the end was asked for.
     *
     * @return true from then on
     */
    @Override
    public boolean getAsBoolean() {
        return requested;
    }

    /** Lets the process end, now if that was asked for. */
    @Override
    public void close() {
        finished.countDown();
        try {
            Runtime.getRuntime().removeShutdownHook(hook);
        } catch (IllegalStateException e) {
            requested = true; // the end has begun
        }
    }
}
