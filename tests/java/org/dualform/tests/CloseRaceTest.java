package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

class CloseRaceTest {
    private static final String ROUNDS = "20000";

    @Test
    void closeRacingUseNeverCrashes() {
        assertClean(new Jvm("close-race").run(CloseRace.class, ROUNDS));
    }

    @Test
    void closeRacingUseTouchesNoFreedMemory() throws IOException {
        assertClean(SanitizedCore.jvm("close-race-sanitized").run(CloseRace.class, ROUNDS));
    }

    @Test
    @Tag("long")
    void closeRacingUseForAMillionRounds() throws IOException {
        assertClean(SanitizedCore.jvm("close-race-long").run(CloseRace.class, "1000000"));
    }

    @Test
    void theSanitizedLibraryReportsFreedMemory() throws IOException {
        Jvm.Result result = SanitizedCore.jvm("close-race-control").run(CloseRace.class, "1", "provoke");
        assertTrue(result.output().contains("AddressSanitizer: heap-use-after-free"), result.output());
        assertEquals(99, result.code());
    }

    private static void assertClean(Jvm.Result result) {
        assertEquals(0, result.code(), result.output());
        assertFalse(result.output().contains("Sanitizer") || result.output().contains("runtime error"), result.output());
        assertEquals(List.of(), result.crashLogs());
    }
}
