package org.dualform.optim;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;
import org.dualform.DType;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.nn.Parameters;

/**
 * AdamW with decoupled weight decay on matrices only (Loshchilov and Hutter, arXiv:1711.05101); without decay it is Adam.
 *
 * <p>Threading: one thread at a time.
 */
public final class AdamW implements Optimizer {
    private final Parameters parameters;
    private final double beta1;
    private final double beta2;
    private final double epsilon;
    private final double weightDecay;
    private final Tensor m;
    private final Tensor v;
    private long steps;

    /**
     * An optimizer with zero state.
     *
     * @param parameters of the model
     * @param beta1 decay of the first moment, in [0, 1)
     * @param beta2 decay of the second moment, in [0, 1)
     * @param epsilon added to the root, above 0
     * @param weightDecay at least 0
     * @throws InvalidArgumentException if a number is out of range
     */
    public AdamW(Parameters parameters, double beta1, double beta2, double epsilon, double weightDecay) {
        requireRange(beta1 >= 0 && beta1 < 1, "beta1", beta1, "in [0, 1)");
        requireRange(beta2 >= 0 && beta2 < 1, "beta2", beta2, "in [0, 1)");
        requireRange(epsilon > 0 && epsilon < 1, "epsilon", epsilon, "in (0, 1)");
        requireRange(weightDecay >= 0 && weightDecay < Double.POSITIVE_INFINITY, "weightDecay", weightDecay, "at least 0");
        this.parameters = parameters;
        this.beta1 = beta1;
        this.beta2 = beta2;
        this.epsilon = epsilon;
        this.weightDecay = weightDecay;
        DType accumulation = parameters.dtype().accumulation();
        m = Tensor.zeros(parameters.device(), accumulation, parameters.storageSize());
        try {
            v = Tensor.zeros(parameters.device(), accumulation, parameters.storageSize());
        } catch (RuntimeException | Error e) {
            m.close();
            throw e;
        }
    }

    static void requireRange(boolean inside, String name, double value, String range) {
        if (!inside) {
            throw new InvalidArgumentException(name + ": " + value + ", expected " + range);
        }
    }

    @Override
    public void step(double learningRate, Tensor scale) {
        steps++;
        update(scale, null, null, learningRate);
    }

    /**
     * Takes one step whose numbers are on the device, so that it can be {@link org.dualform.Device#capture captured}: the learning rate and
     * the number of the step are those of the control, and where {@link StepControl#decide} found the step not finite nothing changes.
     * {@link #steps()} does not count it: {@link StepControl#steps()} does.
     *
     * @param control which has decided over this step
     */
    public void step(StepControl control) {
        update(control.scale(), control.rates(), control.counter(), 0);
    }

    /** All trained parameters in one call. */
    private void update(Tensor scale, Tensor rates, Tensor counter, double learningRate) {
        List<Parameters.Range> ranges = parameters.trainable();
        long[] bounds = ranges.stream().flatMapToLong(range -> LongStream.of(range.from(), range.to())).toArray();
        double[] decays = ranges.stream().mapToDouble(range -> range.decayed() ? weightDecay : 0).toArray();
        Ops.adamwRanges(parameters.values(), m, v, parameters.master(), parameters.gradients(), scale, rates, counter, bounds, decays,
                learningRate, beta1, beta2, epsilon, Math.max(1, steps));
    }

    @Override
    public long steps() {
        return steps;
    }

    @Override
    public void restoreSteps(long steps) {
        requireRange(steps >= 0, "steps", steps, "at least 0");
        this.steps = steps;
    }

    @Override
    public Map<String, Tensor> state() {
        Map<String, Tensor> state = new LinkedHashMap<>();
        state.put("m", m);
        state.put("v", v);
        return state;
    }

    @Override
    public void close() {
        m.close();
        v.close();
    }
}
