package org.dualform.lab.train;

import java.util.LinkedHashMap;
import java.util.Map;
import org.dualform.InvalidArgumentException;
import org.dualform.nn.Parameters;
import org.dualform.optim.AdamW;
import org.dualform.optim.Optimizer;
import org.dualform.optim.Sgd;

/**
 * How a model is trained. Rows and length of a batch, and the seed of their order, belong to the {@link org.dualform.lab.data.Batches}.
 *
 * <p>Threading: immutable.
 *
 * @param steps optimizer steps in the whole run, at least 0
 * @param accumulation batches whose gradients are averaged in one step, at least 1
 * @param method the optimizer
 * @param learningRate the full rate, above 0
 * @param schedule of the rate
 * @param beta1 decay of Adam's first moment
 * @param beta2 decay of Adam's second moment
 * @param epsilon added to Adam's root
 * @param weightDecay on matrices; Adam has none, whatever is said here
 * @param momentum of SGD
 * @param clipNorm largest norm of the whole gradient, above 0; infinity for no clipping
 * @param evaluateEvery steps between evaluations, of which there is also one before the first step and one after the last; 0 for none
 * @param checkpointEvery steps between checkpoints, of which there is also one after the last; 0 for that one only
 * @param maxSkipped how many steps in a row may be skipped because the loss or the gradient is not finite, before training stops
 */
public record TrainingOptions(
        long steps,
        int accumulation,
        Method method,
        double learningRate,
        Schedule schedule,
        double beta1,
        double beta2,
        double epsilon,
        double weightDecay,
        double momentum,
        double clipNorm,
        long evaluateEvery,
        long checkpointEvery,
        int maxSkipped) {
    /**
     * Optimizers.
     *
     * <p>Threading: immutable.
     */
    public enum Method {
        /** Adam with decoupled weight decay. */
        ADAMW,
        /** Adam. */
        ADAM,
        /** Stochastic gradient descent, with momentum if wanted. */
        SGD
    }

    /**
     * Checks the numbers.
     *
     * @throws InvalidArgumentException if one is out of range
     */
    public TrainingOptions {
        if (method == null || schedule == null) {
            throw new NullPointerException((method == null ? "method" : "schedule") + " is null");
        }
        Schedule.require(steps >= 0, "steps", steps, "at least 0");
        Schedule.require(accumulation >= 1, "accumulation", accumulation, "at least 1");
        Schedule.require(learningRate > 0 && learningRate < Double.POSITIVE_INFINITY, "learningRate", learningRate, "above 0");
        Schedule.require(beta1 >= 0 && beta1 < 1, "beta1", beta1, "in [0, 1)");
        Schedule.require(beta2 >= 0 && beta2 < 1, "beta2", beta2, "in [0, 1)");
        Schedule.require(epsilon > 0 && epsilon < 1, "epsilon", epsilon, "in (0, 1)");
        Schedule.require(weightDecay >= 0 && weightDecay < Double.POSITIVE_INFINITY, "weightDecay", weightDecay, "at least 0");
        Schedule.require(momentum >= 0 && momentum < 1, "momentum", momentum, "in [0, 1)");
        Schedule.require(clipNorm > 0, "clipNorm", clipNorm, "above 0");
        Schedule.require(evaluateEvery >= 0, "evaluateEvery", evaluateEvery, "at least 0");
        Schedule.require(checkpointEvery >= 0, "checkpointEvery", checkpointEvery, "at least 0");
        Schedule.require(maxSkipped >= 1, "maxSkipped", maxSkipped, "at least 1");
    }

    /**
     * AdamW with betas 0.9 and 0.95, weight decay 0.1, clipping at 1, a constant rate, no accumulation, evaluations or checkpoints on the
     * way, and a stop after 3 skipped steps in a row.
     *
     * @param steps of the whole run
     * @param learningRate the full rate
     * @return the options, to be varied
     * @throws InvalidArgumentException if a number is out of range
     */
    public static TrainingOptions of(long steps, double learningRate) {
        return new TrainingOptions(steps, 1, Method.ADAMW, learningRate, Schedule.constant(), 0.9, 0.95, 1e-8, 0.1, 0, 1, 0, 0, 3);
    }

    /**
     * The same with AdamW.
     *
     * @param beta1 decay of the first moment
     * @param beta2 decay of the second moment
     * @param epsilon added to the root
     * @param weightDecay on matrices
     * @return the new options
     * @throws InvalidArgumentException if a number is out of range
     */
    public TrainingOptions withAdamW(double beta1, double beta2, double epsilon, double weightDecay) {
        return new TrainingOptions(steps, accumulation, Method.ADAMW, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with Adam.
     *
     * @param beta1 decay of the first moment
     * @param beta2 decay of the second moment
     * @param epsilon added to the root
     * @return the new options
     * @throws InvalidArgumentException if a number is out of range
     */
    public TrainingOptions withAdam(double beta1, double beta2, double epsilon) {
        return new TrainingOptions(steps, accumulation, Method.ADAM, learningRate, schedule, beta1, beta2, epsilon, 0, momentum, clipNorm,
                evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with stochastic gradient descent.
     *
     * @param momentum factor of the velocity, 0 for none
     * @param weightDecay on matrices
     * @return the new options
     * @throws InvalidArgumentException if a number is out of range
     */
    public TrainingOptions withSgd(double momentum, double weightDecay) {
        return new TrainingOptions(steps, accumulation, Method.SGD, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with another schedule.
     *
     * @param schedule of the rate
     * @return the new options
     */
    public TrainingOptions withSchedule(Schedule schedule) {
        return new TrainingOptions(steps, accumulation, method, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with another number of batches in a step.
     *
     * @param accumulation batches whose gradients are averaged
     * @return the new options
     * @throws InvalidArgumentException if it is less than 1
     */
    public TrainingOptions withAccumulation(int accumulation) {
        return new TrainingOptions(steps, accumulation, method, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with another limit for the gradient.
     *
     * @param clipNorm largest norm; infinity for no clipping
     * @return the new options
     * @throws InvalidArgumentException if it is not above 0
     */
    public TrainingOptions withClipNorm(double clipNorm) {
        return new TrainingOptions(steps, accumulation, method, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with other intervals.
     *
     * @param evaluateEvery steps between evaluations, 0 for none
     * @param checkpointEvery steps between checkpoints, 0 for the last only
     * @return the new options
     * @throws InvalidArgumentException if one is negative
     */
    public TrainingOptions withIntervals(long evaluateEvery, long checkpointEvery) {
        return new TrainingOptions(steps, accumulation, method, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * The same with another patience.
     *
     * @param maxSkipped steps in a row that may be skipped, at least 1
     * @return the new options
     * @throws InvalidArgumentException if it is less than 1
     */
    public TrainingOptions withMaxSkipped(int maxSkipped) {
        return new TrainingOptions(steps, accumulation, method, learningRate, schedule, beta1, beta2, epsilon, weightDecay, momentum,
                clipNorm, evaluateEvery, checkpointEvery, maxSkipped);
    }

    /**
     * An optimizer of this kind with zero state.
     *
     * @param parameters of the model
     * @return the optimizer; the caller closes it
     */
    public Optimizer newOptimizer(Parameters parameters) {
        return switch (method) {
            case ADAMW -> new AdamW(parameters, beta1, beta2, epsilon, weightDecay);
            case ADAM -> new AdamW(parameters, beta1, beta2, epsilon, 0);
            case SGD -> new Sgd(parameters, momentum, weightDecay);
        };
    }

    /**
     * Everything that decides the numbers, for people.
     *
     * @return name to value
     */
    public Map<String, String> described() {
        Map<String, String> described = fixed();
        described.putAll(adjustable());
        return described;
    }

    /**
     * What a run that goes on must have in common with the one it continues.
     *
     * @return name to value
     */
    Map<String, String> fixed() {
        Map<String, String> fixed = new LinkedHashMap<>();
        fixed.put("optimizer", method.name().toLowerCase(java.util.Locale.ROOT));
        fixed.put("accumulation", String.valueOf(accumulation));
        if (method == Method.SGD) {
            fixed.put("momentum", String.valueOf(momentum));
        } else {
            fixed.put("beta1", String.valueOf(beta1));
            fixed.put("beta2", String.valueOf(beta2));
            fixed.put("epsilon", String.valueOf(epsilon));
        }
        return fixed;
    }

    /**
     * What may differ, at the price of another trajectory than that of an unbroken run.
     *
     * @return name to value
     */
    Map<String, String> adjustable() {
        Map<String, String> adjustable = new LinkedHashMap<>();
        adjustable.put("steps", String.valueOf(steps));
        adjustable.put("learning rate", String.valueOf(learningRate));
        adjustable.put("schedule", schedule.decay().name().toLowerCase(java.util.Locale.ROOT) + " warm-up " + schedule.warmup() + " floor "
                + schedule.floor() + " power " + schedule.power());
        adjustable.put("weight decay", String.valueOf(method == Method.ADAM ? 0 : weightDecay));
        adjustable.put("clipping", String.valueOf(clipNorm));
        return adjustable;
    }
}
