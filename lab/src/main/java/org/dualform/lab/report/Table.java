package org.dualform.lab.report;

import java.util.ArrayList;
import java.util.List;
import org.dualform.InvalidArgumentException;

/**
 * A table, for a page, a terminal or a file.
 *
 * <pre>{@code
 * Table.titled("Held-out loss").text("model").number("loss", 3).percent("accuracy", 1)
 *     .row("plain", 1.512, 0.893)
 *     .row("momentum", 1.498, null)
 *     .build().html();
 * }</pre>
 *
 * <p>Threading: immutable; a builder is for one thread.
 */
public final class Table {
    private enum Kind { TEXT, NUMBER, PERCENT }

    private record Column(String header, Kind kind, int decimals) {
        String show(Object value) {
            if (value == null) {
                return Numbers.NONE;
            }
            if (value instanceof Double || value instanceof Float) {
                double number = ((Number) value).doubleValue();
                return switch (kind) {
                    case TEXT -> Numbers.significant(number, 6);
                    case NUMBER -> Numbers.fixed(number, decimals);
                    case PERCENT -> Numbers.percent(number, decimals);
                };
            }
            return value instanceof Integer || value instanceof Long ? Numbers.fixed(((Number) value).doubleValue(), 0) : value.toString();
        }

        boolean isRight() {
            return kind != Kind.TEXT;
        }
    }

    private final String caption;
    private final List<Column> columns;
    private final List<Object[]> rows;

    private Table(Builder builder) {
        caption = builder.caption;
        columns = List.copyOf(builder.columns);
        rows = List.copyOf(builder.rows);
    }

    /**
     * Starts a table.
     *
     * @param caption what it shows, or an empty text
     * @return a builder without columns
     */
    public static Builder titled(String caption) {
        return new Builder(caption);
    }

    /**
     * Collects columns, then rows.
     *
     * <p>Threading: one thread at a time.
     */
    public static final class Builder {
        private final String caption;
        private final List<Column> columns = new ArrayList<>();
        private final List<Object[]> rows = new ArrayList<>();

        private Builder(String caption) {
            this.caption = caption;
        }

        /**
         * Adds a column of words, on the left.
         *
         * @param header of the column
         * @return this
         */
        public Builder text(String header) {
            return column(new Column(header, Kind.TEXT, 0));
        }

        /**
         * Adds a column of numbers, on the right; whole numbers have no decimals, and words are kept as they are.
         *
         * @param header of the column
         * @param decimals of float and double values
         * @return this
         */
        public Builder number(String header, int decimals) {
            return column(new Column(header, Kind.NUMBER, decimals));
        }

        /**
         * Adds a column of shares, shown as percent: 0.25 is 25 %.
         *
         * @param header of the column
         * @param decimals of the percentage
         * @return this
         */
        public Builder percent(String header, int decimals) {
            return column(new Column(header, Kind.PERCENT, decimals));
        }

        private Builder column(Column column) {
            columns.add(column);
            return this;
        }

        /**
         * Adds a row.
         *
         * @param cells one for each column; null and NaN show as a dash
         * @return this
         * @throws InvalidArgumentException when there are more or fewer than columns
         */
        public Builder row(Object... cells) {
            if (cells.length != columns.size()) {
                throw new InvalidArgumentException("row: " + cells.length + " cells, expected " + columns.size() + " as of columns");
            }
            rows.add(cells.clone());
            return this;
        }

        /**
         * The table.
         *
         * @return it
         */
        public Table build() {
            return new Table(this);
        }
    }

    /**
     * The table as an HTML element that is well-formed XML.
     *
     * @return the table element
     */
    public String html() {
        StringBuilder out = new StringBuilder("<table>\n");
        if (!caption.isEmpty()) {
            out.append("<caption>").append(Markup.escape(caption)).append("</caption>\n");
        }
        out.append("<thead><tr>");
        for (Column column : columns) {
            out.append("<th scope=\"col\"").append(column.isRight() ? " class=\"number\">" : ">").append(Markup.escape(column.header))
                .append("</th>");
        }
        out.append("</tr></thead>\n<tbody>\n");
        for (Object[] row : rows) {
            out.append("<tr>");
            for (int i = 0; i < row.length; i++) {
                Column column = columns.get(i);
                String name = i == 0 ? "th scope=\"row\"" : "td";
                out.append('<').append(name).append(column.isRight() ? " class=\"number\">" : ">")
                    .append(Markup.escape(column.show(row[i]))).append(i == 0 ? "</th>" : "</td>");
            }
            out.append("</tr>\n");
        }
        return out.append("</tbody>\n</table>").toString();
    }

    /**
     * The table in columns of characters, for a terminal.
     *
     * @return lines, each with an end
     */
    public String text() {
        int[] widths = new int[columns.size()];
        for (int i = 0; i < widths.length; i++) {
            widths[i] = length(columns.get(i).header);
            for (Object[] row : rows) {
                widths[i] = Math.max(widths[i], length(columns.get(i).show(row[i])));
            }
        }
        StringBuilder out = new StringBuilder();
        if (!caption.isEmpty()) {
            out.append(caption).append('\n');
        }
        List<String> cells = new ArrayList<>();
        columns.forEach(column -> cells.add(column.header));
        line(out, cells, widths);
        for (Object[] row : rows) {
            cells.clear();
            for (int i = 0; i < row.length; i++) {
                cells.add(columns.get(i).show(row[i]));
            }
            line(out, cells, widths);
        }
        return out.toString();
    }

    private void line(StringBuilder out, List<String> cells, int[] widths) {
        StringBuilder line = new StringBuilder();
        for (int i = 0; i < widths.length; i++) {
            String room = " ".repeat(widths[i] - length(cells.get(i)));
            line.append(i == 0 ? "" : "  ").append(columns.get(i).isRight() ? room + cells.get(i) : cells.get(i) + room);
        }
        out.append(line.toString().stripTrailing()).append('\n');
    }

    private static int length(String text) {
        return text.codePointCount(0, text.length());
    }

    /**
     * The table with its exact numbers.
     *
     * @return the same header and rows, to be saved
     */
    public Csv csv() {
        Csv csv = new Csv(columns.stream().map(Column::header).toArray(String[]::new));
        rows.forEach(csv::row);
        return csv;
    }
}
