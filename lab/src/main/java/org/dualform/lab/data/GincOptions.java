package org.dualform.lab.data;

import org.dualform.InvalidArgumentException;

/**
 * Sizes of a {@link Ginc} world. {@link #published} has those of the paper; {@link #small} is our own.
 *
 * <p>Threading: immutable.
 *
 * @param name for reports
 * @param symbols in the vocabulary, with the delimiter; 2 to 256
 * @param entities rows of the symbol table, 1 to 32
 * @param slots columns of the symbol table, the first of them delimiters; 2 to 32
 * @param hmms hidden Markov models; the first half makes documents and in-distribution prompts, the rest the others; 2 or more
 * @param startTemperature of the distribution of the first state
 * @param transitionTemperature of the weights of the permutations that transitions are mixed of
 * @param persistence how much of the identity is mixed into the transitions of entities, 0 to 1
 * @param trainingDocuments how many
 * @param trainingLength symbols in each
 * @param validationDocuments how many
 * @param validationLength symbols in each
 * @param prompts of every length and number of demonstrations
 * @param context most symbols that the demonstrations of a prompt may take
 */
public record GincOptions(String name, int symbols, int entities, int slots, int hmms, double startTemperature,
        double transitionTemperature, double persistence, int trainingDocuments, int trainingLength, int validationDocuments,
        int validationLength, int prompts, int context) {
    /**
     * Checks the numbers.
     *
     * @throws InvalidArgumentException if one is out of range
     */
    public GincOptions {
        range(symbols >= 2 && symbols <= 256, "symbols", symbols, "2 to 256");
        range(entities >= 1 && entities <= 32, "entities", entities, "1 to 32");
        range(slots >= 2 && slots <= 32, "slots", slots, "2 to 32");
        range(hmms >= 2 && hmms <= 1000, "hmms", hmms, "2 to 1000");
        range(startTemperature > 0, "startTemperature", startTemperature, "more than 0");
        range(transitionTemperature > 0, "transitionTemperature", transitionTemperature, "more than 0");
        range(persistence >= 0 && persistence <= 1, "persistence", persistence, "0 to 1");
        range(trainingDocuments >= 1, "trainingDocuments", trainingDocuments, "at least 1");
        range(trainingLength >= 1, "trainingLength", trainingLength, "at least 1");
        range(validationDocuments >= 1, "validationDocuments", validationDocuments, "at least 1");
        range(validationLength >= 1, "validationLength", validationLength, "at least 1");
        range(prompts >= 1, "prompts", prompts, "at least 1");
        range(context >= 1, "context", context, "at least 1");
        long most = Math.max((long) trainingDocuments * trainingLength, (long) validationDocuments * validationLength);
        range(most <= Integer.MAX_VALUE - 8, "documents", most, "at most " + (Integer.MAX_VALUE - 8) + " symbols together");
    }

    private static void range(boolean inside, String name, Number value, String expected) {
        if (!inside) {
            throw new InvalidArgumentException(name + ": " + value + ", expected " + expected);
        }
    }

    /**
     * The published sizes: 10 entities, 10 slots, 10 HMMs, 1000 documents of 10240 symbols to train on.
     *
     * @param symbols 50, 100 or 150 in the paper
     * @return the options
     */
    public static GincOptions published(int symbols) {
        return new GincOptions("ginc-" + symbols, symbols, 10, 10, 10, 10, 0.1, 0.9, 1000, 10240, 100, 1024, 2500, 1024);
    }

    /**
     * A world of the same kind for quick runs: 6 entities, 6 slots, 50 symbols, 10 HMMs, 400 documents of 1280 symbols, context 256. It is
     * not the paper's: its numbers are not comparable with published ones.
     *
     * @return the options
     */
    public static GincOptions small() {
        return new GincOptions("ginc-small", 50, 6, 6, 10, 10, 0.1, 0.9, 400, 1280, 20, 1024, 1000, 256);
    }

    /**
     * HMMs that make documents and in-distribution prompts.
     *
     * @return the first half
     */
    public int inDistribution() {
        return hmms / 2;
    }

    int states() {
        return entities * slots;
    }
}
