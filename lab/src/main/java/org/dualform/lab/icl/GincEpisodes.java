package org.dualform.lab.icl;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.Ginc;
import org.dualform.lab.data.GincPrompt;
import org.dualform.lab.icl.TokenTask.Example;

/**
 * Episodes from the prompts of {@link Ginc}. For accuracy every prompt is an episode of one query, whose label is the likeliest next
 * symbol, as published; a seed draws among the prompts there are, and prompts with more demonstrations are other prompts. For the
 * comparison with finetuning, the examples of one long prompt give demonstrations, examples to choose a learning rate on and queries, in
 * this order; there the label is the symbol that was drawn, as in every demonstration.
 *
 * <p>Threading: one thread at a time.
 */
public final class GincEpisodes implements Episodes {
    private static final int MOST_SHOTS = 256;

    private final Ginc ginc;
    private final GincPrompt.Family family;
    private final int length;
    private final int prompts;
    /** By number of demonstrations: to draw them, all prompts before them are drawn. */
    private final Map<Integer, List<GincPrompt>> drawn = new HashMap<>();

    /**
     * Episodes of a world.
     *
     * @param ginc the world
     * @param family of the HMMs
     * @param length symbols of an example: 3, 5, 8 or 10
     * @param prompts episodes for accuracy at most
     * @throws InvalidArgumentException if there are no such prompts, or prompts is less than 1
     */
    public GincEpisodes(Ginc ginc, GincPrompt.Family family, int length, int prompts) {
        if (prompts < 1) {
            throw new InvalidArgumentException("prompts: " + prompts + ", expected at least 1");
        }
        this.ginc = ginc;
        this.family = family;
        this.length = length;
        this.prompts = prompts;
        prompts(0);
    }

    private List<GincPrompt> prompts(int shots) {
        return drawn.computeIfAbsent(shots, count -> ginc.prompts(family, length, count));
    }

    @Override
    public TokenTask task() {
        return ginc.task();
    }

    @Override
    public List<Episode> episodes(int shots, long seed) {
        return Shuffle.of(prompts(shots), seed).stream().limit(prompts).map(prompt -> {
            List<Example> examples = Ginc.taskExamples(prompt);
            return new Episode(examples.subList(0, shots), examples.subList(shots, shots + 1));
        }).toList();
    }

    @Override
    public Episode comparison(int shots, long seed) {
        List<Example> examples = longPrompt(seed);
        return new Episode(examples.subList(0, inLongPrompt(shots, examples)), examples.subList(middle(shots, examples), examples.size()));
    }

    @Override
    public List<Example> selection(int shots, long seed, int count) {
        List<Example> examples = longPrompt(seed);
        return examples.subList(inLongPrompt(shots, examples), middle(shots, examples)).stream().limit(count).toList();
    }

    private static int inLongPrompt(int shots, List<Example> examples) {
        if (shots > examples.size() - 2) {
            throw new InvalidArgumentException("shots: " + shots + ", expected at most " + (examples.size() - 2)
                    + " for a comparison with finetuning");
        }
        return shots;
    }

    private static int middle(int shots, List<Example> examples) {
        return shots + (examples.size() - shots) / 2;
    }

    private List<Example> longPrompt(long seed) {
        int shots = MOST_SHOTS;
        while ((length + 1) * shots > ginc.options().context()) {
            shots /= 2;
        }
        List<Example> examples = Ginc.taskExamples(Shuffle.of(prompts(shots), seed).get(0));
        return examples.subList(0, examples.size() - 1); // the question has no symbol that was drawn
    }

    /** Of the queries without demonstrations: there is no pool to count in. */
    @Override
    public int majority() {
        int[] counts = new int[ginc.options().symbols()];
        int most = 0;
        for (GincPrompt prompt : prompts(0)) {
            counts[prompt.label()]++;
            most = counts[prompt.label()] > counts[most] ? prompt.label() : most;
        }
        return most;
    }
}
