package org.dualform.cli;

import java.io.IOException;
import org.dualform.BackendUnavailableException;
import org.dualform.DeviceOutOfMemoryException;
import org.dualform.NativeLibraryException;

/** Exit codes, and how a failure becomes one of them and one sentence. */
final class ExitCode {
    static final int OK = 0;
    static final int INTERNAL = 1;
    static final int USAGE = 2;
    static final int UNAVAILABLE = 3;

    private ExitCode() {}

    static int of(Throwable failure) {
        if (failure instanceof BackendUnavailableException || failure instanceof NativeLibraryException) {
            return UNAVAILABLE;
        }
        boolean input = failure instanceof UsageException
                || failure instanceof IllegalArgumentException
                || failure instanceof UnsupportedOperationException
                || failure instanceof IOException;
        return input ? USAGE : INTERNAL;
    }

    /** One line: what went wrong, with the kind of failure only where the message alone would not say. */
    static String sentence(Throwable failure) {
        String message = failure.getMessage() == null ? "" : failure.getMessage().strip().replaceAll("\\s*\\R\\s*", "; ");
        if (failure instanceof DeviceOutOfMemoryException || failure instanceof OutOfMemoryError) {
            return "out of memory: " + message;
        }
        boolean known = of(failure) != INTERNAL;
        return known && !message.isEmpty() ? message : "internal error: " + failure.getClass().getSimpleName()
                + (message.isEmpty() ? "" : ": " + message);
    }
}
