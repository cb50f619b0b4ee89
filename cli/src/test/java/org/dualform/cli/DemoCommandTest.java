package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DemoCommandTest {
    @Test
    void demoFindsItsIdentitiesHoldAndReports(@TempDir Path folder) throws IOException {
        Path out = folder.resolve("demo");
        Run run = Run.of("demo", "--steps", "2", "--device", "cpu", "--out", out.toString());
        assertEquals(ExitCode.OK, run.code(), run.out() + run.err());
        assertTrue(run.out().contains("equal in every bit"), run.out());
        assertEquals(4, run.out().lines().filter(line -> line.contains("  ok (limit")).count(), run.out());
        for (String line : List.of("accuracy, plain", "accuracy, momentum", "best possible (Bayes)", "chance 25.0 %", "SimAOU")) {
            assertTrue(run.out().contains(line), run.out());
        }
        for (String file : List.of("report.html", "results.json", "losses.csv", "onset.csv", "shots.csv", "similarities.csv",
                "timing.json")) {
            assertTrue(Files.size(out.resolve(file)) > 0, file);
        }
        assertEquals(1 + 2 * 2, Files.readAllLines(out.resolve("losses.csv")).size());
        Run metrics = Run.of("icl", "metrics", "--json", "--records", out.resolve("records/plain-seed-1/set-1").toString());
        assertEquals(ExitCode.OK, metrics.code(), metrics.err());
        assertEquals(2, ((List<?>) ((Map<?, ?>) Json.read(metrics.out())).get("sim_aou")).size());
    }

    @Test
    void badOptionsLeaveNothingBehind(@TempDir Path folder) throws IOException {
        Path out = folder.resolve("demo");
        for (String[] words : List.of(new String[] {"--steps", "0"}, new String[] {"--seeds", "0"}, new String[] {"--eta", "1"},
                new String[] {"--eta", "x"}, new String[] {"--device", "tpu"})) {
            Run run = Run.of("demo", words[0], words[1], "--out", out.toString());
            assertEquals(ExitCode.USAGE, run.code(), String.join(" ", words));
            assertEquals(1, run.err().lines().count(), run.err());
            assertFalse(Files.exists(out), String.join(" ", words));
        }
        Path file = Files.writeString(folder.resolve("file"), "x");
        Run run = Run.of("demo", "--steps", "2", "--out", file.toString());
        assertEquals(ExitCode.USAGE, run.code(), run.err());
        assertEquals("dualform: --out: " + file + " is a file, expected a folder", run.err().strip());
    }
}
