package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.icl.TokenTask.Example;
import org.dualform.lab.metrics.ExampleRecord;
import org.dualform.lab.metrics.RecordFiles;
import org.dualform.lab.metrics.RecordFiles.Setting;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EpisodeComparisonTest {
    private static final LabelMapping CORPUS = LabelMapping.standard();
    private static final GptConfig CONFIG = GptConfig.of(CORPUS.vocabularySize(), 64, 2, 16, 2);

    @TempDir
    private Path folder;

    private static double[] value(Gpt gpt, String name) {
        return gpt.parameters().get(name).value().toDoubles();
    }

    /** Layer 0 from the weights: LayerNorm of the embeddings, then one projection; rows by token. */
    private static double[][] projected(Gpt gpt, int[] tokens, String projection) {
        int c = CONFIG.width();
        double[] wte = value(gpt, "wte.weight");
        double[] wpe = value(gpt, "wpe.weight");
        double[] gain = value(gpt, "h.0.ln_1.weight");
        double[] shift = value(gpt, "h.0.ln_1.bias");
        double[] weight = value(gpt, "h.0.attn." + projection + ".weight");
        double[] bias = value(gpt, "h.0.attn." + projection + ".bias");
        double[][] rows = new double[tokens.length][c];
        for (int t = 0; t < tokens.length; t++) {
            double[] x = new double[c];
            for (int i = 0; i < c; i++) {
                x[i] = wte[tokens[t] * c + i] + wpe[t * c + i];
            }
            double mean = Arrays.stream(x).average().orElseThrow();
            double variance = Arrays.stream(x).map(v -> (v - mean) * (v - mean)).average().orElseThrow();
            for (int o = 0; o < c; o++) {
                rows[t][o] = bias[o];
                for (int i = 0; i < c; i++) {
                    rows[t][o] += weight[o * c + i] * ((x[i] - mean) / Math.sqrt(variance + CONFIG.epsilon()) * gain[i] + shift[i]);
                }
            }
        }
        return rows;
    }

    @Test
    void mapsAreTheProductsOfQueriesAndKeys() {
        TokenTask task = CORPUS.task();
        Episode episode = new LabelMappingEpisodes(CORPUS, 1, 3).comparison(4, 2);
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 7);
                ModelScorer scorer = new ModelScorer(gpt)) {
            for (int[] context : List.of(new int[] {task.beginning()}, episode.context(task))) {
                scorer.share(context);
                for (Example query : episode.queries()) {
                    ExampleRecord record = Observation.of(scorer, task, context, query).record();
                    int[] prompt = Episode.joined(context, query.input());
                    double[][] keys = projected(gpt, prompt, "k_proj");
                    double[] q = projected(gpt, prompt, "q_proj")[prompt.length - 1];
                    int size = CONFIG.headSize();
                    assertEquals(query.input().length, record.attnMap()[0][0].length);
                    assertEquals(context.length, record.attnMapContext()[1].length);
                    double[] expected = new double[prompt.length];
                    for (int t = 0; t < prompt.length; t++) {
                        double sum = 0;
                        for (int h = 0; h < 2; h++) {
                            double logit = 0;
                            for (int i = h * size; i < (h + 1) * size; i++) {
                                logit += q[i] * keys[t][i] / Math.sqrt(size);
                            }
                            sum += logit;
                            if (t >= context.length) {
                                assertEquals(logit, record.attnMap()[0][h][t - context.length], 1e-5);
                            }
                        }
                        expected[t] = sum;
                    }
                    assertArrayEquals(Arrays.copyOf(expected, context.length), record.attnMapContext()[0], 1e-5);
                    assertArrayEquals(Arrays.stream(q).map(v -> v / Math.sqrt(size)).toArray(), record.attnQ()[0], 1e-5);
                    assertTrue(Arrays.stream(expected).map(Math::abs).max().orElseThrow() > 0.1, "nothing to compare");
                }
            }
        }
    }

    @Test
    void recordsReadBackToTheSameNumbers() throws IOException {
        try (Device device = Device.cpu(); Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 7)) {
            Episode episode = new LabelMappingEpisodes(CORPUS, 1, 12).comparison(5, 2).fitted(CORPUS.task(), CONFIG.context());
            Finetuning.Options options = Finetuning.Options.published(1);
            EpisodeComparison found = EpisodeComparison.of(gpt, CORPUS.task(), episode, LearningRate.fixed(0.05), options, 9, folder);
            assertEquals(found.similarities().fields(), RecordFiles.compare(folder, EpisodeComparison.METRICS_SEED).fields());
            assertEquals(9, found.similarities().examples());
            assertEquals(12, found.finetuned().count());
            assertEquals(5, found.demonstrations());
            assertEquals(5, Files.readAllLines(Setting.FINETUNING.file(folder)).size());
            assertEquals(9, Files.readAllLines(Setting.ZERO_SHOT.file(folder)).size());
            assertEquals(found.fields(),
                    EpisodeComparison.of(gpt, CORPUS.task(), episode, LearningRate.fixed(0.05), options, 9, null).fields());

            int right = 0;
            try (ModelScorer scorer = new ModelScorer(gpt)) {
                right = Predictions.of(scorer, CORPUS.task(), episode.first(9)).correct();
            }
            assertEquals(right / 9.0, found.similarities().inContext().mean(), 1e-15);
        }
    }

    @Test
    void theStudyPutsEveryBaselineBesideTheComparison() throws IOException {
        FinetuningStudy.Plan plan = new FinetuningStudy.Plan(4, List.of(1L, 2L), 6, List.of(0.01, 0.1, 1e300), 8, false, 3);
        List<String> told = new ArrayList<>();
        try (Device device = Device.cpu(); Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 7)) {
            double[] before = gpt.parameters().values().toDoubles();
            LabelMappingEpisodes episodes = new LabelMappingEpisodes(CORPUS, 1, 6);
            FinetuningStudy study = FinetuningStudy.measure(gpt, episodes, plan, folder, told::add);
            assertArrayEquals(before, gpt.parameters().values().toDoubles());
            assertEquals(List.of("layer_causal", "label_only", "untrained", "untrained_embeddings"),
                    List.copyOf(study.baselines().keySet()));
            assertEquals(3, study.orders().size());
            assertEquals(List.of(1L, 2L), List.copyOf(study.seeds().keySet()));
            assertEquals(study.seeds().get(1L), study.orders().get(0));
            assertTrue(study.diverged().isEmpty());
            assertEquals(3, study.seeds().get(1L).learningRate().trials().size());
            for (long seed : plan.seeds()) {
                assertEquals(study.seeds().get(seed).similarities().fields(),
                        RecordFiles.compare(folder.resolve("seed-" + seed), 0).fields());
            }
            assertEquals(2, study.overSeeds("sim_aou").count());
            assertEquals(3, study.overOrders("accuracy_icl").count());
            assertTrue(Double.isFinite(study.ofBaseline("untrained", "sim_aou")));
            assertEquals(7, told.stream().distinct().count() - 1, told.toString());
            FinetuningStudy again = FinetuningStudy.measure(gpt, episodes, plan, null, told::add);
            assertEquals(study.fields(), again.fields());
            assertEquals(study.csv().text(), again.csv().text());
        }
    }

    @Test
    void untrainedModelsKeepOnlyWhatTheyAreToldToKeep() {
        try (Device device = Device.cpu();
                Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 7);
                Gpt random = Untrained.random(gpt, 1);
                Gpt embeddings = Untrained.withEmbeddings(gpt, 1)) {
            gpt.parameters().all().forEach(parameter -> {
                String name = parameter.name();
                double[] trained = parameter.value().toDoubles();
                assertFalse(Arrays.equals(trained, value(random, name)), name);
                boolean kept = name.contains("wte") || name.contains("wpe") || name.contains("ln_");
                assertArrayEquals(kept ? trained : value(random, name), value(embeddings, name), name);
            });
            try (Gpt begun = Gpt.create(device, CONFIG, DType.F32, 1)) { // a model trained from seed 1 began with these
                assertFalse(Arrays.equals(value(begun, "h.0.attn.q_proj.weight"), value(random, "h.0.attn.q_proj.weight")));
            }
        }
    }

    @Test
    void theFieldsNameWhatTheCommandPromises() throws IOException {
        try (Device device = Device.cpu(); Gpt gpt = ModelScorerTest.lively(device, CONFIG, DType.F32, 9)) {
            Episode episode = new LabelMappingEpisodes(CORPUS, 1, 3).comparison(2, 2);
            Map<String, Object> fields = EpisodeComparison.of(gpt, CORPUS.task(), episode, LearningRate.fixed(0.05),
                    Finetuning.Options.published(1), 3, null).fields();
            for (String key : List.of("rec2ftp", "sim_aou", "sim_aou_raw", "sim_aou_floor", "sim_am_before", "sim_am", "sim_am_delta",
                    "kendall_token", "kendall_example", "learning_rate", "finetuning_losses", "effective_shots", "next_token")) {
                assertTrue(fields.containsKey(key), key);
            }
        }
    }
}
