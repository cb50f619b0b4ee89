package org.dualform.lab.data;

/**
 * Text to token ids and back.
 *
 * <p>Threading: safe for concurrent use.
 */
public interface Tokenizer {
    /**
     * Its name, as on the command line and in {@code tokenizer.json}.
     *
     * @return {@code gpt2} or {@code chars}
     */
    String name();

    /**
     * Size of the vocabulary.
     *
     * @return ids are below this
     */
    int vocabularySize();

    /**
     * The token that ends a text, begins a prompt and separates demonstrations.
     *
     * @return its id
     */
    int endOfText();

    /**
     * Tokens of a text. A special token written out in the text is text.
     *
     * @param text any text
     * @return its ids
     */
    int[] encode(String text);

    /**
     * The text of tokens.
     *
     * @param ids below {@link #vocabularySize}
     * @return the text; bytes that are not UTF-8 become the replacement character
     */
    String decode(int... ids);
}
