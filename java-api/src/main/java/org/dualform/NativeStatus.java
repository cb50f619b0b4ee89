package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import java.nio.charset.StandardCharsets;
import org.bytedeco.javacpp.BytePointer;

/** Turns a native status into an exception, and native text into strings. */
final class NativeStatus {
    private static final int TEXT_BYTES = 1 << 16;

    private NativeStatus() {}

    static void check(int status) {
        if (status != DF_OK) {
            throw exception(status, lastError());
        }
    }

    static RuntimeException exception(int status, String message) {
        switch (status) {
            case DF_INVALID_ARGUMENT:
                return new InvalidArgumentException(message);
            case DF_INVALID_STATE:
                return new IllegalStateException(message);
            case DF_OUT_OF_MEMORY:
                return new DeviceOutOfMemoryException(message);
            case DF_UNSUPPORTED:
                return new UnsupportedOperationException(message);
            case DF_UNAVAILABLE:
                return new BackendUnavailableException(message);
            case DF_DEVICE_LOST:
                return new DeviceLostException(message);
            default:
                return new DualformException(message);
        }
    }

    /** The sentence of the last failure on this thread; the next failing call overwrites it. */
    static String lastError() {
        return string(df_last_error());
    }

    static String string(BytePointer text) {
        return text == null ? "" : text.getString(StandardCharsets.UTF_8);
    }

    /** A call that writes zero-terminated text. */
    interface TextCall {
        int write(byte[] text, long bytes);
    }

    static String text(TextCall call) {
        byte[] text = new byte[TEXT_BYTES];
        check(call.write(text, text.length));
        int length = 0;
        while (length < text.length && text[length] != 0) {
            length++;
        }
        return new String(text, 0, length, StandardCharsets.UTF_8);
    }
}
