package org.dualform;

/**
 * Something failed inside dualform or below it, through no fault of an argument. Subclasses name the cases a program can react to.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public  class DualformException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence: the argument or resource, what came, what was expected
     */
    public DualformException(String message) {
        super(message);
    }

    /**
     * Makes the exception.
     *
     * @param message one sentence
     * @param cause what lies behind it, may be null
     */
    public DualformException(String message, Throwable cause) {
        super(message, cause);
    }
}
