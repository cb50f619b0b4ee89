package org.dualform.lab.train;

import java.nio.file.Path;

/**
 * Is told what a {@link Trainer} does. Every method does nothing unless it is overridden.
 *
 * <p>Threading: called on the trainer's thread.
 */
public interface TrainingListener {
    /**
     * One step.
     *
     * <p>Threading: immutable.
     *
     * @param step its number, from 1
     * @param loss mean cross-entropy in nats before the step; NaN or infinite only where it was skipped
     * @param learningRate it had
     * @param gradientNorm before clipping
     * @param tokens seen so far, skipped steps included
     * @param skipped whether weights and optimizer were left alone because loss or gradient was not finite
     */
    record Step(long step, double loss, double learningRate, double gradientNorm, long tokens, boolean skipped) {}

    /**
     * A step is done or was skipped.
     *
     * @param step what happened
     */
    default void stepped(Step step) {}

    /**
     * An evaluation is due: before the first step, every {@link TrainingOptions#evaluateEvery} steps and after the last. The model may be
     * used, not changed.
     *
     * @param step steps done
     * @return whether it is complete; if not it is repeated when the run goes on from a checkpoint of this step
     */
    default boolean evaluate(long step) {
        return true;
    }

    /**
     * A checkpoint is on the disk.
     *
     * @param step steps done
     * @param folder the run's
     */
    default void saved(long step, Path folder) {}

    /**
     * Something went wrong and training goes on.
     *
     * @param sentence what
     */
    default void warned(String sentence) {}
}
