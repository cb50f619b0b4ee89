package org.dualform.lab.data;

import java.util.Arrays;
import java.util.Random;
import org.dualform.InvalidArgumentException;
import org.dualform.nn.Gpt;

/**
 * Training windows of a text in random order. An epoch cuts the text, closed to a ring, into windows that follow each other from a random
 * place on, and gives them in a random order; both depend on the seed and the number of the epoch only. So in every epoch each token but
 * the first of the text is a target exactly once. The ring is not a multiple of the window, so one window of an epoch is shorter: the
 * rest of its row has targets that do not count. A batch may hold the end of one epoch and the beginning of the next.
 *
 * <p>Where the ring closes, the beginning of the text follows its end, as another document would.
 *
 * <p>Threading: one thread at a time.
 */
public final class TextBatches implements Batches {
    private final int[] tokens;
    private final int rows;
    private final int length;
    private final long seed;
    /** Tokens that have a token after them: the ring. */
    private final int ring;
    private final int windows;
    private long epoch = -1;
    private int start;
    private final int[] order;

    /**
     * Windows of a text.
     *
     * @param tokens the text; not copied
     * @param rows sequences in a batch
     * @param length tokens in a sequence
     * @param seed of the order
     * @throws DataException if the text is shorter than one window
     * @throws InvalidArgumentException if rows or length is less than 1
     */
    public TextBatches(int[] tokens, int rows, int length, long seed) throws DataException {
        SequentialBatches.check(tokens, rows, length, "training text");
        this.tokens = tokens;
        this.rows = rows;
        this.length = length;
        this.seed = seed;
        ring = tokens.length - 1;
        windows = (int) (((long) ring + length - 1) / length);
        order = new int[windows];
    }

    @Override
    public int rows() {
        return rows;
    }

    @Override
    public int length() {
        return length;
    }

    /**
     * Windows in an epoch, the shorter one included.
     *
     * @return rows that show every token once
     */
    public int windows() {
        return windows;
    }

    /**
     * How often the text was seen before a batch.
     *
     * @param index which batch, at least 0
     * @return epochs, with a fraction
     */
    public double epoch(long index) {
        return (double) index * rows / windows;
    }

    @Override
    public void fill(long index, int[] ids, int[] targets) {
        SequentialBatches.check(index, Long.MAX_VALUE / rows - 1, ids, targets, rows * length);
        for (int row = 0; row < rows; row++) {
            long number = index * rows + row;
            begin(number / windows);
            int window = order[(int) (number % windows)];
            long first = (long) window * length;
            int counted = (int) Math.min(length, ring - first);
            int at = (int) ((start + first) % ring);
            for (int i = row * length; i < (row + 1) * length; i++) {
                ids[i] = tokens[at];
                targets[i] = i - row * length < counted ? tokens[at + 1] : Gpt.IGNORE;
                at = at + 1 == ring ? 0 : at + 1;
            }
        }
    }

    private void begin(long wanted) {
        if (epoch == wanted) {
            return;
        }
        Random random = new Random(mixed(seed, wanted));
        start = random.nextInt(ring);
        Arrays.setAll(order, i -> i);
        for (int i = windows - 1; i > 0; i--) {
            int other = random.nextInt(i + 1);
            int held = order[i];
            order[i] = order[other];
            order[other] = held;
        }
        epoch = wanted;
    }

    /** The finalizer of SplitMix64: near seeds and epochs become far ones. */
    private static long mixed(long seed, long epoch) {
        long z = seed * 0xD1342543DE82EF95L + (epoch + 1) * 0x9E3779B97F4A7C15L;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
