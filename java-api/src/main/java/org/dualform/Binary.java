package org.dualform;

/**
 * Elementwise functions of two arguments, with NumPy broadcasting.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Binary {
    // In the order of df_ops.h: the ordinal is the native constant.
    /** {@code a + b}. */
    ADD,
    /** {@code a - b}. */
    SUB,
    /** {@code a b}. */
    MUL,
    /** {@code a / b}. */
    DIV,
    /** The larger. */
    MAX,
    /** The smaller. */
    MIN;
}
