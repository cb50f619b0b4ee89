package org.dualform;

import java.util.Arrays;

/** Checks of plain arguments; each failure names the argument. */
final class Arguments {
    /** Largest rank of a tensor. */
    static final int MAX_RANK = 8;

    private Arguments() {}

    static <T> T notNull(T value, String name) {
        if (value == null) {
            throw new NullPointerException(name + " is null");
        }
        return value;
    }

    /** Checks rank and dimensions; returns the number of elements. */
    static long numel(long[] shape, String name) {
        notNull(shape, name);
        if (shape.length > MAX_RANK) {
            throw new InvalidArgumentException(name + ": rank " + shape.length + ", expected at most " + MAX_RANK);
        }
        long numel = 1;
        for (long size : shape) {
            if (size < 1) {
                throw new InvalidArgumentException(name + ": " + describe(shape) + ", expected every dimension to be at least 1");
            }
            if (numel > Long.MAX_VALUE / size) {
                throw new InvalidArgumentException(name + ": " + describe(shape) + " has more than 2^63 - 1 elements");
            }
            numel *= size;
        }
        return numel;
    }

    /** As {@link #numel(long[], String)}, and the bytes must be countable too. */
    static long bytes(long[] shape, DType dtype, String name) {
        long numel = numel(shape, name);
        if (numel > Long.MAX_VALUE / dtype.bytes()) {
            throw new InvalidArgumentException(name + ": " + describe(shape) + " of " + dtype + " has more than 2^63 - 1 bytes");
        }
        return numel * dtype.bytes();
    }

    static int axis(int axis, int rank, String name) {
        if (axis < 0 || axis >= rank) {
            throw new InvalidArgumentException(name + ": " + axis + ", expected an axis of a tensor of rank " + rank);
        }
        return axis;
    }

    /** A shape as messages write it: (2, 3). */
    static String describe(long[] shape) {
        String text = Arrays.toString(shape);
        return "(" + text.substring(1, text.length() - 1) + ")";
    }
}
