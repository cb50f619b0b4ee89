package org.dualform;

import java.util.Locale;

/**
 * How tensor cores multiply float32: {@link Backends#setPrecision}. Sums are float32 in each; bfloat16 is multiplied exactly in any case.
 *
 * <p>Threading: an enum, immutable.
 */
public enum Precision {
    /** They do not: the plain kernels serve float32, the default. */
    FLOAT32,
    /** Operands rounded to 11 bits of mantissa: a product of x and y is off by at most 2^-10 of |x y|. */
    TF32,
    /** Operands as the sum of two bfloat16, three of four products: off by at most 3 2^-18 of |x y|; an infinite operand gives NaN. */
    BF16X3;

    /**
     * The name in properties and descriptions.
     *
     * @return "float32", "tf32" or "bf16x3"
     */
    public String id() {
        return name().toLowerCase(Locale.ROOT);
    }

    /**
     * The precision of a name, in any case.
     *
     * @param name "float32", "tf32" or "bf16x3"
     * @return the precision
     * @throws InvalidArgumentException for any other name
     * @throws NullPointerException if name is null
     */
    public static Precision parse(String name) {
        for (Precision precision : values()) {
            if (precision.id().equals(Arguments.notNull(name, "name").trim().toLowerCase(Locale.ROOT))) {
                return precision;
            }
        }
        throw new InvalidArgumentException("precision: " + name + ", expected float32, tf32 or bf16x3");
    }
}
