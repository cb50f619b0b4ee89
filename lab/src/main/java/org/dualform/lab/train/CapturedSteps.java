package org.dualform.lab.train;

import java.util.Arrays;
import java.util.function.LongToDoubleFunction;
import org.dualform.Device;
import org.dualform.Graph;
import org.dualform.Tensor;
import org.dualform.nn.Parameters;
import org.dualform.optim.AdamW;
import org.dualform.optim.GradientNorm;
import org.dualform.optim.StepControl;

/**
 * The two parts of a training step, the gradients of a batch and the update, with every number on the device: each runs as it is once,
 * which leaves the memory it needs in the pool, is captured the second time, and is replayed from then on.
 *
 * <p>The learning rates are there too, of the whole run or of its first steps, so that nothing is written between
 * the two parts. The device looks them up by the number of steps that were taken: a step that was skipped moves the rest of them on by one,
 * and they are written anew.
 *
 * <p>Threading: one thread at a time.
 */
final class CapturedSteps implements AutoCloseable {
    private final AdamW optimizer;
    private final LongToDoubleFunction rate;
    private final double[] rates;
    private final StepControl control;
    private long skipped; // steps before this one, of those that the rates were written for
    private final Part gradients;
    private final Part update;

    /** Work that is the same each time. */
    private static final class Part {
        private final Device device;
        private final Runnable body;
        private boolean ran;
        private Graph graph;

        Part(Device device, Runnable body) {
            this.device = device;
            this.body = body;
        }

        /** Without counts this run does not show yet that there is memory for the part to be captured with. */
        void run(boolean counts) {
            if (!ran) {
                body.run();
                ran = counts;
                return;
            }
            if (graph == null) {
                graph = device.capture(body);
            }
            graph.replay();
        }

        void close() {
            if (graph != null) {
                graph.close();
            }
        }
    }

    /**
     * The rate is that of a step, from 0, skipped ones counted. So many of them are on the device; beyond, the last is the rate of the
     * step, written before each step that has another.
     */
    CapturedSteps(Parameters parameters, AdamW optimizer, double clipNorm, LongToDoubleFunction rate, int count, GradientNorm norm,
            Tensor meanLoss, Runnable gradients) {
        Device device = parameters.device();
        this.optimizer = optimizer;
        this.rate = rate;
        rates = new double[count];
        fillRates();
        control = new StepControl(parameters, clipNorm, rates);
        this.gradients = new Part(device, gradients);
        update = new Part(device, () -> {
            control.decide(norm.sum(), meanLoss);
            optimizer.step(control);
        });
    }

    /** Adds the gradients of the batch that was written. */
    void addGradients() {
        gradients.run(true);
    }

    /** Updates the weights in the step of this number, from 0, unless the loss or a gradient is not finite. */
    void update(long step) {
        if (step - optimizer.steps() != skipped) {
            skipped = step - optimizer.steps();
            fillRates();
            control.setRates(rates);
        }
        int last = rates.length - 1;
        if (optimizer.steps() >= last && rates[last] != rate.applyAsDouble(step)) {
            rates[last] = rate.applyAsDouble(step);
            control.setLastRate(rates[last]);
        }
        update.run(gradients.graph != null); // a graph keeps its memory: what was free before it may be missing after
    }

    private void fillRates() {
        Arrays.setAll(rates, taken -> rate.applyAsDouble(taken + skipped));
    }

    /** Tells the optimizer of a step that was taken. */
    void taken() {
        optimizer.restoreSteps(optimizer.steps() + 1);
    }

    /** Goes on from the optimizer's steps. */
    void restore() {
        control.restoreSteps(optimizer.steps());
    }

    @Override
    public void close() {
        update.close();
        gradients.close();
        control.close();
    }
}
