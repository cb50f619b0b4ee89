package org.dualform.optim;

import org.dualform.DType;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.nn.Parameters;

/**
 * The numbers of a training step, on the device, so that a {@link org.dualform.Device#capture captured} step needs no Java code: how many
 * steps were taken, the learning rate of each, the largest norm, and whether this one is finite at all.
 *
 * <p>A step under capture sums its gradients' squares, lets this class decide, and updates:
 * {@code control.decide(norm.sum(), loss); adamw.step(control);}
 *
 * <p>Threading: one thread at a time.
 */
public final class StepControl implements AutoCloseable {
    private final Tensor scale;
    private final Tensor counter;
    private final Tensor maxNorm;
    private final Tensor rates;

    /**
     * A control that has counted no step.
     *
     * @param parameters of the model, for their device and dtype
     * @param maxNorm largest norm of the gradients, above 0; infinite for any
     * @param rates the learning rate of each step, at least one; that of the last number for all steps beyond. Rounded to the accumulation
     *     dtype
     * @throws InvalidArgumentException if a number is out of range
     */
    public StepControl(Parameters parameters, double maxNorm, double... rates) {
        AdamW.requireRange(maxNorm > 0, "maxNorm", maxNorm, "above 0");
        requireRates(rates);
        DType accumulation = parameters.dtype().accumulation();
        scale = Tensor.zeros(parameters.device(), accumulation);
        counter = Tensor.zeros(parameters.device(), DType.I32);
        this.maxNorm = Tensor.full(parameters.device(), accumulation, maxNorm);
        this.rates = Tensor.empty(parameters.device(), accumulation, rates.length);
        this.rates.write(rates);
    }

    private static void requireRates(double[] rates) {
        if (rates.length == 0) {
            throw new InvalidArgumentException("rates: none, expected at least one");
        }
        for (double rate : rates) {
            AdamW.requireRange(Double.isFinite(rate), "rates", rate, "finite");
        }
    }

    /**
     * Decides over a step, without waiting: counts it and sets the factor of its gradients, or finds it not finite.
     *
     * @param squares the sum of the gradients' squares, as {@link GradientNorm#sum} gives it
     * @param loss a scalar in the accumulation dtype that has to be finite too; null for none
     */
    public void decide(Tensor squares, Tensor loss) {
        Ops.clipStep(scale, counter, squares, loss, maxNorm);
    }

    /**
     * Steps that were taken so far; waits for the device.
     *
     * @return their number, without those that were not finite
     */
    public long steps() {
        return counter.toInts()[0];
    }

    /**
     * Whether the step decided over last was finite; waits for the device.
     *
     * @return false if it was skipped, or there was none
     */
    public boolean isFinite() {
        return steps() > 0 && Double.isFinite(scale.item());
    }

    /**
     * Sets the number of steps taken, when a state is restored.
     *
     * @param steps at least 0
     * @throws InvalidArgumentException if it is negative or beyond 2^31-1
     */
    public void restoreSteps(long steps) {
        AdamW.requireRange(steps >= 0 && steps <= Integer.MAX_VALUE, "steps", steps, "in 0..2^31-1");
        counter.write(new int[] {(int) steps});
    }

    /**
     * Replaces the learning rates, between replays.
     *
     * @param values as many as there were
     * @throws InvalidArgumentException if there are not, or one is not finite
     */
    public void setRates(double... values) {
        requireRates(values);
        rates.write(values);
    }

    /**
     * Replaces the last of the learning rates, that of all steps beyond, between replays.
     *
     * @param value the rate
     * @throws InvalidArgumentException if it is not finite
     */
    public void setLastRate(double value) {
        requireRates(new double[] {value});
        try (Tensor last = rates.slice(0, rates.numel() - 1, rates.numel())) {
            last.write(new double[] {value});
        }
    }

    /** The factor of the gradients; NaN for a step that is not finite. */
    Tensor scale() {
        return scale;
    }

    Tensor counter() {
        return counter;
    }

    Tensor rates() {
        return rates;
    }

    @Override
    public void close() {
        rates.close();
        maxNorm.close();
        counter.close();
        scale.close();
    }
}
