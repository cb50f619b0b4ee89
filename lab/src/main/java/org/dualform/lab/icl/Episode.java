package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.icl.TokenTask.Example;

/**
 * Demonstrations in an order, and the queries that are asked after them. The prompt of a query is
 * {@code bos in1 ans1 sep in2 ans2 sep ... query}; inputs and answers are tokenized each by itself, as in the code published with Dai et
 * al. 2022 (arXiv:2212.10559).
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param demonstrations in prompt order, which is also the order of finetuning
 * @param queries with their right labels
 */
public record Episode(List<Example> demonstrations, List<Example> queries) {
    /**
     * Copies both lists.
     *
     * @param demonstrations in prompt order
     * @param queries with their right labels
     */
    public Episode {
        demonstrations = List.copyOf(demonstrations);
        queries = List.copyOf(queries);
    }

    /**
     * What stands before every query.
     *
     * @param task whose beginning, separator and answers
     * @return the beginning, then every demonstration closed by the separator
     */
    public int[] context(TokenTask task) {
        int[] context = {task.beginning()};
        for (Example demonstration : demonstrations) {
            context = joined(context, demonstration.input(), task.answers().get(demonstration.label()), new int[] {task.separator()});
        }
        return context;
    }

    /**
     * What finetuning reads of a demonstration.
     *
     * @param task whose beginning and answers
     * @param demonstration one example
     * @return beginning, input and answer
     */
    public static int[] sequence(TokenTask task, Example demonstration) {
        return joined(new int[] {task.beginning()}, demonstration.input(), task.answers().get(demonstration.label()));
    }

    static int[] joined(int[]... parts) {
        int[] joined = new int[Arrays.stream(parts).mapToInt(part -> part.length).sum()];
        int at = 0;
        for (int[] part : parts) {
            System.arraycopy(part, 0, joined, at, part.length);
            at += part.length;
        }
        return joined;
    }

    /**
     * Leaves out what does not fit. As published: demonstrations are taken in order while the prompt so far, the next demonstration and the
     * longest query together are shorter than the model's context. The number that stays is the effective k.
     *
     * @param task whose answers
     * @param modelContext tokens the model can read
     * @return the same queries after the first demonstrations, maybe none
     * @throws InvalidArgumentException if a query does not fit even alone
     */
    public Episode fitted(TokenTask task, int modelContext) {
        int answer = longestAnswer(task) - 1; // its last token is predicted, not read
        int query = queries.stream().mapToInt(example -> example.input().length).max().orElse(0) + answer;
        if (1 + query > modelContext) {
            throw new InvalidArgumentException("queries: one of " + (query - answer) + " tokens, expected at most "
                    + (modelContext - 1 - answer) + " for a context of " + modelContext);
        }
        int length = 1;
        int fitting = 0;
        for (Example demonstration : demonstrations) {
            length += demonstration.input().length + task.answers().get(demonstration.label()).length + 1;
            if (length + query >= modelContext) {
                break;
            }
            fitting++;
        }
        return new Episode(demonstrations.subList(0, fitting), queries);
    }

    static int longestAnswer(TokenTask task) {
        return task.answers().stream().mapToInt(answer -> answer.length).max().orElseThrow();
    }

    /**
     * The same demonstrations in another order.
     *
     * @param seed of the order
     * @return the new episode
     */
    public Episode reordered(long seed) {
        return new Episode(Shuffle.of(demonstrations, seed), queries);
    }

    /**
     * With fewer queries.
     *
     * @param count how many at most
     * @return the first ones after the same demonstrations
     */
    public Episode first(int count) {
        return new Episode(demonstrations, queries.subList(0, Math.min(count, queries.size())));
    }

    /**
     * Draws demonstrations: the first of the pool after shuffling it.
     *
     * @param pool to draw from
     * @param shots how many
     * @param seed of the shuffle
     * @param queries what will be asked
     * @return the episode
     * @throws InvalidArgumentException if the pool is too small
     */
    public static Episode draw(List<Example> pool, int shots, long seed, List<Example> queries) {
        if (shots < 0 || shots > pool.size()) {
            throw new InvalidArgumentException("shots: " + shots + ", expected 0 to the " + pool.size() + " examples there are");
        }
        return new Episode(new ArrayList<>(Shuffle.of(pool, seed).subList(0, shots)), queries);
    }
}
