package org.dualform;

import org.junit.jupiter.api.extension.ExtensionContext;
import org.junit.jupiter.api.extension.LifecycleMethodExecutionExceptionHandler;
import org.junit.jupiter.api.extension.TestExecutionExceptionHandler;
import org.opentest4j.TestAbortedException;

/**
 * The device under test: the CPU, or CUDA where {@code -Ddualform.backend=cuda} demands it. As an extension of a test class it skips, by
 * name, what needs float64 there.
 */
public final class TestDevice implements TestExecutionExceptionHandler, LifecycleMethodExecutionExceptionHandler {
    private static final Backend BACKEND = "cuda".equals(System.getProperty(Backends.PROPERTY)) ? Backend.CUDA : Backend.CPU;

    /** The device, with so many threads if it is the CPU. */
    public static Device open(int threads) {
        return Device.open(BACKEND, 0, threads);
    }

    /** Whether the device under test has float64. */
    public static boolean hasFloat64() {
        return BACKEND == Backend.CPU;
    }

    @Override
    public void handleTestExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw skipped(thrown);
    }

    @Override
    public void handleBeforeEachMethodExecutionException(ExtensionContext context, Throwable thrown) throws Throwable {
        throw skipped(thrown);
    }

    private static Throwable skipped(Throwable thrown) {
        boolean float64 = thrown instanceof UnsupportedOperationException && String.valueOf(thrown.getMessage()).contains("F64");
        return !hasFloat64() && float64 ? new TestAbortedException("float64 is the CPU's: " + thrown.getMessage()) : thrown;
    }
}
