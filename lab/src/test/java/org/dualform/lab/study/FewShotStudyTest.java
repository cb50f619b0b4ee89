package org.dualform.lab.study;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
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
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.icl.ModelScorer;
import org.dualform.lab.icl.TokenTask;
import org.dualform.lab.study.FewShotStudy.ModelRun;
import org.dualform.lab.study.FewShotStudy.Options;
import org.dualform.lab.study.FewShotStudy.Result;
import org.dualform.lab.icl.EpisodeComparison;
import org.dualform.lab.metrics.RecordFiles;
import org.dualform.lab.metrics.Similarities;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptFiles;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class FewShotStudyTest {
    private static final FewShotStudy.Progress SILENT = new FewShotStudy.Progress() {};

    private static Options options(double eta, Path records) {
        return new Options(1, 1, 3, eta, 2, 32, 32, new ComparisonOptions(2, 3, 4, 2, true), records);
    }

    private static Result run(Options options, int threads) throws IOException {
        try (Device device = Device.cpu(threads)) {
            return new FewShotStudy(device, options, SILENT).run();
        }
    }

    @Test
    void theSameSeedWritesTheSameFiles(@TempDir Path folder) throws IOException {
        Path first = folder.resolve("first");
        Path second = folder.resolve("second");
        new FewShotReport(run(options(0.5, first), 1)).save(first);
        new FewShotReport(run(options(0.5, second), 2)).save(second);
        List<Path> files;
        try (Stream<Path> walk = Files.walk(first)) {
            files = walk.filter(Files::isRegularFile).map(first::relativize).sorted().toList();
        }
        assertTrue(files.contains(Path.of("report.html")) && files.contains(Path.of("results.json")), files.toString());
        assertEquals(6 + 2 * (2 * 5 + 2), files.size(), files.toString());
        for (Path file : files) {
            assertArrayEquals(Files.readAllBytes(first.resolve(file)), Files.readAllBytes(second.resolve(file)), file.toString());
        }
        JsonNode results = new ObjectMapper().readTree(first.resolve("results.json").toFile());
        assertEquals(21, results.get("plain").get("accuracy").size());
        JsonNode comparison = results.get("momentum").get("runs").get(0).get("comparison");
        for (String model : List.of(ModelComparison.TRAINED, ModelComparison.UNTRAINED, ModelComparison.EMBEDDINGS,
                ModelComparison.LAYER_CAUSAL, ModelComparison.ORDERS)) {
            for (String key : List.of("sim_aou", "sim_aou_raw", "sim_aou_floor", "sim_am_before", "sim_am", "sim_am_delta", "kendall_token",
                    "kendall_example")) {
                assertEquals(2, comparison.get(model).get(key).size(), model + " " + key);
            }
        }
    }

    @Test
    void momentumOfZeroIsThePlainModelInEveryBit() throws IOException {
        Options options = options(0, null);
        Result result = run(options, 2);
        ModelRun plain = result.runs("plain").get(0);
        ModelRun momentum = result.runs("momentum").get(0);
        assertEquals(plain.losses(), momentum.losses());
        assertEquals(plain.looks(), momentum.looks());
        assertEquals(plain.shots().nats(), momentum.shots().nats());
        assertEquals(plain.comparison().recovery(), momentum.comparison().recovery());
        for (String key : plain.comparison().curves().get(ModelComparison.TRAINED).keySet()) {
            assertArrayEquals(plain.comparison().curve(key), momentum.comparison().curve(key), key);
        }
    }

    @Test
    void onePassAnswersAsAScorerDoes() {
        LabelMapping corpus = LabelMapping.standard();
        TokenTask task = corpus.task();
        try (Device device = Device.cpu();
                Gpt gpt = Gpt.create(device, FewShotStudy.plainConfig(), DType.F32, 3, FewShotStudy.INITIALIZATION);
                ModelScorer scorer = new ModelScorer(gpt)) {
            ShotAccuracy accuracy = ShotAccuracy.of(gpt, corpus, 5, 3);
            for (int i = 0; i < 3; i++) {
                LabelMapping.Document document = corpus.document(5, i, 21);
                int[] tokens = corpus.tokens(document);
                for (int n = 0; n < 21; n++) {
                    int[] context = Arrays.copyOf(tokens, 1 + n * 6 + 4);
                    double[] scores = scorer.score(context, task.answers());
                    int best = 0;
                    for (int label = 1; label < 4; label++) {
                        best = scores[label] > scores[best] ? label : best;
                    }
                    assertEquals(best == document.examples().get(n).label(), accuracy.right().get(i)[n], i + ", " + n);
                }
            }
        }
    }

    @Test
    void countsAreThoseOfTheAnswers() {
        List<boolean[]> right = new ArrayList<>(List.of(new boolean[] {true, false}, new boolean[] {false, true}));
        ShotAccuracy accuracy = new ShotAccuracy(right, new boolean[] {false, true}, Math.log(8));
        assertEquals(1, accuracy.correct(0, false));
        assertEquals(0, accuracy.correct(0, true));
        assertEquals(1, accuracy.correct(1, true));
        assertEquals(0.5, accuracy.accuracy(0, 2, true));
        assertEquals(8, accuracy.perplexity(), 1e-12);
    }

    @Test
    void recordsHoldTheNumbersOfTheReport(@TempDir Path folder) throws IOException {
        Result result = run(options(0.5, folder), 2);
        ModelComparison comparison = result.runs("plain").get(0).comparison();
        double[] mean = new double[2];
        int gained = 0;
        for (int set = 1; set <= 2; set++) {
            Similarities similarities = RecordFiles.compare(folder.resolve("records/plain-seed-1/set-" + set),
                    EpisodeComparison.METRICS_SEED);
            for (int layer = 0; layer < 2; layer++) {
                mean[layer] += similarities.layers("sim_aou")[layer] / 2;
            }
            gained += similarities.recovery().gained();
        }
        assertArrayEquals(comparison.curve("sim_aou"), mean, 1e-12);
        assertEquals(comparison.recovery().gained(), gained);
        try (Device device = Device.cpu(); Gpt gpt = GptFiles.load(folder.resolve("models/plain-seed-1"), device, DType.F32)) {
            assertEquals(FewShotStudy.plainConfig(), gpt.config());
        }
    }

    @Test
    void theSignTestIsThatOfFairCoins() {
        assertEquals(1, FewShotReport.signTest(0, 0));
        assertEquals(0.25, FewShotReport.signTest(0, 3));
        assertEquals(1, FewShotReport.signTest(2, 2));
        assertEquals(2 * (1 + 6) / 64.0, FewShotReport.signTest(5, 1), 1e-15);
    }

    @Test
    void impossibleOptionsAreRefused() {
        assertThrows(InvalidArgumentException.class, () -> new Options(1, 0, 3, 0.5, 2, 32, 32, null, null));
        assertThrows(InvalidArgumentException.class, () -> new Options(1, 1, 0, 0.5, 2, 32, 32, null, null));
        assertThrows(InvalidArgumentException.class, () -> new Options(1, 1, 3, 1, 2, 32, 32, null, null));
        assertThrows(InvalidArgumentException.class, () -> new ComparisonOptions(1, 0, 1, 2, false));
    }
}
