package org.dualform.optim;

import org.dualform.DType;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.nn.Parameters;

/**
 * The global norm of the trained parameters' gradients, and clipping by it (Pascanu et al. 2012, arXiv:1211.5063).
 *
 * <p>Threading: one thread at a time.
 */
public final class GradientNorm implements AutoCloseable {
    private final Parameters parameters;
    private final Tensor squares;
    private final Tensor scale;

    /**
     * For the gradients of a model.
     *
     * @param parameters of the model
     */
    public GradientNorm(Parameters parameters) {
        this.parameters = parameters;
        DType accumulation = parameters.dtype().accumulation();
        squares = Tensor.zeros(parameters.device(), accumulation);
        scale = Tensor.zeros(parameters.device(), accumulation);
    }

    /**
     * Measures the norm, waiting for the device.
     *
     * @return the root of the sum of squares; not finite when a gradient is not
     */
    public double measure() {
        sum();
        return summed();
    }

    /**
     * The norm of the gradients that {@link #sum} saw last, in a replay too, waiting for the device.
     *
     * @return the root of the sum of squares; not finite when a gradient was not
     */
    public double summed() {
        return Math.sqrt(squares.item());
    }

    /**
     * Sums the squares without waiting for them: what {@link StepControl#decide} reads on the device.
     *
     * @return the sum, a scalar of this object
     */
    public Tensor sum() {
        boolean accumulate = false;
        for (Parameters.Range range : parameters.trainable()) {
            Ops.squaredNorm(squares, range.gradient(), accumulate);
            accumulate = true;
        }
        if (!accumulate) {
            Ops.fill(squares, 0);
        }
        return squares;
    }

    /**
     * The factor that brings the norm measured last down to a limit; 1 when it is below.
     *
     * @param maxNorm above 0
     * @return a scalar of this object, for {@link Optimizer#step}
     * @throws InvalidArgumentException if maxNorm is not above 0
     */
    public Tensor clip(double maxNorm) {
        Ops.clipScale(scale, squares, maxNorm);
        return scale;
    }

    @Override
    public void close() {
        squares.close();
        scale.close();
    }
}
