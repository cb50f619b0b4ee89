package org.dualform.lab.report;

/**
 * How an axis places numbers.
 *
 * <p>Threading: immutable.
 */
public enum Scale {
    /** Equal differences, equal distances. */
    LINEAR,
    /** Equal ratios, equal distances, with ticks at powers of ten; numbers at or below zero are gaps. */
    LOG10,
    /** As {@link #LOG10}, with ticks at powers of two. */
    LOG2;

    double forward(double value) {
        return this == LINEAR ? value : value > 0 ? StrictMath.log(value) : Double.NaN;
    }
}
