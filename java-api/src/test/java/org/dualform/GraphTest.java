package org.dualform;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Random;
import org.dualform.autograd.Tape;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.optim.AdamW;
import org.dualform.optim.GradientNorm;
import org.dualform.optim.StepControl;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Captured steps: the rules are the same on every backend. */
@ExtendWith(TestDevice.class)
class GraphTest {
    private static final GptConfig CONFIG = GptConfig.of(13, 6, 2, 6, 2).withLearnedMomentum(0.5);
    private static final int STEPS = 6;
    private static final double[] RATES = {0.0625, 0.125, 0.03125}; // numbers of every dtype

    /** A model in training: everything that a step changes, and the step. */
    private static final class Training implements AutoCloseable {
        final Device device;
        final Gpt gpt;
        final AdamW adamw;
        final GradientNorm norm;
        final StepControl control;
        final Tensor ids;
        final Tensor loss;

        Training(Device device, DType dtype) {
            this.device = device;
            gpt = Gpt.create(device, CONFIG, dtype, 7);
            adamw = new AdamW(gpt.parameters(), 0.9, 0.98, 1e-8, 0.1);
            norm = new GradientNorm(gpt.parameters());
            control = new StepControl(gpt.parameters(), 0.5, RATES);
            ids = Tensor.zeros(device, DType.I32, 2, 6);
            loss = Tensor.zeros(device, dtype.accumulation());
        }

        void batch(int step) {
            ids.write(new Random(step).ints(12, 0, 13).toArray());
        }

        void gradients() {
            gpt.parameters().clearGradients();
            try (Tape tape = new Tape(device)) {
                gpt.declare(tape);
                Tensor mean = gpt.loss(tape, ids, ids);
                tape.backward(mean);
                Ops.copy(loss, mean);
            }
        }

        /** Without a number from the host. */
        void step() {
            gradients();
            control.decide(norm.sum(), loss);
            adamw.step(control);
        }

        void stepOfTheHost(int step) {
            gradients();
            norm.measure();
            adamw.step(RATES[Math.min(step, RATES.length) - 1], norm.clip(0.5));
        }

        byte[] bits() {
            byte[] all = new byte[0];
            for (Tensor tensor : new Tensor[] {gpt.parameters().values(), adamw.state().get("m"), adamw.state().get("v"), loss}) {
                ByteBuffer bytes = ByteBuffer.allocate(Math.toIntExact(tensor.byteSize())).order(ByteOrder.LITTLE_ENDIAN);
                tensor.read(bytes);
                int before = all.length;
                all = Arrays.copyOf(all, before + bytes.capacity());
                System.arraycopy(bytes.array(), 0, all, before, bytes.capacity());
            }
            return all;
        }

        @Override
        public void close() {
            loss.close();
            ids.close();
            control.close();
            norm.close();
            adamw.close();
            gpt.close();
        }
    }

    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "F64"})
    void replayedStepsAreTheStepsBitForBit(DType dtype) {
        try (Device device = TestDevice.open(2); Training eager = new Training(device, dtype); Training replayed = new Training(device, dtype)) {
            replayed.batch(1);
            replayed.step();
            byte[] before = replayed.bits();
            try (Graph graph = device.capture(replayed::step)) {
                assertArrayEquals(before, replayed.bits(), "the capture ran the step");
                long allocations = 0;
                for (int step = 2; step <= STEPS; step++) {
                    replayed.batch(step);
                    graph.replay();
                    allocations = step == 2 ? device.memory().systemAllocations() : allocations; // the CPU's scratch memory
                }
                assertEquals(allocations, device.memory().systemAllocations(), "allocations by replays");
            }
            for (int step = 1; step <= STEPS; step++) {
                eager.batch(step);
                eager.step();
            }
            assertEquals(STEPS, replayed.control.steps());
            assertTrue(replayed.control.isFinite());
            assertArrayEquals(eager.bits(), replayed.bits());
        }
    }

    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "F64"})
    void numbersOnTheDeviceGiveTheBitsOfThoseOfTheHost(DType dtype) {
        try (Device device = TestDevice.open(1); Training host = new Training(device, dtype); Training there = new Training(device, dtype)) {
            for (int step = 1; step <= STEPS; step++) {
                host.batch(step);
                there.batch(step);
                host.stepOfTheHost(step);
                there.step();
            }
            assertArrayEquals(host.bits(), there.bits());
            assertEquals(STEPS, there.control.steps());
            assertEquals(STEPS, host.adamw.steps());
        }
    }

    @Test
    void aStepThatIsNotFiniteIsSkippedAndNotCounted() {
        try (Device device = TestDevice.open(1); Training training = new Training(device, DType.F32)) {
            training.batch(1);
            training.step();
            try (Graph graph = device.capture(training::step)) {
                double[] values = training.gpt.parameters().values().toDoubles();
                try (Tensor weight = training.gpt.parameters().get("ln_f.weight").value().slice(0, 0, 1)) {
                    double good = weight.item();
                    weight.write(new double[] {Double.POSITIVE_INFINITY});
                    graph.replay();
                    assertFalse(training.control.isFinite());
                    assertEquals(1, training.control.steps());
                    weight.write(new double[] {good});
                }
                assertArrayEquals(values, training.gpt.parameters().values().toDoubles());
                graph.replay();
                assertTrue(training.control.isFinite());
                assertEquals(2, training.control.steps());
            }
        }
    }

    @Test
    void controlIsRestoredAndItsRatesReplaced() {
        try (Device device = TestDevice.open(1); Gpt gpt = Gpt.create(device, CONFIG, DType.F32, 1);
                StepControl control = new StepControl(gpt.parameters(), Double.POSITIVE_INFINITY, 1, 2)) {
            control.restoreSteps(9);
            assertEquals(9, control.steps());
            control.setRates(3, 4);
            assertThrows(InvalidArgumentException.class, () -> control.setRates(3));
            assertThrows(InvalidArgumentException.class, () -> control.setRates());
            assertThrows(InvalidArgumentException.class, () -> control.setRates(1, Double.NaN));
            assertThrows(InvalidArgumentException.class, () -> control.setLastRate(Double.NaN));
            assertThrows(InvalidArgumentException.class, () -> control.restoreSteps(-1));
            assertThrows(InvalidArgumentException.class, () -> new StepControl(gpt.parameters(), 0, 1));
        }
    }

    @Test
    void whatAStepMustNotDoIsSaidAndTheDeviceGoesOn() {
        try (Device device = TestDevice.open(1); Tensor x = Tensor.of(device, new float[] {1, 2, 3}, 3);
                Tensor y = Tensor.zeros(device, DType.F32, 3)) {
            record Rule(String word, Runnable step) {}
            for (Rule rule : new Rule[] {
                new Rule("reading a tensor back", x::toFloats),
                new Rule("writing a tensor", () -> x.write(new float[3])),
                new Rule("waiting for the device", device::synchronize),
                new Rule("run the step once", () -> Tensor.empty(device, DType.F32, 3 << 20).close()),
                new Rule("one is going on already", () -> device.capture(() -> {}).close()),
            }) {
                IllegalStateException e = assertThrows(IllegalStateException.class, () -> device.capture(rule.step).close(), rule.word);
                assertTrue(e.getMessage().contains(rule.word), e.getMessage());
                Ops.affine(y, x, 2, 0);
                assertArrayEquals(new float[] {2, 4, 6}, y.toFloats());
            }
        }
    }

    @Test
    void aRefusalThatTheStepSwallowsStillFailsTheCapture() {
        try (Device device = TestDevice.open(1); Tensor x = Tensor.zeros(device, DType.F32, 3)) {
            IllegalStateException e = assertThrows(IllegalStateException.class, () -> device.capture(() -> {
                assertThrows(IllegalStateException.class, x::toFloats);
                Ops.fill(x, 1);
            }));
            assertTrue(e.getMessage().contains("reading"), e.getMessage());
            assertEquals(0, x.toFloats()[0]);
        }
    }

    @Test
    void whatTheStepThrowsComesThroughAndTheDeviceGoesOn() {
        try (Device device = TestDevice.open(1); Tensor x = Tensor.zeros(device, DType.F32, 3)) {
            RuntimeException thrown = new RuntimeException("from the step");
            assertSame(thrown, assertThrows(RuntimeException.class, () -> device.capture(() -> {
                Ops.fill(x, 1);
                throw thrown;
            })));
            Ops.fill(x, 2);
            assertEquals(2, x.toFloats()[0]);
            assertThrows(NullPointerException.class, () -> device.capture(null));
        }
    }

    @Test
    void aGraphKeepsTheMemoryOfClosedTensors() {
        try (Device device = TestDevice.open(1); Tensor out = Tensor.zeros(device, DType.F32, 1000)) {
            Tensor x = Tensor.full(device, DType.F32, 2, 1000);
            try (Graph graph = device.capture(() -> Ops.affine(out, x, 3, 0))) {
                x.close();
                try (Tensor other = Tensor.full(device, DType.F32, 9, 1000)) {
                    graph.replay();
                    assertEquals(6, out.toFloats()[999]);
                    assertEquals(9, other.toFloats()[0]);
                }
            }
        }
    }

    @Test
    void randomNumbersAreNewAtEachReplay() {
        try (Device device = TestDevice.open(1); Tensor x = Tensor.zeros(device, DType.F32, 10);
                Tensor state = Tensor.of(device, new int[] {5, 0, 0, 0}, 4); Tensor expected = Tensor.zeros(device, DType.F32, 10);
                Graph graph = device.capture(() -> Ops.randomNormalNext(x, state, 0, 1))) {
            for (int i = 0; i < 3; i++) {
                graph.replay();
                Ops.randomNormal(expected, 5, 3L * i, 0, 1);
                assertArrayEquals(expected.toFloats(), x.toFloats(), "replay " + i);
            }
        }
    }

    @Test
    void closedGraphRejectsUseAndAnOpenOneKeepsItsDevice() {
        Device device = TestDevice.open(1);
        Graph graph = device.capture(() -> {});
        IllegalStateException refused = assertThrows(IllegalStateException.class, device::close);
        assertTrue(refused.getMessage().contains("1 graph"), refused.getMessage());
        graph.replay();
        assertFalse(graph.isClosed());
        graph.close();
        graph.close();
        assertTrue(graph.isClosed());
        IllegalStateException e = assertThrows(IllegalStateException.class, graph::replay);
        assertEquals("graph: this graph is closed", e.getMessage());
        device.close();
    }
}
