package org.dualform;

import java.util.Locale;

/**
 * Where tensors live and ops run.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Backend {
    /** CUDA when its plug-in is on the class path, loads and has a device; else the CPU. */
    AUTO,
    /** The CPU backend, always there. */
    CPU,
    /** The CUDA plug-in. */
    CUDA;

    /**
     * The name in properties and logs.
     *
     * @return "auto", "cpu" or "cuda"
     */
    public String id() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * The backend of a name, in any case.
     *
     * @param name "auto", "cpu" or "cuda"
     * @return the backend
     * @throws InvalidArgumentException for any other name
     * @throws NullPointerException if name is null
     */
    public static Backend parse(String name) {
        for (Backend backend : values()) {
            if (backend.id().equals(Arguments.notNull(name, "name").trim().toLowerCase(Locale.ROOT))) {
                return backend;
            }
        }
        throw new InvalidArgumentException("backend: " + name + ", expected auto, cpu or cuda");
    }
}
