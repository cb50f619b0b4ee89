package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.autograd.Tape;
import org.dualform.optim.AdamW;
import org.dualform.optim.GradientNorm;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Models of every kind on the device under test, beside the same weights in float64 on the CPU. */
class GptOnDeviceTest {
    private static final int ROWS = 2;
    private static final int TOKENS = 7;

    private Device device;
    private Device cpu;

    @BeforeEach
    void open() {
        device = TestDevice.open(2);
        cpu = Device.cpu(1);
    }

    @AfterEach
    void close() {
        device.close();
        cpu.close();
    }

    static Stream<Arguments> kindsAndDtypes() {
        return Models.names().flatMap(kind -> Stream.of(Arguments.of(kind, DType.F32, 1e-4), Arguments.of(kind, DType.BF16, 0.1)));
    }

    /** Two models with the same weights, which the dtype can hold. */
    private interface Pair {
        void accept(Gpt gpt, Gpt exact);
    }

    private void models(String kind, DType dtype, Pair pair) {
        GptConfig config = Models.kinds().get(kind);
        try (Gpt exact = Models.rough(cpu, config, 3); Gpt gpt = Gpt.create(device, config, dtype, 3)) {
            gpt.parameters().values().write(exact.parameters().values().toDoubles());
            gpt.parameters().valuesChanged();
            exact.parameters().values().write(gpt.parameters().values().toDoubles());
            exact.parameters().valuesChanged();
            pair.accept(gpt, exact);
        }
    }

    private static double[] gradients(Gpt gpt, double[] loss) {
        gpt.parameters().clearGradients();
        try (Tensor ids = Models.ids(gpt.device(), ROWS, TOKENS, 1); Tensor targets = Models.targets(gpt.device(), ROWS, TOKENS, 2);
                Tape tape = new Tape(gpt.device())) {
            gpt.declare(tape);
            Tensor mean = gpt.loss(tape, ids, targets);
            tape.backward(mean);
            loss[0] = mean.item();
        }
        return gpt.parameters().all().stream().flatMapToDouble(parameter -> Arrays.stream(parameter.gradient().toDoubles())).toArray();
    }

    @ParameterizedTest
    @MethodSource("kindsAndDtypes")
    void lossAndGradientsAreThoseOfFloat64(String kind, DType dtype, double tolerance) {
        models(kind, dtype, (gpt, exact) -> {
            double[] loss = {0};
            double[] expectedLoss = {0};
            double[] actual = gradients(gpt, loss);
            double[] expected = gradients(exact, expectedLoss);
            assertEquals(expectedLoss[0], loss[0], tolerance * expectedLoss[0]);
            double largest = Models.largest(expected);
            assertTrue(largest > 1e-3, "gradients that say nothing: " + largest);
            assertEquals(0, Models.largestDifference(expected, actual), tolerance * largest);
        });
    }

    @ParameterizedTest
    @MethodSource("kindsAndDtypes")
    void cachedTokensAreThoseOfFloat64(String kind, DType dtype, double tolerance) {
        models(kind, dtype, (gpt, exact) -> {
            try (Tensor ids = Models.ids(device, ROWS, TOKENS, 4); Tensor same = Models.ids(cpu, ROWS, TOKENS, 4);
                    KvCache cache = gpt.newCache(ROWS); Tape whole = new Tape(cpu)) {
                double[] expected = exact.hidden(whole, same).toDoubles();
                int width = expected.length / (ROWS * TOKENS);
                for (int from = 0; from < TOKENS; from++) {
                    try (Tape tape = new Tape(device); Tensor part = ids.slice(1, from, from + 1); Tensor token = part.copy()) {
                        double[] actual = gpt.hidden(tape, token, cache, null).toDoubles();
                        for (int row = 0; row < ROWS; row++) {
                            double[] there = Arrays.copyOfRange(expected, (row * TOKENS + from) * width, (row * TOKENS + from + 1) * width);
                            double[] here = Arrays.copyOfRange(actual, row * width, (row + 1) * width);
                            assertEquals(0, Models.largestDifference(there, here), tolerance * Models.largest(expected), "token " + from);
                        }
                    }
                }
            }
        });
    }

    @ParameterizedTest
    @MethodSource("kindsAndDtypes")
    void stepsOfAdamwAreThoseOfFloat64(String kind, DType dtype, double tolerance) {
        models(kind, dtype, (gpt, exact) -> {
            double[] before = gpt.parameters().values().toDoubles();
            double[][] after = new double[2][];
            for (Gpt model : new Gpt[] {gpt, exact}) {
                try (AdamW adamw = new AdamW(model.parameters(), 0.9, 0.98, 1e-2, 0.1); GradientNorm norm = new GradientNorm(model.parameters())) {
                    double[] loss = {0};
                    for (int step = 0; step < 3; step++) {
                        gradients(model, loss);
                        norm.measure();
                        adamw.step(0.01, norm.clip(1));
                    }
                }
                after[model == gpt ? 0 : 1] = model.parameters().values().toDoubles();
            }
            assertTrue(Models.largestDifference(before, after[1]) > 0.005, "weights that hardly moved");
            assertEquals(0, Models.largestDifference(after[1], after[0]), tolerance * Models.largest(after[1]));
        });
    }
}
