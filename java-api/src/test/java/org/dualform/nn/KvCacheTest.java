package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
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
class KvCacheTest {
    private static final int ROWS = 3;
    private static final int TOKENS = 11;
    private static final double TOLERANCE = 1e-12;

    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    @AfterEach
    void close() {
        device.close();
    }

    private double[] hidden(Gpt gpt, Tensor ids, KvCache cache, int from, int to) {
        try (Tape tape = new Tape(device); Tensor part = ids.slice(1, from, to); Tensor contiguous = part.copy()) {
            return gpt.hidden(tape, contiguous, cache, null).toDoubles();
        }
    }

    private static double[] part(double[] hidden, int from, int to, int width) {
        double[] part = new double[ROWS * (to - from) * width];
        for (int row = 0; row < ROWS; row++) {
            System.arraycopy(hidden, (row * TOKENS + from) * width, part, row * (to - from) * width, (to - from) * width);
        }
        return part;
    }

    private static void assertPart(double[] whole, int from, int to, double[] actual) {
        assertEquals(0, Models.largestDifference(part(whole, from, to, 8), actual), TOLERANCE, from + " to " + to);
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void piecesGiveTheHiddenStatesOfTheWhole(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 1); Tensor ids = Models.ids(device, ROWS, TOKENS, 2)) {
            double[] whole = hidden(gpt, ids, null, 0, TOKENS);
            int[][] cuts = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {0, 4, 5, 11}, {0, 11}, {0, 1, 9, 10, 11}};
            for (int[] cut : cuts) {
                try (KvCache cache = gpt.newCache(ROWS)) {
                    for (int i = 1; i < cut.length; i++) {
                        assertEquals(cut[i - 1], cache.length());
                        assertPart(whole, cut[i - 1], cut[i], hidden(gpt, ids, cache, cut[i - 1], cut[i]));
                    }
                }
            }
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void rewindingForgetsWhatCameAfterTheMark(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 1);
                Tensor ids = Models.ids(device, ROWS, TOKENS, 2);
                Tensor others = Models.ids(device, ROWS, TOKENS, 3);
                KvCache cache = gpt.newCache(ROWS)) {
            double[] whole = hidden(gpt, ids, null, 0, TOKENS);
            hidden(gpt, others, cache, 0, 4);
            cache.rewind();
            assertEquals(0, cache.length());
            assertPart(whole, 0, 5, hidden(gpt, ids, cache, 0, 5));
            cache.mark();
            for (int to : new int[] {6, 7, 11}) {
                hidden(gpt, others, cache, 5, to);
                cache.rewind();
                cache.rewind();
                assertEquals(5, cache.length());
                assertPart(whole, 5, to, hidden(gpt, ids, cache, 5, to));
                cache.rewind();
            }
            assertPart(whole, 5, 7, hidden(gpt, ids, cache, 5, 7));
            cache.mark();
            assertPart(whole, 7, 11, hidden(gpt, ids, cache, 7, 11));
            cache.rewind();
            assertPart(whole, 7, 8, hidden(gpt, ids, cache, 7, 8));
        }
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void aRefusedCallLeavesTheCacheAsItWas(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 1);
                Tensor ids = Models.ids(device, ROWS, TOKENS, 2);
                Tensor tooMany = Models.ids(device, ROWS, Models.CONTEXT, 2);
                Tensor unknown = Tensor.full(device, DType.I32, Models.VOCABULARY, ROWS, 1);
                KvCache cache = gpt.newCache(ROWS);
                Tape tape = new Tape(device)) {
            double[] whole = hidden(gpt, ids, null, 0, TOKENS);
            hidden(gpt, ids, cache, 0, 3);
            assertThrows(InvalidArgumentException.class, () -> gpt.hidden(tape, tooMany, cache, null));
            assertThrows(InvalidArgumentException.class, () -> gpt.hidden(tape, unknown, cache, null));
            assertThrows(InvalidArgumentException.class, () -> gpt.hidden(tape, unknown, cache, Probe.of()));
            assertEquals(3, cache.length());
            assertPart(whole, 3, 6, hidden(gpt, ids, cache, 3, 6));
        }
    }

    @Test
    void theCacheOfMomentumZeroGivesThePlainModelsBits() {
        try (Gpt plain = Gpt.create(device, Models.plain(), DType.F32, 1);
                Gpt momentum = Gpt.create(device, Models.plain().withMomentumAttention(0), DType.F32, 1);
                Tensor ids = Models.ids(device, ROWS, TOKENS, 2);
                KvCache a = plain.newCache(ROWS);
                KvCache b = momentum.newCache(ROWS)) {
            for (int t = 0; t < TOKENS; t++) {
                assertArrayEquals(hidden(plain, ids, a, t, t + 1), hidden(momentum, ids, b, t, t + 1));
            }
        }
    }

    @Test
    void brainFloatCachesStayNear() {
        for (String kind : Models.names().toList()) {
            try (Gpt gpt = Gpt.create(device, Models.kinds().get(kind), DType.BF16, 1); Tensor ids = Models.ids(device, ROWS, TOKENS, 2);
                    KvCache cache = gpt.newCache(ROWS)) {
                double[] whole = wide(gpt, ids, null, 0, TOKENS);
                wide(gpt, ids, cache, 0, 6);
                double[] rest = wide(gpt, ids, cache, 6, TOKENS);
                assertEquals(0, Models.largestDifference(part(whole, 6, TOKENS, 8), rest), 0.05, kind);
                assertTrue(Arrays.stream(rest).anyMatch(x -> Math.abs(x) > 0.5), kind);
            }
        }
    }

    private double[] wide(Gpt gpt, Tensor ids, KvCache cache, int from, int to) {
        try (Tape tape = new Tape(device); Tensor part = ids.slice(1, from, to); Tensor contiguous = part.copy()) {
            return gpt.hidden(tape, contiguous, cache, null).toDoubles();
        }
    }
}
