package org.dualform.lab.data;

import com.knuddels.jtokkit.Encodings;
import com.knuddels.jtokkit.api.Encoding;
import com.knuddels.jtokkit.api.EncodingType;
import com.knuddels.jtokkit.api.IntArrayList;
import java.nio.charset.StandardCharsets;

/**
 * Byte-level BPE of GPT-2: 50,257 tokens, the last of which ends a text. Every text has tokens that give it back. Half of a surrogate pair,
 * which is no character, is encoded as the replacement character. Which characters are letters or digits is what this Java's Unicode
 * version says, so a script newer than that may be cut differently elsewhere.
 *
 * <p>Threading: immutable.
 */
public final class Gpt2Tokenizer implements Tokenizer {
    static final String NAME = "gpt2";
    private static final int VOCABULARY = 50257;
    private static final int END_OF_TEXT = 50256;

    /** The vocabulary takes a noticeable part of a second to read, so it is read once, and only when needed. */
    private static final class Vocabulary {
        static final Encoding ENCODING = Encodings.newLazyEncodingRegistry().getEncoding(EncodingType.R50K_BASE);
    }

    /** The tokenizer; all are equal. */
    public Gpt2Tokenizer() {}

    @Override
    public String name() {
        return NAME;
    }

    @Override
    public int vocabularySize() {
        return VOCABULARY;
    }

    @Override
    public int endOfText() {
        return END_OF_TEXT;
    }

    @Override
    public int[] encode(String text) {
        return Vocabulary.ENCODING.encodeOrdinary(withoutLoneSurrogates(text)).toArray();
    }

    /**
     * The text of tokens.
     *
     * @param tokens below 50,257
     * @return the text; bytes that are not UTF-8 become the replacement character, end of text {@code <|endoftext|>}
     * @throws org.dualform.InvalidArgumentException if a token is not in the vocabulary
     */
    @Override
    public String decode(int... tokens) {
        IntArrayList list = new IntArrayList(tokens.length);
        for (int token : tokens) {
            list.add(Tokenizers.checked(token, VOCABULARY));
        }
        return new String(Vocabulary.ENCODING.decodeBytes(list), StandardCharsets.UTF_8);
    }

    private static String withoutLoneSurrogates(String text) {
        StringBuilder changed = null;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (!Character.isSurrogate(c)) {
                continue;
            }
            if (Character.isHighSurrogate(c) && i + 1 < text.length() && Character.isLowSurrogate(text.charAt(i + 1))) {
                i++;
                continue;
            }
            if (changed == null) {
                changed = new StringBuilder(text);
            }
            changed.setCharAt(i, '\uFFFD');
        }
        return changed == null ? text : changed.toString();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Gpt2Tokenizer;
    }

    @Override
    public int hashCode() {
        return VOCABULARY;
    }

    @Override
    public String toString() {
        return NAME + " (" + VOCABULARY + ")";
    }
}
