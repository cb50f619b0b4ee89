package org.dualform.lab.metrics;

import com.fasterxml.jackson.core.JsonEncoding;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.BufferedOutputStream;
import java.io.Closeable;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/**
 * Writes {@code record_info.jsonl} as the code published with Dai et al. 2022 (arXiv:2212.10559) does: one object per line, nested lists of
 * numbers. Every number has the digits that give back its bits as a double, so also those of the float it came from.
 *
 * <p>The file appears with {@link #finish}, whole; closing without it leaves nothing behind.
 *
 * <p>Threading: one thread at a time.
 */
public final class RecordWriter implements Closeable {
    private static final JsonFactory JSON = JsonFactory.builder().enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER).build();

    private final Path file;
    private final Path temporary;
    private final JsonGenerator json;
    private boolean closed;

    /**
     * Begins a file; its folder is made when it is not there.
     *
     * @param file to write, replaced when it exists
     * @throws IOException when the folder or the temporary file beside it cannot be made
     */
    public RecordWriter(Path file) throws IOException {
        this.file = file.toAbsolutePath();
        Files.createDirectories(this.file.getParent());
        temporary = Files.createTempFile(this.file.getParent(), ".record_info", ".tmp");
        json = JSON.createGenerator(new BufferedOutputStream(Files.newOutputStream(temporary), 1 << 16), JsonEncoding.UTF8);
        json.setRootValueSeparator(null);
    }

    /**
     * One more example, for {@code zs/}, {@code icl/} or {@code ftzs/}.
     *
     * @param record to write
     * @throws IOException when writing fails
     */
    public void write(ExampleRecord record) throws IOException {
        json.writeStartObject();
        json.writeFieldName("self_attn_out_hiddens");
        rows(record.attnOut());
        json.writeFieldName("attn_map");
        maps(record.attnMap());
        json.writeFieldName("attn_map_ctx");
        rows(record.attnMapContext());
        json.writeFieldName("attn_q");
        rows(record.attnQ());
        label("gold_label", record.gold());
        label("pred_label", record.predicted());
        end();
    }

    /**
     * One more demonstration, for {@code ft/}, in training order.
     *
     * @param record to write
     * @throws IOException when writing fails
     */
    public void write(DemonstrationRecord record) throws IOException {
        json.writeStartObject();
        json.writeFieldName("attn_q");
        maps(record.attnQ());
        end();
    }

    /**
     * Puts the file in its place and closes.
     *
     * @throws IOException when writing or moving fails
     */
    public void finish() throws IOException {
        json.close();
        Files.move(temporary, file, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        closed = true;
    }

    /** Drops what was written, unless {@link #finish} came before. */
    @Override
    public void close() throws IOException {
        if (!closed) {
            closed = true;
            try {
                json.close();
            } finally {
                Files.deleteIfExists(temporary);
            }
        }
    }

    private void label(String key, String value) throws IOException {
        json.writeFieldName(key);
        if (value.matches("0|-?[1-9]\\d{0,17}")) {
            json.writeNumber(Long.parseLong(value));
        } else {
            json.writeString(value);
        }
    }

    private void maps(double[][][] maps) throws IOException {
        json.writeStartArray();
        for (double[][] map : maps) {
            rows(map);
        }
        json.writeEndArray();
    }

    private void rows(double[][] rows) throws IOException {
        json.writeStartArray();
        for (double[] row : rows) {
            json.writeArray(row, 0, row.length);
        }
        json.writeEndArray();
    }

    private void end() throws IOException {
        json.writeEndObject();
        json.writeRaw('\n');
    }
}
