package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.List;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.icl.TokenTask.Example;

/**
 * Episodes from the documents of {@link LabelMapping}. For accuracy every document is an episode: its first examples are the
 * demonstrations, the next one is the query. For the comparison with finetuning the first document of a seed whose labels are permuted
 * gives demonstrations, examples to choose a learning rate on and queries, in this order.
 *
 * <p>Threading: immutable.
 */
public final class LabelMappingEpisodes implements Episodes {
    private static final int SELECTION = 64;

    private final LabelMapping corpus;
    private final int documents;
    private final int queries;

    /**
     * Episodes of a corpus.
     *
     * @param corpus whose documents
     * @param documents episodes for accuracy
     * @param queries of the comparison
     * @throws InvalidArgumentException if a number is less than 1
     */
    public LabelMappingEpisodes(LabelMapping corpus, int documents, int queries) {
        if (documents < 1 || queries < 1) {
            throw new InvalidArgumentException("documents and queries: " + documents + " and " + queries + ", expected at least 1");
        }
        this.corpus = corpus;
        this.documents = documents;
        this.queries = queries;
    }

    @Override
    public TokenTask task() {
        return corpus.task();
    }

    @Override
    public List<Episode> episodes(int shots, long seed) {
        List<Episode> episodes = new ArrayList<>();
        for (int i = 0; i < documents; i++) {
            List<Example> examples = LabelMapping.taskExamples(corpus.document(seed, i, shots + 1).examples());
            episodes.add(new Episode(examples.subList(0, shots), examples.subList(shots, shots + 1)));
        }
        return episodes;
    }

    @Override
    public Episode comparison(int shots, long seed) {
        List<Example> examples = remapped(seed, shots + SELECTION + queries);
        return new Episode(examples.subList(0, shots), examples.subList(shots + SELECTION, examples.size()));
    }

    @Override
    public List<Example> selection(int shots, long seed, int count) {
        return remapped(seed, shots + Math.min(count, SELECTION)).stream().skip(shots).toList();
    }

    private List<Example> remapped(long seed, int examples) {
        for (long index = 0; ; index++) {
            LabelMapping.Document document = corpus.document(seed, index, examples);
            if (!document.isCanonical() || corpus.canonical() == 1) {
                return LabelMapping.taskExamples(document.examples());
            }
        }
    }

    /** Every label is as frequent as any other. */
    @Override
    public int majority() {
        return 0;
    }
}
