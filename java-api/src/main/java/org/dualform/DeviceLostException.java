package org.dualform;

/**
 * The device's context is gone (a fault on the GPU, for example). The process must restart to use it.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class DeviceLostException extends DualformException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence: the argument or resource, what came, what was expected
     */
    public DeviceLostException(String message) {
        super(message);
    }
}
