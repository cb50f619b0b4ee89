package org.dualform.optim;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Predicate;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.autograd.Tape;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.Parameter;
import org.dualform.nn.Parameters;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Optimizers over a model with frozen parts, against the formulas step by step in plain Java. */
@ExtendWith(TestDevice.class)
class OptimizerTest {
    private static final GptConfig CONFIG = GptConfig.of(13, 6, 2, 6, 2).withLearnedMomentum(0.5);
    private static final int STEPS = 4;
    private static final double RATE = 0.03;
    private static final double DECAY = 0.1;
    private static final double LIMIT = 2;

    private Device device;

    /** What is trained. */
    enum Frozen {
        NOTHING(name -> false),
        ALL_BUT_KEYS_AND_VALUES(name -> !name.contains("k_proj") && !name.contains("v_proj")),
        VALUES(name -> name.contains("v_proj")),
        KEYS(name -> name.contains("k_proj")),
        SOME_OF_EVERYTHING(name -> name.hashCode() % 3 == 0),
        THE_SECOND_LAYER(name -> name.startsWith("h.1.")),
        EVERYTHING(name -> true);

        final Predicate<String> predicate;

        Frozen(Predicate<String> predicate) {
            this.predicate = predicate;
        }
    }

    /** One parameter under an optimizer: its values and its state. */
    private interface Reference {
        double update(int step, double p, double[] state, double gradient, double decay);
    }

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    @AfterEach
    void close() {
        device.close();
    }

    private static double adamw(int step, double p, double[] state, double g, double decay) {
        state[0] = 0.9 * state[0] + 0.1 * g;
        state[1] = 0.98 * state[1] + 0.02 * g * g;
        double m = state[0] / (1 - Math.pow(0.9, step));
        double v = state[1] / (1 - Math.pow(0.98, step));
        return p - RATE * (decay * p + m / (Math.sqrt(v) + 1e-8));
    }

    private static double sgd(int step, double p, double[] state, double g, double decay) {
        state[0] = 0.8 * state[0] + g + decay * p;
        return p - RATE * state[0];
    }

    private static double plainSgd(int step, double p, double[] state, double g, double decay) {
        return p - RATE * (g + decay * p);
    }

    private void gradients(Gpt gpt, int step) {
        gpt.parameters().clearGradients();
        int[] ids = new Random(step).ints(12, 0, 13).toArray();
        try (Tensor x = Tensor.of(device, ids, 2, 6); Tape tape = new Tape(device)) {
            gpt.declare(tape);
            if (gpt.parameters().all().stream().anyMatch(parameter -> !parameter.isFrozen())) {
                tape.backward(gpt.loss(tape, x, x));
            }
        }
    }

    private void check(Frozen frozen, boolean clipped, Optimizer optimizer, Gpt gpt, Reference reference) {
        Parameters parameters = gpt.parameters();
        parameters.freeze(frozen.predicate);
        Map<String, double[]> expected = new LinkedHashMap<>();
        Map<String, double[][]> states = new LinkedHashMap<>();
        for (Parameter parameter : parameters.all()) {
            expected.put(parameter.name(), parameter.value().toDoubles());
            states.put(parameter.name(), new double[(int) parameter.value().numel()][2]);
        }
        try (GradientNorm norm = new GradientNorm(parameters)) {
            for (int step = 1; step <= STEPS; step++) {
                gradients(gpt, step);
                double squares = 0;
                for (Parameter parameter : parameters.all()) {
                    squares += parameter.isFrozen() ? 0
                            : Arrays.stream(parameter.gradient().toDoubles()).map(g -> g * g).sum();
                }
                assertEquals(Math.sqrt(squares), norm.measure(), 1e-12 * Math.sqrt(squares));
                double scale = clipped ? Math.min(1, LIMIT / (Math.sqrt(squares) + 1e-6)) : 1;
                for (Parameter parameter : parameters.all()) {
                    if (!parameter.isFrozen()) {
                        update(step, expected.get(parameter.name()), states.get(parameter.name()), parameter, scale, reference);
                    }
                }
                optimizer.step(RATE, clipped ? norm.clip(LIMIT) : null);
            }
        }
        assertEquals(STEPS, optimizer.steps());
        for (Parameter parameter : parameters.all()) {
            assertArrayEquals(expected.get(parameter.name()), parameter.value().toDoubles(), parameter.isFrozen() ? 0 : 1e-11,
                    parameter.name());
        }
    }

    private static void update(int step, double[] values, double[][] states, Parameter parameter, double scale, Reference reference) {
        double[] gradient = parameter.gradient().toDoubles();
        for (int i = 0; i < values.length; i++) {
            values[i] = reference.update(step, values[i], states[i], scale * gradient[i], parameter.isDecayed() ? DECAY : 0);
        }
    }

    @ParameterizedTest
    @EnumSource(Frozen.class)
    void adamwStepsAreThoseOfTheFormula(Frozen frozen) {
        try (Gpt gpt = Gpt.create(device, CONFIG, DType.F64, 1);
                Optimizer optimizer = new AdamW(gpt.parameters(), 0.9, 0.98, 1e-8, DECAY)) {
            check(frozen, true, optimizer, gpt, OptimizerTest::adamw);
        }
    }

    @ParameterizedTest
    @EnumSource(Frozen.class)
    void sgdStepsAreThoseOfTheFormula(Frozen frozen) {
        try (Gpt gpt = Gpt.create(device, CONFIG, DType.F64, 1); Optimizer optimizer = new Sgd(gpt.parameters(), 0.8, DECAY)) {
            check(frozen, false, optimizer, gpt, OptimizerTest::sgd);
        }
        try (Gpt gpt = Gpt.create(device, CONFIG, DType.F64, 1); Optimizer optimizer = new Sgd(gpt.parameters(), 0, DECAY)) {
            check(frozen, true, optimizer, gpt, OptimizerTest::plainSgd);
        }
    }

    @Test
    void finetuningKeysAndValuesLeavesEveryOtherParameterBitEqual() {
        for (DType dtype : new DType[] {DType.F32, DType.BF16}) {
            try (Gpt gpt = Gpt.create(device, CONFIG, dtype, 1);
                    Optimizer adamw = new AdamW(gpt.parameters(), 0.9, 0.98, 1e-8, DECAY);
                    Optimizer sgd = new Sgd(gpt.parameters(), 0, 0)) {
                Parameters parameters = gpt.parameters();
                parameters.freeze(Frozen.ALL_BUT_KEYS_AND_VALUES.predicate);
                Map<String, double[]> before = new LinkedHashMap<>();
                parameters.all().forEach(parameter -> before.put(parameter.name(), parameter.value().toDoubles()));
                gradients(gpt, 1);
                adamw.step(RATE, null);
                gradients(gpt, 2);
                sgd.step(RATE, null);
                for (Parameter parameter : parameters.all()) {
                    boolean trained = parameter.name().contains("k_proj") || parameter.name().contains("v_proj");
                    assertEquals(!trained, parameter.isFrozen(), parameter.name());
                    assertEquals(!trained, Arrays.equals(before.get(parameter.name()), parameter.value().toDoubles()), parameter.name());
                }
            }
        }
    }

    @Test
    void rangesAreFewAndCoverWhatIsTrained() {
        try (Gpt gpt = Gpt.create(device, CONFIG, DType.F32, 1)) {
            Parameters parameters = gpt.parameters();
            assertEquals(2, parameters.trainable().size());
            assertEquals(List.of(true, false), parameters.trainable().stream().map(Parameters.Range::decayed).toList());
            for (Frozen frozen : Frozen.values()) {
                parameters.freeze(frozen.predicate);
                boolean[] covered = new boolean[(int) parameters.storageSize()];
                for (Parameters.Range range : parameters.trainable()) {
                    assertEquals(range.to() - range.from(), range.value().numel());
                    for (long i = range.from(); i < range.to(); i++) {
                        assertFalse(covered[(int) i]);
                        covered[(int) i] = true;
                    }
                }
                long trained = parameters.all().stream().filter(p -> !p.isFrozen()).mapToLong(p -> p.value().numel()).sum();
                long padding = 16L * parameters.all().size();
                long inRanges = parameters.trainable().stream().mapToLong(range -> range.to() - range.from()).sum();
                assertTrue(inRanges >= trained && inRanges <= trained + padding, frozen + " " + inRanges + " " + trained);
            }
            parameters.unfreeze();
            assertEquals(2, parameters.trainable().size());
        }
    }

    @Test
    void aRestoredStateContinuesBitForBit() {
        try (Gpt a = Gpt.create(device, CONFIG, DType.F32, 1); Gpt b = Gpt.create(device, CONFIG, DType.F32, 2);
                Optimizer first = new AdamW(a.parameters(), 0.9, 0.98, 1e-8, DECAY);
                Optimizer second = new AdamW(b.parameters(), 0.9, 0.98, 1e-8, DECAY)) {
            for (int step = 1; step <= 3; step++) {
                gradients(a, step);
                first.step(RATE, null);
            }
            b.parameters().copyFrom(a.parameters());
            first.state().forEach((name, tensor) -> second.state().get(name).write(tensor.toFloats()));
            second.restoreSteps(first.steps());
            for (Map.Entry<Gpt, Optimizer> each : List.of(Map.entry(a, first), Map.entry(b, second))) {
                gradients(each.getKey(), 4);
                each.getValue().step(RATE, null);
            }
            assertArrayEquals(a.parameters().values().toFloats(), b.parameters().values().toFloats());
        }
    }

    @Test
    void aNormThatIsNotFiniteIsSeen() {
        try (Gpt gpt = Gpt.create(device, CONFIG, DType.F32, 1); GradientNorm norm = new GradientNorm(gpt.parameters())) {
            assertEquals(0, norm.measure());
            Tensor gradient = gpt.parameters().get("ln_f.bias").gradient();
            gradient.write(new float[] {1, 2, Float.NaN, 4, 5, 6});
            assertTrue(Double.isNaN(norm.measure()));
            gradient.write(new float[] {1, 2, Float.POSITIVE_INFINITY, 4, 5, 6});
            assertTrue(Double.isInfinite(norm.measure()));
            gpt.parameters().freeze(name -> name.equals("ln_f.bias"));
            assertEquals(0, norm.measure());
        }
    }

    @Test
    void numbersOutOfRangeAreRefused() {
        try (Gpt gpt = Gpt.create(device, CONFIG, DType.F32, 1)) {
            Parameters parameters = gpt.parameters();
            assertThrows(InvalidArgumentException.class, () -> new AdamW(parameters, 1, 0.9, 1e-8, 0).close());
            assertThrows(InvalidArgumentException.class, () -> new AdamW(parameters, 0.9, -0.1, 1e-8, 0).close());
            assertThrows(InvalidArgumentException.class, () -> new AdamW(parameters, 0.9, 0.9, 0, 0).close());
            assertThrows(InvalidArgumentException.class, () -> new AdamW(parameters, 0.9, 0.9, 1e-8, Double.NaN).close());
            try (AdamW adamw = new AdamW(parameters, 0.9, 0.9, 1e-8, 0)) {
                assertThrows(InvalidArgumentException.class, () -> adamw.restoreSteps(-1));
            }
            assertThrows(InvalidArgumentException.class, () -> new Sgd(parameters, 1, 0).close());
            assertThrows(InvalidArgumentException.class, () -> new Sgd(parameters, 0, -1).close());
        }
    }
}
