package org.dualform.lab.icl;

import java.util.SplittableRandom;
import org.dualform.Ops;
import org.dualform.nn.Gpt;
import org.dualform.nn.Initialization;
import org.dualform.nn.Parameter;

/**
 * Models that were never trained, of the shape of one that was: what they show, training did not bring about.
 *
 * <p>Threading: only functions without shared state.
 */
public final class Untrained {
    private Untrained() {}

    /**
     * With fresh weights everywhere. They are not those the model began with, even if that was from the same seed.
     *
     * @param gpt whose shape
     * @param seed of the weights
     * @return a model; the caller closes it
     */
    public static Gpt random(Gpt gpt, long seed) {
        return random(gpt, seed, Initialization.GPT2);
    }

    /**
     * The same with weights of other sizes.
     *
     * @param gpt whose shape
     * @param seed of the weights
     * @param initialization their deviations, those the trained model began with
     * @return a model; the caller closes it
     */
    public static Gpt random(Gpt gpt, long seed, Initialization initialization) {
        return Gpt.create(gpt.device(), gpt.config(), gpt.parameters().dtype(), new SplittableRandom(seed).nextLong(), initialization);
    }

    /**
     * With the trained embeddings and LayerNorms, and fresh weights for the rest (Deutch et al. 2023, arXiv:2311.07772).
     *
     * @param gpt whose shape, embeddings and LayerNorms
     * @param seed of the other weights
     * @return a model; the caller closes it
     */
    public static Gpt withEmbeddings(Gpt gpt, long seed) {
        return withEmbeddings(gpt, seed, Initialization.GPT2);
    }

    /**
     * The same with weights of other sizes.
     *
     * @param gpt whose shape, embeddings and LayerNorms
     * @param seed of the other weights
     * @param initialization their deviations, those the trained model began with
     * @return a model; the caller closes it
     */
    public static Gpt withEmbeddings(Gpt gpt, long seed, Initialization initialization) {
        Gpt untrained = random(gpt, seed, initialization);
        for (Parameter parameter : untrained.parameters().all()) {
            String name = parameter.name();
            if (name.startsWith("wte.") || name.startsWith("wpe.") || name.startsWith("ln_") || name.contains(".ln_")) {
                Ops.copy(parameter.value(), gpt.parameters().get(name).value());
            }
        }
        untrained.parameters().valuesChanged();
        return untrained;
    }
}
