package org.dualform.lab.train;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * Logs of a run. A checkpoint may keep their lengths; a run that goes on then cuts them there, and they become those of an unbroken run.
 * When the disk is full the lines wait in memory, and one warning is given.
 *
 * <p>Threading: one thread at a time.
 */
final class Logs implements AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Path folder;
    private final Consumer<String> warn;
    private final Map<String, Log> logs = new LinkedHashMap<>();

    private static final class Log {
        final FileChannel channel;
        final ByteArrayOutputStream waiting = new ByteArrayOutputStream();
        long length;
        long forced;
        boolean warned;

        Log(FileChannel channel) throws IOException {
            this.channel = channel;
            length = channel.size();
        }
    }

    Logs(Path folder, List<String> names, Consumer<String> warn) throws IOException {
        this.folder = folder;
        this.warn = warn;
        try {
            for (String name : names) {
                logs.put(name, new Log(FileChannel.open(folder.resolve(name), StandardOpenOption.CREATE, StandardOpenOption.WRITE)));
            }
        } catch (IOException e) {
            close();
            throw e;
        }
    }

    /** Cuts every log at a length kept before, or at its start where none was kept. */
    void cut(Map<String, Long> lengths) throws IOException {
        for (Map.Entry<String, Log> log : logs.entrySet()) {
            Log cut = log.getValue();
            cut.length = Math.min(cut.channel.size(), lengths.getOrDefault(log.getKey(), 0L));
            cut.channel.truncate(cut.length);
            cut.forced = -1;
        }
    }

    void object(String name, Map<String, ?> object) {
        try {
            text(name, JSON.writeValueAsString(object) + "\n");
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException(name + ": " + e.getOriginalMessage(), e);
        }
    }

    void text(String name, String text) {
        Log log = logs.get(name);
        log.waiting.writeBytes(text.getBytes(StandardCharsets.UTF_8));
        try {
            ByteBuffer bytes = ByteBuffer.wrap(log.waiting.toByteArray());
            while (bytes.hasRemaining()) {
                log.channel.write(bytes, log.length + bytes.position());
            }
            log.length += bytes.limit();
            log.waiting.reset();
        } catch (IOException e) {
            if (!log.warned) {
                warn.accept(folder.resolve(name) + " cannot be written (" + e.getMessage() + "); its lines wait, training goes on");
            }
            log.warned = true;
        }
    }

    Map<String, Long> lengths() {
        Map<String, Long> lengths = new LinkedHashMap<>();
        logs.forEach((name, log) -> lengths.put(name, log.length));
        return lengths;
    }

    /** Before a checkpoint keeps the lengths. */
    void force() {
        for (Map.Entry<String, Log> log : logs.entrySet()) {
            Log grown = log.getValue();
            try {
                if (grown.forced != grown.length) {
                    grown.channel.force(false);
                    grown.forced = grown.length;
                }
            } catch (IOException e) {
                warn.accept(folder.resolve(log.getKey()) + " may not survive a power cut (" + e.getMessage() + ")");
            }
        }
    }

    @Override
    public void close() {
        for (Log log : logs.values()) {
            try {
                log.channel.close();
            } catch (IOException e) {
                warn.accept(folder + ": a log did not close (" + e.getMessage() + ")");
            }
        }
    }
}
