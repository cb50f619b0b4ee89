package org.dualform.lab.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.data.CharTokenizer;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.Sampling;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PerplexityTest {
    @TempDir
    Path folder;

    private static int[] tokens(int count) {
        return new Random(4).ints(count, 0, TinyRun.VOCABULARY).toArray();
    }

    /** Log-probability of one token after those before it in its window, alone. */
    private static double loss(Gpt gpt, int[] tokens, int from, int target) {
        int[] ids = Arrays.copyOfRange(tokens, from, target);
        try (Tape tape = new Tape(gpt.device()); Tensor x = Tensor.of(gpt.device(), ids, 1, ids.length)) {
            double[] all = gpt.logits(tape, gpt.hidden(tape, x)).toDoubles();
            double[] logits = Arrays.copyOfRange(all, all.length - TinyRun.VOCABULARY, all.length);
            double largest = Arrays.stream(logits).max().orElseThrow();
            double sum = Arrays.stream(logits).map(logit -> Math.exp(logit - largest)).sum();
            return largest + Math.log(sum) - logits[tokens[target]];
        }
    }

    @Test
    void lossIsThatOfEveryTokenGivenItsWindow() {
        int[] tokens = tokens(31);
        try (Device device = Device.cpu(1); Gpt gpt = TinyRun.model(device, DType.F64)) {
            List<Perplexity.Result> results = new Perplexity(tokens, List.of(8, 3, 256), 100).measure(gpt, () -> false).orElseThrow();
            assertEquals(List.of(8, 3), results.stream().map(Perplexity.Result::context).toList());
            for (Perplexity.Result result : results) {
                double sum = 0;
                for (int target = 1; target < tokens.length; target++) {
                    sum += loss(gpt, tokens, (target - 1) / result.context() * result.context(), target);
                }
                assertEquals(30, result.tokens());
                assertEquals(sum / 30, result.loss(), 1e-13);
                assertEquals(Math.exp(sum / 30), result.perplexity(), 1e-12);
            }
        }
    }

    @Test
    void anUntrainedModelIsNearUniform() {
        try (Device device = Device.cpu(1); Gpt gpt = Gpt.create(device, TinyRun.CONFIG, DType.F32, 1)) {
            assertEquals(TinyRun.VOCABULARY, new Perplexity(tokens(2000), List.of(8), 1500).measure(gpt, () -> false).orElseThrow().get(0)
                    .perplexity(), 0.3);
        }
    }

    @Test
    void lengthsThatDoNotFitAreLeftOutAndTheLongestPossibleTakenInstead() {
        try (Device device = Device.cpu(1); Gpt gpt = TinyRun.model(device, DType.F32)) {
            assertEquals(List.of(4, 8), new Perplexity(tokens(50), List.of(4, 8, 9), 100).measured(gpt));
            assertEquals(List.of(8), new Perplexity(tokens(50), List.of(256, 512), 100).measured(gpt));
            assertEquals(List.of(5), new Perplexity(tokens(6), List.of(8), 100).measured(gpt));
            assertEquals(List.of(3), new Perplexity(tokens(50), List.of(8), 3).measured(gpt));
            assertTrue(new Perplexity(tokens(50), List.of(8), 100).measure(gpt, () -> true).isEmpty());
        }
        assertThrows(InvalidArgumentException.class, () -> new Perplexity(tokens(1), List.of(8), 3));
        assertThrows(InvalidArgumentException.class, () -> new Perplexity(tokens(9), List.of(0), 3));
        assertThrows(InvalidArgumentException.class, () -> new Perplexity(tokens(9), List.of(8), 0));
    }

    @Test
    void anEvaluationLogsLossesAndSamplesThatRepeat() throws IOException {
        CharTokenizer tokenizer = CharTokenizer.of("abcdefgh");
        GptConfig config = GptConfig.of(tokenizer.vocabularySize(), 8, 1, 8, 2);
        List<String> samples = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            Path run = folder.resolve("run" + i);
            try (Device device = Device.cpu(1);
                    Gpt gpt = Gpt.create(device, config, DType.F32, 1);
                    RunFolder into = new RunFolder(run, 1, TinyRun.IDENTITY, warning -> {})) {
                Perplexity perplexity = new Perplexity(tokenizer.encode("abcabcabcabc"), List.of(4, 8, 16), 99);
                Evaluation evaluation = new Evaluation(gpt, tokenizer, perplexity,
                        new Evaluation.Samples(2, "bad", Sampling.random(20, 1, 0, 3)), into);
                assertEquals(2, evaluation.at(5, () -> false).orElseThrow().size());
                assertTrue(evaluation.at(6, () -> true).isEmpty());
            }
            JsonNode line = new ObjectMapper().readTree(Files.readString(run.resolve(RunFolder.EVALUATIONS)));
            assertEquals(5, line.get("step").intValue());
            assertEquals(8, line.at("/validation/1/context").intValue());
            assertEquals(11, line.at("/validation/1/tokens").intValue());
            assertEquals(Math.exp(line.at("/validation/1/loss").doubleValue()), line.at("/validation/1/perplexity").doubleValue(), 1e-12);
            samples.add(Files.readString(run.resolve(RunFolder.SAMPLES)));
            assertTrue(LossCurve.save(run));
            assertTrue(Files.readString(run.resolve(LossCurve.FILE_NAME)).contains("validation, context 8"));
        }
        assertEquals(samples.get(0), samples.get(1));
        assertTrue(samples.get(0).startsWith("--- step 5, sample 1 ---\nbad"), samples.get(0));
        assertTrue(samples.get(0).contains("\n--- step 5, sample 2 ---\nbad"), samples.get(0));
        String[] texts = samples.get(0).split("--- step 5, sample \\d ---\n");
        assertFalse(texts[1].equals(texts[2]), "two samples are equal");
    }
}
