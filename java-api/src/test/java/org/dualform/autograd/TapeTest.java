package org.dualform.autograd;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.MemoryStats;
import org.dualform.Reduction;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.Unary;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@ExtendWith(TestDevice.class)
class TapeTest {
    private Device device;
    private Tensor x;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
        x = Tensor.of(device, new double[] {1, 2, 3, 4, 5, 6}, 2, 3);
    }

    @AfterEach
    void close() {
        x.close();
        device.close();
    }

    @Test
    void callersGradientIsAddedTo() {
        try (Tensor gradient = Tensor.full(device, DType.F64, 10, 2, 3); Tape tape = new Tape(device)) {
            tape.parameter(x, gradient);
            tape.backward(tape.reduce(tape.affine(x, 2, 0), Reduction.SUM));
            assertArrayEquals(new double[] {12, 12, 12, 12, 12, 12}, gradient.toDoubles());
            assertEquals(gradient, tape.gradient(x));
        }
    }

    @Test
    void gradientOfBfloat16AccumulatesInFloat32() {
        try (Tensor value = Tensor.of(device, DType.BF16, new double[] {1, 2}, 2);
                Tensor gradient = Tensor.full(device, DType.F32, 1 / 1024.0, 2);
                Tape tape = new Tape(device)) {
            tape.parameter(value, gradient);
            tape.backward(tape.reduce(value, Reduction.SUM));
            assertArrayEquals(new double[] {1 + 1 / 1024.0, 1 + 1 / 1024.0}, gradient.toDoubles());
        }
    }

    @Test
    void frozenInputsGetNoGradient() {
        try (Tensor frozen = Tensor.of(device, new double[] {1, 1, 1, 1, 1, 1}, 2, 3); Tape tape = new Tape(device)) {
            tape.parameter(x);
            tape.backward(tape.reduce(tape.mul(x, frozen), Reduction.SUM));
            assertNull(tape.gradient(frozen));
            assertArrayEquals(new double[] {1, 1, 1, 1, 1, 1}, tape.gradient(x).toDoubles());
        }
    }

    @Test
    void partsOfOneProjectionWriteIntoOneGradient() {
        try (Tape tape = new Tape(device)) {
            tape.parameter(x);
            Tensor y = tape.retain(tape.affine(x, 1, 0));
            Tensor left = tape.retain(tape.slice(y, 1, 0, 1));
            Tensor right = tape.retain(tape.slice(y, 1, 1, 3));
            tape.backward(tape.add(tape.reduce(tape.affine(left, 3, 0), Reduction.SUM), tape.reduce(right, Reduction.SUM)));
            assertArrayEquals(new double[] {3, 1, 1, 3, 1, 1}, tape.gradient(y).toDoubles());
            assertEquals(tape.gradient(y).address(), tape.gradient(left).address());
            assertEquals(tape.gradient(y).address() + 8, tape.gradient(right).address());
        }
    }

    @Test
    void activationsAreFreedByTheBackwardPass() {
        try (Tape tape = new Tape(device)) {
            tape.parameter(x);
            Tensor y = tape.unary(x, Unary.EXP);
            Tensor kept = tape.retain(tape.unary(y, Unary.SQUARE));
            Tensor loss = tape.reduce(kept, Reduction.SUM);
            tape.backward(loss);
            assertTrue(y.isClosed());
            assertFalse(kept.isClosed());
            assertFalse(loss.isClosed());
            assertEquals(6, tape.gradient(kept).numel());
        }
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void noGradRecordsNothing() {
        try (Tape tape = new Tape(device)) {
            tape.parameter(x);
            Tensor y = tape.noGrad(() -> tape.unary(x, Unary.EXP));
            Tensor loss = tape.reduce(y, Reduction.SUM);
            assertThrows(InvalidArgumentException.class, () -> tape.backward(loss));
        }
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void equalStepsTakeEqualMemory() {
        long[] addresses = new long[2];
        MemoryStats[] stats = new MemoryStats[2];
        for (int step = 0; step < 4; step++) {
            device.resetPeak();
            try (Tape tape = new Tape(device)) {
                tape.parameter(x);
                Tensor y = tape.unary(tape.affine(x, 0.5, 1), Unary.TANH);
                addresses[step % 2] = y.address();
                tape.backward(tape.reduce(tape.mul(y, y), Reduction.MEAN));
            }
            stats[step % 2] = device.memory();
        }
        assertEquals(addresses[0], addresses[1]);
        assertEquals(stats[0], stats[1]);
    }

    @Test
    void closedTapeRejectsUse() {
        Tape tape = new Tape(device);
        tape.close();
        tape.close();
        assertTrue(tape.isClosed());
        assertThrows(IllegalStateException.class, () -> tape.parameter(x));
        assertThrows(IllegalStateException.class, () -> tape.unary(x, Unary.EXP));
        assertThrows(IllegalStateException.class, () -> tape.add(x, x));
        assertThrows(IllegalStateException.class, () -> tape.slice(x, 0, 0, 1));
        assertThrows(IllegalStateException.class, () -> tape.backward(x));
        assertThrows(IllegalStateException.class, () -> tape.gradient(x));
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void backwardRunsOnce() {
        try (Tape tape = new Tape(device)) {
            tape.parameter(x);
            Tensor loss = tape.reduce(x, Reduction.SUM);
            tape.backward(loss);
            assertThrows(IllegalStateException.class, () -> tape.backward(loss));
            assertThrows(IllegalStateException.class, () -> tape.unary(x, Unary.EXP));
        }
    }

    @Test
    void seedIsTheGradientOfTheOutput() {
        try (Tensor seed = Tensor.of(device, new double[] {1, 2, 3, 4, 5, 6}, 2, 3); Tape tape = new Tape(device)) {
            tape.parameter(x);
            tape.backward(tape.affine(x, 2, 0), seed);
            assertArrayEquals(new double[] {2, 4, 6, 8, 10, 12}, tape.gradient(x).toDoubles());
        }
    }

    @ParameterizedTest
    @CsvSource({"F32,1e-5", "BF16,3e-2"})
    void narrowDtypesFollowFloat64(DType dtype, double tolerance) {
        double[][] expected = gradientsIn(DType.F64);
        double[][] actual = gradientsIn(dtype);
        for (int i = 0; i < expected.length; i++) {
            double scale = Arrays.stream(expected[i]).map(Math::abs).max().orElseThrow();
            for (int j = 0; j < expected[i].length; j++) {
                assertEquals(expected[i][j], actual[i][j], tolerance * scale, "input " + i);
            }
        }
        assertEquals(1, device.memory().liveTensors());
    }

    /** A weight update, its application, momentum attention and a scaled loss; every input is exact in bfloat16. */
    private double[][] gradientsIn(DType dtype) {
        Random random = new Random(3);
        long[][] shapes = {{5, 4}, {5, 4}, {4, 4}, {4, 4}, {2}};
        List<Tensor> inputs = new ArrayList<>();
        for (long[] shape : shapes) {
            int numel = (int) Arrays.stream(shape).reduce(1, (a, b) -> a * b);
            double lo = inputs.size() == 4 ? 0.25 : -0.5;
            inputs.add(Tensor.of(device, dtype, random.doubles(numel, lo, lo + 0.5).map(v -> Math.round(v * 64) / 64.0).toArray(), shape));
        }
        try (Tape tape = new Tape(device); Tensor targets = Tensor.of(device, new int[] {0, 3, -1, 1}, 4)) {
            inputs.forEach(tape::parameter);
            Tensor y = tape.deltaApply(inputs.get(2), inputs.get(3), tape.deltaAccumulate(inputs.get(0), inputs.get(1)));
            Tensor heads = tape.reshape(y, 1, 4, 2, 2);
            Tensor attended = tape.momentumAttention(heads, heads, heads, inputs.get(4), null, 0.5);
            Tensor loss = tape.crossEntropy(tape.reshape(attended, 4, 4), targets, -1);
            tape.backward(tape.affine(loss, 0.3, 0));
            return inputs.stream().map(input -> tape.gradient(input).toDoubles()).toArray(double[][]::new);
        } finally {
            inputs.forEach(Tensor::close);
        }
    }

    @Test
    void argumentsThatDoNotFitAreNamed() {
        try (Tape tape = new Tape(device); Tensor ids = Tensor.of(device, new int[] {1}, 1)) {
            tape.parameter(x);
            assertThrows(IllegalStateException.class, () -> tape.parameter(x));
            Tensor closed = Tensor.zeros(device, DType.F64, 2);
            closed.close();
            assertThrows(IllegalStateException.class, () -> tape.parameter(closed));
            assertThrows(IllegalStateException.class, () -> tape.add(x, closed));
            assertThrows(InvalidArgumentException.class, () -> tape.parameter(ids));
            assertThrows(InvalidArgumentException.class, () -> tape.backward(tape.affine(x, 1, 0)));
            assertThrows(InvalidArgumentException.class, () -> tape.attention(x, x, x, null, 1, true));
            NullPointerException e = assertThrows(NullPointerException.class, () -> tape.matmul(x, null));
            assertEquals("b is null", e.getMessage());
        }
    }
}
