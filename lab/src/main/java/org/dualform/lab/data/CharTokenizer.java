package org.dualform.lab.data;

import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.dualform.InvalidArgumentException;

/**
 * One token per character (Unicode code point): 0 is unknown, 1 is end of text, then the characters of the text it was made from.
 *
 * <p>Threading: immutable.
 */
public final class CharTokenizer implements Tokenizer {
    /** The token of every character that is not in the vocabulary. */
    public static final int UNKNOWN = 0;
    /** The token that ends a text. */
    public static final int END_OF_TEXT = 1;

    static final String NAME = "chars";
    static final String END_OF_TEXT_WRITTEN = "<|endoftext|>";
    private static final int FIRST_CHARACTER = 2;
    private static final int DIRECT = 1 << 10;

    private final int[] characters;
    private final Map<Integer, Integer> ids;
    /** Ids of the characters below {@link #DIRECT}: nearly all there are, without a map. */
    private final int[] direct = new int[DIRECT];

    private CharTokenizer(int[] characters) {
        this.characters = characters;
        ids = new HashMap<>(2 * characters.length);
        for (int i = 0; i < characters.length; i++) {
            int id = FIRST_CHARACTER + i;
            if (!Character.isValidCodePoint(characters[i]) || isSurrogate(characters[i])) {
                throw new InvalidArgumentException("characters: " + written(characters[i]) + " is half of a surrogate pair");
            }
            if (ids.put(characters[i], id) != null) {
                throw new InvalidArgumentException("characters: " + written(characters[i]) + " twice, expected once");
            }
            if (characters[i] < DIRECT) {
                direct[characters[i]] = id;
            }
        }
        if (characters.length == 0) {
            throw new InvalidArgumentException("characters: none, expected at least one");
        }
    }

    /**
     * The tokenizer of the characters of a text, in code-point order. Halves of surrogate pairs stay unknown.
     *
     * @param text not empty
     * @return the tokenizer
     * @throws InvalidArgumentException if there is no character
     */
    public static CharTokenizer of(String text) {
        return of(List.of(text));
    }

    /**
     * The tokenizer of the characters of several texts, in code-point order. Halves of surrogate pairs stay unknown.
     *
     * @param texts not all empty
     * @return the tokenizer
     * @throws InvalidArgumentException if there is no character
     */
    public static CharTokenizer of(List<String> texts) {
        boolean[] seen = new boolean[Character.MAX_CODE_POINT + 1];
        for (String text : texts) {
            for (int i = 0; i < text.length();) {
                int c = text.codePointAt(i);
                seen[c] = !isSurrogate(c);
                i += Character.charCount(c);
            }
        }
        int[] characters = new int[seen.length];
        int count = 0;
        for (int c = 0; c < seen.length; c++) {
            if (seen[c]) {
                characters[count++] = c;
            }
        }
        return new CharTokenizer(Arrays.copyOf(characters, count));
    }

    /** The tokenizer whose ids 2, 3, ... are these characters in this order. */
    static CharTokenizer ofVocabulary(String characters) {
        return new CharTokenizer(characters.codePoints().toArray());
    }

    /**
     * The vocabulary.
     *
     * @return the characters of ids 2, 3, ...
     */
    public String characters() {
        return new String(characters, 0, characters.length);
    }

    @Override
    public String name() {
        return NAME;
    }

    @Override
    public int vocabularySize() {
        return FIRST_CHARACTER + characters.length;
    }

    @Override
    public int endOfText() {
        return END_OF_TEXT;
    }

    @Override
    public int[] encode(String text) {
        int[] tokens = new int[text.codePointCount(0, text.length())];
        int at = 0;
        for (int i = 0; i < tokens.length; i++) {
            int c = text.codePointAt(at);
            tokens[i] = c < DIRECT ? direct[c] : ids.getOrDefault(c, UNKNOWN);
            at += Character.charCount(c);
        }
        return tokens;
    }

    /**
     * The text of tokens.
     *
     * @param tokens below {@link #vocabularySize}
     * @return the characters; the replacement character for unknown, {@code <|endoftext|>} for end of text
     * @throws InvalidArgumentException if a token is not in the vocabulary
     */
    @Override
    public String decode(int... tokens) {
        StringBuilder text = new StringBuilder(tokens.length);
        for (int token : tokens) {
            Tokenizers.checked(token, vocabularySize());
            if (token == UNKNOWN) {
                text.append('\uFFFD');
            } else if (token == END_OF_TEXT) {
                text.append(END_OF_TEXT_WRITTEN);
            } else {
                text.appendCodePoint(characters[token - FIRST_CHARACTER]);
            }
        }
        return text.toString();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof CharTokenizer that && Arrays.equals(characters, that.characters);
    }

    @Override
    public int hashCode() {
        return Arrays.hashCode(characters);
    }

    @Override
    public String toString() {
        return NAME + " (" + vocabularySize() + ")";
    }

    private static boolean isSurrogate(int c) {
        return c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE;
    }

    private static String written(int c) {
        return String.format(Locale.ROOT, "U+%04X", c);
    }
}
