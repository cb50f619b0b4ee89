package org.dualform.cli;

import java.util.Locale;

/** Which half of a differentiable work is timed. */
enum Pass {
    FORWARD,
    BACKWARD,
    BOTH;

    boolean forward() {
        return this != BACKWARD;
    }

    boolean backward() {
        return this != FORWARD;
    }

    String id() {
        return name().toLowerCase(Locale.ROOT);
    }
}
