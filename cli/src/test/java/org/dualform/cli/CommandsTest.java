package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import org.dualform.Dualform;
import org.junit.jupiter.api.Test;

class CommandsTest {
    @Test
    void doctorPrintsOneJsonObject() {
        Run run = Run.of("doctor", "--json");
        assertEquals(ExitCode.OK, run.code(), run.err());
        Map<?, ?> report = (Map<?, ?>) Json.read(run.out());
        assertEquals(Dualform.buildId(), report.get("java_build_id"));
        assertEquals(Dualform.buildId(), report.get("native_build_id"));
        Map<?, ?> backends = (Map<?, ?>) report.get("backends");
        assertEquals(true, ((Map<?, ?>) backends.get("cpu")).get("available"));
        Map<?, ?> cuda = (Map<?, ?>) backends.get("cuda");
        assertTrue((Boolean) cuda.get("available") || cuda.get("reason") != null, run.out());
    }

    @Test
    void doctorSpeaksToPeopleToo() {
        Run run = Run.of("doctor");
        assertEquals(ExitCode.OK, run.code(), run.err());
        for (String line : List.of("dualform", "glibc", "chosen", "instruction set")) {
            assertTrue(run.out().contains(line), run.out());
        }
    }

    @Test
    void jsonReadsWhatItWrites() {
        String text = "{\"a\": [1, 2.5, true, null], \"b\": {\"c\": \"x\\\"\\\\\\u000ay\"}, \"d\": {}, \"e\": []}";
        assertEquals(Json.read(text), Json.read(Json.write(Json.read(text))));
        for (String broken : List.of("", "{", "{\"a\"}", "[1,]", "\"x", "nul", "{} {}", "[1 2]")) {
            assertThrows(IllegalArgumentException.class, () -> Json.read(broken), broken);
        }
    }

    @Test
    void helpAndVersionSucceed() {
        assertEquals(ExitCode.OK, Run.of("--help").code());
        assertEquals(ExitCode.OK, Run.of("op", "--help").code());
        assertTrue(Run.of("--version").out().startsWith("dualform "));
    }
}
