package org.dualform.io;

import java.io.IOException;

/**
 * A safetensors file is malformed, truncated, or holds what dualform does not read. The message has the file, the place and what was
 * expected.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class SafetensorsException extends IOException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence
     */
    public SafetensorsException(String message) {
        super(message);
    }
}
