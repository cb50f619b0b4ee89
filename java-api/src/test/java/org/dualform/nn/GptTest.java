package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DeviceOutOfMemoryException;
import org.dualform.InvalidArgumentException;
import org.dualform.MemoryStats;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.autograd.Tape;
import org.dualform.optim.AdamW;
import org.dualform.optim.GradientNorm;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

@ExtendWith(TestDevice.class)
class GptTest {
    private static final int ROWS = 4;

    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(2);
    }

    @AfterEach
    void close() {
        device.close();
    }

    /** One training step; returns the loss before it. */
    private double step(Gpt gpt, AdamW optimizer, GradientNorm norm, Tensor ids, Tensor targets, double learningRate) {
        gpt.parameters().clearGradients();
        double value;
        try (Tape tape = new Tape(device)) {
            gpt.declare(tape);
            Tensor loss = gpt.loss(tape, ids, targets);
            tape.backward(loss);
            value = loss.item();
        }
        norm.measure();
        optimizer.step(learningRate, norm.clip(1));
        return value;
    }

    /** Rows that count upwards from a random token: what even the smallest model learns at once. */
    private Tensor[] batch(Random random, int tokens) {
        int[] ids = new int[ROWS * tokens];
        int[] targets = new int[ROWS * tokens];
        for (int row = 0; row < ROWS; row++) {
            int first = random.nextInt(Models.VOCABULARY);
            for (int t = 0; t < tokens; t++) {
                ids[row * tokens + t] = (first + t) % Models.VOCABULARY;
                targets[row * tokens + t] = (first + t + 1) % Models.VOCABULARY;
            }
        }
        return new Tensor[] {Tensor.of(device, ids, ROWS, tokens), Tensor.of(device, targets, ROWS, tokens)};
    }

    private double[] train(Gpt gpt, int steps, double learningRate, int tokens, long seed) {
        double[] losses = new double[steps];
        Random random = new Random(seed);
        try (AdamW optimizer = new AdamW(gpt.parameters(), 0.9, 0.95, 1e-8, 0.1); GradientNorm norm = new GradientNorm(gpt.parameters())) {
            for (int i = 0; i < steps; i++) {
                Tensor[] batch = batch(random, tokens);
                try (Tensor ids = batch[0]; Tensor targets = batch[1]) {
                    losses[i] = step(gpt, optimizer, norm, ids, targets, learningRate);
                }
            }
        }
        return losses;
    }

    @Test
    void momentumZeroEqualsThePlainModelBitForBitThroughTraining() {
        try (Gpt plain = Gpt.create(device, Models.plain(), DType.F32, 1);
                Gpt momentum = Gpt.create(device, Models.plain().withMomentumAttention(0), DType.F32, 1);
                Gpt other = Gpt.create(device, Models.plain().withMomentumAttention(0.01), DType.F32, 1)) {
            double[] losses = train(plain, 5, 1e-2, 9, 2);
            assertArrayEquals(losses, train(momentum, 5, 1e-2, 9, 2));
            assertArrayEquals(Models.bits(plain.parameters().values()), Models.bits(momentum.parameters().values()));
            train(other, 5, 1e-2, 9, 2);
            assertFalse(Arrays.equals(Models.bits(plain.parameters().values()), Models.bits(other.parameters().values())));
        }
    }

    @Test
    void theSameSeedGivesTheSameWeightsWhateverTheAttention() {
        try (Gpt plain = Gpt.create(device, Models.plain(), DType.F32, 7); Gpt second = Gpt.create(device, Models.plain(), DType.F32, 8)) {
            assertFalse(Arrays.equals(plain.parameters().get("wte.weight").value().toFloats(),
                    second.parameters().get("wte.weight").value().toFloats()));
            for (String kind : Models.names().toList()) {
                try (Gpt gpt = Gpt.create(device, Models.kinds().get(kind), DType.F32, 7)) {
                    for (Parameter parameter : gpt.parameters().all()) {
                        if (!parameter.name().contains("eta_logit")) {
                            assertArrayEquals(plain.parameters().get(parameter.name()).value().toFloats(), parameter.value().toFloats(),
                                    kind + " " + parameter.name());
                        }
                    }
                }
            }
        }
    }

    @Test
    void freshWeightsHaveTheDeviationsOfGpt2() {
        try (Gpt gpt = Gpt.create(device, GptConfig.of(100, 50, 2, 64, 4), DType.F32, 1)) {
            Parameters parameters = gpt.parameters();
            assertEquals(0.02, deviation(parameters.get("wte.weight")), 0.001);
            assertEquals(0.02, deviation(parameters.get("h.1.attn.q_proj.weight")), 0.001);
            assertEquals(0.01, deviation(parameters.get("h.1.attn.c_proj.weight")), 0.0005);
            assertEquals(0.01, deviation(parameters.get("h.0.mlp.c_proj.weight")), 0.0005);
            assertEquals(0, Models.largest(parameters.get("h.0.mlp.c_proj.bias").value().toDoubles()));
            assertTrue(Arrays.stream(parameters.get("ln_f.weight").value().toDoubles()).allMatch(x -> x == 1));
            assertEquals(6400 + 3200 + 2 * (12 * 4096 + 13 * 64) + 128, parameters.count());
        }
    }

    private static double deviation(Parameter parameter) {
        double[] values = parameter.value().toDoubles();
        return Math.sqrt(Arrays.stream(values).map(x -> x * x).sum() / values.length);
    }

    @Test
    void learnedMomentaStartAtTheirValueAndStayBelowOne() {
        try (Gpt gpt = Gpt.create(device, Models.plain().withLearnedMomentum(0.25), DType.F32, 1);
                Gpt fixed = Gpt.create(device, Models.plain().withMomentumAttention(0.25), DType.F32, 1);
                Tensor ids = Models.ids(device, 2, 6, 1);
                Tape tape = new Tape(device)) {
            assertEquals(0, Models.largestDifference(fixed.hidden(tape, ids).toDoubles(), gpt.hidden(tape, ids).toDoubles()), 1e-6);
            gpt.parameters().get("h.0.attn.eta_logit").value().write(new float[] {100, -100});
            assertTrue(Models.largest(gpt.hidden(tape, ids).toDoubles()) < 100);
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void everyKindLearns(String kind) {
        try (Gpt gpt = Gpt.create(device, Models.kinds().get(kind), DType.F32, 3)) {
            double[] losses = train(gpt, 60, 3e-2, Models.CONTEXT, 4);
            assertEquals(Math.log(Models.VOCABULARY), losses[0], 0.1);
            double end = Arrays.stream(losses, 50, 60).average().orElseThrow();
            assertTrue(end < 0.6 * losses[0], Arrays.toString(losses));
        }
    }

    /** Long rows, no decay and a high learning rate: what an attention that is not normalised could grow with. */
    @ParameterizedTest
    @ValueSource(doubles = {1, 0.999, Double.NaN})
    void linearAttentionStaysBoundedOverLongRows(double decay) {
        GptConfig config = GptConfig.of(Models.VOCABULARY, 256, 2, 16, 2).withLinearAttention(decay);
        try (Gpt gpt = Gpt.create(device, config, DType.F32, 3)) {
            double[] losses = train(gpt, 30, 1e-2, 256, 4);
            assertTrue(Arrays.stream(losses).max().orElseThrow() < losses[0] + 0.5, Arrays.toString(losses));
            assertTrue(Arrays.stream(losses, 25, 30).average().orElseThrow() < 0.8 * losses[0], Arrays.toString(losses));
        }
    }

    @Test
    void brainFloatModelsLearnAndKeepAMasterCopy() {
        try (Gpt gpt = Gpt.create(device, Models.plain().withLearnedMomentum(0.5), DType.BF16, 3)) {
            assertEquals(DType.F32, gpt.parameters().master().dtype());
            assertArrayEquals(Models.bits(gpt.parameters().values()), Models.bits(gpt.parameters().master()));
            double[] losses = train(gpt, 60, 3e-2, Models.CONTEXT, 4);
            assertTrue(Arrays.stream(losses, 50, 60).average().orElseThrow() < 0.6 * losses[0], Arrays.toString(losses));
            try (Tensor rounded = gpt.parameters().master().cast(DType.BF16)) {
                assertArrayEquals(Models.bits(rounded), Models.bits(gpt.parameters().values()));
            }
            assertFalse(Arrays.equals(Models.bits(gpt.parameters().values()), Models.bits(gpt.parameters().master())));
        }
    }

    @Test
    void brainFloatLossIsNearThatOfFloat32() {
        try (Gpt exact = Gpt.create(device, Models.plain(), DType.F32, 3);
                Gpt rounded = Gpt.create(device, Models.plain(), DType.BF16, 99);
                Tensor ids = Models.ids(device, 2, 8, 1);
                Tensor targets = Models.targets(device, 2, 8, 2);
                Tape tape = new Tape(device)) {
            rounded.parameters().copyFrom(exact.parameters());
            assertEquals(exact.loss(tape, ids, targets).item(), rounded.loss(tape, ids, targets).item(), 0.02);
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void closingGivesEverythingBackAndStepsAllocateNothing(String kind) {
        MemoryStats before = device.memory();
        List<Long> allocations = new ArrayList<>();
        for (DType dtype : new DType[] {DType.F32, DType.BF16}) {
            try (Gpt gpt = Gpt.create(device, Models.kinds().get(kind), dtype, 3);
                    KvCache cache = gpt.newCache(1);
                    AdamW optimizer = new AdamW(gpt.parameters(), 0.9, 0.95, 1e-8, 0.1);
                    GradientNorm norm = new GradientNorm(gpt.parameters());
                    Tensor ids = Models.ids(device, 2, 8, 1);
                    Tensor targets = Models.targets(device, 2, 8, 2)) {
                allocations.clear();
                long live = 0;
                for (int i = 0; i < 8; i++) {
                    step(gpt, optimizer, norm, ids, targets, 1e-3);
                    gpt.parameters().freeze(name -> name.contains("ln_1"));
                    allocations.add(device.memory().systemAllocations());
                    assertTrue(live == 0 || live == device.memory().liveTensors());
                    live = device.memory().liveTensors();
                }
                assertEquals(1, allocations.subList(1, 8).stream().distinct().count(), allocations.toString());
                try (Tape tape = new Tape(device); Tensor one = Models.ids(device, 1, 3, 5)) {
                    gpt.hidden(tape, one, cache, null);
                    gpt.hidden(tape, one, cache, Probe.of());
                }
            }
            assertEquals(before.liveTensors(), device.memory().liveTensors());
            assertEquals(before.bytesInUse(), device.memory().bytesInUse());
        }
    }

    @Test
    void closingTwiceDoesNothingAndAClosedModelRefuses() {
        Gpt gpt = Gpt.create(device, Models.plain(), DType.F32, 1);
        KvCache cache = gpt.newCache(1);
        cache.close();
        cache.close();
        gpt.close();
        gpt.close();
        try (Tensor ids = Models.ids(device, 1, 4, 1); Tape tape = new Tape(device)) {
            assertThrows(IllegalStateException.class, () -> gpt.hidden(tape, ids));
        }
    }

    /** The device is closed after each test, which it refuses while a tensor is open. */
    @Test
    void aModelThatCannotBeMadeLeavesNothingOpen() {
        GptConfig table = new GptConfig(2, 1 << 30, 1, 4, 1, 4, AttentionKind.SOFTMAX, 0, false, Double.NaN, Positions.SINUSOIDAL, 1e-5);
        refused("context: 1073741824 sinusoidal positions of width 4, expected at most 268435456 numbers",
                () -> Gpt.create(device, table, DType.F32, 1));
        GptConfig huge = GptConfig.of(1 << 30, 4, 1, 1 << 24, 1);
        assertThrows(DeviceOutOfMemoryException.class, () -> Gpt.create(device, huge, DType.F32, 1));
        GptConfig nearOne = Models.plain().withMomentumAttention(Math.nextDown(1.0));
        try (Gpt gpt = Gpt.create(device, nearOne, DType.F32, 1); Tensor ids = Models.ids(device, 1, 3, 1); Tape tape = new Tape(device)) {
            assertThrows(InvalidArgumentException.class, () -> gpt.hidden(tape, ids));
        }
        assertEquals(0, device.memory().liveTensors());
    }

    @Test
    void wrongCallsAreRefusedInASentence() {
        try (Gpt gpt = Gpt.create(device, Models.plain(), DType.F32, 1);
                Gpt other = Gpt.create(device, Models.plain(), DType.F32, 1);
                KvCache cache = gpt.newCache(2);
                Tensor flat = Tensor.of(device, new int[] {1, 2}, 2);
                Tensor tooLong = Models.ids(device, 1, Models.CONTEXT + 1, 1);
                Tensor one = Models.ids(device, 1, 3, 1);
                Tensor two = Models.ids(device, 2, 3, 1);
                Tensor three = Models.ids(device, 3, 3, 1);
                Tensor unknown = Tensor.of(device, new int[] {Models.VOCABULARY}, 1, 1);
                Tape tape = new Tape(device)) {
            refused("ids: rank 1, expected (B,T)", () -> gpt.hidden(tape, flat));
            refused("ids: 13 tokens, expected at most the context of 12", () -> gpt.hidden(tape, tooLong));
            refused("ids: 3 rows, expected the cache's 2", () -> gpt.hidden(tape, three, cache, null));
            refused("cache: of another model", () -> other.hidden(tape, two, cache, null));
            refused("probe: 2 rows, expected one sequence", () -> gpt.hidden(tape, two, null, Probe.of(0)));
            refused("probe: token 3 of 3", () -> gpt.hidden(tape, one, null, Probe.of(3)));
            assertThrows(InvalidArgumentException.class, () -> gpt.hidden(tape, unknown));
            refused("dtype: I32, expected a floating dtype", () -> Gpt.create(device, Models.plain(), DType.I32, 1));
            assertEquals(0, cache.length());
        }
    }

    private static void refused(String message, Runnable call) {
        assertEquals(message, assertThrows(InvalidArgumentException.class, call::run).getMessage());
    }

    @Test
    void sinusoidalPositionsAreThoseOfTheFormula() {
        GptConfig config = Models.plain().withPositions(Positions.SINUSOIDAL);
        try (Gpt gpt = Gpt.create(device, config, DType.F64, 1);
                Gpt learned = Gpt.create(device, Models.plain(), DType.F64, 1);
                Tensor ids = Models.ids(device, 1, Models.CONTEXT, 1);
                Tape tape = new Tape(device)) {
            double[] table = new double[Models.CONTEXT * 8];
            for (int t = 0; t < Models.CONTEXT; t++) {
                for (int i = 0; i < 4; i++) {
                    table[t * 8 + 2 * i] = Math.sin(t / Math.pow(10000, 2.0 * i / 8));
                    table[t * 8 + 2 * i + 1] = Math.cos(t / Math.pow(10000, 2.0 * i / 8));
                }
            }
            learned.parameters().get("wpe.weight").value().write(table);
            assertEquals(0, Models.largestDifference(learned.hidden(tape, ids).toDoubles(), gpt.hidden(tape, ids).toDoubles()), 1e-12);
            assertThrows(InvalidArgumentException.class, () -> gpt.parameters().get("wpe.weight"));
        }
    }

    @Test
    void copiedParametersAreEqualAndOtherShapesAreRefused() {
        try (Gpt a = Gpt.create(device, Models.plain(), DType.BF16, 1);
                Gpt b = Gpt.create(device, Models.plain(), DType.BF16, 2);
                Gpt swapped = Gpt.create(device, GptConfig.of(Models.CONTEXT, Models.VOCABULARY, 2, 8, 2), DType.BF16, 2)) {
            Ops.affine(a.parameters().master(), a.parameters().master(), 1.0001, 0);
            b.parameters().copyFrom(a.parameters());
            assertArrayEquals(Models.bits(a.parameters().values()), Models.bits(b.parameters().values()));
            assertArrayEquals(Models.bits(a.parameters().master()), Models.bits(b.parameters().master()));
            assertThrows(InvalidArgumentException.class, () -> b.parameters().copyFrom(swapped.parameters()));
        }
    }
}
