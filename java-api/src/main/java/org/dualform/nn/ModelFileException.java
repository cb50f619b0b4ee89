package org.dualform.nn;

import java.io.IOException;

/**
 * A file of a model folder is malformed, or describes a model dualform does not have. The message has the file, the place, what was there
 * and what was expected.
 *
 * <p>Threading: immutable but for what {@link Throwable} allows; may pass between threads.
 */
public final class ModelFileException extends IOException {
    private static final long serialVersionUID = 1L;

    /**
     * Makes the exception.
     *
     * @param message one sentence
     */
    public ModelFileException(String message) {
        super(message);
    }
}
