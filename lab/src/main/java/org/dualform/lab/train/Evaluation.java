package org.dualform.lab.train;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import org.dualform.lab.data.Tokenizer;
import org.dualform.nn.Generator;
import org.dualform.nn.Gpt;
import org.dualform.nn.Sampling;

/**
 * What is looked at on the way: held-out loss at several context lengths, and what the model writes. Both go to the logs of the run.
 *
 * <p>Threading: one thread at a time.
 */
public final class Evaluation {
    /** Steps apart, so that no two samples of a run draw the same numbers. */
    private static final long SEEDS_PER_STEP = 1_000_003;

    private final Gpt gpt;
    private final Tokenizer tokenizer;
    private final Perplexity perplexity;
    private final Samples samples;
    private final RunFolder folder;

    /**
     * What the model is asked to write.
     *
     * <p>Threading: immutable.
     *
     * @param count how many samples
     * @param prompt how they begin; empty for the beginning of a document
     * @param sampling of the first; the others have other seeds
     */
    public record Samples(int count, String prompt, Sampling sampling) {}

    /**
     * An evaluation of one model.
     *
     * @param gpt the model
     * @param tokenizer its own
     * @param perplexity of the held-out tokens
     * @param samples to write
     * @param folder for the logs
     */
    public Evaluation(Gpt gpt, Tokenizer tokenizer, Perplexity perplexity, Samples samples, RunFolder folder) {
        this.gpt = gpt;
        this.tokenizer = tokenizer;
        this.perplexity = perplexity;
        this.samples = samples;
        this.folder = folder;
    }

    /**
     * Evaluates the model as it is.
     *
     * @param step steps done
     * @param stop is asked on the way
     * @return loss at each context length; empty when it was stopped, and then nothing is logged
     */
    public Optional<List<Perplexity.Result>> at(long step, BooleanSupplier stop) {
        Optional<List<Perplexity.Result>> results = perplexity.measure(gpt, stop);
        if (results.isEmpty()) {
            return results;
        }
        StringBuilder written = new StringBuilder();
        for (int i = 0; i < samples.count(); i++) {
            if (stop.getAsBoolean()) {
                return Optional.empty();
            }
            written.append("--- step ").append(step).append(", sample ").append(i + 1).append(" ---\n").append(sample(step, i))
                    .append("\n\n");
        }
        log(step, results.get());
        folder.append(RunFolder.SAMPLES, written.toString());
        return results;
    }

    private String sample(long step, int i) {
        int[] text = tokenizer.encode(samples.prompt());
        int[] prompt = new int[text.length + 1];
        prompt[0] = tokenizer.endOfText();
        System.arraycopy(text, 0, prompt, 1, text.length);
        Sampling first = samples.sampling();
        Sampling sampling = new Sampling(first.tokens(), first.temperature(), first.topK(),
                first.seed() + (step + 1) * SEEDS_PER_STEP + i, tokenizer.endOfText());
        try (Generator generator = new Generator(gpt)) {
            return samples.prompt() + tokenizer.decode(generator.generate(prompt, sampling));
        } catch (IllegalStateException e) {
            return "(" + e.getMessage() + ")"; // a logit that is not a number: the step that follows will say so too
        }
    }

    private void log(long step, List<Perplexity.Result> results) {
        List<Map<String, Object>> contexts = new ArrayList<>();
        for (Perplexity.Result result : results) {
            Map<String, Object> context = new LinkedHashMap<>();
            context.put("context", result.context());
            context.put("tokens", result.tokens());
            context.put("loss", Double.isFinite(result.loss()) ? result.loss() : null);
            context.put("perplexity", Double.isFinite(result.perplexity()) ? result.perplexity() : null);
            contexts.add(context);
        }
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("step", step);
        line.put("validation", contexts);
        folder.append(RunFolder.EVALUATIONS, line);
    }
}
