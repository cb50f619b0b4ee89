package org.dualform.lab.data;

import java.io.IOException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.function.LongConsumer;
import org.dualform.InvalidArgumentException;

/**
 * Text in tokens: each document after one end-of-text token. At most 2,147,483,639 tokens.
 *
 * <p>Threading: immutable, if nobody changes the array.
 *
 * @param tokenizer what the tokens mean
 * @param tokens ids below its vocabulary size
 */
public record Corpus(Tokenizer tokenizer, int[] tokens) {
    /** Large enough that a call costs nothing beside it, small enough that progress is seen. */
    private static final int PIECE = 1 << 16;
    private static final int MOST_TOKENS = Integer.MAX_VALUE - 8;

    /**
     * Two parts of a corpus.
     *
     * <p>Threading: immutable, if nobody changes the arrays.
     *
     * @param training the first tokens
     * @param validation the rest
     */
    public record Split(int[] training, int[] validation) {}

    /**
     * Reads text files, or token files ({@link TokenFile}), with a tokenizer by name.
     *
     * @param files text or token files, not both
     * @param tokenizer {@code gpt2} or {@code chars}; token files must have been made with it (null: with any)
     * @param progress told the characters encoded so far, now and then
     * @return the corpus
     * @throws DataException if a file cannot be used
     * @throws IOException if a file cannot be read
     * @throws InvalidArgumentException if there is no file or no such tokenizer
     */
    public static Corpus read(List<Path> files, String tokenizer, LongConsumer progress) throws IOException {
        if (hasTokens(files)) {
            Corpus corpus = readTokens(files);
            if (tokenizer != null && !corpus.tokenizer.name().equals(tokenizer)) {
                throw new DataException(files.get(0) + ": tokens of tokenizer " + corpus.tokenizer.name() + ", expected " + tokenizer);
            }
            return corpus;
        }
        if (tokenizer == null) {
            throw new InvalidArgumentException("tokenizer: null, expected gpt2 or chars for text files");
        }
        List<String> documents = TextFiles.read(files);
        return encode(Tokenizers.named(tokenizer, documents), documents, progress);
    }

    /**
     * Reads text files, or token files ({@link TokenFile}), with a tokenizer there already is.
     *
     * @param files text or token files, not both
     * @param tokenizer of the model; token files must have been made with an equal one
     * @param progress told the characters encoded so far, now and then
     * @return the corpus
     * @throws DataException if a file cannot be used
     * @throws IOException if a file cannot be read
     * @throws InvalidArgumentException if there is no file
     */
    public static Corpus read(List<Path> files, Tokenizer tokenizer, LongConsumer progress) throws IOException {
        if (!hasTokens(files)) {
            return encode(tokenizer, TextFiles.read(files), progress);
        }
        Corpus corpus = readTokens(files);
        if (!corpus.tokenizer.equals(tokenizer)) {
            throw new DataException(files.get(0) + ": tokens of another tokenizer, " + corpus.tokenizer + ", expected that of the model, "
                    + tokenizer);
        }
        return corpus;
    }

    private static boolean hasTokens(List<Path> files) throws DataException {
        if (files.isEmpty()) {
            throw new InvalidArgumentException("files: none, expected at least one");
        }
        boolean first = TokenFile.isTokenFile(files.get(0));
        for (Path file : files) {
            if (TokenFile.isTokenFile(file) != first) {
                throw new DataException(file + ": " + (first ? "text" : "tokens") + ", expected " + (first ? "tokens" : "text") + " as in "
                        + files.get(0));
            }
        }
        return first;
    }

    private static Corpus readTokens(List<Path> files) throws IOException {
        Growing all = new Growing(1 << 10);
        Tokenizer tokenizer = null;
        for (Path file : files) {
            Corpus part = TokenFile.read(file);
            if (tokenizer != null && !tokenizer.equals(part.tokenizer)) {
                throw new DataException(file + ": tokens of another tokenizer than " + files.get(0));
            }
            if (files.size() == 1) {
                return part;
            }
            tokenizer = part.tokenizer;
            all.add(part.tokens);
        }
        return new Corpus(tokenizer, all.toArray());
    }

    /**
     * Encodes documents, one end-of-text token before each. Long ones are encoded piece by piece, cut before the last space or line feed of
     * a run of white space: there the tokenizers of this package cut too, so the tokens are those of the whole text.
     *
     * @param tokenizer one of this package
     * @param documents any texts
     * @param progress told the characters encoded so far, now and then
     * @return the corpus
     * @throws InvalidArgumentException if there are too many tokens
     */
    public static Corpus encode(Tokenizer tokenizer, List<String> documents, LongConsumer progress) {
        long characters = 0;
        for (String document : documents) {
            characters += document.length();
        }
        Growing tokens = new Growing((int) Math.min(characters / 4 + 1024, MOST_TOKENS));
        int[] endOfText = {tokenizer.endOfText()};
        long done = 0;
        for (String document : documents) {
            tokens.add(endOfText);
            for (int from = 0; from < document.length();) {
                int to = cut(document, from + (long) PIECE);
                tokens.add(tokenizer.encode(document.substring(from, to)));
                done += to - from;
                from = to;
                progress.accept(done);
            }
        }
        return new Corpus(tokenizer, tokens.toArray());
    }

    /** The first place from a position on where a text may be cut: before a space or line feed that visible ASCII follows. */
    static int cut(String text, long atLeast) {
        for (long at = atLeast; at < text.length() - 1; at++) {
            char c = text.charAt((int) at);
            char next = text.charAt((int) at + 1);
            if ((c == ' ' || c == '\n') && next > ' ' && next < 0x7f) {
                return (int) at;
            }
        }
        return text.length();
    }

    /**
     * The last part for validation.
     *
     * @param validation which fraction of the tokens, in [0, 1)
     * @return the parts, in order; nothing is shuffled, so no text stands in both
     * @throws InvalidArgumentException if the fraction is out of range
     */
    public Split split(double validation) {
        if (!(validation >= 0 && validation < 1)) {
            throw new InvalidArgumentException("validation: " + validation + ", expected at least 0 and less than 1");
        }
        int training = tokens.length - (int) (tokens.length * validation);
        return new Split(Arrays.copyOf(tokens, training), Arrays.copyOfRange(tokens, training, tokens.length));
    }

    /** An array of tokens that grows. */
    private static final class Growing {
        private int[] tokens;
        private int size;

        Growing(int expected) {
            tokens = new int[expected];
        }

        void add(int[] more) {
            long needed = (long) size + more.length;
            if (needed > MOST_TOKENS) {
                throw new InvalidArgumentException("text: more than " + MOST_TOKENS + " tokens");
            }
            if (needed > tokens.length) {
                tokens = Arrays.copyOf(tokens, (int) Math.min(MOST_TOKENS, Math.max(needed, tokens.length + tokens.length / 2L)));
            }
            System.arraycopy(more, 0, tokens, size, more.length);
            size += more.length;
        }

        int[] toArray() {
            return size == tokens.length ? tokens : Arrays.copyOf(tokens, size);
        }
    }
}
