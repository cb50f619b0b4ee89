package org.dualform.optim;

import java.util.LinkedHashMap;
import java.util.Map;
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
        for (Parameters.Range range : parameters.trainable()) {
            try (Tensor first = m.slice(0, range.from(), range.to()); Tensor second = v.slice(0, range.from(), range.to())) {
                Ops.adamwStep(range.value(), first, second, range.master(), range.gradient(), scale, learningRate, beta1, beta2, epsilon,
                        range.decayed() ? weightDecay : 0, steps);
            }
        }
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
