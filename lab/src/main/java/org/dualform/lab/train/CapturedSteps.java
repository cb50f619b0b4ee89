package org.dualform.lab.train;

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
 * <p>Threading: one thread at a time.
 */
final class CapturedSteps implements AutoCloseable {
    private final AdamW optimizer;
    private final StepControl control;
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

    CapturedSteps(Parameters parameters, AdamW optimizer, double clipNorm, GradientNorm norm, Tensor meanLoss, Runnable gradients) {
        Device device = parameters.device();
        this.optimizer = optimizer;
        control = new StepControl(parameters, clipNorm, 0);
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

    /** Updates the weights, unless the loss or a gradient is not finite. */
    void update(double rate) {
        control.setRates(rate);
        update.run(gradients.graph != null); // a graph keeps its memory: what was free before it may be missing after
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
