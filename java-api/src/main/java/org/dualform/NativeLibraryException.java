package org.dualform;

/**
 * The native library is missing, cannot be loaded, or was built from other sources than the Java classes.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class NativeLibraryException extends DualformException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence: the argument or resource, what came, what was expected
     */
    public NativeLibraryException(String message) {
        super(message);
    }

    /**
     * Makes the exception.
     *
     * @param message one sentence
     * @param cause what lies behind it, may be null
     */
    public NativeLibraryException(String message, Throwable cause) {
        super(message, cause);
    }
}
