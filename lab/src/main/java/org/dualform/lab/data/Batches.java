package org.dualform.lab.data;

/**
 * Training or validation batches, addressed by number: the batch of an index is always the same, so a run that stops can go on exactly
 * where it was, and nothing of a sampler but its seed need be saved.
 *
 * <p>Threading: one thread at a time.
 */
public interface Batches {
    /**
     * Sequences in a batch.
     *
     * @return B
     */
    int rows();

    /**
     * Tokens in a sequence.
     *
     * @return T
     */
    int length();

    /**
     * Writes a batch.
     *
     * @param index which batch, at least 0
     * @param ids receives the tokens (B T), row by row
     * @param targets receives the token after each (B T), {@link org.dualform.nn.Gpt#IGNORE} where none counts
     */
    void fill(long index, int[] ids, int[] targets);
}
