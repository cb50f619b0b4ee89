package org.dualform.json;

import java.io.IOException;

/**
 * A document is not the JSON that was expected; the message has the place.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class JsonException extends IOException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence
     */
    public JsonException(String message) {
        super(message);
    }
}
