package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.CharTokenizer;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.Gpt2Tokenizer;
import org.dualform.lab.data.LabelledText;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TaskTest {
    @TempDir
    private Path folder;

    private LabelledText only(Task task, String name, String content) throws IOException {
        Path file = folder.resolve(name);
        Files.writeString(file, content);
        return task.examples(file).get(0);
    }

    /** Literally what is published. */
    @Test
    void theSixTasksReadAsPublished() throws IOException {
        String news = "Classify the news articles into the categories of World, Sports, Business, and Technology. ";
        String[][] expected = {
            {"sst2", "Sentence: a film Label:", "[Negative, Positive]"},
            {"sst5", "Sentence: a film Label:", "[terrible, bad, neutral, good, great]"},
            {"mr", "Review: a film Sentiment:", "[Negative, Positive]"},
            {"subj", "Input: a film Type:", "[objective, subjective]"},
            {"agnews", news + "Article: a film Answer:", "[World, Sports, Business, Technology]"},
            {"agnews-paper", news + "News: a film Type:", "[World, Sports, Business, Technology]"},
        };
        for (String[] row : expected) {
            Task task = Task.named(row[0]);
            assertEquals(row[1], task.input(only(task, "x.tsv", "0\t a film \n")));
            assertEquals(row[2], task.answers().toString());
        }
        Task cb = Task.named("cb");
        LabelledText pair = only(cb, "cb.jsonl", "{\"premise\": \"It rains.\", \"hypothesis\": \"it is wet\", \"label\": 0}\n");
        assertEquals("It rains. Question: it is wet. True, False, or Neither? Answer:", cb.input(pair));
        assertEquals("[True, False, Neither]", cb.answers().toString());
        assertEquals(7, Task.names().size());
    }

    /** The file has 0 for subjective, the published task lists objective first. */
    @Test
    void labelsOfSubjectivityAreNotTurnedAround() throws IOException {
        Task task = Task.named("subj");
        Words words = new Words();
        TokenTask tokens = task.tokens(words);
        int subjective = task.encode(words, only(task, "a.tsv", "0\tI love it\n")).label();
        assertEquals(" subjective", words.decode(tokens.answers().get(subjective)));
        assertEquals(1, subjective);
        assertEquals(1, task.encode(words, only(task, "b.tsv", "subjective\tI love it\n")).label());
        Task other = task.withLabelOrder(List.of("Objective", "Subjective"));
        assertEquals(0, other.encode(words, only(other, "c.tsv", "0\tIt rains\n")).label());
        assertFalse(task.hasOwnOrder());
        assertTrue(other.hasOwnOrder());
        String told = "{\"text\": \"It rains\", \"label\": 0, \"label_text\": \"objective\"}\n";
        DataException wrong = assertThrows(DataException.class, () -> only(task, "d.jsonl", told));
        assertTrue(wrong.getMessage().contains("d.jsonl:1: label 0 is read as subjective, but label_text is objective"),
                wrong.getMessage());
        assertEquals(0, other.encode(words, only(other, "e.jsonl", told)).label());
        assertThrows(InvalidArgumentException.class, () -> task.withLabelOrder(List.of("objective", "objective")));
        assertThrows(InvalidArgumentException.class, () -> task.withLabelOrder(List.of("objective")));
    }

    @Test
    void answersBeginWithASpaceAndAreTokenizedAlone() throws IOException {
        Gpt2Tokenizer gpt2 = new Gpt2Tokenizer();
        Task task = Task.named("sst2");
        TokenTask tokens = task.tokens(gpt2);
        assertEquals(" Negative", gpt2.decode(tokens.answers().get(0)));
        assertArrayEquals(gpt2.encode(" Positive"), tokens.answers().get(1));
        assertEquals(50256, tokens.beginning());
        assertEquals(50256, tokens.separator());
        assertArrayEquals(gpt2.encode("Sentence: a film Label:"), task.encode(gpt2, only(task, "x.tsv", "1\ta film\n")).input());
        for (String name : Task.names()) {
            for (int[] answer : Task.named(name).tokens(gpt2).answers()) {
                assertEquals(1, answer.length, name + ": every published answer is one token of GPT-2");
            }
        }
    }

    @Test
    void answersTheModelCannotTellApartAreRefused() {
        CharTokenizer chars = CharTokenizer.of(List.of("abc "));
        Task task = new Task("digits", "{x} =", List.of("1", "2"), List.of("1", "2"));
        assertThrows(InvalidArgumentException.class, () -> task.tokens(chars));
    }

    @Test
    void promptsHaveNoLineEnds() throws IOException {
        Task task = Task.named("mr");
        LabelledText text = only(task, "x.jsonl", "{\"text\": \"two \\r\\n\\n lines\\n\", \"label\": 1}\n");
        assertEquals("Review: two lines Sentiment:", task.input(text));
        assertThrows(InvalidArgumentException.class, () -> new Task("t", "{x}\n:", List.of("a", "b"), List.of("a", "b")));
    }

    @Test
    void bracesAndDollarsInATextAreText() throws IOException {
        Task task = Task.named("mr");
        assertEquals("Review: costs $1 {x} \\ Sentiment:", task.input(only(task, "x.tsv", "1\tcosts $1 {x} \\\n")));
    }

    @Test
    void userTasksComeFromJson() throws IOException {
        Path file = folder.resolve("spam.json");
        Files.writeString(file, "{\"name\": \"spam\", \"template\": \"{subject}: {x} Kind:\", \"answers\": [\"ham\", \"spam\"],"
                + " \"label_order\": [\"spam\", \"ham\"]}");
        Task task = Task.read(file);
        LabelledText mail = only(task, "mail.csv", "label,subject,text\n0,Win,Money\n");
        assertEquals("Win: Money Kind:", task.input(mail));
        assertEquals(1, task.encode(new Words(), mail).label());
        DataException missing = assertThrows(DataException.class, () -> only(task, "bad.csv", "label,text\n0,Money\n"));
        assertTrue(missing.getMessage().contains("bad.csv:2: no \"subject\""), missing.getMessage());
    }

    @Test
    void unusableTaskFilesAreOneSentence() throws IOException {
        String[] bad = {"", "[]", "{\"name\": \"a\"", "{\"name\": \"a\"}", "{\"name\": \"a\", \"template\": \"{x}\", \"answers\": [\"b\"]}",
            "{\"name\": \"a\", \"template\": \"x\", \"answers\": [\"b\", \"c\"]}",
            "{\"name\": \"a\", \"template\": \"{x}\", \"answers\": [\"b\", 1]}",
            "{\"name\": \"a\", \"template\": \"{x}\", \"answers\": [\"b\", \"b\"]}",
            "{\"name\": \"a\", \"template\": \"{x}\", \"answers\": [\"b\", \" c\"]}",
            "{\"name\": \"a\", \"template\": \"{x}\", \"answers\": [\"b\", \"c\"], \"label_order\": [\"b\"]}",
            "{\"name\": \"a\", \"template\": \"{x}\", \"answers\": [\"b\", \"c\"], \"labels\": []}"};
        for (String content : bad) {
            Path file = folder.resolve("task.json");
            Files.writeString(file, content);
            DataException wrong = assertThrows(DataException.class, () -> Task.read(file), content);
            assertTrue(wrong.getMessage().startsWith(file.toString()) && !wrong.getMessage().contains("\n"), wrong.getMessage());
        }
        Files.write(folder.resolve("task.json"), new byte[] {'{', (byte) 0xff});
        assertTrue(assertThrows(DataException.class, () -> Task.read(folder.resolve("task.json"))).getMessage().contains("not UTF-8"));
        assertThrows(DataException.class, () -> Task.read(folder.resolve("nowhere.json")));
    }

    @Test
    void unknownTasksNameTheKnownOnes() {
        String sentence = assertThrows(InvalidArgumentException.class, () -> Task.named("sst3")).getMessage();
        assertTrue(sentence.contains("\"sst3\", expected one of sst2, sst5, mr, subj, agnews, agnews-paper, cb"), sentence);
    }

    @Test
    void labelsOutOfRangeNameTheLine() {
        DataException wrong = assertThrows(DataException.class, () -> only(Task.named("sst2"), "x.tsv", "1\tfine\n2\ttoo much\n"));
        assertTrue(wrong.getMessage().contains("x.tsv:2: label 2, expected 0 to 1"), wrong.getMessage());
    }
}
