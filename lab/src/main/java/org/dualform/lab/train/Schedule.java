package org.dualform.lab.train;

import org.dualform.InvalidArgumentException;

/**
 * The learning rate over a run: a linear warm-up to the full rate, then a decay to a floor, which the step after the last would reach.
 *
 * <p>With p from 0 at the end of the warm-up to 1 at the end of the run, the rate is {@code floor + (1 - floor) f(p)} of the full rate:
 * f is {@code (1 + cos(pi p)) / 2} (Loshchilov and Hutter, arXiv:1608.03983), {@code 1 - p}, {@code (1 - p)^power}, or 1.
 *
 * <p>Threading: immutable.
 *
 * @param decay the form of the decay
 * @param warmup steps over which the rate rises, at least 0; step number i of them, from 1, has {@code i / warmup} of the full rate
 * @param floor the part of the full rate at which the decay ends, in [0, 1]
 * @param power of the polynomial, above 0; ignored by the others
 */
public record Schedule(Decay decay, int warmup, double floor, double power) {
    /**
     * Forms of decay.
     *
     * <p>Threading: immutable.
     */
    public enum Decay {
        /** Half a cosine. */
        COSINE,
        /** A straight line. */
        LINEAR,
        /** A power of what is left of the run. */
        POLYNOMIAL,
        /** None: the full rate to the end. */
        CONSTANT
    }

    /**
     * Checks the numbers.
     *
     * @throws InvalidArgumentException if one is out of range
     */
    public Schedule {
        if (decay == null) {
            throw new NullPointerException("decay is null");
        }
        require(warmup >= 0, "warmup", warmup, "at least 0");
        require(floor >= 0 && floor <= 1, "floor", floor, "in [0, 1]");
        require(power > 0 && power < Double.POSITIVE_INFINITY, "power", power, "above 0");
    }

    static void require(boolean inside, String name, Number value, String expected) {
        if (!inside) {
            throw new InvalidArgumentException(name + ": " + value + ", expected " + expected);
        }
    }

    /**
     * The full rate from the first step to the last.
     *
     * @return no warm-up, no decay
     */
    public static Schedule constant() {
        return new Schedule(Decay.CONSTANT, 0, 1, 1);
    }

    /**
     * Warm-up, then half a cosine.
     *
     * @param warmup steps over which the rate rises
     * @param floor the part of the full rate at which it ends
     * @return the schedule
     * @throws InvalidArgumentException if a number is out of range
     */
    public static Schedule cosine(int warmup, double floor) {
        return new Schedule(Decay.COSINE, warmup, floor, 1);
    }

    /**
     * The part of the full rate that a step has.
     *
     * @param step from 0
     * @param steps of the whole run
     * @return in [0, 1]; the same on every machine
     */
    public double factor(long step, long steps) {
        if (step < warmup) {
            return (step + 1.0) / warmup;
        }
        double p = steps <= warmup ? 1 : Math.min(1, (double) (step - warmup) / (steps - warmup));
        double f = switch (decay) {
            case COSINE -> (1 + StrictMath.cos(Math.PI * p)) / 2;
            case LINEAR -> 1 - p;
            case POLYNOMIAL -> StrictMath.pow(1 - p, power);
            case CONSTANT -> 1;
        };
        return decay == Decay.CONSTANT ? 1 : floor + (1 - floor) * f;
    }
}
