package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.GincPrompt.Family;
import org.dualform.lab.icl.TokenTask;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The golden numbers are what the published script made, run by tests/golden/ginc.py. */
class GincTest {
    /** Entries of matrices are sums of a few numbers below 1: one unit in the last place of 1/2. NumPy's exp differs by as much. */
    private static final double ROUNDING = 5.6e-17;
    private static final Ginc PUBLISHED = new Ginc(GincOptions.published(50));
    private static final Ginc SMALL = new Ginc(GincOptions.small());
    /** Small enough to enumerate all paths. */
    private static final Ginc TINY = new Ginc(new GincOptions("tiny", 4, 2, 3, 4, 10, 0.1, 0.9, 20, 64, 2, 32, 40, 16));

    private static JsonNode golden(int symbols) {
        try (InputStream file = GincTest.class.getResourceAsStream("ginc-" + symbols + ".json")) {
            return new ObjectMapper().readTree(file);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private static double[] flat(double[][] matrix) {
        return Arrays.stream(matrix).flatMapToDouble(Arrays::stream).toArray();
    }

    /** Weighted by place, so that no two can be exchanged. */
    private static double checksum(double... values) {
        double sum = 0;
        for (int i = 0; i < values.length; i++) {
            sum += values[i] * (i + 1);
        }
        return sum;
    }

    private static void agree(JsonNode expected, double... values) {
        assertEquals(expected.size(), values.length);
        for (int i = 0; i < values.length; i++) {
            assertEquals(expected.get(i).asDouble(), values[i], ROUNDING);
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {50, 100, 150})
    void parametersAreThePublishedOnes(int symbols) {
        Ginc ginc = new Ginc(GincOptions.published(symbols));
        JsonNode golden = golden(symbols);
        for (int entity = 0; entity < 10; entity++) {
            for (int slot = 0; slot < 10; slot++) {
                assertEquals(golden.get("values").get(entity * 10 + slot).asInt(), ginc.symbol(entity, slot));
            }
        }
        agree(golden.get("firstStart"), ginc.hmms().get(0).start());
        agree(golden.get("firstSlot"), flat(ginc.hmms().get(0).slots()));
        agree(golden.get("firstEntity"), flat(ginc.hmms().get(0).entities()));
        for (int i = 0; i < 10; i++) {
            GincHmm hmm = ginc.hmms().get(i);
            // Weights sum to 5050; the sum itself, of some 550, rounds too.
            assertEquals(golden.get("start").get(i).asDouble(), checksum(hmm.start()), 5e-13);
            assertEquals(golden.get("slot").get(i).asDouble(), checksum(flat(hmm.slots())), 1e-12);
            assertEquals(golden.get("entity").get(i).asDouble(), checksum(flat(hmm.entities())), 1e-12);
            for (double[] row : hmm.transition()) {
                assertEquals(1, Arrays.stream(row).sum(), 1e-14);
            }
        }
    }

    @Test
    void firstRowOfTheSymbolTableIsKnown() {
        int[] row = new int[10];
        Arrays.setAll(row, slot -> PUBLISHED.symbol(0, slot));
        assertArrayEquals(new int[] {0, 38, 18, 13, 35, 25, 23, 21, 12, 15}, row);
    }

    private static MessageDigest digest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    /** A byte per symbol, then one for the HMM or the label. */
    private static void add(MessageDigest digest, int[] symbols, int last) {
        byte[] bytes = new byte[symbols.length + 1];
        for (int i = 0; i < symbols.length; i++) {
            bytes[i] = (byte) symbols[i];
        }
        bytes[symbols.length] = (byte) last;
        digest.update(bytes);
    }

    private static String digest(Consumer<Consumer<GincDocument>> documents) {
        MessageDigest digest = digest();
        documents.accept(document -> add(digest, document.symbols(), document.hmm()));
        return HexFormat.of().formatHex(digest.digest());
    }

    /** Ten million symbols each; those to validate on, of 50 symbols, are also those of the file that the authors published. */
    @ParameterizedTest
    @ValueSource(ints = {50, 100, 150})
    void documentsAreThePublishedOnesSymbolBySymbol(int symbols) {
        Ginc ginc = new Ginc(GincOptions.published(symbols));
        JsonNode files = golden(symbols).get("files");
        assertEquals(files.get("train").get("documents").get("sha256").asText(), digest(ginc::training));
        assertEquals(files.get("val").get("documents").get("sha256").asText(), digest(ginc::validation));
    }

    @Test
    void promptsAndLabelsAreThePublishedOnesSymbolBySymbol() {
        assertEquals(70, samePrompts(PUBLISHED, 70));
        // The first 20 kinds are those of length 3.
        assertEquals(20, samePrompts(new Ginc(GincOptions.published(100)), 20));
        assertEquals(20, samePrompts(new Ginc(GincOptions.published(150)), 20));
    }

    private static int samePrompts(Ginc ginc, int kinds) {
        JsonNode files = golden(ginc.options().symbols()).get("files");
        int[] compared = new int[1];
        ginc.prompts().limit(kinds).forEach(block -> {
            GincPrompt first = block.get(0);
            String family = first.family() == Family.IN_DISTRIBUTION ? "id" : "ood";
            JsonNode golden = files.get(family + "_prompts_randomsample_" + first.length()).get(String.valueOf(first.shots()));
            String kind = first.family() + ", length " + first.length() + ", shots " + first.shots();
            if (golden.has("text")) {
                assertEquals(golden.get("text").asText(),
                        Arrays.stream(first.symbols()).mapToObj(Ginc::name).collect(Collectors.joining(" ")), kind);
            }
            assertEquals(golden.get("label").asText(), Ginc.name(first.label()), kind);
            MessageDigest digest = digest();
            for (GincPrompt prompt : block) {
                add(digest, prompt.symbols(), prompt.label());
                assertTrue(prompt.possible() || prompt.family() == Family.OUT_OF_DISTRIBUTION && prompt.label() == 0);
            }
            assertEquals(golden.get("count").asInt(), block.size());
            assertEquals(golden.get("sha256").asText(), HexFormat.of().formatHex(digest.digest()), kind);
            compared[0]++;
        });
        return compared[0];
    }

    /** The same counts as an independent computation in NumPy on the first 1000 prompts. */
    @Test
    void bayesReadersReachTheirKnownAccuracy() {
        GincBayes bayes = new GincBayes(PUBLISHED);
        int[][] expected = {{0, 568, 568}, {1, 956, 664}, {4, 999, 704}};
        for (int[] row : expected) {
            List<GincPrompt> prompts = PUBLISHED.prompts(Family.IN_DISTRIBUTION, 3, row[0]).subList(0, 1000);
            assertEquals(new GincBayes.Ceiling(1000, row[1], row[2]), bayes.ceiling(prompts), row[0] + " shots");
        }
    }

    @Test
    void promptLawIsTheSumOverHmmsSlotsAndPaths() {
        GincBayes bayes = new GincBayes(TINY);
        for (GincPrompt prompt : TINY.prompts(Family.IN_DISTRIBUTION, 3, 1)) {
            double[] expected = new double[4];
            for (int hmm = 0; hmm < 2; hmm++) {
                double[][] transition = TINY.hmms().get(hmm).transition();
                for (int slot = 1; slot < 3; slot++) {
                    double[] start = new double[6];
                    start[slot] = 0.5;
                    start[3 + slot] = 0.5;
                    int[] demonstration = Arrays.copyOf(prompt.symbols(), 3);
                    int[] question = Arrays.copyOfRange(prompt.symbols(), 4, 6);
                    double weight = joint(start, transition, demonstration);
                    for (int next = 0; next < 4; next++) {
                        expected[next] += weight * joint(start, transition, question[0], question[1], next);
                    }
                }
            }
            agree(expected, bayes.fromPromptLaw(prompt));
        }
    }

    @Test
    void documentLawIsTheSumOverHmmsAndPaths() {
        GincBayes bayes = new GincBayes(TINY);
        for (GincPrompt prompt : TINY.prompts(Family.OUT_OF_DISTRIBUTION, 3, 1).subList(0, 10)) {
            double[] expected = new double[4];
            for (int hmm = 0; hmm < 2; hmm++) {
                double[][] transition = TINY.hmms().get(hmm).transition();
                for (double[] row : transition) {
                    for (int to = 0; to < 6; to++) {
                        row[to] = 0.9999 * row[to] + 0.0001 / 6;
                    }
                }
                for (int next = 0; next < 4; next++) {
                    int[] symbols = Arrays.copyOf(prompt.symbols(), 7);
                    symbols[6] = next;
                    expected[next] += joint(TINY.hmms().get(hmm).start(), transition, symbols);
                }
            }
            agree(expected, bayes.fromDocumentLaw(prompt.symbols()));
        }
    }

    private static void agree(double[] unnormalised, double[] probabilities) {
        double sum = Arrays.stream(unnormalised).sum();
        assertArrayEquals(Arrays.stream(unnormalised).map(value -> value / sum).toArray(), probabilities, 1e-12);
        assertEquals(1, Arrays.stream(probabilities).sum(), 1e-12);
    }

    /** The probability of symbols, one path of the tiny world at a time. */
    private static double joint(double[] start, double[][] transition, int... symbols) {
        int paths = (int) Math.pow(6, symbols.length);
        double sum = 0;
        for (int path = 0; path < paths; path++) {
            double probability = 1;
            int before = -1;
            for (int t = 0, rest = path; t < symbols.length && probability > 0; t++, rest /= 6) {
                int state = rest % 6;
                probability *= before < 0 ? start[state] : transition[before][state];
                probability *= TINY.symbol(state / 3, state % 3) == symbols[t] ? 1 : 0;
                before = state;
            }
            sum += probability;
        }
        return sum;
    }

    @Test
    void labelIsTheLikeliestSymbolGivenHmmSlotAndQuestion() {
        for (GincPrompt prompt : TINY.prompts(Family.IN_DISTRIBUTION, 3, 2)) {
            double[] start = new double[6];
            start[prompt.startSlot()] = 0.5;
            start[3 + prompt.startSlot()] = 0.5;
            int question = prompt.begin(2);
            double[] next = new double[4];
            for (int symbol = 0; symbol < 4; symbol++) {
                next[symbol] = joint(start, TINY.hmms().get(prompt.hmm()).transition(), prompt.symbols()[question],
                        prompt.symbols()[question + 1], symbol);
            }
            assertEquals(question + 2, prompt.symbols().length);
            assertEquals(Arrays.stream(next).max().orElseThrow(), next[prompt.label()], 1e-15);
        }
    }

    @Test
    void documentsWalkTheirHmm() {
        List<GincDocument> documents = new ArrayList<>();
        TINY.training(documents::add);
        assertEquals(20, documents.size());
        for (GincDocument document : documents) {
            double[][] transition = TINY.hmms().get(document.hmm()).transition();
            for (int t = 0; t < 64; t++) {
                assertEquals(TINY.symbol(document.states()[t] / 3, document.states()[t] % 3), document.symbols()[t]);
                assertTrue(t == 0 || transition[document.states()[t - 1]][document.states()[t]] > 0);
            }
        }
    }

    @Test
    void symbolsAreNamedAsPublished() {
        assertEquals("/ a z ab az ba bc zy", String.join(" ", Ginc.name(0), Ginc.name(1), Ginc.name(26), Ginc.name(27), Ginc.name(51),
                Ginc.name(52), Ginc.name(53), Ginc.name(676)));
        assertEquals("ax", Ginc.name(49));
        assertEquals(51, PUBLISHED.vocabularySize());
        assertEquals(1, Ginc.token(0));
    }

    @Test
    void batchesAreWindowsOfTheTrainingDocuments() throws DataException {
        int[] tokens = SMALL.trainingTokens();
        assertEquals(400 * 1280, tokens.length);
        assertTrue(Arrays.stream(tokens).allMatch(token -> token >= 1 && token < SMALL.vocabularySize()));
        int[] ids = new int[8 * 256];
        int[] targets = new int[8 * 256];
        int[] expectedIds = ids.clone();
        int[] expectedTargets = targets.clone();
        SMALL.batches(3, 8, 256).fill(17, ids, targets);
        new TextBatches(tokens, 8, 256, 3).fill(17, expectedIds, expectedTargets);
        assertArrayEquals(expectedIds, ids);
        assertArrayEquals(expectedTargets, targets);
        assertEquals(20 * 1024, SMALL.validationTokens().length);
        assertFalse(Arrays.equals(Arrays.copyOf(tokens, 1024), Arrays.copyOf(SMALL.validationTokens(), 1024)));
    }

    @Test
    void taskExamplesSpellThePrompt() {
        TokenTask task = SMALL.task();
        assertEquals(50, task.answers().size());
        for (GincPrompt prompt : SMALL.prompts(Family.IN_DISTRIBUTION, 5, 4)) {
            List<Integer> spelled = new ArrayList<>();
            List<TokenTask.Example> examples = Ginc.taskExamples(prompt);
            assertEquals(5, examples.size());
            for (int i = 0; i < 5; i++) {
                Arrays.stream(examples.get(i).input()).forEach(spelled::add);
                if (i < 4) {
                    spelled.add(task.answers().get(examples.get(i).label())[0]);
                    spelled.add(task.separator());
                }
            }
            assertEquals(spelled, Arrays.stream(Ginc.tokens(prompt)).boxed().toList());
            assertEquals(prompt.label(), examples.get(4).label());
        }
    }

    @Test
    void impossibleArgumentsAreRefusedInOneSentence() {
        assertEquals("length: 4, expected one of [3, 5, 8, 10]", assertThrows(InvalidArgumentException.class,
                () -> SMALL.prompts(Family.IN_DISTRIBUTION, 4, 0)).getMessage());
        assertThrows(InvalidArgumentException.class, () -> SMALL.prompts(Family.IN_DISTRIBUTION, 3, 3));
        assertThrows(InvalidArgumentException.class, () -> SMALL.prompts(Family.IN_DISTRIBUTION, 10, 32));
        assertThrows(InvalidArgumentException.class, () -> GincOptions.published(1));
        assertThrows(InvalidArgumentException.class, () -> GincOptions.published(257));
        GincBayes bayes = new GincBayes(SMALL);
        GincPrompt out = SMALL.prompts(Family.OUT_OF_DISTRIBUTION, 3, 0).get(0);
        assertThrows(InvalidArgumentException.class, () -> bayes.fromPromptLaw(out));
        assertThrows(InvalidArgumentException.class, () -> bayes.fromDocumentLaw());
    }
}
