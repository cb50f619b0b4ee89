package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.zip.GZIPOutputStream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.lab.data.Tokenizers;
import org.dualform.nn.AttentionKind;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptFiles;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class TrainCommandTest {
    @TempDir
    Path folder;

    private Path text;

    @BeforeEach
    void writeText() throws IOException {
        text = folder.resolve("text.txt");
        Files.writeString(text, "the cat sat on the mat and the dog sat on the log\n".repeat(20));
    }

    private Run train(String out, String... more) {
        return train(text, out, more);
    }

    private Run train(Path file, String out, String... more) {
        Map<String, String> options = new LinkedHashMap<>();
        String[] usual = {"--text", file.toString(), "--out", folder.resolve(out).toString(), "--device", "cpu", "--layers", "1", "--width",
            "16", "--heads", "2", "--context", "16", "--batch", "2", "--warmup", "2", "--steps", "6", "--sample-tokens", "8",
            "--evaluate-every", "3", "--checkpoint-every", "3"};
        for (String[] words : new String[][] {usual, more}) {
            for (int i = 0; i < words.length; i++) {
                options.put(words[i], words[i].equals("--resume") ? null : words[++i]);
            }
        }
        List<String> line = new ArrayList<>(List.of("train"));
        options.forEach((name, value) -> line.addAll(value == null ? List.of(name) : List.of(name, value)));
        return Run.of(line.toArray(String[]::new));
    }

    private void assertDone(Run run) {
        assertEquals(ExitCode.OK, run.code(), run.err());
    }

    @Test
    void everythingARunMakesIsInItsFolder() throws IOException {
        Run run = train("out");
        assertDone(run);
        assertTrue(run.out().matches("(?s)validation loss \\d\\.\\d{4} nats, perplexity \\d+\\.\\d{3}, context 16, \\d+ tokens\n"
                + "model, tokenizer, logs and loss.svg are in .*\n"), run.out());
        assertEquals(new TreeSet<>(List.of(".lock", "checkpoints", "config.json", "evaluations.jsonl", "loss.svg", "model.safetensors",
                "run.json", "samples.txt", "steps.jsonl", "timing.jsonl", "tokenizer.json")),
                names("out"));
        assertEquals(2, Run.files(folder.resolve("out/checkpoints")).size());
        assertEquals(6, lines("out", "steps.jsonl").size());
        assertEquals(3, lines("out", "evaluations.jsonl").size());
        assertEquals(3, lines("out", "samples.txt").stream().filter(line -> line.startsWith("--- step ")).count());
        assertTrue(run.err().contains("validation at context 256, 512, 1024 is skipped"), run.err());
        try (Device device = Device.cpu(); Gpt gpt = GptFiles.load(folder.resolve("out"), device, DType.F32)) {
            assertEquals(AttentionKind.SOFTMAX, gpt.config().attention());
            assertEquals(Tokenizers.load(folder.resolve("out")).vocabularySize(), gpt.config().vocabulary());
        }
    }

    private TreeSet<String> names(String inside) throws IOException {
        return new TreeSet<>(Run.files(folder.resolve(inside)).stream().map(file -> file.getFileName().toString()).toList());
    }

    private List<String> lines(String out, String file) throws IOException {
        return Files.readAllLines(folder.resolve(out).resolve(file));
    }

    @Test
    void theSameSeedGivesTheSameFilesAndAnotherOneDoesNot() throws IOException {
        assertDone(train("a", "--attention", "momentum", "--eta", "learned"));
        assertDone(train("b", "--attention", "momentum", "--eta", "learned"));
        assertDone(train("c", "--attention", "momentum", "--eta", "learned", "--seed", "2"));
        for (String file : List.of("steps.jsonl", "evaluations.jsonl", "samples.txt", "model.safetensors", "config.json", "run.json",
                "loss.svg")) {
            assertArrayEquals(Files.readAllBytes(folder.resolve("a").resolve(file)), Files.readAllBytes(folder.resolve("b").resolve(file)),
                    file);
        }
        assertEquals(names("a/checkpoints"), names("b/checkpoints"), "checkpoints have their digests in their names");
        assertFalse(lines("a", "steps.jsonl").equals(lines("c", "steps.jsonl")));
    }

    @Test
    void everyAttentionOptimizerScheduleAndDtypeTrains() throws IOException {
        List<String> all = List.of("--attention momentum --eta 0.5 --optimizer adam --schedule linear",
                "--attention linear --decay 0.9 --optimizer sgd --momentum 0.9 --schedule polynomial",
                "--positions sinusoidal --accumulate 3 --schedule constant --clip 0",
                "--dtype bf16 --samples 0 --evaluate-every 0 --checkpoint-every 0");
        for (String options : all) {
            String out = "out" + all.indexOf(options);
            assertDone(train(out, options.split(" ")));
            assertEquals(6, lines(out, "steps.jsonl").size());
            assertFalse(lines(out, "steps.jsonl").stream().anyMatch(line -> line.contains("\"skipped\":true")));
        }
    }

    @Test
    void compressedTextAndAValidationFileAreRead() throws IOException {
        Path compressed = folder.resolve("text.gz");
        try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(compressed))) {
            out.write(Files.readAllBytes(text));
        }
        assertDone(train(compressed, "a", "--validation", text.toString()));
        assertDone(train(text, "b", "--validation", compressed.toString()));
        assertEquals(lines("a", "evaluations.jsonl"), lines("b", "evaluations.jsonl"));
    }

    @Test
    void aLongerRunGoesOnFromAShorterOne() throws IOException {
        assertDone(train("unbroken", "--schedule", "constant", "--steps", "9"));
        assertDone(train("parts", "--schedule", "constant"));
        Run resumed = train("parts", "--schedule", "constant", "--steps", "9", "--resume");
        assertDone(resumed);
        assertTrue(resumed.err().contains("from step 6 on this is not the run that began: steps 9 instead of 6"), resumed.err());
        assertTrue(resumed.err().contains("going on from step 6 of 9"), resumed.err());
        for (String file : List.of("steps.jsonl", "evaluations.jsonl", "samples.txt")) {
            assertEquals(lines("unbroken", file), lines("parts", file));
        }
        assertArrayEquals(Files.readAllBytes(folder.resolve("unbroken/model.safetensors")),
                Files.readAllBytes(folder.resolve("parts/model.safetensors")));
        Run again = train("parts", "--schedule", "constant", "--steps", "9", "--resume");
        assertDone(again);
        assertEquals(resumed.out(), again.out());
        assertEquals(lines("unbroken", "evaluations.jsonl"), lines("parts", "evaluations.jsonl"));
    }

    @Test
    void resumeWithoutAnythingThereStartsAtTheBeginning() throws IOException {
        Run run = train("out", "--resume");
        assertDone(run);
        assertTrue(run.err().contains("nothing to go on from, starting at step 0"), run.err());
        assertEquals(6, lines("out", "steps.jsonl").size());
    }

    @Test
    void aFolderWithARunInItIsRefusedWithoutResumeAndWithOtherOptions() throws IOException {
        assertDone(train("out"));
        byte[] before = Files.readAllBytes(folder.resolve("out/steps.jsonl"));
        assertRefused(train("out"), "is not empty; --resume goes on with a run that is there");
        assertRefused(train("out", "--resume", "--layers", "2"), "cannot go on with other options: layers 2 instead of 1");
        assertRefused(train("out", "--resume", "--seed", "7"), "cannot go on with other options: seed 7 instead of 1");
        Files.writeString(text, "another text, in other words. ".repeat(40));
        assertRefused(train("out", "--resume"), "training tokens ");
        assertArrayEquals(before, Files.readAllBytes(folder.resolve("out/steps.jsonl")));
    }

    @Test
    void resumeIsRefusedInAFolderOfSomethingElse() throws IOException {
        Path other = Files.createDirectories(folder.resolve("other"));
        Files.writeString(other.resolve("steps.jsonl"), "mine\n");
        assertRefused(train("other", "--resume"),
                "--resume: " + other + " is not empty and has no run in it, expected run.json or checkpoints");
        assertEquals(List.of("mine"), lines("other", "steps.jsonl"));
        assertEquals(new TreeSet<>(List.of("steps.jsonl")), names("other"));
        Files.delete(other.resolve("steps.jsonl"));
        Files.writeString(other.resolve(".lock"), ""); // of a run that was killed before its first line
        assertDone(train("other", "--resume"));
    }

    private static void assertRefused(Run run, String part) {
        assertEquals(ExitCode.USAGE, run.code(), run.err());
        assertEquals("", run.out());
        assertTrue(run.err().contains(part), run.err());
        assertFalse(run.err().contains("Exception"), run.err());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "--eta 0.5 | --eta: is for --attention momentum, not softmax",
        "--attention momentum --eta 1 | --eta: 1.0, expected at least 0 and less than 1",
        "--attention momentum --eta much | --eta: 'much', expected a number or learned",
        "--attention convolution | --attention convolution: expected one of linear, momentum, softmax",
        "--decay 0.5 | --decay: is for --attention linear, not softmax",
        "--attention linear --decay 2 | --decay: 2.0, expected more than 0 and at most 1",
        "--positions none | --positions none: expected one of learned, sinusoidal",
        "--width 15 | --width: 15, expected a multiple of the 2 heads",
        "--layers 0 | --layers: 0, expected more than 0",
        "--batch 0 | --batch: 0, expected at least 1",
        "--steps -1 | --steps: -1, expected at least 0",
        "--accumulate 0 | --accumulate: 0, expected at least 1",
        "--lr 0 | --lr: 0.0, expected above 0",
        "--lr NaN | --lr: NaN, expected above 0",
        "--schedule never | --schedule never: expected one of constant, cosine, linear, polynomial",
        "--floor 2 | --floor: 2.0, expected in [0, 1]",
        "--warmup -1 | --warmup: -1, expected at least 0",
        "--optimizer lion | --optimizer lion: expected one of adam, adamw, sgd",
        "--beta2 1 | --beta2: 1.0, expected in [0, 1)",
        "--clip -1 | --clip: -1.0, expected at least 0",
        "--dtype f16 | --dtype f16: expected one of bf16, f32",
        "--device abacus | --device abacus: expected auto, cpu or cuda",
        "--tokenizer words | --tokenizer words: expected one of chars, gpt2",
        "--keep 0 | --keep: 0, expected at least 1",
        "--samples -1 | --samples: -1, expected at least 0",
        "--temperature -1 | --temperature: -1.0",
        "--evaluate-contexts 0 | --evaluate-contexts: 0, expected at least 1",
        "--evaluate-tokens 0 | --evaluate-tokens: 0, expected at least 1",
        "--context 5000 | training text: 901 tokens, expected at least 5001 for one window of 5000",
        "--checkpoint-every -1 | --checkpoint-every: -1, expected at least 0",
        "--evaluate-every -1 | --evaluate-every: -1, expected at least 0",
        "--weight-decay -1 | --weight-decay: -1.0, expected at least 0",
        "--clip NaN | --clip: NaN, expected at least 0",
        "--top-k -1 | --top-k: -1, expected at least 0",
        "--sample-tokens -1 | --sample-tokens: -1, expected at least 0",
        "--batch 200000000 | --batch: 200000000 sequences of --context 16 tokens, expected at most 2147483639 tokens in a batch",
        "--validation no.txt | no.txt: there is no such file",
    })
    void badOptionsAreOneSentenceAndNothingIsMade(String options, String sentence) {
        Run run = train("out", options.split(" "));
        assertRefused(run, sentence);
        assertEquals(1, run.err().lines().count(), run.err());
        assertFalse(Files.exists(folder.resolve("out")), "a folder was made");
    }

    @Test
    void badTextIsOneSentenceAndNothingIsMade() throws IOException {
        Path bad = folder.resolve("bad.txt");
        List<byte[]> contents = List.of(new byte[0], " \n\t\n".getBytes(), new byte[] {'a', '\n', 'b', (byte) 0xff, 'c'}, "x".getBytes());
        // of the last, one letter and the end of its line
        List<String> sentences = List.of("bad.txt: no text", "bad.txt: no text", "bad.txt:2: ",
                "bad.txt is too short to validate on: 0 tokens, expected at least 2; with 2 tokens in all it takes more text");
        for (int i = 0; i < contents.size(); i++) {
            Files.write(bad, contents.get(i));
            Run run = train(bad, "out");
            assertRefused(run, sentences.get(i));
            assertEquals(1, run.err().lines().count(), run.err());
            assertFalse(Files.exists(folder.resolve("out")));
        }
        assertRefused(train(folder.resolve("none.txt"), "out"), "none.txt: there is no such file");
        assertRefused(train(folder, "out"), folder.toString());
        Files.writeString(folder.resolve("file"), "");
        assertRefused(train("file"), "is a file, expected a folder");
    }

    @Test
    void numbersThatAreNotFiniteEndInExitCode4AndAreNeverSaved() throws IOException {
        Run run = train("out", "--lr", "1e38", "--warmup", "0", "--clip", "0", "--steps", "50", "--checkpoint-every", "1");
        assertEquals(ExitCode.NON_FINITE, run.code(), run.err());
        String last = run.err().lines().reduce((a, b) -> b).orElseThrow();
        assertTrue(last.matches("dualform: step \\d+: loss .*; 3 steps in a row were not finite, training stops; .*"), last);
        assertFalse(Files.exists(folder.resolve("out/model.safetensors")));
        for (Path file : Run.files(folder.resolve("out/checkpoints"))) {
            Run.read(file).forEach((name, array) -> {
                for (double value : array.values()) {
                    assertTrue(Double.isFinite(value), file + " " + name);
                }
            });
        }
    }
}
