package org.dualform.lab.train;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.SequentialBatches;
import org.dualform.nn.Gpt;

/**
 * Loss and perplexity of held-out tokens at several context lengths: the tokens are cut into windows of a length, one after the other, and
 * every token but the first of the text is predicted from those before it in its window. Every length predicts the same tokens.
 *
 * <p>Threading: one thread at a time.
 */
public final class Perplexity {
    /** Logits of one forward pass, in elements: bounds its memory. */
    private static final long LOGITS = 1L << 24;

    private final int[] tokens;
    private final List<Integer> contexts;

    /**
     * One length.
     *
     * <p>Threading: immutable.
     *
     * @param context tokens in a window
     * @param tokens predicted
     * @param loss mean cross-entropy in nats
     */
    public record Result(int context, long tokens, double loss) {
        /**
         * The perplexity.
         *
         * @return {@code e^loss}
         */
        public double perplexity() {
            return StrictMath.exp(loss);
        }
    }

    /**
     * For held-out tokens.
     *
     * @param tokens at least two
     * @param contexts window lengths wanted, each at least 1
     * @param most how many tokens are predicted, at least 1: those at the beginning
     * @throws InvalidArgumentException if a number is out of range
     */
    public Perplexity(int[] tokens, List<Integer> contexts, int most) {
        Schedule.require(tokens.length >= 2, "tokens", tokens.length, "at least 2");
        Schedule.require(most >= 1, "most", most, "at least 1");
        contexts.forEach(context -> Schedule.require(context >= 1, "contexts", context, "at least 1"));
        this.tokens = Arrays.copyOf(tokens, (int) Math.min(tokens.length, most + 1L));
        this.contexts = List.copyOf(contexts);
    }

    /**
     * The lengths a model can be measured at: not longer than its context or the tokens to predict. If none of those wanted is,
     * the longest possible.
     *
     * @param gpt the model
     * @return lengths in the order wanted
     */
    public List<Integer> measured(Gpt gpt) {
        int longest = Math.min(gpt.config().context(), tokens.length - 1);
        List<Integer> measured = new ArrayList<>(contexts);
        measured.removeIf(context -> context > longest);
        return measured.isEmpty() ? List.of(longest) : measured;
    }

    /**
     * Measures a model at all its lengths.
     *
     * @param gpt the model
     * @param stop is asked between forward passes
     * @return one result per length; empty when it was stopped
     */
    public Optional<List<Result>> measure(Gpt gpt, BooleanSupplier stop) {
        List<Result> results = new ArrayList<>();
        for (int context : measured(gpt)) {
            SequentialBatches batches = batches(gpt, context);
            int[] ids = new int[batches.rows() * context];
            int[] targets = new int[ids.length];
            double sum = 0;
            for (long index = 0; index < batches.count(); index++) {
                if (stop.getAsBoolean()) {
                    return Optional.empty();
                }
                batches.fill(index, ids, targets);
                long counted = Arrays.stream(targets).filter(target -> target != Gpt.IGNORE).count();
                sum += loss(gpt, ids, targets, context) * counted;
            }
            results.add(new Result(context, batches.targets(), sum / batches.targets()));
        }
        return Optional.of(results);
    }

    private SequentialBatches batches(Gpt gpt, int context) {
        long windows = (tokens.length - 2) / context + 1;
        long rows = Math.max(1, Math.min(windows, LOGITS / ((long) context * gpt.config().vocabulary())));
        try {
            return new SequentialBatches(tokens, (int) rows, context);
        } catch (DataException e) {
            throw new IllegalStateException(e); // only lengths that fit are measured
        }
    }

    private static double loss(Gpt gpt, int[] idValues, int[] targetValues, int context) {
        long rows = idValues.length / context;
        try (Tape tape = new Tape(gpt.device());
                Tensor ids = Tensor.of(gpt.device(), idValues, rows, context);
                Tensor targets = Tensor.of(gpt.device(), targetValues, rows, context)) {
            return gpt.loss(tape, ids, targets).item();
        }
    }
}
