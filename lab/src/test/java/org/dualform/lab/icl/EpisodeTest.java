package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.LabelledText;
import org.dualform.lab.icl.TokenTask.Example;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EpisodeTest {
    private static final TokenTask TASK = new TokenTask("toy", 90, 91, List.of(new int[] {80}, new int[] {81, 82}), List.of("a", "b"));

    @TempDir
    private Path folder;

    private static Example example(int label, int... input) {
        return new Example(input, label);
    }

    @Test
    void promptsAreLaidOutAsPublished() {
        Episode episode = new Episode(List.of(example(0, 1, 2), example(1, 3)), List.of(example(0, 4, 5)));
        assertArrayEquals(new int[] {90, 1, 2, 80, 91, 3, 81, 82, 91}, episode.context(TASK));
        assertArrayEquals(new int[] {90, 3, 81, 82}, Episode.sequence(TASK, episode.demonstrations().get(1)));
        assertArrayEquals(new int[] {90}, new Episode(List.of(), episode.queries()).context(TASK));
    }

    @Test
    void theWholePromptReadsAsText() throws IOException {
        Words words = new Words();
        Task task = Task.named("sst2");
        Path file = folder.resolve("x.tsv");
        Files.writeString(file, "1\tgood film\n0\tbad\n");
        List<Example> examples = new ArrayList<>();
        for (LabelledText text : task.examples(file)) {
            examples.add(task.encode(words, text));
        }
        TokenTask tokens = task.tokens(words);
        Episode episode = new Episode(examples, List.of(examples.get(0)));
        int[] prompt = Episode.joined(episode.context(tokens), episode.queries().get(0).input());
        assertEquals("<end>Sentence: good film Label: Positive<end>Sentence: bad Label: Negative<end>Sentence: good film Label:",
                words.decode(prompt));
    }

    /** Each demonstration takes 5 tokens: 3, an answer, a separator. Every room, against the published condition word for word. */
    @Test
    void demonstrationsThatDoNotFitAreLeftOut() {
        List<Example> demonstrations = IntStream.range(0, 6).mapToObj(i -> example(0, i, i, i)).toList();
        TokenTask oneToken = new TokenTask("toy", 90, 91, List.of(new int[] {80}, new int[] {81}), List.of("a", "b"));
        Episode episode = new Episode(demonstrations, List.of(example(0, 1), example(1, 1, 2, 3, 4)));
        for (int room = 5; room < 50; room++) {
            int k = 0;
            while (k < 6 && 1 + 5 * k + 5 + 4 < room) { // context so far + next demonstration + longest query < room
                k++;
            }
            Episode fitted = episode.fitted(oneToken, room);
            assertEquals(demonstrations.subList(0, k), fitted.demonstrations(), "room " + room);
            int longest = Episode.joined(fitted.context(oneToken), fitted.queries().get(1).input()).length;
            assertTrue(longest <= room);
            assertEquals(k, episode.fitted(TASK, room + 1).demonstrations().size()); // a second answer token needs one more place
        }
        assertThrows(InvalidArgumentException.class, () -> episode.fitted(oneToken, 4));
    }

    @Test
    void fillingStopsAtTheFirstThatDoesNotFit() {
        Episode episode = new Episode(List.of(example(0, 1), example(0, new int[50]), example(0, 1)), List.of(example(0, 1)));
        assertEquals(1, episode.fitted(TASK, 40).demonstrations().size());
    }

    @Test
    void fewerShotsAreTheBeginningOfMore() {
        List<Example> pool = IntStream.range(0, 40).mapToObj(i -> example(i % 2, i)).toList();
        List<Example> all = Episode.draw(pool, 40, 3, List.of()).demonstrations();
        assertEquals(new HashSet<>(pool), new HashSet<>(all));
        assertEquals(all.subList(0, 7), Episode.draw(pool, 7, 3, List.of()).demonstrations());
        assertNotEquals(all, Episode.draw(pool, 40, 4, List.of()).demonstrations());
        assertNotEquals(all, pool);
        assertThrows(InvalidArgumentException.class, () -> Episode.draw(pool, 41, 3, List.of()));
    }

    @Test
    void demonstrationsSelectionAndQueriesAreDisjoint() throws IOException {
        Task task = Task.named("mr");
        List<LabelledText> texts = texts(task, 101);
        TextEpisodes one = TextEpisodes.ofOne(task, new Words(), texts, 2000, 100);
        assertEquals(50, one.querySize());
        assertEquals(51, one.poolSize());
        for (long seed = 1; seed < 6; seed++) {
            Episode episode = one.comparison(8, seed);
            List<Example> selection = one.selection(8, seed, 20);
            assertEquals(20, selection.size());
            Set<String> all = new HashSet<>();
            for (List<Example> part : List.of(episode.demonstrations(), selection, episode.queries())) {
                part.forEach(example -> all.add(java.util.Arrays.toString(example.input())));
            }
            assertEquals(8 + 20 + 50, all.size());
            assertEquals(episode.queries(), one.comparison(4, seed + 1).queries());
        }
        assertEquals(43, one.selection(8, 1, 1000).size());
        TextEpisodes two = TextEpisodes.of(task, new Words(), texts.subList(0, 60), texts.subList(60, 101), 30, 100);
        assertEquals(30, two.querySize());
        assertEquals(60, two.poolSize());
        assertThrows(InvalidArgumentException.class, () -> two.comparison(61, 1));
    }

    @Test
    void aQueryLongerThanTheContextNamesItsLine() throws IOException {
        Task task = Task.named("mr");
        List<LabelledText> texts = texts(task, 4);
        assertEquals(4, TextEpisodes.of(task, new Words(), texts, texts, 9, 8).querySize()); // Review: one text i Sentiment: is 6
        DataException wrong = assertThrows(DataException.class,
                () -> TextEpisodes.of(task, new Words(), texts, texts.subList(2, 3), 9, 5));
        assertTrue(wrong.getMessage().endsWith("x.tsv:3: 5 tokens with the template, expected at most 4 for the model's context of 5"),
                wrong.getMessage());
    }

    private List<LabelledText> texts(Task task, int count) throws IOException {
        Path file = folder.resolve("x.tsv");
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < count; i++) {
            lines.append(i % 3 == 0 ? 1 : 0).append("\tone text ").append(i).append('\n');
        }
        Files.writeString(file, lines);
        return task.examples(file);
    }

    @Test
    void theMajorityIsThatOfThePool() throws IOException {
        Task task = Task.named("mr");
        List<LabelledText> texts = texts(task, 30);
        assertEquals(0, TextEpisodes.of(task, new Words(), texts, texts, 9, 20).majority());
        assertEquals(1, TextEpisodes.of(task, new Words(), texts.subList(0, 1), texts, 9, 20).majority());
    }

    @Test
    void reorderingKeepsTheDemonstrations() {
        Episode episode = new Episode(IntStream.range(0, 9).mapToObj(i -> example(0, i)).toList(), List.of(example(0, 1)));
        Episode other = episode.reordered(1);
        assertNotEquals(episode.demonstrations(), other.demonstrations());
        assertEquals(new HashSet<>(episode.demonstrations()), new HashSet<>(other.demonstrations()));
        assertFalse(other.queries().isEmpty());
    }
}
