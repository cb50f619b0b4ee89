package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.Ginc;
import org.dualform.lab.data.GincOptions;
import org.dualform.lab.data.GincPrompt;
import org.dualform.lab.data.GincPrompt.Family;
import org.dualform.lab.icl.TokenTask.Example;
import org.junit.jupiter.api.Test;

class GincEpisodesTest {
    private static final Ginc GINC = new Ginc(GincOptions.small());

    @Test
    void everyPromptIsAnEpisodeWithADelimiterBeforeIt() {
        GincEpisodes episodes = new GincEpisodes(GINC, Family.IN_DISTRIBUTION, 5, 30);
        List<GincPrompt> prompts = GINC.prompts(Family.IN_DISTRIBUTION, 5, 8);
        List<Episode> asked = episodes.episodes(8, 2);
        assertEquals(30, asked.size());
        for (Episode episode : asked) {
            int[] read = Episode.joined(episode.context(episodes.task()), episode.queries().get(0).input());
            assertEquals(Ginc.token(0), read[0]);
            GincPrompt prompt = prompts.stream().filter(one -> Arrays.equals(Ginc.tokens(one), 0, Ginc.tokens(one).length, read, 1,
                    read.length)).findFirst().orElseThrow();
            assertEquals(prompt.label(), episode.queries().get(0).label());
        }
        assertNotEquals(labels(asked), labels(episodes.episodes(8, 3)));
        assertEquals(labels(asked), labels(episodes.episodes(8, 2)));
    }

    private static List<Integer> labels(List<Episode> episodes) {
        return episodes.stream().map(episode -> episode.queries().get(0).label()).toList();
    }

    @Test
    void theComparisonSharesOutOneLongPrompt() {
        GincEpisodes episodes = new GincEpisodes(GINC, Family.IN_DISTRIBUTION, 3, 30);
        Episode episode = episodes.comparison(6, 1);
        List<Example> parts = new ArrayList<>(episode.demonstrations());
        parts.addAll(episodes.selection(6, 1, 1000));
        parts.addAll(episode.queries());
        assertEquals(64, parts.size()); // (3 + 1) * 64 symbols are all that fit into 256
        int[] all = {};
        for (Example part : parts) {
            all = Episode.joined(all, part.input(), new int[] {Ginc.token(part.label()), Ginc.token(0)});
        }
        int[] together = all;
        assertTrue(GINC.prompts(Family.IN_DISTRIBUTION, 3, 64).stream()
                .anyMatch(prompt -> Arrays.equals(Arrays.copyOf(Ginc.tokens(prompt), together.length), together)));
        assertThrows(InvalidArgumentException.class, () -> episodes.comparison(63, 1));
        assertThrows(InvalidArgumentException.class, () -> new GincEpisodes(GINC, Family.IN_DISTRIBUTION, 4, 30));
    }

    @Test
    void theMajorityIsTheMostFrequentLabel() {
        GincEpisodes episodes = new GincEpisodes(GINC, Family.IN_DISTRIBUTION, 3, 10_000);
        int[] counts = new int[GINC.options().symbols()];
        labels(episodes.episodes(0, 1)).forEach(label -> counts[label]++);
        assertEquals(Arrays.stream(counts).max().orElseThrow(), counts[episodes.majority()]);
        assertArrayEquals(new int[] {Ginc.token(0)}, episodes.task().answers().get(0));
    }
}
