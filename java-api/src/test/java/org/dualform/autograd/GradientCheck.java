package org.dualform.autograd;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.dualform.Device;
import org.dualform.Reduction;
import org.dualform.Tensor;

/** Compares the gradients of recorded ops with central differences of order four, in float64. */
final class GradientCheck implements AutoCloseable {
    private static final double STEP = 1e-3;
    private static final double TOLERANCE = 1e-7;

    /** A computation from inputs to one or more results. */
    interface Computation {
        Tensor[] run(Tape tape, Tensor[] inputs);
    }

    private final Device device;
    private final Random random;
    private final List<Tensor> inputs = new ArrayList<>();
    private final List<Tensor> weights = new ArrayList<>();

    GradientCheck(Device device, long seed) {
        this.device = device;
        this.random = new Random(seed);
    }

    /** An input of normal values. */
    GradientCheck input(long... shape) {
        return input(-Double.MAX_VALUE, Double.MAX_VALUE, shape);
    }

    /** An input of values between bounds: uniform ones if both are finite ranges, else normal ones. */
    GradientCheck input(double lo, double hi, long... shape) {
        double[] values = new double[(int) Arrays.stream(shape).reduce(1, (a, b) -> a * b)];
        for (int i = 0; i < values.length; i++) {
            values[i] = lo == -Double.MAX_VALUE ? random.nextGaussian() : lo + (hi - lo) * random.nextDouble();
        }
        inputs.add(Tensor.of(device, values, shape));
        return this;
    }

    void check(Computation computation) {
        Tensor[] x = inputs.toArray(new Tensor[0]);
        double[][] gradients = gradients(computation, x);
        for (int i = 0; i < x.length; i++) {
            double[] expected = differences(computation, x, i);
            double scale = 0;
            double error = 0;
            for (int j = 0; j < expected.length; j++) {
                scale = Math.max(scale, Math.abs(expected[j]));
                error = Math.max(error, Math.abs(expected[j] - gradients[i][j]));
            }
            double relative = error / Math.max(scale, 1e-3);
            assertTrue(relative <= TOLERANCE, "input " + i + ": relative error " + relative + ", gradient "
                    + Arrays.toString(gradients[i]) + ", differences " + Arrays.toString(expected));
        }
    }

    private double[][] gradients(Computation computation, Tensor[] x) {
        long before = device.memory().liveTensors();
        double[][] gradients = new double[x.length][];
        try (Tape tape = new Tape(device)) {
            for (Tensor input : x) {
                tape.parameter(input);
            }
            Tensor[] results = computation.run(tape, x);
            if (weights.isEmpty()) {
                for (Tensor result : results) {
                    double[] w = random.doubles(result.numel(), -1, 1).toArray();
                    weights.add(Tensor.of(device, w, result.shape()));
                    before++;
                }
            }
            tape.backward(loss(tape, results));
            for (int i = 0; i < x.length; i++) {
                Tensor gradient = tape.gradient(x[i]);
                assertNotNull(gradient, "input " + i + " has no gradient");
                gradients[i] = gradient.toDoubles();
            }
        }
        assertEquals(before, device.memory().liveTensors(), "tensors left by the tape");
        return gradients;
    }

    private Tensor loss(Tape tape, Tensor[] results) {
        Tensor loss = null;
        for (int i = 0; i < results.length; i++) {
            Tensor term = tape.reduce(tape.mul(results[i], weights.get(i)), Reduction.SUM);
            loss = loss == null ? term : tape.add(loss, term);
        }
        return loss;
    }

    private double[] differences(Computation computation, Tensor[] x, int input) {
        double[] values = x[input].toDoubles();
        double[] result = new double[values.length];
        for (int j = 0; j < values.length; j++) {
            double centre = values[j];
            double[] f = new double[4];
            double[] steps = {-2 * STEP, -STEP, STEP, 2 * STEP};
            for (int s = 0; s < 4; s++) {
                values[j] = centre + steps[s];
                x[input].write(values);
                try (Tape tape = new Tape(device)) {
                    f[s] = loss(tape, computation.run(tape, x)).item();
                }
            }
            values[j] = centre;
            result[j] = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * STEP);
        }
        x[input].write(values);
        return result;
    }

    @Override
    public void close() {
        inputs.forEach(Tensor::close);
        weights.forEach(Tensor::close);
    }
}
