package org.dualform.lab.data;

import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * One example of a classification task.
 *
 * <p>Threading: immutable.
 *
 * @param fields what a template may use, by name, in the order of the file; none is blank. The text of a single-text example is
 *     {@code text}, whatever else it is called.
 * @param label from 0
 * @param file where it is from
 * @param line number of the line it begins at, from 1
 */
public record LabelledText(Map<String, String> fields, int label, Path file, long line) {
    /** The field of a single-text example. */
    public static final String TEXT = "text";

    /**
     * Copies the fields.
     *
     * @param fields what a template may use, by name; none is blank
     * @param label from 0
     * @param file where it is from
     * @param line number of the line it begins at, from 1
     */
    public LabelledText {
        fields = Collections.unmodifiableMap(new LinkedHashMap<>(fields));
    }

    /**
     * The text of a single-text example.
     *
     * @return field {@code text}
     * @throws DataException if it has none; the sentence names the file and line
     */
    public String text() throws DataException {
        return field(TEXT);
    }

    /**
     * One field.
     *
     * @param name such as {@code premise}
     * @return its text, not blank
     * @throws DataException if there is none; the sentence names the file and line
     */
    public String field(String name) throws DataException {
        String value = fields.get(name);
        if (value == null) {
            throw new DataException(where() + ": no \"" + name + "\", only " + String.join(", ", fields.keySet()));
        }
        return value;
    }

    /**
     * Where it is from, as an error begins.
     *
     * @return file and line
     */
    public String where() {
        return file + ":" + line;
    }
}
