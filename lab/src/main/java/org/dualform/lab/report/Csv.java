package org.dualform.lab.report;

import java.io.IOException;
import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.apache.commons.csv.CSVFormat;
import org.dualform.InvalidArgumentException;

/**
 * Comma-separated values, quoted as RFC 4180 says, with a line feed after every row. Numbers are as in Java, so doubles come back exactly
 * as they went in, and {@code NaN} is NaN; null is an empty field.
 *
 * <p>Threading: one thread at a time.
 */
public final class Csv {
    private static final CSVFormat FORMAT = CSVFormat.RFC4180.builder().setRecordSeparator('\n').get();

    private final int digits;
    private final int columns;
    private final StringBuilder text = new StringBuilder();

    /**
     * An empty file with exact numbers.
     *
     * @param header names of the columns
     */
    public Csv(String... header) {
        this(0, header);
    }

    /**
     * An empty file with rounded numbers.
     *
     * @param digits significant digits of float and double values, or 0 for all that it takes
     * @param header names of the columns
     * @throws InvalidArgumentException when there is no column, or digits is negative
     */
    public Csv(int digits, String... header) {
        if (header.length == 0 || digits < 0) {
            throw new InvalidArgumentException(header.length + " columns, " + digits + " digits, expected at least 1 and 0");
        }
        this.digits = digits;
        columns = header.length;
        append((Object[]) header);
    }

    /**
     * Adds a row.
     *
     * @param fields one for each column: text, numbers, booleans or null
     * @return this
     * @throws InvalidArgumentException when there are more or fewer than columns
     */
    public Csv row(Object... fields) {
        if (fields.length != columns) {
            throw new InvalidArgumentException("row: " + fields.length + " fields, expected " + columns);
        }
        append(fields);
        return this;
    }

    /**
     * The file so far.
     *
     * @return header and rows
     */
    public String text() {
        return text.toString();
    }

    /**
     * Writes the file, whole or not at all.
     *
     * @param file where to; its folder is created when it is not there
     * @throws IOException when the file cannot be written
     */
    public void save(Path file) throws IOException {
        TextFile.write(file, text());
    }

    private void append(Object... fields) {
        List<String> values = new ArrayList<>();
        for (Object field : fields) {
            values.add(field == null ? "" : digits > 0 && (field instanceof Double || field instanceof Float)
                ? rounded(((Number) field).doubleValue()) : field.toString());
        }
        text.append(FORMAT.format(values.toArray())).append('\n');
    }

    private String rounded(double value) {
        return Double.isFinite(value) ? new BigDecimal(value).round(new MathContext(digits, RoundingMode.HALF_EVEN)).toString()
            : Double.toString(value);
    }
}
