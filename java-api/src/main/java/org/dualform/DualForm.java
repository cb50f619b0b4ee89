package org.dualform;

/**
 * How {@link Ops#dualFormForward} evaluates {@code x (W0 + ΔW)ᵀ}; the forms are equal in exact arithmetic.
 *
 * <p>Threading: an enum, immutable.
 */
public enum DualForm {
    // In the order of df_ops.h: the ordinal is the native constant.
    /** The cheaper of the two by multiply-adds. */
    AUTO,
    /** {@code x (w0 + eᵀ xp)ᵀ}: ΔW is formed. */
    PRIMAL,
    /** {@code x w0ᵀ + (x xpᵀ) e}: linear attention over the examples, ΔW is not formed. */
    DUAL;
}
