package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import org.bytedeco.javacpp.Loader;
import org.dualform.internal.global.DualformNative;

/** Loads libdualform.so and its JNI library once, and refuses libraries built from other sources than these classes. */
final class NativeLibrary {
    private static final String PROPERTIES = "build.properties";
    private static final Properties BUILD = readProperties();
    private static final Map<String, Path> LOADED = new LinkedHashMap<>();
    private static final Failure FAILURE = load();

    private record Failure(String message, Throwable cause) {}

    private NativeLibrary() {}

    /** Throws unless the library is loaded and fits. */
    static void require() {
        if (FAILURE != null) {
            throw new NativeLibraryException(FAILURE.message, FAILURE.cause);
        }
    }

    static String version() {
        return BUILD.getProperty("version", "unknown");
    }

    static String buildId() {
        return BUILD.getProperty("buildId", "unknown");
    }

    static Map<String, Path> loaded() {
        synchronized (LOADED) {
            return new LinkedHashMap<>(LOADED);
        }
    }

    static void addLoaded(String name, Path library) {
        synchronized (LOADED) {
            LOADED.put(name, library);
        }
    }

    private static Properties readProperties() {
        Properties build = new Properties();
        try (InputStream in = NativeLibrary.class.getResourceAsStream(PROPERTIES)) {
            if (in != null) {
                build.load(in);
            }
        } catch (IOException e) {
            // The build id stays "unknown", and load() refuses on it.
        }
        return build;
    }

    private static Failure load() {
        String library;
        try {
            library = Loader.load(DualformNative.class);
            if (df_abi_version() != DF_ABI_VERSION) {
                return new Failure("libdualform.so speaks ABI " + df_abi_version() + ", these classes need " + DF_ABI_VERSION, null);
            }
        } catch (LinkageError | RuntimeException e) {
            return new Failure(
                    "the native library of dualform could not be loaded for " + platform() + ": " + e.getMessage()
                            + "; the class path needs the jar of org.dualform:dualform with the classifier of this platform"
                            + " (linux-x86_64 is published)",
                    e);
        }
        String nativeId = NativeStatus.string(df_build_id());
        if (!nativeId.equals(buildId())) {
            return new Failure(
                    "libdualform.so was built from other sources (build id " + nativeId + ") than the Java classes (" + buildId() + "): "
                            + library + "; use jars of one build, and delete that folder if it is JavaCPP's cache",
                    null);
        }
        if (library != null) {
            Path jni = Path.of(library);
            addLoaded("jniDualformNative", jni);
            addLoaded("dualform", jni.resolveSibling("libdualform.so"));
        }
        return null;
    }

    private static String platform() {
        return System.getProperty("os.name") + " " + System.getProperty("os.arch");
    }
}
