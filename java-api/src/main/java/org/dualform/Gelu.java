package org.dualform;

/**
 * Which GELU.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Gelu {
    // In the order of df_ops.h: the ordinal is the native constant.
    /** {@code u/2 (1 + erf(u/√2))}. */
    EXACT,
    /** {@code u/2 (1 + tanh(√(2/π) (u + 0.044715 u³)))}. */
    TANH;
}
