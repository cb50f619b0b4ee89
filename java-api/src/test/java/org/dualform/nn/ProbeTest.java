package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.autograd.Tape;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

@ExtendWith(TestDevice.class)
class ProbeTest {
    private static final int TOKENS = 9;
    private static final int WIDTH = 8;
    private static final int HEADS = 2;
    /** Probes keep float32. */
    private static final double TOLERANCE = 1e-6;

    private Device device;
    private Tensor ids;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
        ids = Models.ids(device, 1, TOKENS, 2);
    }

    @AfterEach
    void close() {
        ids.close();
        device.close();
    }

    private Probe run(Gpt gpt, KvCache cache, Probe probe, int from, int to) {
        try (Tape tape = new Tape(device); Tensor part = ids.slice(1, from, to)) {
            gpt.hidden(tape, part, cache, probe);
        }
        return probe;
    }

    private static void assertNear(float[] expected, float[] actual) {
        assertEquals(expected.length, actual.length);
        for (int i = 0; i < expected.length; i++) {
            assertEquals(expected[i], actual[i], TOLERANCE * Math.max(1, Math.abs(expected[i])));
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void aProbeWithACacheRecordsWhatOneWithoutDoes(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 1); KvCache cache = gpt.newCache(1)) {
            Probe whole = run(gpt, null, Probe.of(), 0, TOKENS);
            run(gpt, cache, null, 0, 4);
            cache.mark();
            run(gpt, cache, Probe.ofQueries(), 4, 6);
            cache.rewind();
            Probe rest = run(gpt, cache, Probe.of(-1, 0), 4, TOKENS);
            assertEquals(2, rest.layers());
            assertEquals(2, rest.tokens());
            assertEquals(TOKENS, whole.tokens());
            for (int layer = 0; layer < 2; layer++) {
                int[] tokens = {TOKENS - 1, 4};
                for (int i = 0; i < 2; i++) {
                    assertNear(whole.output(layer, tokens[i]), rest.output(layer, i));
                    assertNear(whole.query(layer, tokens[i]), rest.query(layer, i));
                    for (int head = 0; head < HEADS; head++) {
                        assertNear(whole.logits(layer, tokens[i])[head], rest.logits(layer, i)[head]);
                    }
                }
            }
        }
    }

    @Test
    void aProbeChangesNothing() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 1); Tape tape = new Tape(device)) {
            assertArrayEquals(gpt.hidden(tape, ids).toDoubles(), gpt.hidden(tape, ids, null, Probe.of()).toDoubles());
        }
    }

    /** The first layer of a softmax model in plain loops. */
    @Test
    void queriesLogitsAndOutputsAreThoseOfTheFormulas() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 3)) {
            Probe probe = run(gpt, null, Probe.of(5), 0, TOKENS);
            double[][] x = layerInput(gpt);
            double[][] q = linear(gpt, "h.0.attn.q_proj", x);
            double[][] k = linear(gpt, "h.0.attn.k_proj", x);
            double[][] v = linear(gpt, "h.0.attn.v_proj", x);
            double[][] mixed = new double[1][WIDTH];
            for (int head = 0; head < HEADS; head++) {
                int size = WIDTH / HEADS;
                double[] weights = new double[6];
                double total = 0;
                for (int s = 0; s < TOKENS; s++) {
                    double logit = 0;
                    for (int c = head * size; c < (head + 1) * size; c++) {
                        assertEquals(q[5][c] / 2, probe.query(0, 0)[c], TOLERANCE * Math.max(1, Math.abs(q[5][c])));
                        logit += q[5][c] * k[s][c] / Math.sqrt(size);
                    }
                    assertEquals(logit, probe.logits(0, 0)[head][s], TOLERANCE * Math.max(1, Math.abs(logit)));
                    if (s <= 5) {
                        weights[s] = Math.exp(logit);
                        total += weights[s];
                    }
                }
                for (int s = 0; s <= 5; s++) {
                    for (int c = head * size; c < (head + 1) * size; c++) {
                        mixed[0][c] += weights[s] / total * v[s][c];
                    }
                }
            }
            double[] output = linear(gpt, "h.0.attn.c_proj", mixed)[0];
            for (int c = 0; c < WIDTH; c++) {
                assertEquals(output[c], probe.output(0, 0)[c], TOLERANCE * Math.max(1, Math.abs(output[c])));
            }
        }
    }

    private double[][] layerInput(Gpt gpt) {
        double[] wte = gpt.parameters().get("wte.weight").value().toDoubles();
        double[] wpe = gpt.parameters().get("wpe.weight").value().toDoubles();
        double[] weight = gpt.parameters().get("h.0.ln_1.weight").value().toDoubles();
        double[] bias = gpt.parameters().get("h.0.ln_1.bias").value().toDoubles();
        int[] tokens = ids.toInts();
        double[][] x = new double[TOKENS][WIDTH];
        for (int t = 0; t < TOKENS; t++) {
            double mean = 0;
            for (int c = 0; c < WIDTH; c++) {
                x[t][c] = wte[tokens[t] * WIDTH + c] + wpe[t * WIDTH + c];
                mean += x[t][c] / WIDTH;
            }
            double variance = 0;
            for (int c = 0; c < WIDTH; c++) {
                variance += (x[t][c] - mean) * (x[t][c] - mean) / WIDTH;
            }
            for (int c = 0; c < WIDTH; c++) {
                x[t][c] = (x[t][c] - mean) / Math.sqrt(variance + 1e-5) * weight[c] + bias[c];
            }
        }
        return x;
    }

    private static double[][] linear(Gpt gpt, String name, double[][] x) {
        double[] weight = gpt.parameters().get(name + ".weight").value().toDoubles();
        double[] bias = gpt.parameters().get(name + ".bias").value().toDoubles();
        double[][] out = new double[x.length][WIDTH];
        for (int t = 0; t < x.length; t++) {
            for (int o = 0; o < WIDTH; o++) {
                out[t][o] = bias[o];
                for (int i = 0; i < WIDTH; i++) {
                    out[t][o] += weight[o * WIDTH + i] * x[t][i];
                }
            }
        }
        return out;
    }

    @Test
    void aProbeServesOnePassAndOneSequence() {
        try (Gpt gpt = Gpt.create(device, Models.plain(), DType.BF16, 1)) {
            Probe probe = run(gpt, null, Probe.ofQueries(), 0, TOKENS);
            assertEquals(TOKENS, probe.tokens());
            assertTrue(Math.abs(probe.query(1, TOKENS - 1)[0]) < 10);
            assertThrows(IllegalStateException.class, () -> run(gpt, null, probe, 0, TOKENS));
        }
    }
}
