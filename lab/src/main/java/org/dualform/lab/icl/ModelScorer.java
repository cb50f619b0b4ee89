package org.dualform.lab.icl;

import java.util.Arrays;
import java.util.List;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.nn.Gpt;
import org.dualform.nn.KvCache;
import org.dualform.nn.Probe;

/**
 * Asks a model. What {@link #share} announced is read once and kept in a cache; a query then costs only its own tokens. The softmax over
 * the vocabulary is taken in double precision, of the positions that are needed.
 *
 * <p>Threading: one thread at a time.
 */
public final class ModelScorer implements Scorer, AutoCloseable {
    private final Gpt gpt;
    private KvCache cache;
    private int[] shared = {};

    /**
     * What a model says to one query.
     *
     * @param scores mean log-probability per token of each continuation
     * @param next log-probability of every token as the next one
     */
    record Reply(double[] scores, double[] next) {}

    /**
     * A scorer with an empty cache.
     *
     * @param gpt the model; stays the caller's, and must not change between {@link #share} and a score
     */
    public ModelScorer(Gpt gpt) {
        this.gpt = gpt;
        cache = gpt.newCache(1);
    }

    /**
     * Reads a beginning.
     *
     * @param beginning tokens, fewer than the model's context
     * @throws InvalidArgumentException if they do not fit the model
     */
    @Override
    public void share(int[] beginning) {
        cache.close();
        shared = new int[0];
        cache = gpt.newCache(1);
        if (beginning.length > 0) {
            try (Tensor ids = Tensor.of(gpt.device(), beginning, 1, beginning.length); Tape tape = new Tape(gpt.device())) {
                gpt.hidden(tape, ids, cache, null);
            }
            cache.mark();
            shared = beginning.clone();
        }
    }

    /**
     * Scores continuations. A context that does not begin with what is shared is read as a whole, and nothing is shared any more.
     *
     * @param context tokens, not empty
     * @param continuations each at least one token
     * @return the mean log-probability per token of each continuation, in nats; NaN where the model's logits are not finite
     * @throws InvalidArgumentException if they are longer than the model's context or have ids it does not know
     */
    @Override
    public double[] score(int[] context, List<int[]> continuations) {
        return reply(context, continuations, null).scores;
    }

    /** With a probe for the pass that ends with the last token of the context. */
    Reply reply(int[] context, List<int[]> continuations, Probe probe) {
        if (context.length == 0 || continuations.stream().anyMatch(continuation -> continuation.length == 0)) {
            throw new InvalidArgumentException("context and continuations: one is empty, expected at least one token in each");
        }
        if (context.length <= shared.length || !Arrays.equals(context, 0, shared.length, shared, 0, shared.length)) {
            share(new int[0]);
        }
        int[] query = Arrays.copyOfRange(context, shared.length, context.length);
        double[] next = logProbabilities(query, query.length - 1, probe)[0];
        double[] scores = new double[continuations.size()];
        for (int i = 0; i < scores.length; i++) {
            scores[i] = mean(query, continuations.get(i), next);
        }
        return new Reply(scores, next);
    }

    private double mean(int[] query, int[] continuation, double[] next) {
        if (continuation.length == 1) {
            return next[continuation[0]];
        }
        int[] read = Episode.joined(query, Arrays.copyOf(continuation, continuation.length - 1));
        double[][] rows = logProbabilities(read, query.length - 1, null);
        double sum = 0;
        for (int i = 0; i < continuation.length; i++) {
            sum += rows[i][continuation[i]];
        }
        return sum / continuation.length;
    }

    /** Reads tokens after what is shared; one row for each token from a place on. */
    private double[][] logProbabilities(int[] tokens, int from, Probe probe) {
        cache.rewind();
        int vocabulary = gpt.config().vocabulary();
        double[] logits;
        try (Tensor ids = Tensor.of(gpt.device(), tokens, 1, tokens.length); Tape tape = new Tape(gpt.device())) {
            Tensor hidden = gpt.hidden(tape, ids, cache, probe);
            logits = gpt.logits(tape, tape.slice(hidden, 1, from, tokens.length)).toDoubles();
        }
        double[][] rows = new double[tokens.length - from][];
        for (int i = 0; i < rows.length; i++) {
            rows[i] = Arrays.copyOfRange(logits, i * vocabulary, (i + 1) * vocabulary);
            normalize(rows[i]);
        }
        return rows;
    }

    private static void normalize(double[] logits) {
        double most = Double.NEGATIVE_INFINITY;
        for (double logit : logits) {
            most = Math.max(most, logit); // Math.max keeps a NaN
        }
        double sum = 0;
        for (double logit : logits) {
            sum += Math.exp(logit - most);
        }
        double all = most + Math.log(sum);
        for (int i = 0; i < logits.length; i++) {
            logits[i] -= all;
        }
    }

    @Override
    public void close() {
        cache.close();
    }
}
