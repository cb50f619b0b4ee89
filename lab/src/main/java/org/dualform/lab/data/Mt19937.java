package org.dualform.lab.data;

import org.dualform.InvalidArgumentException;

/**
 * Random numbers as NumPy's legacy {@code np.random.seed} and {@code RandomState} draw them, so that what was published as a seed can be
 * made again: the Mersenne twister of Matsumoto and Nishimura 1998, and NumPy's ways to turn its 32 bits into numbers. NumPy guarantees
 * that these never change (NEP 19). The methods have NumPy's names and draw exactly as many bits.
 *
 * <p>Threading: one thread at a time.
 */
public final class Mt19937 {
    private static final int SIZE = 624;
    private static final int SHIFT = 397;
    private final int[] state = new int[SIZE];
    private int next = SIZE;

    /**
     * As {@code np.random.seed(seed)} of a plain integer: the generator's own scalar seeding, not the one for arrays.
     *
     * @param seed 0 to 4294967295
     * @throws InvalidArgumentException if the seed is out of range
     */
    public Mt19937(long seed) {
        if (seed < 0 || seed > 0xffffffffL) {
            throw new InvalidArgumentException("seed: " + seed + ", expected 0 to 4294967295");
        }
        state[0] = (int) seed;
        for (int i = 1; i < SIZE; i++) {
            state[i] = 1812433253 * (state[i - 1] ^ (state[i - 1] >>> 30)) + i;
        }
    }

    /**
     * Another that goes on from where one is.
     *
     * @param other not changed
     */
    public Mt19937(Mt19937 other) {
        System.arraycopy(other.state, 0, state, 0, SIZE);
        next = other.next;
    }

    private int bits() {
        if (next == SIZE) {
            for (int i = 0; i < SIZE; i++) {
                int y = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7fffffff);
                state[i] = state[(i + SHIFT) % SIZE] ^ (y >>> 1) ^ ((y & 1) == 0 ? 0 : 0x9908b0df);
            }
            next = 0;
        }
        int y = state[next++];
        y ^= y >>> 11;
        y ^= (y << 7) & 0x9d2c5680;
        y ^= (y << 15) & 0xefc60000;
        return y ^ (y >>> 18);
    }

    /**
     * A uniform number of 53 bits, as {@code rand()} and {@code random_sample()}.
     *
     * @return at least 0, less than 1
     */
    public double rand() {
        long high = bits() >>> 5;
        long low = bits() >>> 6;
        return (high * 67108864.0 + low) / 9007199254740992.0;
    }

    /**
     * As {@code rand(count)}.
     *
     * @param count how many
     * @return as many calls of {@link #rand()}
     */
    public double[] rand(int count) {
        double[] values = new double[count];
        for (int i = 0; i < count; i++) {
            values[i] = rand();
        }
        return values;
    }

    /**
     * As {@code uniform(low, high)}.
     *
     * @param low the least
     * @param high what is not reached, but for rounding
     * @return between them
     */
    public double uniform(double low, double high) {
        return low + (high - low) * rand();
    }

    /**
     * A whole number, as {@code randint(low, high)} with its usual 64-bit type; also what {@code choice(n)} draws for 0 and n. Bits above
     * the range are masked, numbers still above it are drawn anew; a range within 32 bits takes 32 at a time.
     *
     * @param low the least
     * @param high above the greatest
     * @return one of them
     * @throws InvalidArgumentException if there is none
     */
    public long randint(long low, long high) {
        if (low >= high) {
            throw new InvalidArgumentException("high: " + high + ", expected more than low, " + low);
        }
        return low + interval(high - 1 - low);
    }

    /** Uniform from 0 to a greatest number, both included and unsigned. */
    private long interval(long greatest) {
        if (greatest == 0) {
            return 0;
        }
        long mask = -1L >>> Long.numberOfLeadingZeros(greatest);
        boolean narrow = greatest >>> 32 == 0;
        long value;
        do {
            value = narrow ? Integer.toUnsignedLong(bits()) & mask : ((long) bits() << 32 | Integer.toUnsignedLong(bits())) & mask;
        } while (Long.compareUnsigned(value, greatest) > 0);
        return value;
    }

    /**
     * Puts values in random order, as {@code shuffle}.
     *
     * @param values changed in place
     */
    public void shuffle(int[] values) {
        for (int i = values.length - 1; i > 0; i--) {
            int j = (int) interval(i);
            int held = values[i];
            values[i] = values[j];
            values[j] = held;
        }
    }

    /**
     * As {@code permutation(count)}.
     *
     * @param count how many numbers
     * @return 0 to count - 1 in random order
     */
    public int[] permutation(int count) {
        int[] values = new int[count];
        for (int i = 0; i < count; i++) {
            values[i] = i;
        }
        shuffle(values);
        return values;
    }

    /**
     * As {@code choice(n, p=probabilities)}.
     *
     * @param probabilities of each index; their sum should be 1
     * @return an index
     */
    public int choice(double... probabilities) {
        return chooseFrom(choiceTable(probabilities));
    }

    /**
     * What {@link #choice} works out of its probabilities first, for those who draw often.
     *
     * @param probabilities of each index; their sum should be 1
     * @return their running sums, divided by the last
     */
    static double[] choiceTable(double... probabilities) {
        double[] sums = runningSums(probabilities);
        double last = sums[sums.length - 1];
        for (int i = 0; i < sums.length; i++) {
            sums[i] /= last;
        }
        return sums;
    }

    /**
     * As {@code cumsum}.
     *
     * @param values any
     * @return the sum up to and with each
     */
    static double[] runningSums(double... values) {
        double[] sums = new double[values.length];
        double sum = 0;
        for (int i = 0; i < values.length; i++) {
            sum += values[i];
            sums[i] = sum;
        }
        return sums;
    }

    /**
     * The first index whose running sum is greater than a uniform number.
     *
     * @param sums from {@link #choiceTable}, which end with 1, or from {@link #runningSums}, where rounding may leave the last below 1
     * @return the index; 0 if no sum is greater, as NumPy's {@code argmax} says of none
     */
    int chooseFrom(double... sums) {
        double uniform = rand();
        int low = 0;
        int high = sums.length;
        while (low < high) {
            int middle = (low + high) >>> 1;
            if (sums[middle] > uniform) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        return low == sums.length ? 0 : low;
    }
}
