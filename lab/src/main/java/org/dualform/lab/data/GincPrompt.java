package org.dualform.lab.data;

/**
 * A prompt of {@link Ginc}: some examples of equal length with a delimiter after each, then an example whose last symbol is asked for.
 *
 * <p>Threading: immutable, if nobody changes the array.
 *
 * @param family which HMMs it is from
 * @param length symbols of an example, its answer included
 * @param shots demonstrations before the question
 * @param hmm which of the family
 * @param startSlot in which every example starts; -1 out of distribution, where each takes slots as they come
 * @param symbols the prompt
 * @param label the likeliest next symbol for somebody who knows the HMM and the start slot but sees the question alone. The published
 *     script gives the delimiter where the question is impossible in the HMM; that happens out of distribution only
 * @param possible whether the question is possible in the HMM
 */
public record GincPrompt(Family family, int length, int shots, int hmm, int startSlot, int[] symbols, int label, boolean possible) {
    /**
     * Which of the HMMs a prompt is from.
     *
     * <p>Threading: immutable.
     */
    public enum Family {
        /** Those that make the documents; examples follow their transitions. */
        IN_DISTRIBUTION,
        /** The others; slots are drawn without regard to their transitions. */
        OUT_OF_DISTRIBUTION
    }

    /**
     * Where an example begins.
     *
     * @param example from 0; the question is number {@link #shots}
     * @return index into the symbols
     */
    public int begin(int example) {
        return example * (length + 1);
    }
}
