package org.dualform.lab.icl;

import java.util.List;

/**
 * The one question in-context evaluation asks a model.
 *
 * <p>Threading: one thread at a time.
 */
public interface Scorer {
    /**
     * Scores continuations of a context.
     *
     * @param context tokens, not empty
     * @param continuations each at least one token
     * @return the mean log-probability per token of each continuation, in nats
     */
    double[] score(int[] context, List<int[]> continuations);

    /**
     * Announces how the contexts to come begin, so that this part need be read only once. Scores do not depend on it.
     *
     * @param beginning tokens, such as the demonstrations
     */
    default void share(int[] beginning) {}
}
