package org.dualform.optim;

import java.util.LinkedHashMap;
import java.util.Map;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.nn.Parameters;

/**
 * Stochastic gradient descent, with momentum and weight decay (on matrices only) if wanted.
 *
 * <p>Threading: one thread at a time.
 */
public final class Sgd implements Optimizer {
    private final Parameters parameters;
    private final double momentum;
    private final double weightDecay;
    private final Tensor buffer;
    private long steps;

    /**
     * An optimizer with zero state.
     *
     * @param parameters of the model
     * @param momentum factor of the buffer, in [0, 1); 0 for none
     * @param weightDecay added to the gradient, times the parameter, at least 0
     * @throws InvalidArgumentException if a number is out of range
     */
    public Sgd(Parameters parameters, double momentum, double weightDecay) {
        AdamW.requireRange(momentum >= 0 && momentum < 1, "momentum", momentum, "in [0, 1)");
        AdamW.requireRange(weightDecay >= 0 && weightDecay < Double.POSITIVE_INFINITY, "weightDecay", weightDecay, "at least 0");
        this.parameters = parameters;
        this.momentum = momentum;
        this.weightDecay = weightDecay;
        buffer = momentum == 0 ? null
                : Tensor.zeros(parameters.device(), parameters.dtype().accumulation(), parameters.storageSize());
    }

    @Override
    public void step(double learningRate, Tensor scale) {
        steps++;
        for (Parameters.Range range : parameters.trainable()) {
            double decay = range.decayed() ? weightDecay : 0;
            if (buffer == null) {
                Ops.sgdStep(range.value(), null, range.master(), range.gradient(), scale, learningRate, 0, decay);
                continue;
            }
            try (Tensor velocity = buffer.slice(0, range.from(), range.to())) {
                Ops.sgdStep(range.value(), velocity, range.master(), range.gradient(), scale, learningRate, momentum, decay);
            }
        }
    }

    @Override
    public long steps() {
        return steps;
    }

    @Override
    public void restoreSteps(long steps) {
        AdamW.requireRange(steps >= 0, "steps", steps, "at least 0");
        this.steps = steps;
    }

    @Override
    public Map<String, Tensor> state() {
        Map<String, Tensor> state = new LinkedHashMap<>();
        if (buffer != null) {
            state.put("momentum", buffer);
        }
        return state;
    }

    @Override
    public void close() {
        if (buffer != null) {
            buffer.close();
        }
    }
}
