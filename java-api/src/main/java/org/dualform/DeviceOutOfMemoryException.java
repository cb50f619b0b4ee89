package org.dualform;

/**
 * The device has no memory for a request. Nothing was changed: close tensors or call {@link Device#trim()} and try again.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class DeviceOutOfMemoryException extends DualformException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence: the argument or resource, what came, what was expected
     */
    public DeviceOutOfMemoryException(String message) {
        super(message);
    }
}
