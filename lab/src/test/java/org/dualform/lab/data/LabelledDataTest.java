package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.apache.commons.csv.CSVFormat;
import org.apache.commons.csv.CSVPrinter;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class LabelledDataTest {
    @TempDir
    Path folder;

    private Path file(String name, String text) throws IOException {
        return Files.writeString(folder.resolve(name), text);
    }

    @Test
    void tsvIsLabelTabText() throws IOException {
        Path file = file("a.tsv", "\ufeff1\tgood , very good .\r\n\n \r\n 0 \tbad\tworse\n1\tlast");
        List<LabelledText> examples = LabelledData.read(file, 2);
        assertEquals(List.of(
                new LabelledText(Map.of("text", "good , very good ."), 1, file, 1),
                new LabelledText(Map.of("text", "bad\tworse"), 0, file, 4),
                new LabelledText(Map.of("text", "last"), 1, file, 5)), examples);
        assertEquals("last", examples.get(2).text());
        assertEquals(file + ":5", examples.get(2).where());
        var error = assertThrows(DataException.class, () -> examples.get(1).field("premise"));
        assertEquals(file + ":4: no \"premise\", only text", error.getMessage());
    }

    @Test
    void jsonLinesKeepTheirFields() throws IOException {
        Path file = file("a.jsonl", """
                {"text":"good \\u00e9\\n","label":1}

                {"sentence":"bad","label":"0","idx":3,"note":null,"blank":" "}
                {"premise":"it rains","hypothesis":"it is wet","label":2,"sure":true,"weight":0.5}
                """);
        List<LabelledText> examples = LabelledData.read(file, 3);
        assertEquals(new LabelledText(Map.of("text", "good \u00e9\n"), 1, file, 1), examples.get(0));
        assertEquals(new LabelledText(Map.of("sentence", "bad", "text", "bad", "idx", "3"), 0, file, 3), examples.get(1));
        Map<String, String> pair = Map.of("premise", "it rains", "hypothesis", "it is wet", "sure", "true", "weight", "0.5");
        assertEquals(new LabelledText(pair, 2, file, 4), examples.get(2));
        assertEquals("[premise, hypothesis, sure, weight]", examples.get(2).fields().keySet().toString());
    }

    @Test
    void csvHasAHeader() throws IOException {
        Path file = file("a.csv", "premise,label,hypothesis\r\n\"a \"\"b\"\",\nc\",1,d\r\n\r\ne,0,\"f\ng\"\n \n\nh,1,\u00e9\n");
        assertEquals(List.of(
                new LabelledText(Map.of("premise", "a \"b\",\nc", "hypothesis", "d"), 1, file, 2),
                new LabelledText(Map.of("premise", "e", "hypothesis", "f\ng"), 0, file, 5),
                new LabelledText(Map.of("premise", "h", "hypothesis", "\u00e9"), 1, file, 9)), LabelledData.read(file, 2));
        assertEquals("x", LabelledData.read(file("s.csv", "label,sentence\n0,x\n"), 1).get(0).text());
    }

    @Test
    void labelsMayBeNames() throws IOException {
        List<String> names = List.of("negative", "positive");
        Path file = file("a.tsv", "positive\ta\n0\tb\nnegative\tc\n1\td\n");
        assertEquals(List.of(1, 0, 0, 1), LabelledData.read(file, names).stream().map(LabelledText::label).toList());
        Path stars = file("stars.jsonl", "{\"label\":1,\"text\":\"a\"}\n{\"label\":\"3\",\"text\":\"b\"}\n");
        assertEquals(List.of(0, 2), LabelledData.read(stars, List.of("1", "2", "3")).stream().map(LabelledText::label).toList());
        Path zero = file("zero.tsv", "0\ta\n");
        assertEquals(zero + ":1: label 0, expected one of 1, 2, 3", error(zero, List.of("1", "2", "3")));
        Path capital = file("capital.tsv", "Positive\ta\n");
        assertEquals(capital + ":1: label \"Positive\", expected 0 to 1 or one of negative, positive", error(capital, names));
        assertThrows(InvalidArgumentException.class, () -> LabelledData.read(file, List.of("a", "a")));
        assertThrows(InvalidArgumentException.class, () -> LabelledData.read(file, List.of()));
        assertThrows(InvalidArgumentException.class, () -> LabelledData.read(file, 0));
    }

    private static String error(Path file, List<String> names) {
        return assertThrows(DataException.class, () -> LabelledData.read(file, names)).getMessage();
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "tsv   | 7~text                         | :1: label 7, expected 0 to 4",
        "tsv   | 0~a#-1~b                       | :2: label -1, expected 0 to 4",
        "tsv   | 0~a##5~b                       | :3: label 5, expected 0 to 4",
        "tsv   | 99999999999999999999~a         | :1: label 99999999999999999999, expected 0 to 4",
        "tsv   | label~sentence                 | :1: label \"label\", expected 0 to 4",
        "tsv   | 1.0~a                          | :1: label \"1.0\", expected 0 to 4",
        "tsv   | \u0661~a                       | :1: label \"\u0661\", expected 0 to 4",
        "tsv   | ~a                             | :1: no label, expected 0 to 4",
        "tsv   | 0~a#0 a                        | :2: no tab, expected label, tab, text",
        "tsv   | 0~a#0~ #                       | :2: no text, expected some after the label",
        "tsv   | 0~                             | :1: no text, expected some after the label",
        "tsv   | ##                             | : no examples, expected at least one",
        "tsv   |                                | : no examples, expected at least one",
        "json  | [{\"label\":0,\"text\":\"a\"}] | :1: not a JSON object, expected one object in a line",
        "jsonl | {\"label\":0,\"text\":\"a\"}#{\"label\":0, | :2: not JSON (Unexpected end-of-input",
        "jsonl | {\"label\":0,\"text\":\"a\"} {} | :1: not JSON (",
        "jsonl | {\"label\":0,\"label\":1,\"text\":\"a\"} | :1: not JSON (Duplicate",
        "jsonl | {\"text\":\"a\"}               | :1: no label, expected 0 to 4",
        "jsonl | {\"text\":\"a\",\"label\":null} | :1: no label, expected 0 to 4",
        "jsonl | {\"text\":\"a\",\"label\":true} | :1: label \"true\", expected 0 to 4",
        "jsonl | {\"text\":\"a\",\"label\":1.5} | :1: label \"1.5\", expected 0 to 4",
        "jsonl | {\"text\":\"a\",\"label\":[1]} | :1: \"label\" is a list or an object, expected text or a number",
        "jsonl | {\"text\":[\"a\"],\"label\":1} | :1: \"text\" is a list or an object, expected text or a number",
        "jsonl | {\"text\":\"\",\"label\":1}    | :1: no text, expected some after the label",
        "jsonl | {\"label\":1}                  | :1: no text, expected some after the label",
        "csv   | text,class#a,1                 | :1: no column \"label\", only text, class",
        "csv   | text,label#a,1#b               | :3: 1 columns, expected 2",
        "csv   | text,label#\"a#b\",1#c,1,2     | :4: 3 columns, expected 2",
        "csv   | text,label#a,9                 | :2: label 9, expected 0 to 4",
        "csv   | text,label#\"a#b\",9           | :2: label 9, expected 0 to 4",
        "csv   | text,label,text#a,1,b          | :1: column 3: name \"text\", expected one that no other has",
        "csv   | #text,,label#a,1,b             | :2: column 2: name \"\", expected one that no other has",
        "csv   | text,label#x,1#\"a\"b,1       | :3: not CSV, expected a closing quote",
        "csv   | text,label#x,1#\"y#z\",1#\"a,1#b,1 | :5: not CSV, expected a closing quote",
        "csv   | \"text                         | :1: not CSV, expected a closing quote",
        "csv   | text,label                     | : no examples, expected at least one",
        "csv   |                                | : no examples, expected at least one",
        "parquet | 0~a                          | : unknown format, expected a name that ends in .tsv, .jsonl or .csv",
    })
    void badInputIsOneSentenceWithFileAndLine(String suffix, String text, String expected) throws IOException {
        Path file = file("data." + suffix, text == null ? "" : text.replace('#', '\n').replace('~', '\t'));
        String message = assertThrows(DataException.class, () -> LabelledData.read(file, 5)).getMessage();
        assertTrue(message.startsWith(file + expected), message);
        assertTrue(message.indexOf('\n') < 0, message);
    }

    @Test
    void bytesThatAreNotTextAreNamedInEveryFormat() throws IOException {
        assertEquals(folder.resolve("none.tsv") + ": there is no such file",
                assertThrows(DataException.class, () -> LabelledData.read(folder.resolve("none.tsv"), 2)).getMessage());
        Map<String, String> texts = Map.of("tsv", "0\ta\n1\tcaf\u00e9\n", "csv", "label,text\n0,caf\u00e9\n",
                "jsonl", "{\"label\":0,\"text\":\"a\"}\n{\"text\":\"caf\u00e9\"}\n");
        for (Map.Entry<String, String> text : texts.entrySet()) {
            Path file = folder.resolve("latin." + text.getKey());
            Files.write(file, text.getValue().getBytes(StandardCharsets.ISO_8859_1));
            assertEquals(file + ":2: byte 0xE9 is not UTF-8",
                    assertThrows(DataException.class, () -> LabelledData.read(file, 2)).getMessage());
        }
    }

    @Test
    void linesLongerThanSixteenMebibytesAreRejected() throws IOException {
        Path file = file("long.tsv", "0\ta\n1\t" + "x".repeat((16 << 20) - 3) + "\n");
        assertEquals(2, LabelledData.read(file, 2).size());
        Files.writeString(file, "0\ta\n1\t" + "x".repeat((16 << 20) - 2) + "\n");
        assertEquals(file + ":2: a line of more than 16777216 bytes",
                assertThrows(DataException.class, () -> LabelledData.read(file, 2)).getMessage());
    }

    @Test
    void randomExamplesComeBackFromEveryFormat() throws IOException {
        Random random = new Random(50);
        for (int round = 0; round < 8; round++) {
            List<String> texts = new ArrayList<>();
            List<Integer> labels = new ArrayList<>();
            StringBuilder tsv = new StringBuilder();
            StringBuilder json = new StringBuilder();
            StringWriter csv = new StringWriter();
            try (CSVPrinter printer = new CSVPrinter(csv, CSVFormat.DEFAULT)) {
                printer.printRecord("label", "text");
                for (int i = 1 + random.nextInt(30); i > 0; i--) {
                    String text = "x" + TokenizerTest.randomText(random, random.nextInt(100)).replaceAll("[\r\n]", "\"");
                    texts.add(text);
                    labels.add(random.nextInt(6));
                    int label = labels.get(labels.size() - 1);
                    tsv.append(label).append('\t').append(text).append('\n');
                    json.append(new ObjectMapper().writeValueAsString(Map.of("label", label, "text", text))).append('\n');
                    printer.printRecord(label, text);
                }
            }
            for (String how : List.of("", ".gz", ".xz")) {
                for (Map.Entry<String, String> format : Map.of("tsv", tsv.toString(), "jsonl", json.toString(), "csv", csv.toString())
                        .entrySet()) {
                    Path file = folder.resolve("random." + format.getKey() + how);
                    Files.write(file, TextFilesTest.compressed(how.replace(".", ""), format.getValue().getBytes(StandardCharsets.UTF_8)));
                    List<LabelledText> examples = LabelledData.read(file, 6);
                    assertEquals(texts, examples.stream().map(example -> example.fields().get("text")).toList());
                    assertEquals(labels, examples.stream().map(LabelledText::label).toList());
                }
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "sst2/train.tsv, 2, 6920", "sst2/dev.tsv, 2, 872", "sst2/test.tsv, 2, 1821",
        "sst5/train.tsv, 5, 8544", "sst5/dev.tsv, 5, 1101", "sst5/test.tsv, 5, 2210",
        "mr/all.tsv, 2, 10662", "subj/all.tsv, 2, 10000", "agnews/all.tsv, 4, 7600",
    })
    void realDataHasItsRowsAndLabels(String name, int classes, int rows) throws IOException {
        List<LabelledText> examples = LabelledData.read(RealData.file(name), classes);
        assertEquals(rows, examples.size());
        assertEquals(classes, examples.stream().map(LabelledText::label).distinct().count());
        assertEquals(rows, examples.get(rows - 1).line());
        if (classes > 2) {
            assertThrows(DataException.class, () -> LabelledData.read(RealData.file(name), classes - 1));
        }
    }
}
