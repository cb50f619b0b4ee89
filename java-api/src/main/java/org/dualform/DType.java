package org.dualform;

/**
 * Element types of tensors.
 *
 * <p>Threading: an enum, immutable.
 */
public enum DType {
    /** IEEE single precision; accumulates in F32 or better. */
    F32(4),
    /** bfloat16: the upper half of an F32; accumulates in F32. */
    BF16(2),
    /** IEEE double precision, CPU only: the oracle of the other two. */
    F64(8),
    /** 32-bit integers: token ids, targets, lengths. */
    I32(4);

    private static final DType[] BY_CODE = values();
    private final int bytes;

    DType(int bytes) {
        this.bytes = bytes;
    }

    /**
     * Size of an element.
     *
     * @return bytes per element
     */
    public int bytes() {
        return bytes;
    }

    /**
     * Whether this is a floating type.
     *
     * @return false for {@link #I32} only
     */
    public boolean isFloating() {
        return this != I32;
    }

    /**
     * The type sums are taken and saved in ("acc" in the documentation of {@link Ops}).
     *
     * @return F64 for F64, F32 for F32 and BF16
     * @throws UnsupportedOperationException for I32, which has none
     */
    public DType accumulation() {
        if (this == I32) {
            throw new UnsupportedOperationException("I32 has no accumulation dtype");
        }
        return this == F64 ? F64 : F32;
    }

    /** The number of this type in df.h: constants are declared in that order. */
    int code() {
        return ordinal();
    }

    static DType ofCode(int code) {
        return BY_CODE[code];
    }
}
