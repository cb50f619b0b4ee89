package org.dualform;

/**
 * Elementwise functions of one argument.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Unary {
    // In the order of df_ops.h: the ordinal is the native constant.
    /** {@code -x}. */
    NEG,
    /** {@code eˣ}. */
    EXP,
    /** Natural logarithm. */
    LOG,
    /** {@code √x}. */
    SQRT,
    /** {@code 1/√x}. */
    RSQRT,
    /** {@code 1/x}. */
    RECIPROCAL,
    /** {@code x²}. */
    SQUARE,
    /** {@code |x|}; slope 0 at 0. */
    ABS,
    /** Hyperbolic tangent. */
    TANH,
    /** {@code 1/(1 + e⁻ˣ)}. */
    SIGMOID,
    /** {@code max(x, 0)}; slope 0 at 0. */
    RELU,
    /** Sine. */
    SIN,
    /** Cosine. */
    COS;
}
