package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Predicate;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Gradients of whole models against finite differences in float64. */
class GptGradientTest {
    private static final double[] STEPS = {-2e-3, -1e-3, 1e-3, 2e-3};
    private static final double TOLERANCE = 1e-6;

    private Device device;
    private Tensor ids;
    private Tensor targets;

    /** A scalar of a model. */
    private interface Loss {
        Tensor of(Tape tape, Gpt gpt);
    }

    @BeforeEach
    void open() {
        device = Device.cpu(1);
        ids = Models.ids(device, 2, 7, 1);
        targets = Models.targets(device, 2, 7, 2);
    }

    @AfterEach
    void close() {
        ids.close();
        targets.close();
        device.close();
    }

    private Tensor loss(Tape tape, Gpt gpt) {
        return gpt.loss(tape, ids, targets);
    }

    private Tensor layerCausalLoss(Tape tape, Gpt gpt) {
        return gpt.layerCausalLoss(tape, ids, targets);
    }

    private static boolean keysOrValues(String name) {
        return name.contains("k_proj") || name.contains("v_proj");
    }

    private Map<String, double[]> gradients(Gpt gpt, Loss loss) {
        gpt.parameters().clearGradients();
        try (Tape tape = new Tape(device)) {
            gpt.declare(tape);
            tape.backward(loss.of(tape, gpt));
        }
        Map<String, double[]> gradients = new LinkedHashMap<>();
        gpt.parameters().all().forEach(parameter -> gradients.put(parameter.name(), parameter.gradient().toDoubles()));
        return gradients;
    }

    private double value(Gpt gpt, Loss loss) {
        try (Tape tape = new Tape(device)) {
            return loss.of(tape, gpt).item();
        }
    }

    /** Differences of order four: 1e-6 is about the gradient, not about the differences. */
    private double[] differences(Gpt gpt, Parameter parameter, Loss loss) {
        double[] values = parameter.value().toDoubles();
        double[] differences = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            double centre = values[i];
            double[] f = new double[4];
            for (int step = 0; step < 4; step++) {
                values[i] = centre + STEPS[step];
                parameter.value().write(values);
                f[step] = value(gpt, loss);
            }
            differences[i] = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * STEPS[2]);
            values[i] = centre;
        }
        parameter.value().write(values);
        return differences;
    }

    private void check(Gpt gpt, Predicate<String> names, Loss loss, Loss differentiated) {
        Map<String, double[]> gradients = gradients(gpt, loss);
        double overall = gradients.values().stream().mapToDouble(Models::largest).max().orElseThrow();
        for (Parameter parameter : gpt.parameters().all()) {
            if (names.test(parameter.name())) {
                double[] expected = differences(gpt, parameter, differentiated);
                double error = Models.largestDifference(expected, gradients.get(parameter.name()));
                double scale = Math.max(Models.largest(expected), 1e-2 * overall);
                assertTrue(error <= TOLERANCE * scale, parameter.name() + ": error " + error + " of " + scale);
            }
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void everyGradientOfEveryKindIsThatOfTheLoss(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 3)) {
            check(gpt, name -> true, this::loss, this::loss);
        }
    }

    @Test
    void aGradientOfAnotherFunctionIsFound() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 3)) {
            assertThrows(AssertionError.class, () -> check(gpt, name -> name.equals("ln_f.bias"), this::loss,
                    (tape, model) -> tape.affine(loss(tape, model), 1 + 1e-5, 0)));
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void keysAndValuesHaveTheSameGradientWhereAllElseIsFrozen(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 4)) {
            Map<String, double[]> all = gradients(gpt, this::loss);
            gpt.parameters().freeze(name -> !keysOrValues(name));
            Map<String, double[]> some = gradients(gpt, this::loss);
            for (String name : all.keySet()) {
                if (keysOrValues(name)) {
                    assertArrayEquals(all.get(name), some.get(name), name);
                } else if (!name.contains("q_proj")) {
                    assertEquals(0, Models.largest(some.get(name)), name);
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void frozenModelsHaveGradientsOfKeysAndValues(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 5)) {
            gpt.parameters().freeze(name -> !keysOrValues(name));
            check(gpt, GptGradientTest::keysOrValues, this::loss, this::loss);
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void aLayerOfTheLayerCausalLossDoesNotKnowLaterLayers(String kind) {
        GptConfig three = withLayers(Models.kinds().get(kind), 3);
        try (Gpt gpt = Models.rough(device, three, 6)) {
            gpt.parameters().freeze(name -> !keysOrValues(name));
            Map<String, double[]> before = gradients(gpt, this::layerCausalLoss);
            for (Parameter parameter : gpt.parameters().all()) {
                if (parameter.name().startsWith("h.2.")) {
                    parameter.value().write(Arrays.stream(parameter.value().toDoubles()).map(x -> 1.5 * x + 0.1).toArray());
                }
            }
            Map<String, double[]> after = gradients(gpt, this::layerCausalLoss);
            for (String name : before.keySet()) {
                if (keysOrValues(name)) {
                    assertEquals(!name.startsWith("h.2."), Arrays.equals(before.get(name), after.get(name)), name);
                }
            }
        }
    }

    /** Layer l's gradient is that of the loss of the model cut after layer l. */
    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void layerCausalGradientsAreThoseOfEachLayersOwnLoss(String kind) {
        GptConfig two = Models.kinds().get(kind);
        try (Gpt gpt = Models.rough(device, two, 7); Gpt cut = Models.rough(device, withLayers(two, 1), 8)) {
            gpt.parameters().freeze(name -> !keysOrValues(name));
            Loss own = (tape, model) -> {
                for (Parameter parameter : cut.parameters().all()) {
                    parameter.value().write(gpt.parameters().get(parameter.name()).value().toDoubles());
                }
                return cut.loss(tape, ids, targets);
            };
            check(gpt, name -> keysOrValues(name) && name.startsWith("h.0."), this::layerCausalLoss, own);
            check(gpt, name -> keysOrValues(name) && name.startsWith("h.1."), this::layerCausalLoss, this::loss);
            double sum = value(gpt, own) + value(gpt, this::loss);
            assertEquals(sum, value(gpt, this::layerCausalLoss), 1e-12 * sum);
        }
    }

    @Test
    void aWholeFrozenModelHasNoGradient() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 9); Tape tape = new Tape(device)) {
            gpt.parameters().freeze(name -> true);
            gpt.declare(tape);
            Tensor loss = gpt.loss(tape, ids, targets);
            assertThrows(IllegalArgumentException.class, () -> tape.backward(loss));
            assertFalse(gpt.parameters().all().stream().anyMatch(parameter -> Models.largest(parameter.gradient().toDoubles()) > 0));
        }
    }

    private static GptConfig withLayers(GptConfig c, int layers) {
        return new GptConfig(c.vocabulary(), c.context(), layers, c.width(), c.heads(), c.hidden(), c.attention(), c.eta(), c.learnedEta(),
                c.decay(), c.positions(), c.epsilon());
    }
}
