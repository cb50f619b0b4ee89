package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.LabelMapping.Document;
import org.dualform.lab.data.LabelMapping.Example;
import org.dualform.lab.icl.TokenTask;
import org.junit.jupiter.api.Test;

class LabelMappingTest {
    /** Standard deviations that count as chance: a right generator fails one test in a million. */
    private static final double SIGMAS = 5;
    private final LabelMapping corpus = LabelMapping.standard();

    private static void isBinomial(long successes, long trials, double probability) {
        double deviation = Math.abs(successes - trials * probability) / Math.sqrt(trials * probability * (1 - probability));
        assertTrue(deviation < SIGMAS, successes + " of " + trials + ", expected a share of " + probability + ": " + deviation + " sigmas");
    }

    @Test
    void documentsHaveTheWordsLabelsAndPermutationsOfTheLaw() {
        int documents = 4000;
        int examples = 20;
        long[] ofCluster = new long[4];
        long[] words = new long[64];
        long own = 0;
        long identity = 0;
        long remappedOnce = 0;
        Set<String> permutations = new HashSet<>();
        for (int i = 0; i < documents; i++) {
            Document document = corpus.document(7, i, examples);
            identity += document.isCanonical() ? 1 : 0;
            permutations.add(Arrays.toString(document.permutation()));
            remappedOnce += Arrays.equals(document.permutation(), new int[] {1, 0, 2, 3}) ? 1 : 0;
            for (Example example : document.examples()) {
                assertEquals(document.permutation()[example.cluster()], example.label());
                ofCluster[example.cluster()]++;
                for (int word : example.words()) {
                    words[word]++;
                    own += word / 16 == example.cluster() ? 1 : 0;
                }
            }
        }
        isBinomial(identity, documents, 0.5 + 0.5 / 24);
        isBinomial(remappedOnce, documents, 0.5 / 24);
        assertEquals(24, permutations.size());
        for (long count : ofCluster) {
            isBinomial(count, (long) documents * examples, 0.25);
        }
        for (long count : words) {
            isBinomial(count, 4L * documents * examples, 1.0 / 64);
        }
        isBinomial(own, 4L * documents * examples, 0.9 + 0.1 / 4);
    }

    @Test
    void documentsAreTheSameForTheSameSeedAndNumberOnly() {
        int[] tokens = corpus.tokens(corpus.document(3, 5, 21));
        assertArrayEquals(tokens, corpus.tokens(corpus.document(3, 5, 21)));
        assertArrayEquals(Arrays.copyOf(tokens, 1 + 6 * 4), corpus.tokens(corpus.document(3, 5, 4)), "a shorter one is its beginning");
        assertFalse(Arrays.equals(tokens, corpus.tokens(corpus.document(3, 6, 21))));
        assertFalse(Arrays.equals(tokens, corpus.tokens(corpus.document(4, 5, 21))));
    }

    @Test
    void nearSeedsShareNoDocument() {
        Set<String> seen = new HashSet<>();
        for (long seed = 0; seed < 40; seed++) {
            for (int i = 0; i < 25; i++) {
                assertTrue(seen.add(Arrays.toString(corpus.tokens(corpus.document(seed, i, 10)))));
            }
        }
    }

    @Test
    void tokensAreASeparatorThenWordsLabelAndSeparator() {
        Document document = corpus.document(1, 2, 3);
        int[] tokens = corpus.tokens(document);
        assertEquals(69, corpus.vocabularySize());
        assertEquals(19, tokens.length);
        assertEquals(68, tokens[0]);
        int labels = 0;
        for (int position = 1; position < tokens.length; position++) {
            Example example = document.examples().get((position - 1) / 6);
            int place = (position - 1) % 6;
            int expected = place < 4 ? example.words()[place] : place == 4 ? 64 + example.label() : 68;
            assertEquals(expected, tokens[position]);
            assertEquals(place == 4 ? labels++ : -1, corpus.labelledAt(position));
        }
        assertEquals(-1, corpus.labelledAt(0));
        assertEquals(21, corpus.examplesIn(128));
    }

    @Test
    void batchesAddressedByNumberAreDocuments() {
        int rows = 3;
        for (int length : new int[] {1, 5, 6, 7, 64, 128}) {
            Batches batches = corpus.batches(11, rows, length);
            int[] ids = new int[rows * length];
            int[] targets = new int[rows * length];
            for (long index : new long[] {4, 0, 4}) {
                batches.fill(index, ids, targets);
                for (int row = 0; row < rows; row++) {
                    int[] tokens = corpus.tokens(corpus.document(11, index * rows + row, 30));
                    assertArrayEquals(Arrays.copyOf(tokens, length), Arrays.copyOfRange(ids, row * length, (row + 1) * length));
                    assertArrayEquals(Arrays.copyOfRange(tokens, 1, length + 1),
                            Arrays.copyOfRange(targets, row * length, (row + 1) * length));
                }
            }
        }
        assertThrows(InvalidArgumentException.class, () -> corpus.batches(1, 2, 8).fill(0, new int[15], new int[16]));
        assertThrows(InvalidArgumentException.class, () -> corpus.batches(1, 2, 8).fill(-1, new int[16], new int[16]));
    }

    @Test
    void posteriorIsTheSumOverAllLatents() {
        LabelMapping small = new LabelMapping(3, 2, 2, 0.3, 0.25);
        for (int i = 0; i < 40; i++) {
            List<Example> examples = small.document(5, i, 4).examples();
            for (int n = 0; n < examples.size(); n++) {
                double[] expected = byEnumeration(small, examples.subList(0, n), examples.get(n).words());
                assertArrayEquals(expected, small.posterior(examples.subList(0, n), examples.get(n).words()), 1e-13);
            }
        }
    }

    /** From the joint probability of everything hidden: the permutation, every example's cluster, and whether each word is noise. */
    private static double[] byEnumeration(LabelMapping law, List<Example> demonstrations, int[] query) {
        int[][] permutations = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
        List<int[]> words = new ArrayList<>(demonstrations.stream().map(Example::words).toList());
        words.add(query);
        double[] labels = new double[3];
        int latents = 1;
        for (int i = 0; i < words.size(); i++) {
            latents *= 3 * 4;
        }
        for (int p = 0; p < permutations.length; p++) {
            double prior = (p == 0 ? law.canonical() : 0) + (1 - law.canonical()) / permutations.length;
            for (int latent = 0; latent < latents; latent++) {
                double joint = prior;
                int rest = latent;
                int cluster = 0;
                for (int i = 0; i < words.size() && joint > 0; i++) {
                    cluster = rest % 3;
                    boolean[] noisy = {rest / 3 % 2 == 1, rest / 6 % 2 == 1};
                    rest /= 12;
                    joint /= 3;
                    for (int w = 0; w < 2; w++) {
                        double ofCluster = words.get(i)[w] / 2 == cluster ? 1.0 / 2 : 0;
                        joint *= noisy[w] ? law.noise() / 6 : (1 - law.noise()) * ofCluster;
                    }
                    if (i < demonstrations.size() && permutations[p][cluster] != demonstrations.get(i).label()) {
                        joint = 0;
                    }
                }
                labels[permutations[p][cluster]] += joint;
            }
        }
        double total = Arrays.stream(labels).sum();
        return Arrays.stream(labels).map(label -> label / total).toArray();
    }

    @Test
    void posteriorIsCalibrated() {
        int documents = 3000;
        for (int n : new int[] {0, 1, 3, 8}) {
            double expected = 0;
            double variance = 0;
            int right = 0;
            for (int i = 0; i < documents; i++) {
                List<Example> examples = corpus.document(21, i, n + 1).examples();
                double[] labels = corpus.posterior(examples.subList(0, n), examples.get(n).words());
                assertEquals(1, Arrays.stream(labels).sum(), 1e-12);
                int likeliest = 0;
                for (int label = 1; label < 4; label++) {
                    likeliest = labels[label] > labels[likeliest] ? label : likeliest;
                }
                expected += labels[likeliest];
                variance += labels[likeliest] * (1 - labels[likeliest]);
                right += likeliest == examples.get(n).label() ? 1 : 0;
            }
            assertTrue(Math.abs(right - expected) < SIGMAS * Math.sqrt(variance), n + " shots: " + right + " right, expected " + expected);
        }
    }

    /** Without demonstrations: the identity's share of the words' cluster. */
    @Test
    void ceilingWithoutNoiseIsKnown() {
        LabelMapping clean = new LabelMapping(4, 16, 4, 0, 0.5);
        LabelMapping.Ceiling ceiling = clean.ceiling(2, 4000, 12);
        isBinomial(ceiling.right()[0], ceiling.documents(), 0.5 + 0.5 / 4);
        isBinomial(ceiling.remapped(), ceiling.documents(), 0.5 * 23 / 24);
        // A label seen before is known for sure: in a permuted document the 13th example is new to its cluster in at most (3/4)^12 of them.
        assertTrue(ceiling.accuracy(12, false) > 1 - Math.pow(0.75, 12));
        assertTrue(ceiling.accuracy(12, true) > 0.94);
        for (int n = 1; n <= 12; n++) {
            assertTrue(ceiling.right()[n] > ceiling.right()[n - 1] - 3 * Math.sqrt(ceiling.documents()), "demonstrations do not hurt");
        }
    }

    @Test
    void knownMappingLeavesOnlyTheNoiseOfTheWords() {
        LabelMapping identity = new LabelMapping(4, 16, 4, 0.1, 1);
        LabelMapping.Ceiling ceiling = identity.ceiling(2, 2000, 2);
        assertEquals(0, ceiling.remapped());
        assertTrue(Double.isNaN(ceiling.accuracy(0, true)));
        assertTrue(ceiling.accuracy(0, false) > 0.98, "four words, 10 % noise");
    }

    @Test
    void taskAsksForTheLabelTokens() {
        TokenTask task = corpus.task();
        assertEquals(68, task.beginning());
        assertEquals(68, task.separator());
        assertArrayEquals(new int[] {64, 65, 66, 67}, task.answers().stream().mapToInt(answer -> answer[0]).toArray());
        assertEquals(4, task.answerNames().size());
        Document document = corpus.document(1, 1, 3);
        List<TokenTask.Example> examples = LabelMapping.taskExamples(document.examples());
        assertEquals(3, examples.size());
        for (int i = 0; i < 3; i++) {
            assertArrayEquals(document.examples().get(i).words(), examples.get(i).input());
            assertEquals(document.examples().get(i).label(), examples.get(i).label());
        }
    }

    @Test
    void impossibleArgumentsAreRefusedInOneSentence() {
        assertEquals("clusters: 7, expected 2 to 6",
                assertThrows(InvalidArgumentException.class, () -> new LabelMapping(7, 16, 4, 0.1, 0.5)).getMessage());
        assertThrows(InvalidArgumentException.class, () -> new LabelMapping(4, 0, 4, 0.1, 0.5));
        assertThrows(InvalidArgumentException.class, () -> new LabelMapping(4, 16, 0, 0.1, 0.5));
        assertThrows(InvalidArgumentException.class, () -> new LabelMapping(4, 16, 4, Double.NaN, 0.5));
        assertThrows(InvalidArgumentException.class, () -> new LabelMapping(4, 16, 4, 0.1, 1.5));
        assertThrows(InvalidArgumentException.class, () -> corpus.document(1, -1, 4));
        assertThrows(InvalidArgumentException.class, () -> corpus.posterior(List.of(), new int[] {0, 1, 2, 64}));
        assertThrows(InvalidArgumentException.class, () -> corpus.posterior(List.of(), new int[] {0, 1, 2}));
        List<Example> unknown = List.of(new Example(new int[] {0, 1, 2, 3}, 0, 4));
        assertThrows(InvalidArgumentException.class, () -> corpus.posterior(unknown, new int[] {0, 1, 2, 3}));
        LabelMapping clean = new LabelMapping(4, 16, 4, 0, 0.5);
        assertThrows(InvalidArgumentException.class, () -> clean.posterior(List.of(), new int[] {0, 1, 2, 17}));
        List<Example> contradictory = List.of(new Example(new int[] {0, 1, 2, 3}, 0, 0), new Example(new int[] {0, 1, 2, 3}, 0, 1));
        assertThrows(InvalidArgumentException.class, () -> clean.posterior(contradictory, new int[] {0, 1, 2, 3}));
    }
}
