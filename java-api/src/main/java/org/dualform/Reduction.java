package org.dualform;

/**
 * What a reduction takes of its elements.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Reduction {
    // In the order of df_ops.h: the ordinal is the native constant.
    /** Their sum. */
    SUM,
    /** Their mean. */
    MEAN,
    /** The largest. */
    MAX,
    /** The smallest. */
    MIN;
}
