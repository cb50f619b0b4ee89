package org.dualform.autograd;

import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.LongStream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DualForm;
import org.dualform.Gelu;
import org.dualform.Reduction;
import org.dualform.Tensor;
import org.dualform.Unary;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Every recorded op against finite differences in float64. */
class TapeGradientTest {
    private static Device device;

    @BeforeAll
    static void open() {
        device = Device.cpu(2);
    }

    @AfterAll
    static void close() {
        device.close();
    }

    private static Tensor[] all(Tensor... results) {
        return results;
    }

    @Test
    void aMissingTermIsFound() {
        try (GradientCheck check = new GradientCheck(device, 0)) {
            check.input(2, 3);
            assertThrows(AssertionError.class,
                    () -> check.check((tape, x) -> all(tape.mul(x[0], tape.noGrad(() -> tape.affine(x[0], 1e-6, 1))))));
        }
    }

    /** The gradients of x and of the residual are equal, and one memory until something is added to one of them. */
    @ParameterizedTest
    @ValueSource(ints = {0, 1, 2, 3})
    void residualLayernormOfTensorsUsedElsewhere(int used) {
        try (GradientCheck check = new GradientCheck(device, 15)) {
            check.input(3, 4).input(3, 4).input(4).input(4).check((tape, x) -> {
                Tensor added = tape.affine(x[0], 1.5, 0);
                Tensor stream = tape.affine(x[1], 0.5, 0);
                // Recorded before: in the backward pass these contributions come last.
                Tensor a = (used & 1) == 0 ? x[0] : tape.mul(added, added);
                Tensor b = (used & 2) == 0 ? x[1] : tape.mul(stream, stream);
                return all(tape.residualLayernorm(added, stream, x[2], x[3], 1e-5).out(), a, b);
            });
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void attention(boolean causal) {
        try (GradientCheck check = new GradientCheck(device, 1)) {
            check.input(2, 3, 4, 5).input(2, 4, 2, 5).input(2, 4, 2, 5)
                    .check((tape, x) -> all(tape.attention(x[0], x[1], x[2], null, 0.4, causal)));
        }
    }

    @Test
    void attentionWithLengths() {
        try (GradientCheck check = new GradientCheck(device, 2); Tensor lengths = Tensor.of(device, new int[] {2, 4}, 2)) {
            check.input(2, 3, 2, 3).input(2, 4, 1, 3).input(2, 4, 1, 3)
                    .check((tape, x) -> all(tape.attention(x[0], x[1], x[2], lengths, 0.6, true)));
        }
    }

    @Test
    void attentionOfOneTensorWithItself() {
        try (GradientCheck check = new GradientCheck(device, 3)) {
            check.input(1, 4, 2, 3).check((tape, x) -> all(tape.attention(x[0], x[0], x[0], null, 0.5, true)));
        }
    }

    @Test
    void momentumAttention() {
        try (GradientCheck check = new GradientCheck(device, 4)) {
            check.input(2, 5, 2, 3).input(2, 6, 1, 3).input(2, 6, 1, 3).input(0.1, 0.9, 2)
                    .check((tape, x) -> all(tape.momentumAttention(x[0], x[1], x[2], x[3], null, 0.5)));
        }
    }

    @ParameterizedTest
    @EnumSource(DualForm.class)
    void dualForm(DualForm form) {
        try (GradientCheck check = new GradientCheck(device, 5)) {
            check.input(4, 3).input(5, 4).input(5, 3).input(6, 3)
                    .check((tape, x) -> all(tape.dualForm(x[0], x[1], x[2], x[3], form)));
        }
    }

    @Test
    void deltaAccumulateAndApply() {
        try (GradientCheck check = new GradientCheck(device, 6)) {
            check.input(5, 4).input(5, 3).input(6, 3).input(4, 3).check((tape, x) -> {
                Tensor deltaW = tape.deltaAccumulate(x[0], x[1]);
                return all(tape.deltaApply(x[2], x[3], deltaW), tape.deltaApply(x[2], null, deltaW));
            });
        }
    }

    @Test
    void linearAttentionWithDecayAndState() {
        try (GradientCheck check = new GradientCheck(device, 7)) {
            check.input(2, 5, 2, 3).input(2, 5, 2, 3).input(2, 5, 2, 3).input(0.2, 0.9, 2).input(2, 2, 3, 3).check((tape, x) -> {
                LinearAttention result = tape.linearAttention(x[0], x[1], x[2], x[3], x[4]);
                return all(result.out(), result.state());
            });
        }
    }

    @Test
    void linearAttentionOfTheStateAlone() {
        try (GradientCheck check = new GradientCheck(device, 8)) {
            check.input(1, 4, 1, 3).input(1, 4, 1, 3)
                    .check((tape, x) -> all(tape.linearAttention(x[0], x[0], x[1], null, null).state()));
        }
    }

    @ParameterizedTest
    @CsvSource({"false,false", "false,true", "true,false", "true,true"})
    void matmulWithBias(boolean transA, boolean transB) {
        try (GradientCheck check = new GradientCheck(device, 9)) {
            check.input(shape(transA, 3, 4)).input(shape(transB, 4, 2)).input(2)
                    .check((tape, x) -> all(tape.matmul(x[0], x[1], x[2], transA, transB)));
        }
    }

    @ParameterizedTest
    @CsvSource({"false,false", "false,true", "true,false", "true,true"})
    void matmulOfBatches(boolean transA, boolean transB) {
        try (GradientCheck check = new GradientCheck(device, 10)) {
            check.input(shape(transA, 3, 4, 2)).input(shape(transB, 4, 2, 2))
                    .check((tape, x) -> all(tape.matmul(x[0], x[1], null, transA, transB)));
        }
    }

    @ParameterizedTest
    @CsvSource({"false,false", "false,true", "true,false", "true,true"})
    void matmulWithASharedMatrix(boolean transA, boolean transB) {
        try (GradientCheck check = new GradientCheck(device, 11)) {
            check.input(shape(transA, 3, 4, 2)).input(shape(transB, 4, 2)).input(2)
                    .check((tape, x) -> all(tape.matmul(x[0], x[1], x[2], transA, transB)));
        }
    }

    private static long[] shape(boolean transposed, long rows, long columns, long... batch) {
        long[] shape = new long[batch.length + 2];
        System.arraycopy(batch, 0, shape, 0, batch.length);
        shape[batch.length] = transposed ? columns : rows;
        shape[batch.length + 1] = transposed ? rows : columns;
        return shape;
    }

    @Test
    void residualLayernorm() {
        try (GradientCheck check = new GradientCheck(device, 12)) {
            check.input(2, 3, 5).input(2, 3, 5).input(5).input(5).check((tape, x) -> {
                ResidualLayernorm result = tape.residualLayernorm(x[0], x[1], x[2], x[3], 1e-5);
                return all(result.sum(), result.out());
            });
        }
    }

    @Test
    void layernormWithoutResidual() {
        try (GradientCheck check = new GradientCheck(device, 13)) {
            check.input(4, 5).input(5).input(5)
                    .check((tape, x) -> all(tape.residualLayernorm(x[0], null, x[1], x[2], 1e-5).out()));
        }
    }

    @Test
    void residualOfATensorWithItself() {
        try (GradientCheck check = new GradientCheck(device, 14)) {
            check.input(3, 4).input(4).input(4).check((tape, x) -> all(tape.residualLayernorm(x[0], x[0], x[1], x[2], 1e-5).out()));
        }
    }

    @ParameterizedTest
    @EnumSource(Gelu.class)
    void biasGelu(Gelu kind) {
        try (GradientCheck check = new GradientCheck(device, 15)) {
            check.input(2, 3, 4).input(4).check((tape, x) -> all(tape.biasGelu(x[0], x[1], kind), tape.biasGelu(x[0], null, kind)));
        }
    }

    @ParameterizedTest
    @EnumSource(Gelu.class)
    void feedForward(Gelu kind) {
        try (GradientCheck check = new GradientCheck(device, 15)) {
            check.input(2, 3, 4).input(5, 4).input(5).input(6, 5).input(6).check((tape, x) ->
                    all(tape.feedForward(x[0], x[1], x[2], x[3], x[4], kind), tape.feedForward(x[0], x[1], null, x[3], null, kind)));
        }
    }

    @Test
    void embedding() {
        try (GradientCheck check = new GradientCheck(device, 16); Tensor ids = Tensor.of(device, new int[] {0, 2, 2, 4, 1, 2}, 2, 3)) {
            check.input(5, 3).input(6, 3).check((tape, x) -> all(tape.embedding(ids, x[0], x[1], 2), tape.embedding(ids, x[0], null, 0)));
        }
    }

    @Test
    void crossEntropyWithIgnoredRows() {
        try (GradientCheck check = new GradientCheck(device, 17); Tensor targets = Tensor.of(device, new int[] {1, -1, 4, 0}, 4)) {
            check.input(4, 5).check((tape, x) -> all(tape.crossEntropy(x[0], targets, -1)));
        }
    }

    @ParameterizedTest
    @EnumSource(Unary.class)
    void unary(Unary op) {
        try (GradientCheck check = new GradientCheck(device, 18)) {
            check.input(0.3, 2, 3, 4).check((tape, x) -> all(tape.unary(x[0], op)));
        }
    }

    @Test
    void arithmeticOfEqualShapes() {
        try (GradientCheck check = new GradientCheck(device, 19)) {
            check.input(3, 4).input(0.5, 2, 3, 4).check((tape, x) -> all(tape.add(x[0], x[1]), tape.sub(x[0], x[1]), tape.mul(x[0], x[1]),
                    tape.div(x[0], x[1]), tape.max(x[0], x[1]), tape.min(x[0], x[1])));
        }
    }

    @Test
    void arithmeticWithBroadcasting() {
        try (GradientCheck check = new GradientCheck(device, 20)) {
            check.input(2, 1, 4).input(0.5, 2, 3, 1).check((tape, x) -> all(tape.add(x[0], x[1]), tape.sub(x[0], x[1]),
                    tape.mul(x[0], x[1]), tape.div(x[0], x[1]), tape.max(x[0], x[1]), tape.min(x[0], x[1])));
        }
    }

    @Test
    void squareAsAProductWithItself() {
        try (GradientCheck check = new GradientCheck(device, 21)) {
            check.input(3, 2).check((tape, x) -> all(tape.mul(x[0], x[0])));
        }
    }

    @Test
    void affineCopyAndBroadcast() {
        try (GradientCheck check = new GradientCheck(device, 22)) {
            check.input(1, 3).check((tape, x) -> all(tape.affine(x[0], -2, 3), tape.copy(x[0]), tape.broadcast(x[0], 2, 4, 3),
                    tape.cast(x[0], DType.F64)));
        }
    }

    @Test
    void slicesThatPartitionAProjection() {
        try (GradientCheck check = new GradientCheck(device, 23)) {
            check.input(2, 4, 6).input(6, 18).check((tape, x) -> {
                Tensor qkv = tape.reshape(tape.matmul(x[0], x[1]), 2, 4, 3, 2, 3);
                return all(tape.attention(tape.select(qkv, 2, 0), tape.select(qkv, 2, 1), tape.select(qkv, 2, 2), null, 0.5, true));
            });
        }
    }

    @Test
    void slicesOfWhichOneIsNotUsed() {
        try (GradientCheck check = new GradientCheck(device, 24)) {
            check.input(2, 6).check((tape, x) -> {
                Tensor y = tape.unary(x[0], Unary.SIN);
                Tensor left = tape.slice(y, 1, 0, 2);
                tape.slice(y, 1, 2, 6);
                return all(tape.unary(left, Unary.EXP));
            });
        }
    }

    @Test
    void overlappingSlicesBesideTheirBase() {
        try (GradientCheck check = new GradientCheck(device, 25)) {
            check.input(3, 6).check((tape, x) -> {
                Tensor y = tape.unary(x[0], Unary.SIN);
                Tensor a = tape.slice(y, 1, 0, 4);
                Tensor b = tape.slice(y, 1, 2, 6);
                return all(tape.mul(a, b), tape.unary(y, Unary.EXP), tape.reshape(y, 2, 9));
            });
        }
    }

    @Test
    void slicesOfALeafTransposed() {
        try (GradientCheck check = new GradientCheck(device, 26)) {
            check.input(2, 3, 4).check((tape, x) -> {
                Tensor swapped = tape.transpose(x[0], 0, 1);
                return all(tape.unary(tape.select(swapped, 0, 1), Unary.TANH), tape.unary(tape.slice(x[0], 0, 1, 2), Unary.SIN));
            });
        }
    }

    @ParameterizedTest
    @EnumSource(Reduction.class)
    void reduce(Reduction op) {
        try (GradientCheck check = new GradientCheck(device, 27)) {
            check.input(2, 3, 4).check((tape, x) -> all(tape.reduce(x[0], op), tape.reduce(x[0], op, 1), tape.reduce(x[0], op, 2, 0)));
        }
    }

    @Test
    void aTransformerBlock() {
        try (GradientCheck check = new GradientCheck(device, 28);
                Tensor ids = Tensor.of(device, new int[] {0, 2, 1, 3}, 1, 4);
                Tensor targets = Tensor.of(device, new int[] {2, 1, 3, -1}, 4)) {
            check.input(4, 4).input(4).input(4).input(4, 12).input(12).input(4, 8).input(8).input(8, 4).check((tape, x) -> {
                Tensor h = tape.embedding(ids, x[0], null, 0);
                ResidualLayernorm first = tape.residualLayernorm(h, null, x[1], x[2], 1e-5);
                Tensor qkv = tape.reshape(tape.matmul(first.out(), x[3], x[4], false, false), 1, 4, 3, 2, 2);
                Tensor attention = tape.reshape(
                        tape.attention(tape.select(qkv, 2, 0), tape.select(qkv, 2, 1), tape.select(qkv, 2, 2), null, 0.7, true), 1, 4, 4);
                ResidualLayernorm second = tape.residualLayernorm(attention, h, x[1], x[2], 1e-5);
                Tensor mlp = tape.matmul(tape.biasGelu(tape.matmul(second.out(), x[5]), x[6], Gelu.TANH), x[7]);
                Tensor logits = tape.matmul(tape.add(mlp, second.sum()), x[0], null, false, true);
                return all(tape.crossEntropy(tape.reshape(logits, 4, 4), targets, -1));
            });
        }
    }

    /** Views of views, used partly, twice, or beside their base, in random order. */
    @ParameterizedTest
    @MethodSource("seeds")
    void randomGraphsOfViews(long seed) {
        try (GradientCheck check = new GradientCheck(device, seed)) {
            check.input(4, 6).check((tape, x) -> randomGraph(tape, x[0], new Random(seed)));
        }
    }

    static LongStream seeds() {
        return LongStream.range(100, 160);
    }

    private static Tensor[] randomGraph(Tape tape, Tensor x, Random random) {
        List<Tensor> pool = new ArrayList<>(List.of(x));
        for (int step = 0; step < 10; step++) {
            Tensor t = pool.get(random.nextInt(pool.size()));
            int axis = random.nextInt(t.rank());
            long size = t.size(axis);
            switch (random.nextInt(6)) {
                case 0 -> pool.add(tape.unary(t, Unary.SIN));
                case 1 -> pool.add(tape.affine(t, -0.75, 0.25));
                case 2 -> {
                    long from = random.nextInt((int) size);
                    pool.add(tape.slice(t, axis, from, from + 1 + random.nextInt((int) (size - from))));
                }
                case 3 -> {
                    if (size > 1) {
                        long cut = 1 + random.nextInt((int) size - 1);
                        pool.add(tape.unary(tape.slice(t, axis, 0, cut), Unary.TANH));
                        pool.add(tape.slice(t, axis, cut, size));
                    }
                }
                case 4 -> {
                    if (t.isContiguous()) {
                        pool.add(tape.reshape(t, 1, t.numel()));
                    }
                }
                default -> {
                    Tensor other = pool.get(random.nextInt(pool.size()));
                    if (Arrays.equals(t.shape(), other.shape())) {
                        pool.add(tape.mul(t, other));
                    }
                }
            }
        }
        List<Tensor> results = new ArrayList<>();
        for (Tensor t : pool) {
            if (random.nextBoolean()) {
                results.add(t);
            }
        }
        results.add(tape.affine(pool.get(pool.size() - 1), 1, 0));
        results.add(tape.unary(x, Unary.SQUARE));
        return results.toArray(new Tensor[0]);
    }
}
