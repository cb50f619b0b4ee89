package org.dualform;

/**
 * An argument has the wrong shape, dtype, device or range. The message names the argument, what came and what was expected.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class InvalidArgumentException extends IllegalArgumentException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence: the argument or resource, what came, what was expected
     */
    public InvalidArgumentException(String message) {
        super(message);
    }
}
