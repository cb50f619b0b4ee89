package org.dualform.lab.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.dualform.lab.data.DataException;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Kills training processes at random moments. {@code -Ddualform.test.kills} says how often by {@code kill -9}, 50 without it;
 * {@code -Ddualform.test.terms} how often by SIGTERM, 5 without it.
 */
class KillTest {
    private static final int KILLS = Integer.getInteger("dualform.test.kills", 50);
    /** Of the writer in place, at most: the first that catches it is the last. */
    private static final int CONTROL_KILLS = Math.max(20, KILLS);
    private static final int TERMS = Integer.getInteger("dualform.test.terms", 5);
    /** Enough that a life of some tenths of a second does not see the end. */
    private static final int STEPS = 300;

    @TempDir
    static Path folder;

    private static String unbrokenSteps;
    private static String unbrokenFinal;

    /** A process, and what it printed. */
    private record Child(Process process, BufferedReader output) implements AutoCloseable {
        static Child start(Path folder, String disk) throws IOException {
            List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-Dorg.bytedeco.javacpp.maxPhysicalBytes=0",
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"));
            String cache = System.getProperty("org.bytedeco.javacpp.cachedir");
            if (cache != null) {
                command.add("-Dorg.bytedeco.javacpp.cachedir=" + cache);
            }
            command.addAll(List.of("-cp", System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                    TrainingChild.class.getName(), folder.toString(), String.valueOf(STEPS), disk));
            Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
            return new Child(process, process.inputReader(StandardCharsets.UTF_8));
        }

        /** Waits for the line that tells from which step it goes on. */
        long begun() throws IOException {
            List<String> lines = new ArrayList<>();
            for (String line = output.readLine(); line != null; line = output.readLine()) {
                lines.add(line);
                if (line.startsWith("from ")) {
                    return Long.parseLong(line.substring(5));
                }
            }
            throw new AssertionError("the process ended before it began: " + lines);
        }

        int ended() throws InterruptedException {
            assertTrue(process.waitFor(60, TimeUnit.SECONDS), "the process does not end");
            return process.exitValue();
        }

        @Override
        public void close() throws IOException {
            process.destroyForcibly();
            output.close();
        }
    }

    @BeforeAll
    static void trainUnbroken() throws Exception {
        Path unbroken = folder.resolve("unbroken");
        try (Child child = Child.start(unbroken, "atomic")) {
            assertEquals(0, child.begun());
            assertEquals(0, child.ended());
        }
        unbrokenSteps = Files.readString(unbroken.resolve(RunFolder.STEPS));
        unbrokenFinal = Files.readString(unbroken.resolve("final.txt"));
        assertEquals(STEPS, unbrokenSteps.lines().count());
    }

    /** Checkpoints that are not what their names say. */
    private static int corrupt(Path run) throws IOException {
        List<String> warnings = new ArrayList<>();
        if (Files.isDirectory(run.resolve("checkpoints"))) {
            for (Path file : TinyRun.files(run.resolve("checkpoints"))) {
                if (file.toString().endsWith(".safetensors")) {
                    Path alone = Files.createTempDirectory(folder, "alone");
                    Files.copy(file, alone.resolve(file.getFileName()));
                    try {
                        new Checkpoints(alone, 1, Disk.real(), warnings::add).newest();
                    } catch (DataException e) {
                        assertTrue(e.getMessage().contains("none of the 1 checkpoints is whole"), e.getMessage());
                    }
                }
            }
        }
        return warnings.size();
    }

    /** Kills one process after another in a folder; a run that is done is checked and another begun. */
    private static int corruptAfterKills(String name, String disk, int kills) throws Exception {
        Random random = new Random(name.hashCode());
        int corrupt = 0;
        int run = 0;
        int kill = 0;
        int inTraining = 0;
        Path current = folder.resolve(name + run);
        while (kill < kills && corrupt == 0) {
            boolean early = kill % 5 == 4;
            try (Child child = Child.start(current, disk)) {
                if (early) {
                    Thread.sleep(random.nextInt(400));
                } else {
                    child.begun();
                    Thread.sleep(random.nextInt(450));
                }
                boolean alive = child.process().isAlive();
                child.process().destroyForcibly();
                if (child.ended() == 137) {
                    kill++;
                    inTraining += early ? 0 : 1;
                } else {
                    assertTrue(!alive || child.process().exitValue() == 0, "exit code " + child.process().exitValue());
                }
            }
            corrupt = corrupt(current);
            if (corrupt == 0 && Files.exists(current.resolve("final.txt"))) {
                assertEqualsUnbroken(current);
                run++;
                current = folder.resolve(name + run);
            }
        }
        if (corrupt == 0) {
            try (Child child = Child.start(current, disk)) {
                child.begun();
                assertEquals(0, child.ended());
            }
            assertEqualsUnbroken(current);
        }
        System.getLogger("kills").log(System.Logger.Level.INFO, "{0} kills, {1} of them while training, {2} runs done, {3} corrupt",
                kill, inTraining, run, corrupt);
        return corrupt;
    }

    private static void assertEqualsUnbroken(Path run) throws IOException {
        assertEquals(unbrokenSteps, Files.readString(run.resolve(RunFolder.STEPS)));
        assertEquals(unbrokenFinal, Files.readString(run.resolve("final.txt")));
    }

    @Test
    void killedRunsHaveNoCorruptCheckpointAndEndAsAnUnbrokenOne() throws Exception {
        ExecutorService two = Executors.newFixedThreadPool(2);
        try {
            Future<Integer> other = two.submit(() -> corruptAfterKills("first", "atomic", KILLS / 2));
            assertEquals(0, corruptAfterKills("second", "atomic", KILLS - KILLS / 2));
            assertEquals(0, other.get());
        } finally {
            two.shutdownNow();
        }
    }

    @Test
    void aWriterInPlaceIsCaughtByTheSameKills() throws Exception {
        assertTrue(corruptAfterKills("in-place", "in-place", CONTROL_KILLS) > 0);
    }

    @Test
    void sigtermSavesAndExitsWith143AndTheRunGoesOn() throws Exception {
        Random random = new Random(15);
        int run = 0;
        long saved = 0;
        for (int term = 0; term < TERMS;) {
            Path current = folder.resolve("term" + run);
            int code;
            try (Child child = Child.start(current, "atomic")) {
                assertEquals(saved, child.begun(), "no step is lost");
                Thread.sleep(random.nextInt(450));
                child.process().destroy();
                code = child.ended();
            }
            assertEquals(0, corrupt(current));
            saved = Files.readString(current.resolve(RunFolder.STEPS)).lines().count();
            if (code == 143) {
                term++;
            } else { // it was done before it was asked
                assertEquals(0, code);
                assertEqualsUnbroken(current);
                run++;
                saved = 0;
            }
        }
        try (Child child = Child.start(folder.resolve("term" + run), "atomic")) {
            assertEquals(saved, child.begun(), "no step is lost");
            assertEquals(0, child.ended());
        }
        assertEqualsUnbroken(folder.resolve("term" + run));
    }
}
