package org.dualform.json;

import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Reads JSON from untrusted bytes, value by value, without recursion. Strict: RFC 8259 and nothing beyond it. Internal: shared by the
 * packages of dualform, no part of its API.
 *
 * <p>Threading: one thread at a time.
 */
public final class JsonScanner {
    private static final int MAX_DEPTH = 64;
    private static final int MAX_DIGITS = 400;

    /** What {@link #object} has in place of an object or array. */
    public static final Object SKIPPED = new Object() {
        @Override
        public String toString() {
            return "an object or array";
        }
    };

    private final String text;
    private int at;

    /**
     * Reads a document.
     *
     * @param utf8 its bytes, from position to limit
     * @throws JsonException if they are not UTF-8
     */
    public JsonScanner(ByteBuffer utf8) throws JsonException {
        try {
            text = StandardCharsets.UTF_8.newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .onUnmappableCharacter(CodingErrorAction.REPORT)
                    .decode(utf8)
                    .toString();
        } catch (CharacterCodingException e) {
            throw new JsonException("not valid UTF-8");
        }
    }

    private JsonException malformed(String expected) {
        String found = at >= text.length() ? "its end" : "'" + text.charAt(at) + "'";
        return new JsonException(found + " at character " + at + ", expected " + expected);
    }

    private void skipSpace() {
        while (at < text.length() && " \n\r\t".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    /**
     * Takes a character if it is next.
     *
     * @param c the character
     * @return whether it was
     */
    public boolean take(char c) {
        skipSpace();
        if (at < text.length() && text.charAt(at) == c) {
            at++;
            return true;
        }
        return false;
    }

    /**
     * Takes a character.
     *
     * @param c the character
     * @throws JsonException if something else is next
     */
    public void expect(char c) throws JsonException {
        if (!take(c)) {
            throw malformed("'" + c + "'");
        }
    }

    /**
     * Checks that nothing is left.
     *
     * @throws JsonException if something is
     */
    public void expectEnd() throws JsonException {
        skipSpace();
        if (at < text.length()) {
            throw malformed("the end");
        }
    }

    /**
     * A member's name and the colon after it.
     *
     * @return the name
     * @throws JsonException if something else is next
     */
    public String key() throws JsonException {
        String key = string();
        expect(':');
        return key;
    }

    /**
     * A string.
     *
     * @return its text
     * @throws JsonException if something else is next
     */
    public String string() throws JsonException {
        expect('"');
        StringBuilder value = new StringBuilder();
        while (true) {
            char c = next("'\"'");
            if (c == '"') {
                break;
            } else if (c == '\\') {
                value.append(escape());
            } else if (c < ' ') {
                at--;
                throw malformed("no control character in a string");
            } else {
                value.append(c);
            }
        }
        checkSurrogates(value);
        return value.toString();
    }

    private char next(String expected) throws JsonException {
        if (at >= text.length()) {
            throw malformed(expected);
        }
        return text.charAt(at++);
    }

    private char escape() throws JsonException {
        char c = next("an escape");
        switch (c) {
            case '"':
            case '\\':
            case '/':
                return c;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int i = 0; i < 4; i++) {
                    char digit = next("a hexadecimal digit");
                    int value = digit < 128 ? Character.digit(digit, 16) : -1;
                    if (value < 0) {
                        at--;
                        throw malformed("a hexadecimal digit");
                    }
                    code = 16 * code + value;
                }
                return (char) code;
            default:
                at--;
                throw malformed("an escape");
        }
    }

    private void checkSurrogates(CharSequence value) throws JsonException {
        for (int i = 0; i < value.length(); i++) {
            if (Character.isHighSurrogate(value.charAt(i)) && i + 1 < value.length() && Character.isLowSurrogate(value.charAt(i + 1))) {
                i++;
            } else if (Character.isSurrogate(value.charAt(i))) {
                throw new JsonException("half of a surrogate pair in the string before character " + at);
            }
        }
    }

    /**
     * A whole number from 0 to 2^63 - 1, written without fraction, exponent or leading zero.
     *
     * @return the number
     * @throws JsonException if something else is next
     */
    public long count() throws JsonException {
        skipSpace();
        int start = at;
        long value = 0;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            int digit = text.charAt(at) - '0';
            if (value > (Long.MAX_VALUE - digit) / 10) {
                throw malformed("a number below 2^63");
            }
            value = 10 * value + digit;
            at++;
        }
        boolean leadingZero = at - start > 1 && text.charAt(start) == '0';
        boolean continues = at < text.length() && (text.charAt(at) == '.' || text.charAt(at) == 'e' || text.charAt(at) == 'E');
        if (at == start || leadingZero || continues) {
            throw malformed("a whole number of at least 0");
        }
        return value;
    }

    /**
     * Reads a whole document that is an object.
     *
     * @return its members in their order: strings, booleans, numbers as {@link BigDecimal}, null; of an object or array, {@link #SKIPPED}
     * @throws JsonException if it is no object, or a name is there twice
     */
    public Map<String, Object> object() throws JsonException {
        Map<String, Object> members = new LinkedHashMap<>();
        expect('{');
        if (!take('}')) {
            do {
                String key = key();
                if (members.containsKey(key)) {
                    String shown = key.length() <= 80 ? key : key.substring(0, 80) + "...";
                    throw new JsonException("the name \"" + shown + "\" is there twice");
                }
                members.put(key, value());
            } while (take(','));
            expect('}');
        }
        expectEnd();
        return members;
    }

    private Object value() throws JsonException {
        skipSpace();
        char first = at < text.length() ? text.charAt(at) : ' ';
        if (first == '"') {
            return string();
        }
        int start = at;
        skipValue(1);
        String written = text.substring(start, at);
        return switch (first) {
            case '{', '[' -> SKIPPED;
            case 't', 'f' -> Boolean.valueOf(written);
            case 'n' -> null;
            default -> number(written);
        };
    }

    private BigDecimal number(String written) throws JsonException {
        try {
            if (written.length() <= MAX_DIGITS) {
                return new BigDecimal(written);
            }
        } catch (NumberFormatException e) {
            throw new JsonException("the number before character " + at + " has too large an exponent");
        }
        throw new JsonException("the number before character " + at + " has more than " + MAX_DIGITS + " characters");
    }

    /**
     * Passes over a value of any kind.
     *
     * @param depth objects and arrays that are open around it
     * @throws JsonException if it is malformed or nested too deeply
     */
    public void skipValue(int depth) throws JsonException {
        StringBuilder open = new StringBuilder();
        do {
            skipSpace();
            if (take('{')) {
                open(open, '}', depth);
                if (!closes(open)) {
                    key();
                    continue;
                }
            } else if (take('[')) {
                open(open, ']', depth);
                if (!closes(open)) {
                    continue;
                }
            } else {
                skipScalar();
            }
            while (open.length() > 0 && closes(open)) {
                // a value ended, and with it what was around it
            }
            if (open.length() > 0) {
                expect(',');
                if (open.charAt(open.length() - 1) == '}') {
                    key();
                }
            }
        } while (open.length() > 0);
    }

    private void open(StringBuilder open, char closing, int depth) throws JsonException {
        open.append(closing);
        if (depth + open.length() > MAX_DEPTH) {
            throw malformed("no more than " + MAX_DEPTH + " levels of nesting");
        }
    }

    private boolean closes(StringBuilder open) {
        if (take(open.charAt(open.length() - 1))) {
            open.setLength(open.length() - 1);
            return true;
        }
        return false;
    }

    private void skipScalar() throws JsonException {
        if (at < text.length() && text.charAt(at) == '"') {
            string();
            return;
        }
        for (String word : new String[] {"true", "false", "null"}) {
            if (text.startsWith(word, at)) {
                at += word.length();
                return;
            }
        }
        skipNumber();
    }

    private void skipNumber() throws JsonException {
        if (at < text.length() && text.charAt(at) == '-') {
            at++;
        }
        int start = at;
        skipDigits();
        if (at - start > 1 && text.charAt(start) == '0') {
            throw malformed("no leading zero");
        }
        if (at < text.length() && text.charAt(at) == '.') {
            at++;
            skipDigits();
        }
        if (at < text.length() && (text.charAt(at) == 'e' || text.charAt(at) == 'E')) {
            at++;
            if (at < text.length() && (text.charAt(at) == '+' || text.charAt(at) == '-')) {
                at++;
            }
            skipDigits();
        }
    }

    private void skipDigits() throws JsonException {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        if (at == start) {
            throw malformed("a value");
        }
    }
}
