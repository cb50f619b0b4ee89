package org.dualform.lab.data;

/**
 * A document of {@link Ginc}: a long walk of one hidden Markov model.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param hmm which of the in-distribution ones
 * @param states it went through, hidden from the reader
 * @param symbols it showed
 */
public record GincDocument(int hmm, int[] states, int[] symbols) {}
