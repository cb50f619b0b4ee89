package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;

/** A JVM whose libdualform.so is built with the address and undefined-behaviour sanitizers; the JNI library is the ordinary one. */
final class SanitizedCore {
    private SanitizedCore() {}

    static Jvm jvm(String name) throws IOException {
        Path core = Path.of(Jvm.property("sanitized"), "libdualform.so");
        assertTrue(Files.exists(core), core + " is missing: the sanitized native suite runs before these tests");
        Path overlay = Jvm.TARGET.resolve("sanitized-class-path");
        Path natives = Files.createDirectories(overlay.resolve("org/dualform").resolve(Jvm.PLATFORM));
        Files.copy(core, natives.resolve("libdualform.so"), StandardCopyOption.REPLACE_EXISTING);
        // JavaCPP looks for the core beside the JNI library, so both must come from the same place.
        String jni = "/org/dualform/" + Jvm.PLATFORM + "/libjniDualformNative.so";
        try (InputStream in = SanitizedCore.class.getResourceAsStream(jni)) {
            assertTrue(in != null, jni + " is not on the class path");
            Files.copy(in, natives.resolve("libjniDualformNative.so"), StandardCopyOption.REPLACE_EXISTING);
        }
        return new Jvm(name)
                .classPathStartsWith(overlay)
                // libstdc++ too: the sanitizer looks for __cxa_throw when the process starts, and java itself does not have it.
                .environment("LD_PRELOAD", runtime("libasan.so") + ":" + runtime("libstdc++.so"))
                .environment("ASAN_OPTIONS",
                        "detect_leaks=0:handle_segv=0:detect_stack_use_after_return=0:allocator_may_return_null=1:exitcode=99")
                .environment("UBSAN_OPTIONS", "print_stacktrace=1");
    }

    private static String runtime(String library) {
        return Jvm.run(Jvm.TARGET, Map.of(), List.of("gcc", "-print-file-name=" + library), 30).output().strip();
    }
}
