package org.dualform.lab.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.commons.csv.CSVFormat;
import org.apache.commons.csv.CSVParser;
import org.apache.commons.csv.CSVRecord;
import org.dualform.InvalidArgumentException;

/**
 * Labelled text from files, by the end of their names, each also compressed with {@code .gz} or {@code .xz}:
 *
 * <ul>
 *   <li>{@code .tsv}, {@code .txt}: label, tab, text; no header; further tabs belong to the text.
 *   <li>{@code .jsonl}, {@code .ndjson}, {@code .json}: one object per line, with {@code label}; its other strings, numbers and booleans
 *       are the fields.
 *   <li>{@code .csv}: a header with {@code label}, the other columns are the fields; quoted as in RFC 4180.
 * </ul>
 *
 * <p>A field {@code sentence} is also known as {@code text} if there is none of that name. Blank fields are left out, and an example
 * without any field is an error. Blank lines are skipped. A label is a whole number from 0, or one of the names of the labels where they
 * are given. A file is UTF-8, at most 1 GiB, a line at most 16 MiB.
 *
 * <p>Threading: safe for concurrent use.
 */
public final class LabelledData {
    private static final int LONGEST_LINE = 16 << 20;
    private static final int SHOWN = 40;
    private static final String LABEL = "label";
    private static final String SENTENCE = "sentence";
    private static final Pattern WHOLE_NUMBER = Pattern.compile("[+-]?[0-9]+");
    private static final ObjectReader JSON = JsonMapper.builder().build().readerFor(JsonNode.class)
            .with(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .with(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    private final Path file;
    private final int classes;
    private final List<String> names;
    private final boolean numbersAreNames;
    private final List<LabelledText> examples = new ArrayList<>();

    private LabelledData(Path file, int classes, List<String> names) {
        this.file = file;
        this.classes = classes;
        this.names = names;
        numbersAreNames = names.stream().anyMatch(name -> WHOLE_NUMBER.matcher(name).matches());
    }

    /**
     * Reads a file whose labels are numbers.
     *
     * @param file TSV, JSONL or CSV
     * @param classes labels are 0 to one less
     * @return at least one example, in the order of the file
     * @throws DataException if the file or a line of it cannot be used; the sentence names them
     * @throws IOException if it cannot be read
     * @throws InvalidArgumentException if classes is less than 1
     */
    public static List<LabelledText> read(Path file, int classes) throws IOException {
        if (classes < 1) {
            throw new InvalidArgumentException("classes: " + classes + ", expected at least 1");
        }
        return new LabelledData(file, classes, List.of()).read();
    }

    /**
     * Reads a file whose labels are numbers or names. If a name is itself a whole number, labels are taken for names only.
     *
     * @param file TSV, JSONL or CSV
     * @param labelNames in label order, exactly as in the file
     * @return at least one example, in the order of the file
     * @throws DataException if the file or a line of it cannot be used; the sentence names them
     * @throws IOException if it cannot be read
     * @throws InvalidArgumentException if there is no name, or one twice
     */
    public static List<LabelledText> read(Path file, List<String> labelNames) throws IOException {
        if (labelNames.isEmpty() || labelNames.stream().distinct().count() != labelNames.size()) {
            throw new InvalidArgumentException("label names: " + labelNames + ", expected at least one, and none twice");
        }
        return new LabelledData(file, labelNames.size(), List.copyOf(labelNames)).read();
    }

    private List<LabelledText> read() throws IOException {
        try (Utf8Lines lines = new Utf8Lines(file, LONGEST_LINE)) {
            String name = file.getFileName().toString().toLowerCase(Locale.ROOT).replaceFirst("\\.(gz|xz)$", "");
            switch (name.substring(name.lastIndexOf('.') + 1)) {
                case "tsv", "txt" -> readTsv(lines);
                case "jsonl", "ndjson", "json" -> readJson(lines);
                case "csv" -> readCsv(lines);
                default -> throw new DataException(file
                        + ": unknown format, expected a name that ends in .tsv, .jsonl or .csv, also with .gz or .xz");
            }
        }
        if (examples.isEmpty()) {
            throw new DataException(file + ": no examples, expected at least one");
        }
        return examples;
    }

    private void readTsv(Utf8Lines lines) throws IOException {
        for (String line = lines.next(); line != null; line = lines.next()) {
            if (line.isBlank()) {
                continue;
            }
            int tab = line.indexOf('\t');
            if (tab < 0) {
                throw lines.error("no tab, expected label, tab, text");
            }
            add(lines.number(), line.substring(0, tab), Map.of(LabelledText.TEXT, withoutLineEnd(line.substring(tab + 1))));
        }
    }

    private void readJson(Utf8Lines lines) throws IOException {
        for (String line = lines.next(); line != null; line = lines.next()) {
            if (line.isBlank()) {
                continue;
            }
            JsonNode json;
            try {
                json = JSON.readTree(line);
            } catch (JsonProcessingException e) {
                throw lines.error("not JSON (" + brief(e.getOriginalMessage()) + "), expected one object in a line");
            }
            if (!json.isObject()) {
                throw lines.error("not a JSON object, expected one object in a line");
            }
            Map<String, String> fields = new LinkedHashMap<>();
            String label = null;
            for (Map.Entry<String, JsonNode> entry : json.properties()) {
                JsonNode value = entry.getValue();
                if (value.isContainerNode()) {
                    throw lines.error("\"" + brief(entry.getKey()) + "\" is a list or an object, expected text or a number");
                }
                if (value.isNull()) {
                    continue;
                }
                if (entry.getKey().equals(LABEL)) {
                    label = value.asText();
                } else {
                    fields.put(entry.getKey(), value.asText());
                }
            }
            add(lines.number(), label, fields);
        }
    }

    private void readCsv(Utf8Lines lines) throws IOException {
        StringBuilder all = new StringBuilder();
        for (String line = lines.next(); line != null; line = lines.next()) {
            all.append(line);
        }
        String text = all.toString();
        List<String> columns = null;
        int counted = 0;
        long line = 1;
        long ended = 0;
        try (CSVParser parser = CSVParser.parse(text, CSVFormat.DEFAULT)) {
            Iterator<CSVRecord> records = parser.iterator();
            while (records.hasNext()) {
                CSVRecord record = records.next();
                ended = parser.getCurrentLineNumber();
                // A record's position is before the blank lines that precede it.
                while (counted < record.getCharacterPosition() || text.charAt(counted) == '\n' || text.charAt(counted) == '\r') {
                    line += text.charAt(counted++) == '\n' ? 1 : 0;
                }
                if (record.size() == 1 && record.get(0).isBlank()) {
                    continue;
                }
                if (columns == null) {
                    columns = columns(record.toList(), line);
                } else {
                    addRecord(line, columns, record.toList());
                }
            }
        } catch (UncheckedIOException e) {
            throw new DataException(file + ":" + (ended + 1) + ": not CSV, expected a closing quote, then a comma or the end of the line");
        }
    }

    private List<String> columns(List<String> header, long line) throws DataException {
        String where = file + ":" + line + ": ";
        if (!header.contains(LABEL)) {
            throw new DataException(where + "no column \"label\", only " + brief(String.join(", ", header)));
        }
        for (int i = 0; i < header.size(); i++) {
            String name = header.get(i);
            if (name.isBlank() || header.indexOf(name) < i) {
                throw new DataException(where + "column " + (i + 1) + ": name \"" + brief(name) + "\", expected one that no other has");
            }
        }
        return header;
    }

    private void addRecord(long line, List<String> columns, List<String> values) throws DataException {
        if (values.size() != columns.size()) {
            throw new DataException(file + ":" + line + ": " + values.size() + " columns, expected " + columns.size());
        }
        Map<String, String> fields = new LinkedHashMap<>();
        for (int i = 0; i < columns.size(); i++) {
            fields.put(columns.get(i), values.get(i));
        }
        add(line, fields.remove(LABEL), fields);
    }

    private void add(long line, String label, Map<String, String> given) throws DataException {
        String where = file + ":" + line + ": ";
        if (label == null || label.isBlank()) {
            throw new DataException(where + "no label, expected " + expected());
        }
        Map<String, String> fields = new LinkedHashMap<>();
        for (Map.Entry<String, String> field : given.entrySet()) {
            if (!field.getValue().isBlank()) {
                fields.put(field.getKey(), field.getValue());
            }
        }
        if (!fields.containsKey(LabelledText.TEXT) && fields.containsKey(SENTENCE)) {
            fields.put(LabelledText.TEXT, fields.get(SENTENCE));
        }
        if (fields.isEmpty()) {
            throw new DataException(where + "no text, expected some after the label");
        }
        examples.add(new LabelledText(fields, labelOf(label.strip(), where), file, line));
    }

    private int labelOf(String label, String where) throws DataException {
        int byName = names.indexOf(label);
        if (byName >= 0) {
            return byName;
        }
        boolean number = WHOLE_NUMBER.matcher(label).matches();
        if (number && !numbersAreNames && label.length() < 10) {
            int value = Integer.parseInt(label);
            if (value >= 0 && value < classes) {
                return value;
            }
        }
        String shown = number ? brief(label) : "\"" + brief(label) + "\"";
        throw new DataException(where + "label " + shown + ", expected " + expected());
    }

    private String expected() {
        String numbers = "0 to " + (classes - 1);
        if (names.isEmpty()) {
            return numbers;
        }
        return (numbersAreNames ? "" : numbers + " or ") + "one of " + String.join(", ", names);
    }

    private static String withoutLineEnd(String line) {
        int end = line.length();
        while (end > 0 && (line.charAt(end - 1) == '\n' || line.charAt(end - 1) == '\r')) {
            end--;
        }
        return line.substring(0, end);
    }

    /** A text from a file as an error shows it: one line, not long. */
    static String brief(String text) {
        String line = text.replaceAll("\\p{Cntrl}+", " ");
        int shown = Math.min(line.length(), SHOWN);
        return line.substring(0, shown) + (shown < line.length() ? "..." : "");
    }
}
