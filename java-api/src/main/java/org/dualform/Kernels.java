package org.dualform;

import java.util.Locale;

/**
 * Which CUDA kernels serve an op where they can: {@link Backends#setKernels}. Where the chosen ones do not serve a case, the next simpler
 * do: HOPPER, MMA, PLAIN.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Kernels {
    /** Tiled kernels without tensor cores, the default. */
    PLAIN,
    /** Tensor cores of any device, and memory-bound ops in accesses of 16 bytes. */
    MMA,
    /** Tensor cores as compute capability 9.0 has them. */
    HOPPER;

    /**
     * The name in properties and descriptions.
     *
     * @return "plain", "mma" or "hopper"
     */
    public String id() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * The kernels of a name, in any case.
     *
     * @param name "plain", "mma" or "hopper"
     * @return the kernels
     * @throws InvalidArgumentException for any other name
     * @throws NullPointerException if name is null
     */
    public static Kernels parse(String name) {
        for (Kernels kernels : values()) {
            if (kernels.id().equals(Arguments.notNull(name, "name").trim().toLowerCase(Locale.ROOT))) {
                return kernels;
            }
        }
        throw new InvalidArgumentException("kernels: " + name + ", expected plain, mma or hopper");
    }
}
