package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The command as a process that is asked to end. */
class TrainSignalTest {
    private static final int SIGINT_BIT = 1 << (2 - 1);

    @TempDir
    Path folder;

    /** A training process of many small steps; its words are in log.txt. */
    private Process start(String... more) throws IOException {
        Path text = folder.resolve("text.txt");
        Files.writeString(text, "the cat sat on the mat and the dog sat on the log\n".repeat(20));
        List<String> words = new ArrayList<>(List.of("train", "--text", text.toString(), "--out", folder.resolve("out").toString(),
                "--device", "cpu", "--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--samples", "0",
                "--schedule", "constant", "--checkpoint-every", "0", "--evaluate-every", "0", "--evaluate-tokens", "16"));
        words.addAll(List.of(more));
        return CommandProcess.start(folder.resolve("log.txt").toFile(), "256m", words);
    }

    private long steps() throws IOException {
        Path log = folder.resolve("out").resolve("steps.jsonl");
        return Files.exists(log) ? Files.readString(log).lines().count() : 0;
    }

    /** Lets it train for some steps, sends a signal, and gives the exit code. */
    private int ended(Process process, String signal) throws Exception {
        long before = steps();
        try {
            while (steps() < before + 20) {
                assertTrue(process.isAlive(), () -> "ended early: " + words());
                Thread.sleep(5);
            }
            assertEquals(0, new ProcessBuilder("kill", "-" + signal, String.valueOf(process.pid())).start().waitFor());
            assertTrue(process.waitFor(30, TimeUnit.SECONDS), "still running");
            return process.exitValue();
        } finally {
            process.destroyForcibly();
        }
    }

    private String words() {
        try {
            return Files.readString(folder.resolve("log.txt"));
        } catch (IOException e) {
            return e.toString();
        }
    }

    private void assertGoesOn() throws Exception {
        long saved = steps();
        assertTrue(words().contains("asked to stop after step " + saved + " of 1000000; the same command with --resume goes on"), words());
        Process rest = start("--steps", String.valueOf(saved + 5), "--resume");
        assertTrue(rest.waitFor(30, TimeUnit.SECONDS), "still running");
        assertEquals(0, rest.exitValue(), this::words);
        assertEquals(saved + 5, steps());
        assertTrue(words().contains("going on from step " + saved + " of " + (saved + 5)), words());
    }

    @Test
    void sigtermSavesTheLastStepAndExitsWith143() throws Exception {
        assertEquals(143, ended(start("--steps", "1000000"), "TERM"), this::words);
        assertGoesOn();
    }

    @Test
    void sigintSavesTheLastStepAndExitsWith130() throws Exception {
        String ignored = Files.readString(Path.of("/proc/self/status")).lines().filter(line -> line.startsWith("SigIgn:")).findFirst()
                .orElseThrow().substring(7).strip();
        Assumptions.assumeTrue((Long.parseUnsignedLong(ignored, 16) & SIGINT_BIT) == 0,
                "SIGINT is ignored here, and children inherit that");
        assertEquals(130, ended(start("--steps", "1000000"), "INT"), this::words);
        assertGoesOn();
    }

    @Test
    void moreThanMemoryHoldsIsSaidBeforeAFolderIsMade() throws Exception {
        Process process = start("--steps", "1", "--batch", "100000000");
        try {
            assertTrue(process.waitFor(60, TimeUnit.SECONDS), "still running");
            assertEquals(ExitCode.INTERNAL, process.exitValue(), this::words);
        } finally {
            process.destroyForcibly();
        }
        assertTrue(words().lines().anyMatch(line -> line.startsWith("dualform: out of memory: ")), words());
        assertFalse(Files.exists(folder.resolve("out")));
    }
}
