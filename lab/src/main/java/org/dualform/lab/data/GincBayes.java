package org.dualform.lab.data;

import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.GincPrompt.Family;

/**
 * The best that can be done on in-distribution prompts of {@link Ginc} by two readers who know all its parameters.
 *
 * <p>One knows how prompts are made: one of the HMMs and one start slot for all examples. Few examples tell it both, so it is the ceiling
 * of in-context learning. The other knows only how documents are made and takes the prompt for one: about the best of a model that was
 * trained to predict the next symbol, and nothing else. An example that starts anew is often impossible in a document, where the state goes
 * on; so that it is not quite, a step goes to a random state with a probability of 1e-4.
 *
 * <p>Both answer with the likeliest next symbol, as a model does. The likeliest label can be another as long as they are unsure of the HMM:
 * the label is the likeliest symbol of the HMM that is the right one.
 *
 * <p>Threading: immutable.
 */
public final class GincBayes {
    private static final double SURPRISE = 1e-4;
    private final Ginc ginc;
    private final List<GincFilter> documents;

    /**
     * Readers of a world.
     *
     * @param ginc the world
     */
    public GincBayes(Ginc ginc) {
        this.ginc = ginc;
        documents = IntStream.range(0, ginc.options().inDistribution())
                .mapToObj(hmm -> ginc.filter(Family.IN_DISTRIBUTION, hmm).mixed(SURPRISE)).toList();
    }

    /**
     * For the reader who knows how in-distribution prompts are made.
     *
     * @param prompt in distribution
     * @return the probability of each symbol as the answer
     * @throws InvalidArgumentException if the prompt is out of distribution
     */
    public double[] fromPromptLaw(GincPrompt prompt) {
        if (prompt.family() != Family.IN_DISTRIBUTION) {
            throw new InvalidArgumentException("prompt: out of distribution, expected one in distribution");
        }
        int slots = ginc.options().slots();
        double[] logs = new double[documents.size() * slots];
        double[][] next = new double[logs.length][];
        Arrays.fill(logs, Double.NEGATIVE_INFINITY);
        for (int hmm = 0; hmm < documents.size(); hmm++) {
            for (int slot = 1; slot < slots; slot++) {
                int guess = hmm * slots + slot;
                double[] start = ginc.startingIn(slot);
                logs[guess] = 0;
                for (int example = 0; example <= prompt.shots() && logs[guess] > Double.NEGATIVE_INFINITY; example++) {
                    GincFilter.Walk walk = ginc.filter(Family.IN_DISTRIBUTION, hmm).walk(start);
                    int end = Math.min(prompt.begin(example) + prompt.length(), prompt.symbols().length);
                    for (int i = prompt.begin(example); i < end && logs[guess] > Double.NEGATIVE_INFINITY; i++) {
                        logs[guess] += StrictMath.log(walk.see(prompt.symbols()[i]));
                    }
                    next[guess] = walk.next();
                }
            }
        }
        return average(logs, next);
    }

    /**
     * For the reader who takes it for a document.
     *
     * @param symbols read so far, at least one
     * @return the probability of each next symbol
     * @throws InvalidArgumentException if there are no symbols
     */
    public double[] fromDocumentLaw(int... symbols) {
        if (symbols.length == 0) {
            throw new InvalidArgumentException("symbols: none, expected at least one");
        }
        double[] logs = new double[documents.size()];
        double[][] next = new double[logs.length][];
        for (int hmm = 0; hmm < logs.length; hmm++) {
            GincFilter.Walk walk = documents.get(hmm).walk(ginc.hmms().get(hmm).start());
            for (int symbol : symbols) {
                logs[hmm] += StrictMath.log(walk.see(symbol));
            }
            next[hmm] = walk.next();
        }
        return average(logs, next);
    }

    /** Weighted by what the symbols read say for each. */
    private static double[] average(double[] logs, double[][] next) {
        double most = Arrays.stream(logs).max().orElseThrow();
        double[] average = null;
        double total = 0;
        for (int i = 0; i < logs.length; i++) {
            if (logs[i] == Double.NEGATIVE_INFINITY) {
                continue;
            }
            double weight = StrictMath.exp(logs[i] - most);
            average = average == null ? new double[next[i].length] : average;
            for (int symbol = 0; symbol < average.length; symbol++) {
                average[symbol] += weight * next[i][symbol];
            }
            total += weight;
        }
        if (average == null) {
            throw new InvalidArgumentException("symbols: impossible in every HMM, expected a prompt or document of this world");
        }
        for (int symbol = 0; symbol < average.length; symbol++) {
            average[symbol] /= total;
        }
        return average;
    }

    /**
     * How often the readers' likeliest symbol is the label.
     *
     * <p>Threading: immutable.
     *
     * @param prompts asked about
     * @param promptLaw right answers of the reader who knows how prompts are made
     * @param documentLaw right answers of the other
     */
    public record Ceiling(int prompts, int promptLaw, int documentLaw) {}

    /**
     * Asks both readers.
     *
     * @param prompts in distribution
     * @return their right answers
     * @throws InvalidArgumentException if a prompt is out of distribution
     */
    public Ceiling ceiling(List<GincPrompt> prompts) {
        int promptLaw = 0;
        int documentLaw = 0;
        for (GincPrompt prompt : prompts) {
            promptLaw += Ginc.likeliest(fromPromptLaw(prompt)) == prompt.label() ? 1 : 0;
            documentLaw += Ginc.likeliest(fromDocumentLaw(prompt.symbols())) == prompt.label() ? 1 : 0;
        }
        return new Ceiling(prompts.size(), promptLaw, documentLaw);
    }
}
