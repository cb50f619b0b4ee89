package org.dualform.lab.icl;

import java.util.List;
import org.dualform.InvalidArgumentException;

/**
 * Where the episodes of an evaluation come from. The same arguments give the same episodes.
 *
 * <p>Threading: one thread at a time.
 */
public interface Episodes {
    /**
     * What is asked.
     *
     * @return the task
     */
    TokenTask task();

    /**
     * Episodes for accuracy: a single one with many queries, or, where every query has demonstrations of its own, many with one.
     *
     * @param shots demonstrations of each
     * @param seed of the demonstrations
     * @return at least one episode
     * @throws InvalidArgumentException if there are not so many examples
     */
    List<Episode> episodes(int shots, long seed);

    /**
     * One episode with many queries, to compare in-context learning with finetuning on its demonstrations.
     *
     * @param shots its demonstrations
     * @param seed of the demonstrations
     * @return the episode
     * @throws InvalidArgumentException if there are not so many examples
     */
    Episode comparison(int shots, long seed);

    /**
     * Examples to choose a learning rate on: neither among the demonstrations nor among the queries of the comparison.
     *
     * @param shots demonstrations of the comparison
     * @param seed of the comparison
     * @param count how many are wanted
     * @return that many, or fewer where there are no more
     * @throws InvalidArgumentException if there are not so many examples
     */
    List<TokenTask.Example> selection(int shots, long seed, int count);

    /**
     * The label that somebody who has only counted labels would always give.
     *
     * @return the most frequent label where demonstrations are drawn from
     */
    int majority();
}
