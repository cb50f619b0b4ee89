package org.dualform.lab.data;

import java.util.Arrays;
import org.dualform.InvalidArgumentException;
import org.dualform.nn.Gpt;

/**
 * Validation windows: a text cut into windows that follow each other without overlap. Every token but the first of the text is a target
 * once, each with the tokens of its own window before it as context, one to {@link #length} of them. What is missing to fill the last
 * window and the last batch is token 0 with targets that do not count.
 *
 * <p>Threading: immutable, if nobody changes the text.
 */
public final class SequentialBatches implements Batches {
    private final int[] tokens;
    private final int rows;
    private final int length;

    /**
     * Windows of a text.
     *
     * @param tokens the text; not copied
     * @param rows sequences in a batch
     * @param length tokens in a sequence: the context length of the perplexity
     * @throws DataException if the text is shorter than one window
     * @throws InvalidArgumentException if rows or length is less than 1
     */
    public SequentialBatches(int[] tokens, int rows, int length) throws DataException {
        check(tokens, rows, length, "validation text");
        this.tokens = tokens;
        this.rows = rows;
        this.length = length;
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
     * How many batches there are.
     *
     * @return indices are below this
     */
    public long count() {
        return (targets() + (long) rows * length - 1) / ((long) rows * length);
    }

    /**
     * Targets that count, in all batches together.
     *
     * @return one less than the tokens
     */
    public long targets() {
        return tokens.length - 1;
    }

    @Override
    public void fill(long index, int[] ids, int[] targets) {
        check(index, count() - 1, ids, targets, rows * length);
        int batch = rows * length;
        int from = (int) (index * batch);
        int counted = Math.min(batch, tokens.length - 1 - from);
        System.arraycopy(tokens, from, ids, 0, counted);
        System.arraycopy(tokens, from + 1, targets, 0, counted);
        Arrays.fill(ids, counted, batch, 0);
        Arrays.fill(targets, counted, batch, Gpt.IGNORE);
    }

    static void check(int[] tokens, int rows, int length, String what) throws DataException {
        if (rows < 1 || length < 1 || (long) rows * length > Integer.MAX_VALUE - 8) {
            throw new InvalidArgumentException("rows and length: " + rows + " and " + length + ", expected at least 1, together at most "
                    + (Integer.MAX_VALUE - 8) + " tokens");
        }
        if (tokens.length <= length) {
            throw new DataException(what + ": " + tokens.length + " tokens, expected at least " + (length + 1L)
                    + " for one window of " + length);
        }
    }

    static void check(long index, long last, int[] ids, int[] targets, int batch) {
        if (index < 0 || index > last) {
            throw new InvalidArgumentException("index: " + index + ", expected 0 to " + last);
        }
        if (ids.length != batch || targets.length != batch) {
            throw new InvalidArgumentException("ids and targets: " + ids.length + " and " + targets.length + ", expected " + batch);
        }
    }
}
