package org.dualform.lab.train;

import org.dualform.DualformException;

/**
 * Training was stopped because several losses or gradients in a row were not finite. The weights are those of the last good step.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class NonFiniteException extends DualformException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param sentence which step, and what it met
     */
    public NonFiniteException(String sentence) {
        super(sentence);
    }
}
