package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;
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
class GeneratorTest {
    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    @AfterEach
    void close() {
        device.close();
    }

    private double[] lastLogits(Gpt gpt, int... tokens) {
        try (Tensor ids = Tensor.of(device, tokens, 1, tokens.length); Tape tape = new Tape(device)) {
            double[] all = gpt.logits(tape, gpt.hidden(tape, ids)).toDoubles();
            return Arrays.copyOfRange(all, all.length - Models.VOCABULARY, all.length);
        }
    }

    private static int argmax(double[] values) {
        return IntStream.range(0, values.length).boxed().max(Comparator.comparingDouble(i -> values[i])).orElseThrow();
    }

    /** Without a cache: the window starts again with its last half when it is full. */
    private int[] reference(Gpt gpt, int[] prompt, int count) {
        int[] text = prompt.clone();
        int from = Math.max(0, text.length - Models.CONTEXT);
        for (int i = 0; i < count; i++) {
            if (text.length - from > Models.CONTEXT) {
                from = text.length - Models.CONTEXT / 2;
            }
            int next = argmax(lastLogits(gpt, Arrays.copyOfRange(text, from, text.length)));
            text = Arrays.copyOf(text, text.length + 1);
            text[text.length - 1] = next;
        }
        return Arrays.copyOfRange(text, prompt.length, text.length);
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void greedyTokensAreTheMostProbableOnesBeyondTheContextToo(String kind) {
        try (Gpt gpt = Models.rough(device, Models.kinds().get(kind), 1); Generator generator = new Generator(gpt)) {
            for (int[] prompt : List.of(new int[] {3}, new int[] {1, 2, 3, 4, 5}, IntStream.range(0, 12).map(i -> i % 7).toArray(),
                    IntStream.range(0, 30).map(i -> i * i % 11).toArray())) {
                assertArrayEquals(reference(gpt, prompt, 25), generator.generate(prompt, Sampling.greedy(25)));
            }
        }
    }

    @Test
    void theSameSeedGivesTheSameTokensAndAnotherOthers() {
        for (DType dtype : new DType[] {DType.F32, DType.BF16}) {
            try (Gpt gpt = Gpt.create(device, Models.plain().withLearnedMomentum(0.5), dtype, 1);
                    Generator generator = new Generator(gpt); Generator second = new Generator(gpt)) {
                int[] prompt = {1, 2, 3};
                int[] tokens = generator.generate(prompt, Sampling.random(40, 0.8, 5, 9));
                assertEquals(40, tokens.length);
                generator.generate(prompt, Sampling.random(7, 1, 0, 3));
                assertArrayEquals(tokens, generator.generate(prompt, Sampling.random(40, 0.8, 5, 9)));
                assertArrayEquals(tokens, second.generate(prompt, Sampling.random(40, 0.8, 5, 9)));
                assertFalse(Arrays.equals(tokens, second.generate(prompt, Sampling.random(40, 0.8, 5, 10))));
            }
        }
    }

    /** 4,000 draws of one token: the standard error of a frequency is at most 0.008. */
    @Test
    void frequenciesAreTheModelsProbabilities() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 1); Generator generator = new Generator(gpt)) {
            double[] logits = lastLogits(gpt, 4, 2);
            double[] logitsSorted = logits.clone();
            Arrays.sort(logitsSorted);
            for (int topK : new int[] {0, 3}) {
                double least = topK == 0 ? logitsSorted[0] : logitsSorted[logits.length - topK];
                double[] expected = Arrays.stream(logits).map(x -> x < least ? 0 : Math.exp(x / 1.5)).toArray();
                double total = Arrays.stream(expected).sum();
                double[] counts = new double[Models.VOCABULARY];
                for (int seed = 0; seed < 4000; seed++) {
                    counts[generator.generate(new int[] {4, 2}, Sampling.random(1, 1.5, topK, seed))[0]]++;
                }
                for (int i = 0; i < counts.length; i++) {
                    assertEquals(expected[i] / total, counts[i] / 4000, expected[i] == 0 ? 0 : 0.04);
                }
            }
        }
    }

    @Test
    void oneCandidateIsTheMostProbableToken() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 2); Generator generator = new Generator(gpt)) {
            assertArrayEquals(generator.generate(new int[] {1}, Sampling.greedy(20)),
                    generator.generate(new int[] {1}, Sampling.random(20, 2, 1, 5)));
        }
    }

    @Test
    void ofEqualCandidatesTheFirstOnesAreKept() {
        try (Gpt gpt = Gpt.create(device, Models.plain(), DType.F32, 2); Generator generator = new Generator(gpt)) {
            gpt.parameters().get("wte.weight").value().write(new float[Models.VOCABULARY * 8]);
            int[] tokens = generator.generate(new int[] {1}, Sampling.random(60, 1, 3, 5));
            assertArrayEquals(new int[] {0, 1, 2}, Arrays.stream(tokens).distinct().sorted().toArray());
            assertArrayEquals(new int[10], generator.generate(new int[] {1}, Sampling.greedy(10)));
        }
    }

    @Test
    void theEndTokenEndsTheTextAndIsNotPartOfIt() {
        try (Gpt gpt = Models.rough(device, Models.plain(), 3); Generator generator = new Generator(gpt)) {
            Sampling sampling = Sampling.random(60, 1, 0, 4);
            int[] free = generator.generate(new int[] {1}, sampling);
            int end = free[8];
            int first = IntStream.range(0, free.length).filter(i -> free[i] == end).findFirst().orElseThrow();
            assertArrayEquals(Arrays.copyOf(free, first), generator.generate(new int[] {1}, sampling.endingWith(end)));
            assertEquals(0, generator.generate(new int[] {1}, Sampling.greedy(0)).length);
        }
    }

    @Test
    void badPromptsAndChoicesAreRefused() {
        try (Gpt gpt = Gpt.create(device, Models.plain(), DType.F32, 1); Generator generator = new Generator(gpt)) {
            assertThrows(InvalidArgumentException.class, () -> generator.generate(new int[0], Sampling.greedy(1)));
            assertThrows(InvalidArgumentException.class, () -> generator.generate(new int[] {Models.VOCABULARY}, Sampling.greedy(1)));
            assertEquals(1, generator.generate(new int[] {1}, Sampling.greedy(1)).length);
            assertThrows(InvalidArgumentException.class, () -> Sampling.greedy(-1));
            assertThrows(InvalidArgumentException.class, () -> Sampling.random(1, -1, 0, 0));
            assertThrows(InvalidArgumentException.class, () -> Sampling.random(1, Double.NaN, 0, 0));
            assertThrows(InvalidArgumentException.class, () -> Sampling.random(1, 1, -1, 0));
            gpt.parameters().get("ln_f.bias").value().write(new float[] {Float.NaN, 0, 0, 0, 0, 0, 0, 0});
            assertTrue(assertThrows(IllegalStateException.class, () -> generator.generate(new int[] {1}, Sampling.greedy(1))).getMessage()
                    .contains("not a number"));
        }
    }
}
