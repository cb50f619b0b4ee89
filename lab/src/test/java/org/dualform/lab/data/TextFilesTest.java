package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.zip.GZIPOutputStream;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.tukaani.xz.LZMA2Options;
import org.tukaani.xz.XZOutputStream;

class TextFilesTest {
    @TempDir
    Path folder;

    private Path file(String name, byte[] bytes) throws IOException {
        return Files.write(folder.resolve(name), bytes);
    }

    private Path file(String name, String text) throws IOException {
        return file(name, text.getBytes(StandardCharsets.UTF_8));
    }

    static byte[] compressed(String how, byte[] bytes) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (OutputStream to = how.equals("gz") ? new GZIPOutputStream(out) : how.equals("xz")
                ? new XZOutputStream(out, new LZMA2Options(1)) : out) {
            to.write(bytes);
        }
        return out.toByteArray();
    }

    private static String error(Path file) {
        return assertThrows(DataException.class, () -> TextFiles.read(file)).getMessage();
    }

    @Test
    void documentsAreSeparatedByEndOfTextLines() throws IOException {
        Path file = file("a.txt", "<|endoftext|>\n one\r\n two \n<|endoftext|>\r\n\n \t\n<|endoftext|>\nx<|endoftext|>\n<|endoftext|>y\n"
                + "<|endoftext|>\n\nlast");
        assertEquals(List.of(" one\r\n two \n", "x<|endoftext|>\n<|endoftext|>y\n", "\nlast"), TextFiles.read(file));
        Path second = file("b.txt", "\ufeffb\n\ufffd");
        assertEquals(List.of("b\n\ufffd"), TextFiles.read(second), "no byte-order mark; a replacement character that is really there");
        assertEquals(4, TextFiles.read(List.of(second, file)).size());
        assertEquals("b\n\ufffd", TextFiles.read(List.of(second, file)).get(0));
    }

    @ParameterizedTest
    @ValueSource(strings = {"plain", "gz", "xz"})
    void randomDocumentsComeBack(String how) throws IOException {
        Random random = new Random(30);
        for (int round = 0; round < 10; round++) {
            List<String> documents = new ArrayList<>();
            for (int i = 1 + random.nextInt(4); i > 0; i--) {
                documents.add("x" + TokenizerTest.randomText(random, random.nextInt(1 << random.nextInt(17))) + "\n");
            }
            String text = String.join("<|endoftext|>\n", documents);
            Path file = file("text", compressed(how, text.getBytes(StandardCharsets.UTF_8)));
            assertEquals(documents, TextFiles.read(file));
        }
    }

    @Test
    void filesThatAreNotTextAreNamed() throws IOException {
        Path missing = folder.resolve("none.txt");
        assertEquals(missing + ": there is no such file", error(missing));
        assertEquals(folder + ": a folder, expected a file", error(folder));
        for (String blank : List.of("", " \n\t\r\n", "<|endoftext|>\n", "\ufeff", "\n<|endoftext|>\n\u3000\n<|endoftext|>")) {
            Path file = file("blank.txt", blank);
            assertEquals(file + ": no text, expected at least one character that is not white space", error(file));
        }
        Path empty = file("empty.gz", compressed("gz", new byte[0]));
        assertTrue(error(empty).startsWith(empty + ": no text"));
    }

    @ParameterizedTest
    @CsvSource({
        // overlong, lone continuation, cut short, surrogate, above U+10FFFF, Latin-1, UTF-16
        "'a\nb', C0 80, C0", "'', 80, 80", "'a\n\nb', E2 82, E2", "'a\n', ED A0 80, ED", "a, F5 80 80 80, F5", "'\n', E9, E9",
        "'', FF FE 41 00, FF", "'a\nb\nc', F0 9F 99 0A, F0",
    })
    void malformedBytesAreNamed(String before, String bytes, String first) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        all.write("good\ufffd\n".getBytes(StandardCharsets.UTF_8));
        all.write(before.getBytes(StandardCharsets.UTF_8));
        all.write(HexFormat.ofDelimiter(" ").parseHex(bytes));
        long line = 2 + before.chars().filter(c -> c == '\n').count();
        for (String how : List.of("plain", "gz", "xz")) {
            Path file = file("bad.txt", compressed(how, all.toByteArray()));
            assertEquals(file + ":" + line + ": byte 0x" + first + " is not UTF-8", error(file));
        }
    }

    @Test
    void malformedBytesDeepInALongLineAreFound() throws IOException {
        byte[] bytes = ("\u20ac\ufffd".repeat(100_000) + "x").getBytes(StandardCharsets.UTF_8);
        assertEquals(200_001, TextFiles.read(file("long.txt", bytes)).get(0).length());
        bytes[bytes.length - 1] = (byte) 0xa0;
        Path file = file("long.txt", bytes);
        assertEquals(file + ":1: byte 0xA0 is not UTF-8", error(file));
    }

    @ParameterizedTest
    @ValueSource(strings = {"gz", "xz"})
    void damagedCompressionIsNamed(String how) throws IOException {
        byte[] text = new byte[20_000];
        Random random = new Random(31);
        for (int i = 0; i < text.length; i++) {
            text[i] = (byte) ('a' + random.nextInt(26));
        }
        byte[] whole = compressed(how, text);
        assertEquals(text.length, TextFiles.read(file("whole", whole)).get(0).length());
        for (int length : new int[] {6, 10, 11, whole.length / 2, whole.length - 5, whole.length - 1}) {
            Path file = file("cut", Arrays.copyOf(whole, length));
            assertTrue(error(file).startsWith(file + ": damaged " + (how.equals("gz") ? "gzip" : how) + " data ("), error(file));
        }
        whole[whole.length / 2] ^= 1;
        Path file = file("flipped", whole);
        assertTrue(error(file).startsWith(file + ": damaged "), error(file));
    }

    @Test
    void textMayBeCutWithoutChangingItsTokens() {
        Tokenizer gpt2 = new Gpt2Tokenizer();
        Random random = new Random(32);
        int inside = 0;
        for (int i = 0; i < 3_000; i++) {
            String text = i % 2 == 0 ? TokenizerTest.randomText(random, 1 + random.nextInt(120)) : spaced(random);
            int cut = Corpus.cut(text, random.nextInt(text.length()));
            inside += cut < text.length() ? 1 : 0;
            int[] first = gpt2.encode(text.substring(0, cut));
            int[] second = gpt2.encode(text.substring(cut));
            int[] both = Arrays.copyOf(first, first.length + second.length);
            System.arraycopy(second, 0, both, first.length, second.length);
            assertArrayEquals(gpt2.encode(text), both, text);
        }
        assertTrue(inside > 1_000, inside + " cuts");
    }

    /** Mostly white space: two line feeds are one token, but not always, by what follows. */
    private static String spaced(Random random) {
        StringBuilder text = new StringBuilder("x");
        for (int i = random.nextInt(20); i >= 0; i--) {
            text.append("\n\n\n\n \t\r\u00a0x1.'".charAt(random.nextInt(12)));
        }
        return text.toString();
    }

    @Test
    void everyDocumentFollowsAnEndOfText() {
        CharTokenizer chars = CharTokenizer.of("abc\n");
        List<Long> progress = new ArrayList<>();
        Corpus corpus = Corpus.encode(chars, List.of("ab", "", "c"), progress::add);
        assertArrayEquals(new int[] {1, 3, 4, 1, 1, 5}, corpus.tokens());
        assertEquals(List.of(2L, 3L), progress);
        String large = ("a\nb".repeat(40_000));
        progress.clear();
        int[] tokens = Corpus.encode(chars, List.of(large, large), progress::add).tokens();
        assertEquals(240_002, tokens.length);
        assertArrayEquals(chars.encode(large), Arrays.copyOfRange(tokens, 1, 120_001));
        assertTrue(progress.size() == 4 && progress.get(3) == 240_000, progress.toString());
    }

    @Test
    void splitsKeepEveryTokenInOrder() {
        int[] tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
        Corpus corpus = new Corpus(new Gpt2Tokenizer(), tokens);
        assertArrayEquals(new int[] {1, 2, 3, 4, 5, 6, 7}, corpus.split(.3).training());
        assertArrayEquals(new int[] {8, 9, 10}, corpus.split(.3).validation());
        assertEquals(0, corpus.split(0).validation().length);
        for (double bad : new double[] {-.1, 1, Double.NaN}) {
            assertThrows(InvalidArgumentException.class, () -> corpus.split(bad));
        }
    }

    @Test
    void tokenFilesGiveTheCorpusBack() throws IOException {
        Path text = file("a.txt", "to be or not\n<|endoftext|>\nto be");
        for (String name : List.of("gpt2", "chars")) {
            Corpus corpus = Corpus.read(List.of(text), name, done -> {});
            Path file = folder.resolve(name + ".safetensors");
            TokenFile.write(file, corpus);
            for (Corpus back : List.of(TokenFile.read(file), Corpus.read(List.of(file), name, done -> {}),
                    Corpus.read(List.of(file), (String) null, done -> {}), Corpus.read(List.of(file), corpus.tokenizer(), done -> {}))) {
                assertEquals(corpus.tokenizer(), back.tokenizer());
                assertArrayEquals(corpus.tokens(), back.tokens());
            }
            assertEquals(2 * corpus.tokens().length, Corpus.read(List.of(file, file), name, done -> {}).tokens().length);
        }
    }

    @Test
    void badTokenFilesAreNamed() throws IOException {
        Path file = folder.resolve("tokens.safetensors");
        assertEquals(file + ": there is no such file", tokenError(file));
        Map<String, String> gpt2 = Map.of("tokenizer", "{\"kind\":\"gpt2\"}");
        try (Device device = Device.cpu(1); Tensor ids = Tensor.of(device, new int[] {5, 50257, -1}, 3);
                Tensor square = Tensor.of(device, new int[] {1, 2, 3, 4}, 2, 2); Tensor floats = Tensor.of(device, new float[] {1}, 1)) {
            Safetensors.write(file, Map.of("ids", ids), gpt2);
            assertEquals(file + ": token 1 is 50257, expected 0 to 50256", tokenError(file));
            Safetensors.write(file, Map.of("ids", ids), null);
            assertEquals(file + ": no \"tokenizer\" in its metadata, expected the content of tokenizer.json", tokenError(file));
            Safetensors.write(file, Map.of("ids", ids), Map.of("tokenizer", "gpt2"));
            assertTrue(tokenError(file).startsWith(file + ": tokenizer: not JSON"), tokenError(file));
            Safetensors.write(file, Map.of("ids", square), gpt2);
            assertEquals(file + ": tensor \"ids\": I32 of shape [2, 2], expected I32 of one dimension", tokenError(file));
            Safetensors.write(file, Map.of("ids", floats), gpt2);
            assertEquals(file + ": tensor \"ids\": F32 of shape [1], expected I32 of one dimension", tokenError(file));
            Safetensors.write(file, Map.of("tokens", ids), gpt2);
            assertEquals(file + ": no tensor \"ids\", expected a file of tokens", tokenError(file));
        }
        Files.writeString(file, "to be or not to be");
        assertTrue(assertThrows(IOException.class, () -> TokenFile.read(file)).getMessage().startsWith(file + ": "));
    }

    private static String tokenError(Path file) {
        return assertThrows(DataException.class, () -> TokenFile.read(file)).getMessage();
    }

    @Test
    void filesThatDoNotFitTogetherAreNamed() throws IOException {
        Path text = file("a.txt", "to be");
        Path gpt2 = folder.resolve("gpt2.safetensors");
        Path chars = folder.resolve("chars.SAFETENSORS");
        TokenFile.write(gpt2, Corpus.read(List.of(text), "gpt2", done -> {}));
        TokenFile.write(chars, Corpus.read(List.of(text), "chars", done -> {}));
        assertEquals(text + ": text, expected tokens as in " + gpt2, corpusError(List.of(gpt2, text), "gpt2"));
        assertEquals(gpt2 + ": tokens, expected text as in " + text, corpusError(List.of(text, gpt2), "gpt2"));
        assertEquals(chars + ": tokens of another tokenizer than " + gpt2, corpusError(List.of(gpt2, chars), "gpt2"));
        assertEquals(gpt2 + ": tokens of tokenizer gpt2, expected chars", corpusError(List.of(gpt2), "chars"));
        assertThrows(InvalidArgumentException.class, () -> Corpus.read(List.of(), "gpt2", done -> {}));
        assertThrows(InvalidArgumentException.class, () -> Corpus.read(List.of(text), (String) null, done -> {}));
        var other = assertThrows(DataException.class, () -> Corpus.read(List.of(chars), CharTokenizer.of("xyz"), done -> {}));
        assertEquals(chars + ": tokens of another tokenizer, chars (7), expected that of the model, chars (5)", other.getMessage());
    }

    private static String corpusError(List<Path> files, String tokenizer) {
        return assertThrows(DataException.class, () -> Corpus.read(files, tokenizer, done -> {})).getMessage();
    }

    /** Digests of the ids that the published algorithm, written in Python, gives for these files as a whole. */
    @ParameterizedTest
    @CsvSource({
        "text/tinyshakespeare.txt, 338025, 0c00ab83dc7f46665805762aa7688fb7852f03f28c4a5d84061871e85ea7c815",
        "text/wikitext2-valid.txt, 258659, 9c87f1a0a64b3a69ad7f2f71b97326a29db8035b6a1ffb4147dabde3709ef775",
    })
    void realTextGivesThePublishedIds(String name, int count, String digest) throws Exception {
        int[] tokens = Corpus.read(List.of(RealData.file(name)), "gpt2", done -> {}).tokens();
        assertEquals(1 + count, tokens.length);
        ByteBuffer bytes = ByteBuffer.allocate(4 * count).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asIntBuffer().put(tokens, 1, count);
        assertEquals(digest, HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes.array())));
    }

    @ParameterizedTest
    @CsvSource({"text/gutenberg-valid.txt.xz, 4, 2338529", "text/gutenberg-train.txt.xz, 57, 38051846", "text/peps.txt.xz, 703, 13825157"})
    void realArchivesHaveTheirDocuments(String name, int documents, long bytes) throws IOException {
        List<String> texts = TextFiles.read(RealData.file(name));
        assertEquals(documents, texts.size());
        long found = (long) (documents - 1) * "<|endoftext|>\n".length();
        for (String text : texts) {
            found += text.getBytes(StandardCharsets.UTF_8).length;
        }
        assertEquals(bytes, found);
    }

    @Test
    void realTextComesBackFromItsTokens() throws IOException {
        List<String> documents = TextFiles.read(RealData.file("text/gutenberg-valid.txt.xz"));
        Tokenizer gpt2 = new Gpt2Tokenizer();
        int[] tokens = Corpus.encode(gpt2, documents, done -> {}).tokens();
        assertEquals("<|endoftext|>" + String.join("<|endoftext|>", documents), gpt2.decode(tokens));
        List<String> shakespeare = TextFiles.read(RealData.file("text/tinyshakespeare.txt"));
        CharTokenizer chars = CharTokenizer.of(shakespeare);
        assertEquals(67, chars.vocabularySize(), "65 characters, unknown and end of text");
        assertEquals(shakespeare.get(0), chars.decode(chars.encode(shakespeare.get(0))));
    }
}
