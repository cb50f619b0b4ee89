package org.dualform.lab.study;

import org.dualform.InvalidArgumentException;

/**
 * How in-context learning is compared with finetuning.
 *
 * <p>Threading: immutable.
 *
 * @param sets of demonstrations, each a document of its own
 * @param demonstrations in a set
 * @param queries asked after each set, from the same document
 * @param orders other orders of each set's demonstrations, to see what order alone does
 * @param layerCausal whether layer-causal gradient descent is compared too
 */
public record ComparisonOptions(int sets, int demonstrations, int queries, int orders, boolean layerCausal) {
    /**
     * Checks the numbers.
     *
     * @throws InvalidArgumentException if one is below 1, or orders below 2
     */
    public ComparisonOptions {
        if (sets < 1 || demonstrations < 1 || queries < 1) {
            throw new InvalidArgumentException("comparison: " + sets + " sets, " + demonstrations + " demonstrations, " + queries
                    + " queries, expected at least 1 of each");
        }
        if (orders < 2) {
            throw new InvalidArgumentException("orders: " + orders + ", expected at least 2");
        }
    }
}
