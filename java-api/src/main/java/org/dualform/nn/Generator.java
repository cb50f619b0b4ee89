package org.dualform.nn;

import java.util.Arrays;
import java.util.SplittableRandom;
import org.dualform.DType;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;

/**
 * Continues token sequences, at the cost of one token each while the context lasts. Then the window slides: the last half of the context
 * is read again as its beginning, and half a context is free. Of a prompt longer than the context only its end is read.
 *
 * <p>The same model, prompt and {@link Sampling} give the same tokens.
 *
 * <p>Threading: one thread at a time.
 */
public final class Generator implements AutoCloseable {
    private final Gpt gpt;
    private final KvCache cache;

    /**
     * A generator with a cache of one row.
     *
     * @param gpt the model; stays the caller's
     */
    public Generator(Gpt gpt) {
        this.gpt = gpt;
        cache = gpt.newCache(1);
    }

    /**
     * Continues a prompt.
     *
     * @param prompt at least one token
     * @param sampling how many, and how they are chosen
     * @return the new tokens, without the prompt and without the end token
     * @throws InvalidArgumentException if the prompt is empty or has an id the model does not know
     * @throws IllegalStateException if the generator or the model is closed, or a logit is not a number
     */
    public int[] generate(int[] prompt, Sampling sampling) {
        if (prompt.length == 0) {
            throw new InvalidArgumentException("prompt: empty, expected at least one token");
        }
        int context = gpt.config().context();
        SplittableRandom random = new SplittableRandom(sampling.seed());
        int[] text = Arrays.copyOf(prompt, Math.addExact(prompt.length, sampling.tokens()));
        int length = prompt.length;
        int read = Math.max(0, length - context);
        cache.rewind();
        while (length < text.length) {
            if (cache.length() == context) {
                cache.rewind();
                read = length - Math.max(1, context / 2);
            }
            int next = choose(logits(Arrays.copyOfRange(text, read, length)), sampling, random);
            if (next == sampling.end()) {
                break;
            }
            read = length;
            text[length++] = next;
        }
        return Arrays.copyOfRange(text, prompt.length, length);
    }

    private float[] logits(int... tokens) {
        try (Tensor ids = Tensor.of(gpt.device(), tokens, 1, tokens.length); Tape tape = new Tape(gpt.device())) {
            Tensor last = tape.slice(gpt.hidden(tape, ids, cache, null), 1, tokens.length - 1, tokens.length);
            return tape.cast(gpt.logits(tape, last), DType.F32).toFloats();
        }
    }

    /** The draw of one token, in double precision. */
    private static int choose(float[] logits, Sampling sampling, SplittableRandom random) {
        int best = 0;
        for (int i = 0; i < logits.length; i++) {
            if (Float.isNaN(logits[i])) {
                throw new IllegalStateException("the model's logit of token " + i + " is not a number");
            }
            best = logits[i] > logits[best] ? i : best;
        }
        if (sampling.temperature() == 0) {
            return best;
        }
        double[] weights = weights(logits, logits[best], sampling);
        double rest = random.nextDouble() * Arrays.stream(weights).sum();
        int chosen = best;
        for (int i = 0; i < weights.length && rest >= 0; i++) {
            if (weights[i] > 0) {
                chosen = i;
                rest -= weights[i];
            }
        }
        return chosen;
    }

    private static double[] weights(float[] logits, float largest, Sampling sampling) {
        int kept = sampling.topK() == 0 ? logits.length : Math.min(sampling.topK(), logits.length);
        float[] sorted = logits.clone();
        Arrays.sort(sorted);
        float least = sorted[logits.length - kept];
        int equals = kept;
        for (float logit : logits) {
            equals -= logit > least ? 1 : 0;
        }
        double[] weights = new double[logits.length];
        for (int i = 0; i < logits.length; i++) {
            if (logits[i] > least || logits[i] == least && equals-- > 0) {
                weights[i] = Math.exp(((double) logits[i] - largest) / sampling.temperature());
            }
        }
        return weights;
    }

    @Override
    public void close() {
        cache.close();
    }
}
