package org.dualform.lab.data;

import java.io.IOException;

/**
 * Data that cannot be used; the message is one sentence, with file and line where there is one.
 *
 * <p>Threading: immutable.
 */
public final class DataException extends IOException {
    private static final long serialVersionUID = 1;

    /**
     * With a sentence.
     *
     * @param sentence such as {@code reviews.tsv:12: label 7, expected 0 to 4}
     */
    public DataException(String sentence) {
        super(sentence);
    }
}
