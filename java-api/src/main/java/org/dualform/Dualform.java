package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import java.nio.file.Path;
import java.util.Map;

/**
 * Versions and files of the library, for diagnostics.
 *
 * <p>Threading: all methods may be called from any thread.
 */
public final class Dualform {
    private Dualform() {}

    /**
     * The version of the Java classes.
     *
     * @return for example "0.1.0"
     */
    public static String version() {
        return NativeLibrary.version();
    }

    /**
     * The hash of the native sources these Java classes belong to.
     *
     * @return 16 hexadecimal digits, or "unknown" when the classes were not packaged by the build
     */
    public static String buildId() {
        return NativeLibrary.buildId();
    }

    /**
     * The version of libdualform.so.
     *
     * @return for example "0.1.0"
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static String nativeVersion() {
        NativeLibrary.require();
        return NativeStatus.string(df_version());
    }

    /**
     * The hash of the sources libdualform.so was built from; equal to {@link #buildId()}, or loading would have failed.
     *
     * @return 16 hexadecimal digits
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static String nativeBuildId() {
        NativeLibrary.require();
        return NativeStatus.string(df_build_id());
    }

    /**
     * The native libraries of dualform loaded so far.
     *
     * @return name ("dualform", "jniDualformNative", "dualform_cuda") to file
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Map<String, Path> libraries() {
        NativeLibrary.require();
        return NativeLibrary.loaded();
    }

    /**
     * An empty call into the native library, for measuring what one crossing costs.
     *
     * @param x any number
     * @return x + 1
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static int crossing(int x) {
        NativeLibrary.require();
        return df_nop(x);
    }
}
