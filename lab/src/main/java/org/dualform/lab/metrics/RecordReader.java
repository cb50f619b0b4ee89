package org.dualform.lab.metrics;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.core.json.JsonReadFeature;
import java.io.BufferedInputStream;
import java.io.CharConversionException;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.DataException;

/**
 * Reads {@code record_info.jsonl}, one record at a time and never a whole file. Blank lines are passed over, keys it does not know ignored.
 *
 * <p>Threading: one thread at a time.
 */
public final class RecordReader implements Closeable {
    private static final JsonFactory JSON = JsonFactory.builder()
            .enable(JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS) // so that NaN gets a sentence of its own
            .enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER)
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .disable(StreamReadFeature.AUTO_CLOSE_SOURCE)
            .build();

    /** Lists that some records lack; null says the same. */
    private static final Set<String> OPTIONAL = Set.of("attn_map_ctx", "attn_q");
    /** Up to here a double says which integer it was. */
    private static final double EXACT = 1L << 53;

    private final Path file;
    private final Lines lines;
    private int line;

    /**
     * Opens a file.
     *
     * @param file to read
     * @throws IOException when it cannot be read; a {@link DataException} when it is not there
     */
    public RecordReader(Path file) throws IOException {
        this.file = file;
        try {
            if (Files.isDirectory(file)) {
                throw new DataException(file + ": is a folder, expected a file of records");
            }
            lines = new Lines(new BufferedInputStream(Files.newInputStream(file), 1 << 16));
        } catch (NoSuchFileException e) {
            throw new DataException(file + ": no such file, expected one JSON object per line");
        }
    }

    /**
     * The next example of {@code zs/}, {@code icl/} or {@code ftzs/}.
     *
     * @return the record, or null after the last
     * @throws IOException when reading fails; a {@link DataException} when the line is not such a record
     */
    public ExampleRecord example() throws IOException {
        if (!nextLine()) {
            return null;
        }
        Map<String, Object> fields = object(Map.of("self_attn_out_hiddens", 2, "attn_map", 3, "attn_map_ctx", 2, "attn_q", 2,
                "gold_label", 0, "pred_label", 0));
        for (String key : List.of("self_attn_out_hiddens", "attn_map", "gold_label", "pred_label")) {
            if (!fields.containsKey(key)) {
                throw wrong(key + " is missing");
            }
        }
        try {
            return new ExampleRecord(
                    (double[][]) fields.get("self_attn_out_hiddens"),
                    (double[][][]) fields.get("attn_map"),
                    (double[][]) fields.getOrDefault("attn_map_ctx", new double[0][]),
                    (double[][]) fields.getOrDefault("attn_q", new double[0][]),
                    (String) fields.get("gold_label"),
                    (String) fields.get("pred_label"));
        } catch (InvalidArgumentException e) {
            throw wrong(e.getMessage());
        }
    }

    /**
     * The next demonstration of {@code ft/}.
     *
     * @return the record, or null after the last
     * @throws IOException when reading fails; a {@link DataException} when the line is not such a record
     */
    public DemonstrationRecord demonstration() throws IOException {
        if (!nextLine()) {
            return null;
        }
        Object queries = object(Map.of("attn_q", 3)).get("attn_q");
        if (queries == null) {
            throw wrong("attn_q is missing");
        }
        try {
            return new DemonstrationRecord((double[][][]) queries);
        } catch (InvalidArgumentException e) {
            throw wrong(e.getMessage());
        }
    }

    /** The sentence with file and the line read last. */
    DataException wrong(String what) {
        return new DataException(where() + ": " + what);
    }

    String where() {
        return line == 0 ? file.toString() : file + ":" + line;
    }

    private boolean nextLine() throws IOException {
        do {
            if (!lines.next()) {
                return false;
            }
            line++;
        } while (lines.blank());
        return true;
    }

    /** One object on the current line; of the known keys, 0 means a label and more the depth of nested lists of numbers. */
    private Map<String, Object> object(Map<String, Integer> known) throws IOException {
        Map<String, Object> fields = new HashMap<>();
        try (JsonParser json = JSON.createParser(lines)) {
            if (json.nextToken() != JsonToken.START_OBJECT) {
                throw wrong("is not a JSON object, expected one object per line");
            }
            while (json.nextToken() == JsonToken.FIELD_NAME) {
                String key = json.currentName();
                json.nextToken();
                Integer depth = known.get(key);
                if (depth == null || json.currentToken() == JsonToken.VALUE_NULL && OPTIONAL.contains(key)) {
                    json.skipChildren();
                } else {
                    fields.put(key, switch (depth) {
                        case 0 -> label(json, key);
                        case 2 -> rows(json, key);
                        default -> maps(json, key);
                    });
                }
            }
            if (json.nextToken() != null) {
                throw wrong("has something after the object, expected one object per line");
            }
        } catch (JsonProcessingException e) {
            String reason = e.getOriginalMessage().replaceAll("\\s+", " ");
            reason = reason.replaceAll(" *[(\\[]?(for Object )?start(ing|s)? (marker )?at \\[Source.*", "").strip();
            throw wrong("is not JSON: " + (reason.length() > 160 ? reason.substring(0, 160) : reason));
        } catch (CharConversionException e) {
            throw wrong("is not JSON in UTF-8");
        }
        return fields;
    }

    private String label(JsonParser json, String key) throws IOException {
        return switch (json.currentToken()) {
            case VALUE_NUMBER_INT -> json.getBigIntegerValue().toString();
            case VALUE_NUMBER_FLOAT -> integer(json, key);
            case VALUE_STRING -> json.getText();
            default -> throw wrong(key + " is " + name(json) + ", expected an integer or a string");
        };
    }

    /** Of a column with a gap in it array libraries make floats. */
    private String integer(JsonParser json, String key) throws IOException {
        double value = json.getDoubleValue();
        if (!(Math.abs(value) <= EXACT) || value != Math.rint(value)) {
            throw wrong(key + " is " + name(json) + ", expected an integer or a string");
        }
        return Long.toString((long) value);
    }

    private double[][][] maps(JsonParser json, String key) throws IOException {
        open(json, key);
        List<double[][]> out = new ArrayList<>();
        while (json.nextToken() != JsonToken.END_ARRAY) {
            out.add(rows(json, key + "[" + out.size() + "]"));
        }
        return out.toArray(double[][][]::new);
    }

    private double[][] rows(JsonParser json, String key) throws IOException {
        open(json, key);
        List<double[]> out = new ArrayList<>();
        while (json.nextToken() != JsonToken.END_ARRAY) {
            out.add(row(json, key, out.isEmpty() ? 64 : out.get(0).length, out.size()));
        }
        return out.toArray(double[][]::new);
    }

    private double[] row(JsonParser json, String key, int expected, int index) throws IOException {
        if (json.currentToken() != JsonToken.START_ARRAY) {
            open(json, key + "[" + index + "]");
        }
        double[] out = new double[Math.max(1, expected)];
        int n = 0;
        for (JsonToken token = json.nextToken(); token != JsonToken.END_ARRAY; token = json.nextToken()) {
            if (token != JsonToken.VALUE_NUMBER_FLOAT && token != JsonToken.VALUE_NUMBER_INT) {
                throw wrong(key + "[" + index + "][" + n + "] is " + name(json) + ", expected a number");
            }
            if (n == out.length) {
                out = Arrays.copyOf(out, 2 * n);
            }
            out[n++] = json.getDoubleValue();
        }
        return n == out.length ? out : Arrays.copyOf(out, n);
    }

    private void open(JsonParser json, String key) throws IOException {
        if (json.currentToken() != JsonToken.START_ARRAY) {
            throw wrong(key + " is " + name(json) + ", expected a list");
        }
    }

    private static String name(JsonParser json) throws IOException {
        return switch (json.currentToken()) {
            case START_ARRAY -> "a list";
            case START_OBJECT -> "an object";
            case VALUE_STRING -> "a string";
            default -> json.getText(); // a number, true, false or null
        };
    }

    @Override
    public void close() throws IOException {
        lines.close();
    }

    /** A stream that ends with each line, so that a broken record cannot swallow the next. */
    private static final class Lines extends InputStream {
        private final InputStream in;
        private final byte[] buffer = new byte[1 << 16];
        private int from;
        private int to;
        private boolean ended; // the current line, as handed out
        private boolean started;

        Lines(InputStream in) {
            this.in = in;
        }

        /** Skips what is left of this line; false at the end of the file. */
        boolean next() throws IOException {
            while (started && !ended) {
                if (read() < 0) {
                    break;
                }
            }
            started = true;
            ended = !fill();
            return !ended;
        }

        /** Passes over white space; whether the line has nothing else. */
        boolean blank() throws IOException {
            while (fill()) {
                byte b = buffer[from];
                if (b == '\n') {
                    return true;
                }
                if (b != ' ' && b != '\t' && b != '\r') {
                    return false;
                }
                from++;
            }
            return true;
        }

        private boolean fill() throws IOException {
            if (from == to) {
                from = 0;
                to = Math.max(0, in.read(buffer));
            }
            return from < to;
        }

        @Override
        public int read() throws IOException {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override
        public int read(byte[] out, int offset, int length) throws IOException {
            if (ended || !fill()) {
                ended = true;
                return -1;
            }
            int n = 0;
            int most = Math.min(length, to - from);
            while (n < most && buffer[from + n] != '\n') {
                out[offset + n] = buffer[from + n];
                n++;
            }
            from += n;
            if (n < most) {
                from++; // the end of the line
                ended = true;
            }
            return n == 0 && length > 0 ? -1 : n;
        }

        @Override
        public void close() throws IOException {
            in.close();
        }
    }
}
