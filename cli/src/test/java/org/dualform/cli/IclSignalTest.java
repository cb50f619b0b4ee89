package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.lab.data.LabelMapping;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.GptFiles;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The measurement as a process that is asked to end: results are there whole or not at all. */
class IclSignalTest {
    @TempDir
    Path folder;

    @Test
    void sigtermLeavesNothingBehind() throws Exception {
        Path model = folder.resolve("model");
        try (Device device = Device.cpu();
                Gpt gpt = Gpt.create(device, GptConfig.of(LabelMapping.standard().vocabularySize(), 64, 1, 16, 2), DType.F32, 3)) {
            GptFiles.save(gpt, model);
        }
        Path results = Files.createDirectory(folder.resolve("results"));
        Path log = folder.resolve("log.txt");
        Process process = CommandProcess.start(log.toFile(), "256m", List.of("icl", "--model", model.toString(), "--task", "label-mapping",
                "--shots", "0,8", "--seeds", "10000", "--out", results.resolve("out").toString()));
        try {
            while (Run.files(results).isEmpty()) {
                assertTrue(process.isAlive(), () -> "ended early: " + words(log));
                Thread.sleep(5);
            }
            process.destroy(); // SIGTERM
            assertTrue(process.waitFor(60, TimeUnit.SECONDS), "still running");
        } finally {
            process.destroyForcibly();
        }
        assertEquals(ExitCode.TERMINATED, process.exitValue(), () -> words(log));
        assertEquals(List.of(), Run.files(results), () -> words(log));
    }

    private static String words(Path log) {
        try {
            return Files.readString(log);
        } catch (IOException e) {
            return e.toString();
        }
    }

    @Test
    void anUnfinishedFolderGoesWithAllThatIsInIt() throws IOException {
        Path target = folder.resolve("out");
        UnfinishedFolder left = new UnfinishedFolder(target);
        Files.createDirectories(left.path().resolve("records/seed-1"));
        Files.writeString(left.path().resolve("records/seed-1/lines"), "half");
        left.abandon();
        assertFalse(Files.exists(left.path()));
        left.finish(); // too late
        left.close();
        assertEquals(List.of(), Run.files(folder));
        try (UnfinishedFolder kept = new UnfinishedFolder(target)) {
            Files.writeString(kept.path().resolve("lines"), "all");
            kept.finish();
        }
        assertEquals(List.of(target), Run.files(folder));
        assertEquals("all", Files.readString(target.resolve("lines")));
    }
}
