package org.dualform;

/**
 * The backend that was asked for cannot serve on this machine. The message has the full reason and the property that forces the CPU.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class BackendUnavailableException extends DualformException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence: the argument or resource, what came, what was expected
     */
    public BackendUnavailableException(String message) {
        super(message);
    }
}
