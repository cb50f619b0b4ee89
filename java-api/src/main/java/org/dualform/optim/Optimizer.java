package org.dualform.optim;

import java.util.Map;
import org.dualform.Tensor;

/**
 * Updates the trained parameters of a model from their gradients.
 *
 * <p>Threading: one thread at a time.
 */
public interface Optimizer extends AutoCloseable {
    /**
     * Takes one step. Gradients stay as they are; frozen parameters and their state are not touched.
     *
     * @param learningRate of this step
     * @param scale scalar in the accumulation dtype that multiplies every gradient, as {@link GradientNorm#clip} gives it; null for 1
     */
    void step(double learningRate, Tensor scale);

    /**
     * Steps taken so far.
     *
     * @return their number
     */
    long steps();

    /**
     * Sets the number of steps taken, when a state is restored.
     *
     * @param steps at least 0
     * @throws org.dualform.InvalidArgumentException if steps is negative
     */
    void restoreSteps(long steps);

    /**
     * The state tensors by name, each of the size of the parameter storage: what a checkpoint saves and writes back into.
     *
     * @return the optimizer's own tensors
     */
    Map<String, Tensor> state();

    @Override
    void close();
}
