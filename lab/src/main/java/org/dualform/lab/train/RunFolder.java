package org.dualform.lab.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;
import org.dualform.lab.data.DataException;

/**
 * The folder of a training run: checkpoints, and the logs {@code steps.jsonl}, {@code evaluations.jsonl}, {@code samples.txt} (all three
 * without any time of day, so that they repeat) and {@code timing.jsonl}.
 *
 * <p>Threading: one thread at a time; a second process that opens the folder is refused.
 */
public final class RunFolder implements AutoCloseable {
    /** One object per step. */
    public static final String STEPS = "steps.jsonl";
    /** One object per evaluation. */
    public static final String EVALUATIONS = "evaluations.jsonl";
    /** Text the model wrote on the way. */
    public static final String SAMPLES = "samples.txt";
    /** Seconds and tokens per second; the one file that is not cut when a run goes on. */
    public static final String TIMING = "timing.jsonl";

    private final Path folder;
    private final Map<String, String> identity;
    private final Consumer<String> warn;
    private final FileChannel lock;
    private final Checkpoints checkpoints;
    /** What an unbroken run would have too. */
    private final Logs logs;
    /** What really took time, steps that were lost and done again included. */
    private final Logs timing;

    /**
     * Opens a folder, made if it is not there.
     *
     * @param folder of the run
     * @param keep how many checkpoints are kept, at least 1
     * @param identity what beside the training options decides the numbers: model, data, seeds; name to value
     * @param warn is told in a sentence what went wrong where the run goes on
     * @throws DataException if another process trains into it
     * @throws IOException if it cannot be made or written
     */
    public RunFolder(Path folder, int keep, Map<String, String> identity, Consumer<String> warn) throws IOException {
        this(folder, keep, identity, warn, Disk.real());
    }

    RunFolder(Path folder, int keep, Map<String, String> identity, Consumer<String> warn, Disk disk) throws IOException {
        this.folder = folder;
        this.identity = new LinkedHashMap<>(identity);
        this.warn = warn;
        Files.createDirectories(folder);
        lock = FileChannel.open(folder.resolve(".lock"), StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        try {
            requireAlone();
            checkpoints = new Checkpoints(folder.resolve("checkpoints"), keep, disk, warn);
            logs = new Logs(folder, List.of(STEPS, EVALUATIONS, SAMPLES), warn);
            timing = new Logs(folder, List.of(TIMING), warn);
        } catch (IOException | RuntimeException e) {
            lock.close();
            throw e;
        }
    }

    /** The lock ends with the process, however that ends. */
    private void requireAlone() throws IOException {
        boolean alone;
        try {
            alone = lock.tryLock() != null;
        } catch (OverlappingFileLockException e) {
            alone = false; // by this very process
        }
        if (!alone) {
            throw new DataException(folder + ": another process is training into this folder");
        }
    }

    /**
     * Where it is.
     *
     * @return the folder
     */
    public Path path() {
        return folder;
    }

    /**
     * Its checkpoints.
     *
     * @return in the folder {@code checkpoints}
     */
    public Checkpoints checkpoints() {
        return checkpoints;
    }

    /**
     * Adds one JSON object, on one line, to a log.
     *
     * @param log one of the four
     * @param object name to value, in order
     */
    public void append(String log, Map<String, ?> object) {
        (log.equals(TIMING) ? timing : logs).object(log, object);
    }

    /**
     * Adds text to a log.
     *
     * @param log one of the four
     * @param text with its line ends
     */
    public void append(String log, String text) {
        (log.equals(TIMING) ? timing : logs).text(log, text);
    }

    /**
     * Writes a small file of the run atomically.
     *
     * @param name in the folder
     * @param text its content
     * @throws IOException if it cannot be written
     */
    public void write(String name, String text) throws IOException {
        Disk disk = Disk.real();
        Path unfinished = folder.resolve(name + ".tmp");
        try {
            try (Disk.Output out = disk.create(unfinished)) {
                ByteBuffer bytes = ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
                while (bytes.hasRemaining()) {
                    out.write(bytes);
                }
                out.force();
            }
            disk.rename(unfinished, folder.resolve(name));
        } finally {
            disk.delete(unfinished);
        }
    }

    /** The newest whole checkpoint, checked to be of this run; the logs are cut to it. */
    Optional<Checkpoints.Saved> resume(TrainingOptions options) throws IOException {
        Optional<Checkpoints.Saved> saved = checkpoints.newest();
        if (saved.isPresent()) {
            Progress progress = saved.get().progress();
            String difference = difference(progress.fixed(), fixed(options));
            if (!difference.isEmpty()) {
                throw new DataException(saved.get().file() + ": cannot go on with other options: " + difference);
            }
            String changed = difference(progress.adjustable(), options.adjustable());
            if (!changed.isEmpty()) {
                warn.accept("from step " + progress.step() + " on this is not the run that began: " + changed);
            }
        }
        return saved;
    }

    void cut(Map<String, Long> lengths) throws IOException {
        logs.cut(lengths);
    }

    Map<String, Long> lengths() {
        logs.force();
        return logs.lengths();
    }

    Map<String, String> fixed(TrainingOptions options) {
        Map<String, String> fixed = new LinkedHashMap<>(identity);
        fixed.putAll(options.fixed());
        return fixed;
    }

    private static String difference(Map<String, String> before, Map<String, String> now) {
        StringBuilder difference = new StringBuilder();
        Map<String, String> names = new LinkedHashMap<>(before);
        names.putAll(now);
        for (String name : names.keySet()) {
            if (!Objects.equals(before.get(name), now.get(name))) {
                difference.append(difference.isEmpty() ? "" : ", ").append(name).append(' ').append(now.getOrDefault(name, "none"))
                        .append(" instead of ").append(before.getOrDefault(name, "none"));
            }
        }
        return difference.toString();
    }

    @Override
    public void close() throws IOException {
        logs.close();
        timing.close();
        lock.close();
    }
}
