package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.List;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.LabelledText;
import org.dualform.lab.data.Tokenizer;
import org.dualform.lab.icl.TokenTask.Example;

/**
 * Episodes from labelled text, as Dai et al. 2022 (arXiv:2212.10559) evaluate: the demonstrations of a seed are the first of the shuffled
 * training examples, the queries the first of the evaluation examples shuffled with seed 1. The examples to choose a learning rate on come
 * next in the same shuffle of the training examples; the published code chose on the evaluation itself.
 *
 * <p>Threading: immutable.
 */
public final class TextEpisodes implements Episodes {
    /** As many examples as the published code evaluates at most. */
    public static final int PUBLISHED_EXAMPLES = 2000;

    private static final long EVALUATION_SEED = 1;

    private final TokenTask task;
    private final List<Example> pool;
    private final List<Example> queries;
    private final int majority;
    private final int longest;

    private TextEpisodes(Task task, Tokenizer tokenizer, List<LabelledText> pool, List<LabelledText> evaluation, int modelContext)
            throws DataException {
        this.task = task.tokens(tokenizer);
        longest = modelContext - Episode.longestAnswer(this.task); // the beginning is read, the answer's last token is not
        queries = new ArrayList<>();
        for (LabelledText text : evaluation) {
            Example query = task.encode(tokenizer, text);
            if (query.input().length > longest) {
                throw new DataException(text.where() + ": " + query.input().length + " tokens with the template, expected at most "
                        + longest + " for the model's context of " + modelContext);
            }
            queries.add(query);
        }
        this.pool = new ArrayList<>();
        int[] counts = new int[task.answers().size()];
        for (LabelledText text : pool) {
            Example example = task.encode(tokenizer, text);
            this.pool.add(example);
            counts[example.label()]++;
        }
        majority = most(counts);
    }

    private static int most(int... counts) {
        int most = 0;
        for (int label = 1; label < counts.length; label++) {
            most = counts[label] > counts[most] ? label : most;
        }
        return most;
    }

    /**
     * From a file to draw demonstrations from and another to evaluate on.
     *
     * @param task of both
     * @param tokenizer of the model
     * @param training demonstrations come from here, and the examples to choose a learning rate on
     * @param evaluation queries come from here
     * @param examples queries at most
     * @param modelContext tokens the model can read
     * @return the episodes
     * @throws DataException if a query is longer than the context; the sentence names file and line
     * @throws InvalidArgumentException if examples is less than 1
     */
    public static TextEpisodes of(Task task, Tokenizer tokenizer, List<LabelledText> training, List<LabelledText> evaluation, int examples,
            int modelContext) throws DataException {
        return new TextEpisodes(task, tokenizer, training, capped(Shuffle.of(evaluation, EVALUATION_SEED), examples), modelContext);
    }

    /**
     * From one file: shuffled with seed 1, its first half is evaluated on, demonstrations come from the rest.
     *
     * @param task of the file
     * @param tokenizer of the model
     * @param all at least two examples
     * @param examples queries at most
     * @param modelContext tokens the model can read
     * @return the episodes
     * @throws DataException if a query is longer than the context; the sentence names file and line
     * @throws InvalidArgumentException if examples is less than 1, or there is only one example in the file
     */
    public static TextEpisodes ofOne(Task task, Tokenizer tokenizer, List<LabelledText> all, int examples, int modelContext)
            throws DataException {
        if (all.size() < 2) {
            throw new InvalidArgumentException("data: one example, expected at least 2");
        }
        List<LabelledText> shuffled = Shuffle.of(all, EVALUATION_SEED);
        int half = all.size() / 2;
        return new TextEpisodes(task, tokenizer, shuffled.subList(half, all.size()), capped(shuffled.subList(0, half), examples),
                modelContext);
    }

    private static List<LabelledText> capped(List<LabelledText> examples, int count) {
        if (count < 1) {
            throw new InvalidArgumentException("examples: " + count + ", expected at least 1");
        }
        return examples.subList(0, Math.min(count, examples.size()));
    }

    @Override
    public TokenTask task() {
        return task;
    }

    @Override
    public List<Episode> episodes(int shots, long seed) {
        return List.of(comparison(shots, seed));
    }

    @Override
    public Episode comparison(int shots, long seed) {
        return Episode.draw(pool, shots, seed, queries);
    }

    @Override
    public List<Example> selection(int shots, long seed, int count) {
        return Shuffle.of(pool, seed).stream().skip(shots).filter(example -> example.input().length <= longest).limit(count).toList();
    }

    @Override
    public int majority() {
        return majority;
    }

    /**
     * Where demonstrations are drawn from.
     *
     * @return how many examples
     */
    public int poolSize() {
        return pool.size();
    }

    /**
     * What is evaluated.
     *
     * @return how many queries
     */
    public int querySize() {
        return queries.size();
    }
}
