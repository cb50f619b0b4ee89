package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.junit.jupiter.api.Test;

class ModelScorerTest {
    private static final int VOCABULARY = 50;
    private static final GptConfig PLAIN = GptConfig.of(VOCABULARY, 40, 2, 24, 3);
    private static final List<int[]> ANSWERS = List.of(new int[] {7}, new int[] {8, 9}, new int[] {8}, new int[] {3, 3, 3});

    /** Weights large enough that attention is far from uniform. */
    static Gpt lively(Device device, GptConfig config, DType dtype, long seed) {
        Gpt gpt = Gpt.create(device, config, dtype, seed);
        Ops.randomNormal(gpt.parameters().values(), seed, 1L << 60, 0, 0.3);
        gpt.parameters().valuesChanged();
        return gpt;
    }

    /** Mean log-probability straight from the definition: the whole text at once, nothing cached. */
    static double uncached(Gpt gpt, int[] context, int[] continuation) {
        int[] all = Episode.joined(context, continuation);
        int vocabulary = gpt.config().vocabulary();
        try (Tensor ids = Tensor.of(gpt.device(), all, 1, all.length); Tape tape = new Tape(gpt.device())) {
            double[] logits = gpt.logits(tape, gpt.hidden(tape, ids)).toDoubles();
            double sum = 0;
            for (int i = 0; i < continuation.length; i++) {
                int at = (context.length - 1 + i) * vocabulary;
                double[] row = Arrays.copyOfRange(logits, at, at + vocabulary);
                sum += row[continuation[i]] - Math.log(Arrays.stream(row).map(Math::exp).sum());
            }
            return sum / continuation.length;
        }
    }

    private static int[] tokens(SplittableRandom random, int count) {
        return random.ints(count, 0, VOCABULARY).toArray();
    }

    @Test
    void cachedScoresAreTheUncachedOnes() {
        SplittableRandom random = new SplittableRandom(3);
        for (GptConfig config : List.of(PLAIN, PLAIN.withMomentumAttention(0.7), PLAIN.withLinearAttention(Double.NaN))) {
            try (Device device = Device.cpu(); Gpt gpt = lively(device, config, DType.F32, 4); ModelScorer scorer = new ModelScorer(gpt)) {
                int[] shared = tokens(random, 21);
                scorer.share(shared);
                for (int query = 1; query < 16; query += 2) {
                    int[] context = Episode.joined(shared, tokens(random, query));
                    double[] scores = scorer.score(context, ANSWERS);
                    for (int i = 0; i < scores.length; i++) {
                        assertEquals(uncached(gpt, context, ANSWERS.get(i)), scores[i], 1e-5, config.attention() + " " + query);
                    }
                    assertArrayEquals(scores, scorer.score(context, ANSWERS), config.attention() + ": asked twice");
                }
            }
        }
    }

    @Test
    void contextsThatBeginOtherwiseAreReadWhole() {
        SplittableRandom random = new SplittableRandom(4);
        try (Device device = Device.cpu(); Gpt gpt = lively(device, PLAIN, DType.F32, 4); ModelScorer scorer = new ModelScorer(gpt)) {
            int[] shared = tokens(random, 9);
            scorer.share(shared);
            for (int[] context : List.of(shared, Arrays.copyOf(shared, 3), tokens(random, 12))) {
                assertEquals(uncached(gpt, context, ANSWERS.get(1)), scorer.score(context, ANSWERS)[1], 1e-5);
                scorer.share(shared);
            }
            double before = scorer.score(Episode.joined(shared, new int[] {5}), ANSWERS)[0];
            scorer.share(tokens(random, 20));
            scorer.share(shared);
            assertEquals(before, scorer.score(Episode.joined(shared, new int[] {5}), ANSWERS)[0]);
        }
    }

    @Test
    void theLastPlaceOfTheContextCanBeUsed() {
        SplittableRandom random = new SplittableRandom(5);
        try (Device device = Device.cpu(); Gpt gpt = lively(device, PLAIN, DType.F32, 4); ModelScorer scorer = new ModelScorer(gpt)) {
            int[] context = tokens(random, 39);
            scorer.share(Arrays.copyOf(context, 30));
            assertEquals(uncached(gpt, context, new int[] {8}), scorer.score(context, List.of(new int[] {8, 9}, new int[] {8}))[1], 1e-5);
            assertThrows(InvalidArgumentException.class, () -> scorer.score(context, List.of(new int[] {8, 9, 9})));
            assertThrows(InvalidArgumentException.class, () -> scorer.score(new int[0], ANSWERS));
            assertThrows(InvalidArgumentException.class, () -> scorer.score(context, List.of(new int[0])));
        }
    }

    @Test
    void probabilitiesOfAllTokensSumToOne() {
        try (Device device = Device.cpu(); Gpt gpt = lively(device, PLAIN, DType.F32, 6); ModelScorer scorer = new ModelScorer(gpt)) {
            double[] next = scorer.reply(new int[] {1, 2}, ANSWERS, null).next();
            assertEquals(1, Arrays.stream(next).map(Math::exp).sum(), 1e-12);
            assertNotEquals(next[0], next[1]);
        }
    }

    @Test
    void agreementOfNextTokensIsThatOfTheWholeDistributions() {
        SplittableRandom random = new SplittableRandom(7);
        for (int n : new int[] {4, 10, 11, 500}) {
            double[] p = random.doubles(n, -9, 0).toArray();
            double[] q = random.doubles(n, -9, 0).toArray();
            for (int i = 0; i < n / 2; i++) {
                q[i] = p[i];
                p[n - 1 - i] = Math.rint(p[n - 1 - i]); // ties
            }
            double[] a = Arrays.stream(p).map(Math::exp).toArray();
            double[] b = Arrays.stream(q).map(Math::exp).toArray();
            int k = Math.min(10, n);
            assertArrayEquals(new double[] {org.dualform.lab.metrics.NextToken.overlap(a, b, k),
                org.dualform.lab.metrics.NextToken.overlapCosine(a, b, k)}, NextTokens.agreement(p, q), 1e-15);
        }
    }
}
