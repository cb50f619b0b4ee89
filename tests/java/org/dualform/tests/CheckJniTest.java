package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

class CheckJniTest {
    @Test
    void everyOpKeepsTheRulesOfJni() {
        assertNoComplaint(new Jvm("check-jni").options("-Xcheck:jni").run(OpTour.class), " calls made");
    }

    @Test
    void badCallsKeepTheRulesOfJni() {
        assertNoComplaint(new Jvm("check-jni-bad").options("-Xcheck:jni").run(BadCallTour.class), "robustness: ");
    }

    @Test
    void everyOpIsCleanOnTheSanitizedLibrary() throws Exception {
        assertNoComplaint(SanitizedCore.jvm("op-tour-sanitized").run(OpTour.class), " calls made");
    }

    @Test
    void badCallsAreCleanOnTheSanitizedLibrary() throws Exception {
        assertNoComplaint(SanitizedCore.jvm("bad-calls-sanitized").run(BadCallTour.class), "robustness: ");
    }

    private static void assertNoComplaint(Jvm.Result result, String closing) {
        assertEquals(0, result.code(), result.output());
        List<String> complaints = result.output().lines().filter(line -> line.matches(".*(WARNING|FATAL|Sanitizer|runtime error).*"))
                .toList();
        assertEquals(List.of(), complaints, result.output());
        assertTrue(result.output().contains(closing), result.output());
    }
}
