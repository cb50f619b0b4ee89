package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.InvalidArgumentException;
import org.dualform.Kernels;
import org.dualform.Precision;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Assertions;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What was chosen in Java, in the plug-in's own words. It has to be there, a device need not. */
class KernelsTest {
    private String before;

    @BeforeEach
    void noProperty() {
        before = System.getProperty(Backends.KERNELS);
        System.clearProperty(Backends.KERNELS);
    }

    @AfterEach
    void asBefore() {
        System.clearProperty(Backends.KERNELS);
        if (before != null) {
            System.setProperty(Backends.KERNELS, before);
        }
        Backends.clearChoices();
    }

    private static String described() {
        Backends.Status status = Backends.status(Backend.CUDA);
        assumeTrue(status.json() != null, "no CUDA plug-in to ask: " + status.reason());
        return status.json();
    }

    private static void assertSays(String json, Kernels kernels, Precision precision, boolean deterministic) {
        for (String member : new String[] {"\"kernels\":\"" + kernels.id() + "\"", "\"precision\":\"" + precision.id() + "\"",
            "\"deterministic\":" + deterministic}) {
            assertTrue(json.contains(member), json + " does not say " + member);
        }
    }

    @Test
    void theChoicesOfCodeReachThePlugin() {
        described(); // from here on it is loaded
        for (Kernels kernels : Kernels.values()) {
            for (Precision precision : Precision.values()) {
                for (boolean deterministic : new boolean[] {true, false}) {
                    Backends.setKernels(kernels);
                    Backends.setPrecision(precision);
                    Backends.setDeterministic(deterministic);
                    assertSays(described(), kernels, precision, deterministic);
                }
            }
        }
    }

    @Test
    void codeGoesBeforeThePropertyUntilItIsTakenBack() {
        described();
        System.setProperty(Backends.KERNELS, "mma");
        assertTrue(described().contains("\"kernels\":\"mma\""));
        Backends.setKernels(Kernels.HOPPER);
        assertTrue(described().contains("\"kernels\":\"hopper\""));
        System.setProperty(Backends.KERNELS, "fast");
        assertTrue(described().contains("\"kernels\":\"hopper\""), "a wrong property that yields");
        String message = Assertions.assertThrows(InvalidArgumentException.class, Backends::clearChoices).getMessage();
        Assertions.assertEquals("-Ddualform.kernels: fast, expected plain, mma or hopper", message);
        System.setProperty(Backends.KERNELS, "mma");
        assertTrue(described().contains("\"kernels\":\"mma\""));
    }
}
