package org.dualform.nn;

import org.dualform.InvalidArgumentException;

/**
 * Standard deviations that fresh weights are drawn with.
 *
 * <p>Threading: immutable.
 *
 * @param embeddings of token and position embeddings, above 0
 * @param weights of all other matrices, above 0; those of the projections into the residual stream are divided by {@code sqrt(2 L)}
 */
public record Initialization(double embeddings, double weights) {
    /** 0.02 for both (Radford et al. 2019). Made for 768 channels and more; narrow models learn sooner from larger numbers. */
    public static final Initialization GPT2 = new Initialization(0.02, 0.02);

    /**
     * Checks the numbers.
     *
     * @param embeddings see above
     * @param weights see above
     * @throws InvalidArgumentException if one is not above 0 and finite
     */
    public Initialization {
        check(embeddings, "embeddings");
        check(weights, "weights");
    }

    private static void check(double deviation, String name) {
        if (!(deviation > 0 && deviation < Double.POSITIVE_INFINITY)) {
            throw new InvalidArgumentException(name + ": " + deviation + ", expected more than 0");
        }
    }
}
