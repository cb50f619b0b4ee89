package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

class ExitTest {
    private static final int JVMS = 20;

    @Test
    void systemExitWithThreadsInNativeCodeLeavesNoCrashLog() {
        for (int i = 0; i < JVMS; i++) {
            Jvm.Result result = new Jvm("exit").options("-XX:TieredStopAtLevel=1").run(ExitWhileBusy.class, "exit", Integer.toString(i));
            assertEquals(17, result.code(), result.output());
            assertEquals("", result.output());
            assertEquals(List.of(), result.crashLogs());
        }
    }

    @Test
    void anUncaughtExceptionWithThreadsInNativeCodeLeavesNoCrashLog() {
        for (int i = 0; i < JVMS; i++) {
            Jvm.Result result = new Jvm("uncaught").options("-XX:TieredStopAtLevel=1")
                    .run(ExitWhileBusy.class, "throw", Integer.toString(i));
            assertEquals(1, result.code(), result.output());
            assertTrue(result.output().startsWith("Exception in thread \"main\" java.lang.IllegalStateException: uncaught on purpose"),
                    result.output());
            assertEquals(List.of(), result.crashLogs());
        }
    }
}
