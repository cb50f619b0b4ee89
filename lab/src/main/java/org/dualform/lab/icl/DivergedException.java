package org.dualform.lab.icl;

/**
 * Finetuning ended in numbers that are not finite; a smaller learning rate is needed.
 *
 * <p>Threading: immutable.
 */
public final class DivergedException extends IllegalArgumentException {
    private static final long serialVersionUID = 1;

    /**
     * With a sentence.
     *
     * @param sentence which learning rate, and when
     */
    public DivergedException(String sentence) {
        super(sentence);
    }
}
