package org.dualform.nn;

import org.dualform.InvalidArgumentException;

/**
 * How a {@link Generator} chooses tokens.
 *
 * <p>Threading: immutable.
 *
 * @param tokens to generate at most
 * @param temperature the logits are divided by; 0 for the most probable token always, the first of equals
 * @param topK only that many most probable tokens are drawn from; 0 for all
 * @param seed of the draws
 * @param end token that ends the text, not part of it; negative for none
 */
public record Sampling(int tokens, double temperature, int topK, long seed, int end) {
    /**
     * Checks every number.
     *
     * @param tokens see above
     * @param temperature see above
     * @param topK see above
     * @param seed see above
     * @param end see above
     * @throws InvalidArgumentException if one is out of range
     */
    public Sampling {
        if (tokens < 0) {
            throw new InvalidArgumentException("tokens: " + tokens + ", expected at least 0");
        }
        if (!(temperature >= 0 && temperature < Double.POSITIVE_INFINITY)) {
            throw new InvalidArgumentException("temperature: " + temperature + ", expected at least 0");
        }
        if (topK < 0) {
            throw new InvalidArgumentException("topK: " + topK + ", expected at least 0");
        }
    }

    /**
     * The most probable token always.
     *
     * @param tokens to generate
     * @return greedy choice without an end token
     * @throws InvalidArgumentException if tokens is negative
     */
    public static Sampling greedy(int tokens) {
        return new Sampling(tokens, 0, 0, 0, -1);
    }

    /**
     * Draws from the model's distribution.
     *
     * @param tokens to generate
     * @param temperature the logits are divided by
     * @param topK only that many most probable tokens; 0 for all
     * @param seed of the draws
     * @return random choice without an end token
     * @throws InvalidArgumentException if a number is out of range
     */
    public static Sampling random(int tokens, double temperature, int topK, long seed) {
        return new Sampling(tokens, temperature, topK, seed, -1);
    }

    /**
     * The same, stopping at a token.
     *
     * @param token that ends the text
     * @return the new choice
     */
    public Sampling endingWith(int token) {
        return new Sampling(tokens, temperature, topK, seed, token);
    }
}
