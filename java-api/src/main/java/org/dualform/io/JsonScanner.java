package org.dualform.io;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;

/** Reads JSON from untrusted bytes, value by value, without recursion. Strict: RFC 8259 and nothing beyond it. */
final class JsonScanner {
    static final int MAX_DEPTH = 64;

    private final String text;
    private int at;

    JsonScanner(ByteBuffer utf8) throws SafetensorsException {
        try {
            text = StandardCharsets.UTF_8.newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .onUnmappableCharacter(CodingErrorAction.REPORT)
                    .decode(utf8)
                    .toString();
        } catch (CharacterCodingException e) {
            throw new SafetensorsException("header: not valid UTF-8");
        }
    }

    SafetensorsException malformed(String expected) {
        String found = at >= text.length() ? "its end" : "'" + text.charAt(at) + "'";
        return new SafetensorsException("header: " + found + " at character " + at + ", expected " + expected);
    }

    private void skipSpace() {
        while (at < text.length() && " \n\r\t".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    /** Takes a character if it is next. */
    boolean take(char c) {
        skipSpace();
        if (at < text.length() && text.charAt(at) == c) {
            at++;
            return true;
        }
        return false;
    }

    void expect(char c) throws SafetensorsException {
        if (!take(c)) {
            throw malformed("'" + c + "'");
        }
    }

    void expectEnd() throws SafetensorsException {
        skipSpace();
        if (at < text.length()) {
            throw malformed("the end");
        }
    }

    /** A member's name and the colon after it. */
    String key() throws SafetensorsException {
        String key = string();
        expect(':');
        return key;
    }

    String string() throws SafetensorsException {
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

    private char next(String expected) throws SafetensorsException {
        if (at >= text.length()) {
            throw malformed(expected);
        }
        return text.charAt(at++);
    }

    private char escape() throws SafetensorsException {
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

    private void checkSurrogates(CharSequence value) throws SafetensorsException {
        for (int i = 0; i < value.length(); i++) {
            if (Character.isHighSurrogate(value.charAt(i)) && i + 1 < value.length() && Character.isLowSurrogate(value.charAt(i + 1))) {
                i++;
            } else if (Character.isSurrogate(value.charAt(i))) {
                throw new SafetensorsException("header: half of a surrogate pair in the string before character " + at);
            }
        }
    }

    /** A whole number from 0 to 2^63 - 1, written without fraction, exponent or leading zero. */
    long count() throws SafetensorsException {
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

    /** Passes over a value of any kind; {@code depth} objects and arrays are open around it. */
    void skipValue(int depth) throws SafetensorsException {
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

    private void open(StringBuilder open, char closing, int depth) throws SafetensorsException {
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

    private void skipScalar() throws SafetensorsException {
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

    private void skipNumber() throws SafetensorsException {
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

    private void skipDigits() throws SafetensorsException {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        if (at == start) {
            throw malformed("a value");
        }
    }
}
