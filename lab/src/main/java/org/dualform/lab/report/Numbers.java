package org.dualform.lab.report;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;
import java.util.Locale;

/** Numbers as people read them, the same in every locale. */
final class Numbers {
    /** Stands for a number that is not there. */
    static final String NONE = "\u2013";
    /** After a number, held to it by a space that does not break. */
    static final String PERCENT = "\u00A0%";
    private static final String MINUS = "\u2212";

    private Numbers() {
    }

    /** A fixed number of decimals, rounded half to even from the exact value; no negative zero. */
    static String fixed(double value, int decimals) {
        if (!Double.isFinite(value)) {
            return NONE;
        }
        BigDecimal rounded = new BigDecimal(value).setScale(decimals, RoundingMode.HALF_EVEN);
        String digits = String.format(Locale.ROOT, "%,." + decimals + "f", rounded.abs());
        return rounded.signum() < 0 ? MINUS + digits : digits;
    }

    /** At most {@code digits} significant digits, without trailing zeros; powers of ten where the number is very large or small. */
    static String significant(double value, int digits) {
        if (!Double.isFinite(value)) {
            return NONE;
        }
        if (value == 0) {
            return "0";
        }
        BigDecimal rounded = new BigDecimal(value).round(new MathContext(digits, RoundingMode.HALF_EVEN)).stripTrailingZeros();
        int exponent = rounded.precision() - rounded.scale() - 1;
        if (exponent >= -4 && exponent < 7) {
            return fixed(rounded.doubleValue(), Math.max(0, rounded.scale()));
        }
        String mantissa = rounded.scaleByPowerOfTen(-exponent).abs().stripTrailingZeros().toPlainString();
        return (rounded.signum() < 0 ? MINUS : "") + mantissa + "e" + (exponent < 0 ? MINUS + -exponent : exponent);
    }

    /** A share as percent with a space before the sign. */
    static String percent(double share, int decimals) {
        return Double.isFinite(share) ? fixed(share * 100, decimals) + PERCENT : NONE;
    }

    /** Decimals that tell multiples of a step apart. */
    static int decimals(double step) {
        return step >= 1 ? 0 : (int) Math.max(0, -StrictMath.floor(StrictMath.log10(step) + 1e-9));
    }
}
