package org.dualform.nn;

import org.dualform.InvalidArgumentException;

/**
 * The shape of a {@link Gpt}: pre-LN, GELU (tanh form), tied embeddings, as GPT-2.
 *
 * <p>Threading: immutable.
 *
 * @param vocabulary tokens V
 * @param context longest sequence T
 * @param layers L
 * @param width channels C, a multiple of heads
 * @param heads NH
 * @param hidden channels of the feed-forward layer, 4 C in GPT-2
 * @param attention how the blocks attend
 * @param eta momentum, {@code 0 <= eta < 1}; where it is learned, its start, then above 0
 * @param learnedEta whether each head of each layer learns its eta, the sigmoid of {@code attn.eta_logit} and at most
 *     {@code 1 - 2^-10}; only with momentum attention
 * @param decay of linear attention, in (0, 1], for every head; NaN for {@code 1 - 2^(-5-h)} in head h, as RetNet (arXiv:2307.08621)
 * @param positions where position embeddings come from
 * @param epsilon of the LayerNorms
 */
public record GptConfig(
        int vocabulary,
        int context,
        int layers,
        int width,
        int heads,
        int hidden,
        AttentionKind attention,
        double eta,
        boolean learnedEta,
        double decay,
        Positions positions,
        double epsilon) {
    /**
     * Checks every number.
     *
     * @param vocabulary see above
     * @param context see above
     * @param layers see above
     * @param width see above
     * @param heads see above
     * @param hidden see above
     * @param attention see above
     * @param eta see above
     * @param learnedEta see above
     * @param decay see above
     * @param positions see above
     * @param epsilon see above
     * @throws InvalidArgumentException if one is out of range
     */
    public GptConfig {
        positive(vocabulary, "vocabulary");
        positive(context, "context");
        positive(layers, "layers");
        positive(width, "width");
        positive(heads, "heads");
        positive(hidden, "hidden");
        if (width % heads != 0) {
            throw new InvalidArgumentException("width: " + width + ", expected a multiple of the " + heads + " heads");
        }
        if (attention == null || positions == null) {
            throw new NullPointerException((attention == null ? "attention" : "positions") + " is null");
        }
        if (!(eta >= 0 && eta < 1)) {
            throw new InvalidArgumentException("eta: " + eta + ", expected at least 0 and less than 1");
        }
        if (learnedEta && attention != AttentionKind.MOMENTUM) {
            throw new InvalidArgumentException("learnedEta: true with " + attention + " attention, expected it with MOMENTUM only");
        }
        if (learnedEta && eta == 0) {
            throw new InvalidArgumentException("eta: 0, expected more than 0 where it is learned");
        }
        if (!(Double.isNaN(decay) || decay > 0 && decay <= 1)) {
            throw new InvalidArgumentException("decay: " + decay + ", expected more than 0 and at most 1");
        }
        if (!(epsilon > 0 && epsilon < 1)) {
            throw new InvalidArgumentException("epsilon: " + epsilon + ", expected more than 0 and less than 1");
        }
    }

    /**
     * A plain GPT: softmax attention, learned positions, feed-forward four times as wide.
     *
     * @param vocabulary tokens V
     * @param context longest sequence T
     * @param layers L
     * @param width channels C, a multiple of heads
     * @param heads NH
     * @return its shape
     * @throws InvalidArgumentException if a number is out of range
     */
    public static GptConfig of(int vocabulary, int context, int layers, int width, int heads) {
        return new GptConfig(vocabulary, context, layers, width, heads, Math.multiplyExact(4, width), AttentionKind.SOFTMAX, 0, false,
                Double.NaN, Positions.LEARNED, 1e-5);
    }

    /**
     * The same with plain softmax attention.
     *
     * @return the new shape
     */
    public GptConfig withSoftmaxAttention() {
        return with(AttentionKind.SOFTMAX, 0, false, Double.NaN, positions);
    }

    /**
     * The same with momentum attention, eta fixed and equal for all heads.
     *
     * @param fixedEta {@code 0 <= eta < 1}
     * @return the new shape
     * @throws InvalidArgumentException if eta is out of range
     */
    public GptConfig withMomentumAttention(double fixedEta) {
        return with(AttentionKind.MOMENTUM, fixedEta, false, Double.NaN, positions);
    }

    /**
     * The same with momentum attention and eta learned per head.
     *
     * @param start first value of every eta, in (0, 1)
     * @return the new shape
     * @throws InvalidArgumentException if start is out of range
     */
    public GptConfig withLearnedMomentum(double start) {
        return with(AttentionKind.MOMENTUM, start, true, Double.NaN, positions);
    }

    /**
     * The same with linear attention.
     *
     * @param decay of every head, in (0, 1]; NaN for {@code 1 - 2^(-5-h)}
     * @return the new shape
     * @throws InvalidArgumentException if decay is out of range
     */
    public GptConfig withLinearAttention(double decay) {
        return with(AttentionKind.LINEAR, 0, false, decay, positions);
    }

    /**
     * The same with other positions.
     *
     * @param positions where position embeddings come from
     * @return the new shape
     */
    public GptConfig withPositions(Positions positions) {
        return with(attention, eta, learnedEta, decay, positions);
    }

    private GptConfig with(AttentionKind attention, double eta, boolean learnedEta, double decay, Positions positions) {
        return new GptConfig(vocabulary, context, layers, width, heads, hidden, attention, eta, learnedEta, decay, positions, epsilon);
    }

    /**
     * Channels of one head.
     *
     * @return width / heads
     */
    public int headSize() {
        return width / heads;
    }

    private static void positive(int value, String name) {
        if (value <= 0) {
            throw new InvalidArgumentException(name + ": " + value + ", expected more than 0");
        }
    }
}
