package org.dualform.cli;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** JSON as Map, List, String, Double, Long, Boolean and null. Reads only what the backends say of themselves. */
final class Json {
    private final String text;
    private int at;

    private Json(String text) {
        this.text = text;
    }

    static String write(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out, "");
        return out.toString();
    }

    /** The same without a line break. */
    static String line(Object value) {
        StringBuilder out = new StringBuilder();
        write(value, out, null);
        return out.toString();
    }

    /** Each entry of a map in a line of its own, unless the indent is null. */
    private static void write(Object value, StringBuilder out, String indent) {
        String inner = indent == null ? null : indent + "  ";
        if (value instanceof Map<?, ?> map && !map.isEmpty()) {
            String start = indent == null ? "" : '\n' + inner;
            String separator = "{" + start;
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                out.append(separator).append(quote(entry.getKey().toString())).append(": ");
                write(entry.getValue(), out, inner);
                separator = indent == null ? ", " : "," + start;
            }
            out.append(indent == null ? "" : '\n' + indent).append('}');
        } else if (value instanceof Map) {
            out.append("{}");
        } else if (value instanceof List<?> list) {
            out.append('[');
            for (int i = 0; i < list.size(); i++) {
                out.append(i == 0 ? "" : ", ");
                write(list.get(i), out, inner);
            }
            out.append(']');
        } else if (value == null || value instanceof Boolean || value instanceof Number) {
            out.append(value);
        } else {
            out.append(quote(value.toString()));
        }
    }

    private static String quote(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    /** Throws IllegalArgumentException where the text is not JSON. */
    static Object read(String text) {
        Json json = new Json(text);
        Object value = json.value();
        json.skipBlanks();
        if (json.at < text.length()) {
            throw json.unexpected();
        }
        return value;
    }

    private Object value() {
        skipBlanks();
        char c = peek();
        if (c == '{') {
            return object();
        }
        if (c == '[') {
            return array();
        }
        if (c == '"') {
            return string();
        }
        int from = at;
        while (at < text.length() && "{}[],:\" \t\r\n".indexOf(text.charAt(at)) < 0) {
            at++;
        }
        String word = text.substring(from, at);
        return switch (word) {
            case "true" -> true;
            case "false" -> false;
            case "null" -> null;
            default -> number(word, from);
        };
    }

    private Object number(String word, int from) {
        try {
            return word.matches("-?\\d{1,18}") ? (Object) Long.valueOf(word) : (Object) Double.valueOf(word);
        } catch (NumberFormatException e) {
            at = from;
            throw unexpected();
        }
    }

    private Map<String, Object> object() {
        Map<String, Object> map = new LinkedHashMap<>();
        for (expect('{'); !closes('}', map.isEmpty()); ) {
            String key = string();
            skipBlanks();
            expect(':');
            map.put(key, value());
        }
        return map;
    }

    private List<Object> array() {
        List<Object> list = new ArrayList<>();
        for (expect('['); !closes(']', list.isEmpty()); ) {
            list.add(value());
        }
        return list;
    }

    /** At an element's start: whether the end comes instead; takes the comma between elements. */
    private boolean closes(char end, boolean first) {
        skipBlanks();
        if (peek() == end) {
            at++;
            return true;
        }
        if (!first) {
            expect(',');
            skipBlanks();
        }
        return false;
    }

    private String string() {
        StringBuilder out = new StringBuilder();
        for (expect('"'); peek() != '"'; at++) {
            if (peek() == '\\') {
                at++;
                switch (peek()) {
                    case 'n' -> out.append('\n');
                    case 't' -> out.append('\t');
                    case 'u' -> {
                        if (at + 5 > text.length()) {
                            throw unexpected();
                        }
                        out.append((char) Integer.parseInt(text.substring(at + 1, at + 5), 16));
                        at += 4;
                    }
                    default -> out.append(peek());
                }
            } else {
                out.append(peek());
            }
        }
        at++;
        return out.toString();
    }

    private void skipBlanks() {
        while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
            at++;
        }
    }

    private char peek() {
        if (at >= text.length()) {
            throw unexpected();
        }
        return text.charAt(at);
    }

    private void expect(char c) {
        if (peek() != c) {
            throw unexpected();
        }
        at++;
    }

    private IllegalArgumentException unexpected() {
        return new IllegalArgumentException("not JSON at character " + at);
    }
}
