package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class TokenizerTest {
    @TempDir
    Path folder;

    /** Ids of the published GPT-2 vocabulary and merges, by the published algorithm in Python and by Hugging Face's tokenizer alike. */
    static Stream<Arguments> published() {
        return Stream.of(
            arguments("Hello world", "15496 995"),
            arguments(" the", "262"),
            arguments("Hello, I'm a language model,", "15496 11 314 1101 257 3303 2746 11"),
            arguments("<|endoftext|>", "27 91 437 1659 5239 91 29"),
            arguments("don't we've I'll SHE'S", "9099 470 356 1053 314 1183 48052 6 50"),
            arguments("  two  spaces   three", "220 734 220 9029 220 220 1115"),
            arguments("tabs\tand\n\nlines\r\n", "8658 82 197 392 198 198 6615 201 198"),
            arguments("trailing \n ", "9535 4386 220 198 220"),
            arguments("1234567890 3.14159", "10163 2231 30924 3829 513 13 1415 19707"),
            arguments("na\u00efve caf\u00e9 \u00c5ngstr\u00f6m", "2616 38776 40304 6184 227 782 2536 9101 76"),
            arguments("\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "33768 98 17312 105 45739 252 5641 24336 25084 43302"),
            arguments("\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
                    "140 253 21169 18849 38857 16843 20375 11 12466 120 18849 21169 0"),
            arguments("\ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67 emoji \ud83d\ude42",
                    "41840 102 447 235 41840 102 447 235 41840 100 44805 32485"),
            arguments("a\u00a0b\u2003c\u3000d", "64 1849 65 447 225 66 5099 222 67"),
            arguments("\u0085x\u001c y", "126 227 87 216 331"),
            arguments("\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
                    "25405 26897 148 255 39848 12919 17550 101 23525 44690 23525 25405"),
            arguments("ABCdefGHI_jkl-MNO", "24694 4299 17511 40 62 73 41582 12 44 15285"),
            arguments("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                    "24794 24794 24794 24794 24794 24794 24794 24794 24794 24794 24794 24794 24794 24794 24794 24794"),
            arguments("\u0000\u0001\u007f", "188 189 221"),
            arguments("\u0967\u0968\u0969 \u00bd \u2167", "24231 100 24231 101 24231 102 25208 2343 227 100"),
            arguments("e\u0301\u0327z", "68 136 223 136 100 89"),
            arguments("\ufffd\ufeff", "4210 171 119 123"),
            arguments("supercalifragilisticexpialidocious antidisestablishmentarianism",
                    "16668 9948 361 22562 346 396 501 42372 498 312 32346 1885 29207 44390 3699 1042"),
            arguments("Positive", "21604 1800"),
            arguments("terrible review .", "353 5547 2423 764"));
    }

    @ParameterizedTest
    @MethodSource("published")
    void gpt2GivesThePublishedIds(String text, String ids) {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        int[] expected = Arrays.stream(ids.split(" ")).mapToInt(Integer::parseInt).toArray();
        assertArrayEquals(expected, gpt2.encode(text), () -> Arrays.toString(gpt2.encode(text)));
        assertEquals(text, gpt2.decode(expected));
    }

    @Test
    void gpt2HasAnEndOfTextThatTextCannotWrite() {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        assertEquals(50257, gpt2.vocabularySize());
        assertEquals(50256, gpt2.endOfText());
        assertEquals("<|endoftext|>", gpt2.decode(50256));
        assertFalse(Arrays.stream(gpt2.encode("a<|endoftext|>b")).anyMatch(id -> id == 50256));
        assertEquals(0, gpt2.encode("").length);
        assertEquals("", gpt2.decode());
    }

    @Test
    void everyGpt2TokenDecodesAndEveryByteHasOne() {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        for (int id = 0; id < gpt2.vocabularySize(); id++) {
            assertFalse(gpt2.decode(id).isEmpty(), "token " + id);
        }
        assertEquals("\ufffd", gpt2.decode(gpt2.encode("\u00c5")[0]), "half a character");
    }

    @Test
    void gpt2GivesRandomTextBack() {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        Random random = new Random(20);
        for (int i = 0; i < 300; i++) {
            String text = randomText(random, random.nextInt(200));
            int[] ids = gpt2.encode(text);
            assertEquals(text, gpt2.decode(ids));
        }
    }

    @Test
    void gpt2TakesVeryLongWordsAndRunsOfSpaces() {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        for (String unit : List.of("a", " ", "\n", "\u4e2d", "ab1", "!")) {
            String text = unit.repeat(50_000);
            assertEquals(text, gpt2.decode(gpt2.encode(text)));
        }
    }

    @Test
    void halfASurrogatePairIsTheReplacementCharacter() {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        assertArrayEquals(gpt2.encode("a\ufffdb"), gpt2.encode("a\ud83db"));
        assertArrayEquals(gpt2.encode("\ufffd\ud83d\ude00\ufffd"), gpt2.encode("\ude00\ud83d\ude00\ud83d"));
        CharTokenizer chars = CharTokenizer.of("a\ud83d");
        assertEquals(3, chars.vocabularySize());
        assertArrayEquals(new int[] {2, CharTokenizer.UNKNOWN}, chars.encode("a\ud83d"));
    }

    @Test
    void charactersAreInCodePointOrder() {
        CharTokenizer chars = CharTokenizer.of("ba\ud83d\ude42\n\uff01a");
        assertEquals("\nab\uff01\ud83d\ude42", chars.characters());
        assertEquals(7, chars.vocabularySize());
        assertEquals(CharTokenizer.END_OF_TEXT, chars.endOfText());
        assertArrayEquals(new int[] {6, 2, 0, 5, 4}, chars.encode("\ud83d\ude42\nz\uff01b"));
        assertEquals("\ud83d\ude42\n\ufffdab<|endoftext|>", chars.decode(6, 2, 0, 3, 4, 1));
        assertEquals(chars, CharTokenizer.of(List.of("ba\ud83d\ude42", "\n\uff01a")));
    }

    @Test
    void charactersGiveRandomTextBack() {
        Random random = new Random(21);
        for (int i = 0; i < 100; i++) {
            String text = randomText(random, 1 + random.nextInt(300));
            CharTokenizer chars = CharTokenizer.of(text);
            assertEquals(text, chars.decode(chars.encode(text)));
            assertFalse(Arrays.stream(chars.encode(text)).anyMatch(id -> id < 2));
        }
    }

    @Test
    void tokensOutsideTheVocabularyAreRejected() {
        for (Tokenizer tokenizer : List.of(new Gpt2Tokenizer(), CharTokenizer.of("ab"))) {
            assertThrows(InvalidArgumentException.class, () -> tokenizer.decode(-1));
            assertThrows(InvalidArgumentException.class, () -> tokenizer.decode(0, tokenizer.vocabularySize()));
        }
        assertThrows(InvalidArgumentException.class, () -> CharTokenizer.of(""));
    }

    @Test
    void savedTokenizersComeBackEqual() throws IOException {
        Random random = new Random(22);
        for (int i = 0; i < 20; i++) {
            CharTokenizer chars = CharTokenizer.of("\"\\\u2028\u0000\ufeff" + randomText(random, 50));
            Tokenizers.save(chars, folder.resolve("model"));
            assertEquals(chars, Tokenizers.load(folder.resolve("model")));
        }
        Tokenizers.save(new Gpt2Tokenizer(), folder.resolve("model"));
        assertEquals(new Gpt2Tokenizer(), Tokenizers.load(folder.resolve("model")));
        assertEquals("{\"kind\":\"gpt2\"}\n", Files.readString(folder.resolve("model/tokenizer.json")));
        try (Stream<Path> files = Files.list(folder.resolve("model"))) {
            assertEquals(1, files.count(), "nothing unfinished is left");
        }
    }

    @Test
    void tokenizersHaveNames() {
        assertEquals(new Gpt2Tokenizer(), Tokenizers.named("gpt2", List.of()));
        assertEquals(CharTokenizer.of("ab"), Tokenizers.named("chars", List.of("b", "a")));
        var error = assertThrows(InvalidArgumentException.class, () -> Tokenizers.named("bpe", List.of("a")));
        assertEquals("tokenizer: \"bpe\", expected gpt2 or chars", error.getMessage());
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "{\"kind\":\"gpt2\"               | not JSON",
        "                                 | no \"kind\"",
        "[]                               | no \"kind\"",
        "{\"model\":{}}                   | no \"kind\"",
        "{\"kind\":\"bpe\"}               | kind \"bpe\", expected \"gpt2\" or \"chars\"",
        "{\"kind\":\"gpt2\"} x            | not JSON",
        "{\"kind\":\"gpt2\",\"kind\":\"chars\"} | not JSON",
        "{\"kind\":\"gpt2\",\"characters\":\"ab\"} | unknown key \"characters\"",
        "{\"kind\":\"chars\"}             | no \"characters\"",
        "{\"kind\":\"chars\",\"characters\":3} | no \"characters\"",
        "{\"kind\":\"chars\",\"characters\":\"\"} | characters: none",
        "{\"kind\":\"chars\",\"characters\":\"aba\"} | characters: U+0061 twice",
        "{\"kind\":\"chars\",\"characters\":\"a\\ud83d\"} | characters: U+D83D is half of a surrogate pair",
    })
    void badTokenizerFilesAreNamed(String json, String expected) throws IOException {
        Path file = folder.resolve("tokenizer.json");
        Files.writeString(file, json == null ? "" : json);
        String message = assertThrows(DataException.class, () -> Tokenizers.load(folder)).getMessage();
        assertTrue(message.startsWith(file + ": " + expected), message);
    }

    @Test
    void missingAndMalformedTokenizerFilesAreNamed() throws IOException {
        String missing = assertThrows(DataException.class, () -> Tokenizers.load(folder)).getMessage();
        assertTrue(missing.startsWith(folder.resolve("tokenizer.json") + ": there is no such file"), missing);
        Files.write(folder.resolve("tokenizer.json"), "{\"kind\":\"\u00e9\"}".getBytes(StandardCharsets.ISO_8859_1));
        String malformed = assertThrows(DataException.class, () -> Tokenizers.load(folder)).getMessage();
        assertTrue(malformed.endsWith("not UTF-8 text"), malformed);
    }

    /** Words, digits, white space of many kinds, and characters of one to four bytes. */
    static String randomText(Random random, int length) {
        String common = "  \n\t\r'\u00a0\u0085.,-0123456789abcdefghijklmnopqrstuvwxyzSTLLVE";
        StringBuilder text = new StringBuilder();
        while (text.length() < length) {
            int c = switch (random.nextInt(8)) {
                case 0 -> random.nextInt(0xd800);
                case 1 -> 0x1f300 + random.nextInt(0x300);
                default -> common.charAt(random.nextInt(common.length()));
            };
            text.appendCodePoint(c);
        }
        return text.toString();
    }
}
