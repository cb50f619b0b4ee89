package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.DoubleSupplier;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.icl.TokenTask.Example;
import org.dualform.lab.metrics.DemonstrationRecord;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.Parameter;
import org.dualform.nn.Probe;
import org.junit.jupiter.api.Test;

class FinetuningTest {
    private static final GptConfig CONFIG = GptConfig.of(30, 24, 2, 12, 2);
    private static final TokenTask TASK = new TokenTask("toy", 28, 29, List.of(new int[] {20}, new int[] {21, 22}), List.of("a", "b"));
    private static final List<Example> DEMONSTRATIONS = List.of(
            new Example(new int[] {1, 2, 3}, 0), new Example(new int[] {4, 1}, 1), new Example(new int[] {9, 9, 2, 5}, 0));

    private static Map<String, double[]> values(Gpt gpt) {
        Map<String, double[]> values = new LinkedHashMap<>();
        gpt.parameters().all().forEach(parameter -> values.put(parameter.name(), parameter.value().toDoubles()));
        return values;
    }

    private static boolean isTuned(String name) {
        return name.contains("k_proj") || name.contains("v_proj");
    }

    /** The loss by the scorer, whose way through the model is another. */
    private static double loss(Gpt gpt, Example demonstration, boolean labelOnly) {
        int[] answer = TASK.answers().get(demonstration.label());
        int[] begin = {TASK.beginning()};
        return labelOnly ? -ModelScorerTest.uncached(gpt, Episode.joined(begin, demonstration.input()), answer)
                : -ModelScorerTest.uncached(gpt, begin, Episode.joined(demonstration.input(), answer));
    }

    @Test
    void onlyKeysAndValuesChangeAndTheBaseNever() {
        for (GptConfig config : List.of(CONFIG, CONFIG.withLearnedMomentum(0.4), CONFIG.withLinearAttention(0.9))) {
            for (DType dtype : List.of(DType.F32, DType.BF16)) {
                try (Device device = Device.cpu();
                        Gpt gpt = ModelScorerTest.lively(device, config, dtype, 3);
                        Finetuning finetuning = new Finetuning(gpt, TASK)) {
                    Map<String, double[]> before = values(gpt);
                    for (boolean causal : new boolean[] {false, true}) {
                        assertTrue(finetuning.run(DEMONSTRATIONS, new Finetuning.Options(0.5, false, causal), null).finite());
                        Map<String, double[]> after = values(finetuning.model());
                        before.forEach((name, value) -> {
                            boolean same = java.util.Arrays.equals(value, after.get(name));
                            // One number added to all logits of a softmax changes nothing: a key's bias has gradient 0, but for rounding.
                            assertTrue(name.contains("k_proj.bias") || same != isTuned(name),
                                    config.attention() + " " + dtype + " " + name);
                        });
                    }
                    values(gpt).forEach((name, value) -> assertArrayEquals(before.get(name), value, name));
                }
            }
        }
    }

    @Test
    void theStepIsTheGradientByFiniteDifferences() {
        for (boolean labelOnly : new boolean[] {false, true}) {
            try (Device device = Device.cpu();
                    Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F64, 3);
                    Finetuning finetuning = new Finetuning(gpt, TASK)) {
                double rate = 1e-3;
                Example demonstration = DEMONSTRATIONS.get(1);
                Finetuning.Course course =
                        finetuning.run(List.of(demonstration), new Finetuning.Options(rate, labelOnly, false), null);
                assertEquals(loss(gpt, demonstration, labelOnly), course.losses().get(0), 1e-12);
                Map<String, double[]> after = values(finetuning.model());
                int checked = 0;
                double largest = 0;
                for (Parameter parameter : gpt.parameters().all()) {
                    if (!isTuned(parameter.name())) {
                        continue;
                    }
                    double[] value = parameter.value().toDoubles();
                    for (int i = 0; i < value.length; i += 7) {
                        double gradient = (value[i] - after.get(parameter.name())[i]) / rate;
                        double difference = slope(parameter, value, i, () -> loss(gpt, demonstration, labelOnly));
                        assertEquals(difference, gradient, 1e-7 + 1e-6 * Math.abs(difference), parameter.name() + " " + i);
                        largest = Math.max(largest, Math.abs(difference));
                        checked++;
                    }
                }
                assertTrue(checked > 80 && largest > 1e-2, checked + " checked, largest " + largest);
            }
        }
    }

    private static double slope(Parameter parameter, double[] value, int i, DoubleSupplier loss) {
        double step = 1e-5;
        double[] moved = value.clone();
        moved[i] = value[i] + step;
        parameter.value().write(moved);
        double above = loss.getAsDouble();
        moved[i] = value[i] - step;
        parameter.value().write(moved);
        double below = loss.getAsDouble();
        parameter.value().write(value);
        return (above - below) / (2 * step);
    }

    /** Plain gradient descent written out, one demonstration after the other. */
    @Test
    void onePassIsTheLoopWrittenByHand() {
        double rate = 0.3;
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F64, 5);
                Gpt byHand = ModelScorerTest.lively(device, CONFIG, DType.F64, 5);
                Finetuning finetuning = new Finetuning(gpt, TASK)) {
            finetuning.run(List.of(DEMONSTRATIONS.get(2)), Finetuning.Options.published(9), null); // must leave no trace
            finetuning.run(DEMONSTRATIONS, Finetuning.Options.published(rate), null);
            int[][] sequences = {{28, 1, 2, 3, 20}, {28, 4, 1, 21, 22}, {28, 9, 9, 2, 5, 20}};
            for (int[] sequence : sequences) {
                byHand.parameters().clearGradients();
                int n = sequence.length - 1;
                try (Tensor ids = Tensor.of(device, java.util.Arrays.copyOf(sequence, n), 1, n);
                        Tensor targets = Tensor.of(device, java.util.Arrays.copyOfRange(sequence, 1, n + 1), 1, n);
                        Tape tape = new Tape(device)) {
                    byHand.declare(tape);
                    tape.backward(byHand.loss(tape, ids, targets));
                }
                for (Parameter parameter : byHand.parameters().all()) {
                    if (isTuned(parameter.name())) {
                        double[] value = parameter.value().toDoubles();
                        double[] gradient = parameter.gradient().toDoubles();
                        for (int i = 0; i < value.length; i++) {
                            value[i] -= rate * gradient[i];
                        }
                        parameter.value().write(value);
                    }
                }
            }
            Map<String, double[]> tuned = values(finetuning.model());
            values(byHand).forEach((name, value) -> assertArrayEquals(value, tuned.get(name), 1e-13, name));
        }
    }

    /** No later layer can tell the last one anything, so its update is the ordinary one; that of the first is not. */
    @Test
    void layerCausalDescentDiffersBelowTheTop() {
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F64, 5);
                Finetuning plain = new Finetuning(gpt, TASK);
                Finetuning causal = new Finetuning(gpt, TASK)) {
            List<Example> one = DEMONSTRATIONS.subList(0, 1);
            plain.run(one, Finetuning.Options.published(0.1), null);
            causal.run(one, Finetuning.Options.published(0.1).withLayerCausal(true), null);
            String top = "h.1.attn.v_proj.weight";
            String bottom = "h.0.attn.v_proj.weight";
            assertArrayEquals(values(plain.model()).get(top), values(causal.model()).get(top), 1e-14);
            double[] a = values(plain.model()).get(bottom);
            double[] b = values(causal.model()).get(bottom);
            double largest = 0;
            for (int i = 0; i < a.length; i++) {
                largest = Math.max(largest, Math.abs(a[i] - b[i]));
            }
            assertTrue(largest > 1e-4, "difference " + largest);
        }
    }

    @Test
    void queriesAreThoseBeforeTheDemonstrationsOwnStep() {
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 5);
                Finetuning finetuning = new Finetuning(gpt, TASK)) {
            List<DemonstrationRecord> records = new ArrayList<>();
            finetuning.run(DEMONSTRATIONS, Finetuning.Options.published(0.3), records::add);
            assertEquals(3, records.size());
            for (int step = 0; step < 3; step++) {
                finetuning.run(DEMONSTRATIONS.subList(0, step), Finetuning.Options.published(0.3), null);
                int[] sequence = Episode.sequence(TASK, DEMONSTRATIONS.get(step));
                Probe probe = Probe.of();
                try (Tensor ids = Tensor.of(device, sequence, 1, sequence.length); Tape tape = new Tape(device)) {
                    finetuning.model().hidden(tape, ids, null, probe);
                }
                assertEquals(sequence.length - 1, records.get(step).tokens());
                for (int layer = 0; layer < 2; layer++) {
                    for (int token = 0; token < sequence.length; token++) {
                        assertArrayEquals(Observation.doubles(probe.query(layer, token)), records.get(step).attnQ()[layer][token]);
                    }
                }
            }
        }
    }

    @Test
    void aLearningRateThatDivergesLoses() {
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 5);
                Finetuning finetuning = new Finetuning(gpt, TASK)) {
            assertFalse(finetuning.run(DEMONSTRATIONS, Finetuning.Options.published(1e300), null).finite());
            List<Example> selection = List.of(new Example(new int[] {1, 2}, 0), new Example(new int[] {4}, 1));
            Finetuning.Options options = Finetuning.Options.published(1);
            LearningRate chosen = LearningRate.choose(finetuning, DEMONSTRATIONS, selection, TASK, List.of(1e300, 0.1, 0.2), options);
            assertFalse(chosen.trials().get(0).finite());
            assertTrue(chosen.trials().get(1).finite());
            assertTrue(chosen.value() < 1);
            assertThrows(DivergedException.class,
                    () -> LearningRate.choose(finetuning, DEMONSTRATIONS, selection, TASK, List.of(1e300), options));
            Episode episode = new Episode(DEMONSTRATIONS, selection);
            DivergedException diverged = assertThrows(DivergedException.class,
                    () -> EpisodeComparison.of(gpt, TASK, episode, LearningRate.fixed(1e300), options, 2, null));
            assertTrue(diverged.getMessage().contains("1.0E300"), diverged.getMessage());
            assertThrows(InvalidArgumentException.class, () -> Finetuning.Options.published(0));
            assertThrows(InvalidArgumentException.class, () -> Finetuning.Options.published(Double.NaN));
        }
    }

    @Test
    void theChosenRateHasMostRightAnswers() {
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 8);
                Finetuning finetuning = new Finetuning(gpt, TASK)) {
            List<Example> selection = new ArrayList<>();
            for (int i = 0; i < 12; i++) {
                selection.add(new Example(new int[] {i, 3}, i % 3 == 0 ? 1 : 0));
            }
            LearningRate chosen = LearningRate.choose(finetuning, DEMONSTRATIONS, selection, TASK, LearningRate.coarseGrid(),
                    Finetuning.Options.published(1));
            int most = chosen.trials().stream().mapToInt(LearningRate.Trial::correct).max().orElseThrow();
            for (LearningRate.Trial trial : chosen.trials()) {
                finetuning.run(DEMONSTRATIONS, Finetuning.Options.published(trial.learningRate()), null);
                try (ModelScorer scorer = new ModelScorer(finetuning.model())) {
                    assertEquals(Predictions.of(scorer, TASK, new Episode(List.of(), selection)).correct(), trial.correct());
                }
                if (trial.learningRate() == chosen.value()) {
                    assertEquals(most, trial.correct());
                }
            }
        }
    }

    @Test
    void theGridsAreThoseOfThePaperAndAPartOfIt() {
        List<Double> published = LearningRate.publishedGrid();
        assertEquals(36, published.size());
        assertEquals(List.of(0.0001, 0.0002, 0.0003), published.subList(0, 3));
        assertEquals(0.9, published.get(35));
        assertEquals(List.of(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3), LearningRate.coarseGrid());
        assertTrue(published.containsAll(LearningRate.coarseGrid()));
    }
}
