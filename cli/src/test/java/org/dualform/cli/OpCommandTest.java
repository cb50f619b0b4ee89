package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.Stream;
import org.dualform.Backends;
import org.dualform.DType;
import org.dualform.cli.Run.Array;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

class OpCommandTest {
    private static final double[] ETA = {0.5, 0, 0.9, 0.25};

    @TempDir
    Path folder;

    // ---- right answers ----

    @Test
    void attentionMatchesTheNaiveLoops() throws IOException {
        Map<String, Array> in = attention(DType.F64, 1);
        in.put("lengths", new Array(DType.I32, new long[] {2}, new double[] {5, 3}));
        checkAgainstNaive("attention", in, Set.of("out", "lse", "dq", "dk", "dv"),
                values -> attention(values, new int[] {5, 3}, 0.3, false, null),
                "--set", "causal=false", "--set", "scale=0.3");
        in.remove("lengths");
        checkAgainstNaive("attention", in, Set.of("out", "lse", "dq", "dk", "dv"),
                values -> attention(values, null, 1 / Math.sqrt(8), true, null));
    }

    @Test
    void momentumAttentionMatchesTheNaiveLoops() throws IOException {
        Map<String, Array> in = attention(DType.F64, 2);
        in.put("eta", new Array(DType.F64, new long[] {4}, ETA));
        checkAgainstNaive("momentum-attention", in, Set.of("out", "lse", "dq", "dk", "dv", "deta"),
                values -> attention(values, null, 1 / Math.sqrt(8), true, values.get("eta")));
    }

    @Test
    void etaAsANumberIsEtaForEveryHead() throws IOException {
        Map<String, Array> in = attention(DType.BF16, 3);
        Map<String, Array> number = Run.op(folder, "momentum-attention", in, "--backward", "--set", "eta=0.5");
        in.put("eta", new Array(DType.BF16, new long[] {4}, new double[] {0.5, 0.5, 0.5, 0.5}));
        Map<String, Array> tensor = Run.op(folder, "momentum-attention", in, "--backward");
        assertEquals(tensor.keySet(), number.keySet());
        tensor.forEach((name, array) -> assertArrayEquals(array.values(), number.get(name).values(), name));
        assertEquals(DType.BF16, number.get("deta").dtype());
    }

    @Test
    void etaZeroIsAttentionBitForBit() throws IOException {
        for (DType dtype : new DType[] {DType.F64, DType.F32, DType.BF16}) {
            Map<String, Array> in = attention(dtype, 4);
            Map<String, Array> plain = Run.op(folder, "attention", in, "--backward");
            Map<String, Array> momentum = Run.op(folder, "momentum-attention", in, "--backward", "--set", "eta=0");
            for (String name : new String[] {"out", "lse", "dq", "dk"}) {
                assertArrayEquals(bits(plain.get(name)), bits(momentum.get(name)), dtype + " " + name);
            }
        }
    }

    @Test
    void dualFormMatchesTheNaiveLoopsInEveryForm() throws IOException {
        for (String form : new String[] {"auto", "primal", "dual"}) {
            checkAgainstNaive("dual-form", dual(DType.F64, 5), Set.of("out", "dw", "dw0", "de", "dxp", "dx"),
                    values -> Naive.dualForm(values.get("w0"), values.get("e"), values.get("xp"), values.get("x"), 5, 2, 3, 4),
                    "--set", "form=" + form);
        }
    }

    @Test
    void linearAttentionMatchesTheNaiveLoops() throws IOException {
        int[] shape = {2, 4, 2, 3};
        Map<String, Array> in = linear(DType.F64, 6);
        checkAgainstNaive("linear-attention", in, Set.of("out", "state", "dq", "dk", "dv"),
                values -> Naive.linearAttention(values.get("q"), values.get("k"), values.get("v"), shape, null, null));
        in.put("decay", new Array(DType.F64, new long[] {2}, new double[] {0.5, 0.75}));
        in.put("s0", random(DType.F64, new Random(7), 2, 2, 3, 3));
        checkAgainstNaive("linear-attention", in, Set.of("out", "state", "dq", "dk", "dv", "ddecay", "ds0"),
                values -> Naive.linearAttention(values.get("q"), values.get("k"), values.get("v"), shape, values.get("decay"),
                        values.get("s0")));
    }

    @Test
    void outputsHaveTheDocumentedTypes() throws IOException {
        for (DType dtype : new DType[] {DType.F64, DType.F32, DType.BF16}) {
            DType wide = dtype == DType.F64 ? DType.F64 : DType.F32;
            Map<String, Array> in = linear(dtype, 8);
            in.put("s0", random(wide, new Random(9), 2, 2, 3, 3));
            Map<String, Array> results = Run.op(folder, "linear-attention", in, "--backward");
            results.forEach((name, array) -> assertEquals(name.equals("state") ? wide : dtype, array.dtype(), name));
            assertEquals(wide, Run.op(folder, "attention", attention(dtype, 8)).get("lse").dtype());
            Map<String, Array> dual = Run.op(folder, "dual-form", dual(dtype, 8), "--backward");
            dual.forEach((name, array) -> assertEquals(name.equals("dw") ? wide : dtype, array.dtype(), name));
        }
    }

    @Test
    void tensorsItDoesNotKnowAreIgnored() throws IOException {
        Map<String, Array> in = attention(DType.F32, 10);
        in.put("notes", random(DType.F64, new Random(1), 3));
        assertEquals(Set.of("out", "lse"), Run.op(folder, "attention", in).keySet());
    }

    @Test
    void anExistingOutputIsReplaced() throws IOException {
        Files.writeString(folder.resolve("out.safetensors"), "something else");
        assertEquals(Set.of("out", "lse"), Run.op(folder, "attention", attention(DType.F32, 11)).keySet());
        assertEquals(2, Run.files(folder).size(), "the input and the output, no temporary file");
    }

    /** Values within 1e-12 of the naive loops, gradients of sum(out dout) within 1e-7 of their central differences. */
    private void checkAgainstNaive(
            String operation, Map<String, Array> in, Set<String> names, Function<Map<String, double[]>, double[][]> naive,
                    String... settings)
            throws IOException {
        String[] words = Stream.concat(Stream.of("--backward"), Arrays.stream(settings)).toArray(String[]::new);
        Map<String, Array> results = Run.op(folder, operation, in, words);
        assertEquals(names, results.keySet());
        Map<String, double[]> values = new LinkedHashMap<>();
        in.forEach((name, array) -> values.put(name, array.values().clone()));
        double[][] expected = naive.apply(values);
        String second = results.containsKey("lse") ? "lse" : results.containsKey("state") ? "state" : "dw";
        assertClose(expected[0], results.get("out").values(), 1e-12, "out");
        assertClose(expected[1], results.get(second).values(), 1e-12, second);
        double[] dout = values.get("dout");
        for (String name : in.keySet()) {
            if (results.containsKey("d" + name)) {
                double[] x = values.get(name);
                double[] differences = new double[x.length];
                for (int i = 0; i < x.length; i++) {
                    differences[i] = slope(x, i, () -> dot(naive.apply(values)[0], dout));
                }
                assertClose(differences, results.get("d" + name).values(), 1e-7, "d" + name);
            }
        }
    }

    private interface Value {
        double get();
    }

    /** Four-point central difference; the naive momentum term is a polynomial in eta, so eta may pass below 0. */
    private static double slope(double[] x, int i, Value value) {
        double step = 1e-3;
        double center = x[i];
        double[] weights = {1.0 / 12, -2.0 / 3, 2.0 / 3, -1.0 / 12};
        double sum = 0;
        for (int j = 0; j < 4; j++) {
            x[i] = center + step * (j < 2 ? j - 2 : j - 1);
            sum += weights[j] * value.get();
        }
        x[i] = center;
        return sum / step;
    }

    private static void assertClose(double[] expected, double[] actual, double limit, String what) {
        assertEquals(expected.length, actual.length, what);
        double largest = Arrays.stream(expected).filter(Double::isFinite).map(Math::abs).max().orElse(0);
        for (int i = 0; i < expected.length; i++) {
            if (Double.isFinite(expected[i])) {
                assertEquals(expected[i], actual[i], limit * Math.max(largest, 1), what + " " + i);
            } else {
                assertEquals(expected[i], actual[i], what + " " + i);
            }
        }
    }

    private static double dot(double[] a, double[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }

    private static long[] bits(Array array) {
        return Arrays.stream(array.values()).mapToLong(Double::doubleToRawLongBits).toArray();
    }

    private static double[][] attention(Map<String, double[]> values, int[] lengths, double scale, boolean causal, double[] eta) {
        int[] queries = {2, 3, 4, 8};
        int[] keys = {2, 5, 2, 8};
        return Naive.attention(values.get("q"), queries, values.get("k"), values.get("v"), keys, lengths, scale, causal, eta);
    }

    // ---- wrong input ----

    private record Bad(String what, int code, String expected, Map<String, Array> tensors, byte[] bytes, String... words) {}

    private static Bad bad(String what, String expected, Map<String, Array> tensors, String... words) {
        return new Bad(what, ExitCode.USAGE, expected, tensors, null, words);
    }

    private static Bad badFile(String what, String expected, byte[] bytes) {
        return new Bad(what, ExitCode.USAGE, expected, null, bytes, "attention");
    }

    @TestFactory
    Stream<DynamicTest> badInputIsOneSentenceAndNoFile() {
        return badInputs().map(bad -> DynamicTest.dynamicTest(bad.what, () -> check(bad)));
    }

    private void check(Bad bad) throws IOException {
        Path work = Files.createTempDirectory(folder, "bad");
        Path in = work.resolve("in.safetensors");
        Path results = Files.createDirectory(work.resolve("results"));
        if (bad.bytes != null) {
            Files.write(in, bad.bytes);
        } else if (bad.tensors != null) {
            Run.write(in, bad.tensors);
        }
        String[] more = Arrays.copyOfRange(bad.words, 1, bad.words.length);
        Run run = Run.of(Run.words(bad.words[0], in, results.resolve("out.safetensors"), more));
        assertEquals(bad.code, run.code(), run.err());
        assertRefused(run, bad.expected);
        assertEquals(0, Run.files(results).size(), "files left behind");
    }

    private static void assertRefused(Run run, String expected) {
        assertEquals("", run.out());
        assertEquals(1, run.err().lines().count(), run.err());
        assertTrue(run.err().startsWith("dualform: ") && run.err().endsWith("\n"), run.err());
        assertTrue(run.err().contains(expected), "'" + run.err() + "' does not say '" + expected + "'");
        assertFalse(run.err().contains("Exception") || run.err().contains("Usage:"), run.err());
    }

    private static Stream<Bad> badInputs() {
        Map<String, Array> attention = attention(DType.F32, 20);
        Map<String, Array> eta = with(attention, "eta", new Array(DType.F32, new long[] {4}, ETA));
        Map<String, Array> dual = dual(DType.F32, 21);
        Map<String, Array> linear = linear(DType.F32, 22);
        Random g = new Random(23);
        Stream<Bad> commands = Stream.of(
                bad("unknown operation", "op softmax", attention, "softmax"),
                bad("unknown option", "--frobnicate", attention, "attention", "--frobnicate"),
                bad("unknown device", "--device abacus", attention, "attention", "--device", "abacus"),
                bad("no device", "--device", attention, "attention", "--device", ""),
                bad("blank device", "--device", attention, "attention", "--device", " "),
                bad("a value for a flag", "--backward", attention, "attention", "--backward=false"),
                bad("eta that rounds to 1", "eta: 0.9999999999 rounds to 1 in F32", attention, "momentum-attention", "--set",
                        "eta=0.9999999999"),
                bad("no input file", "there is no file", null, "attention"),
                bad("unknown setting", "temperature", attention, "attention", "--set", "temperature=1"),
                bad("a setting of another operation", "no settings", linear, "linear-attention", "--set", "scale=1"),
                bad("a setting without a value", "key=value", attention, "attention", "--set", "scale"),
                bad("a setting twice", "more than once", attention, "attention", "--set", "scale=1", "--set", "scale=1"),
                bad("scale=fast", "scale: 'fast'", attention, "attention", "--set", "scale=fast"),
                bad("scale=nan", "scale: 'nan'", attention, "attention", "--set", "scale=nan"),
                bad("scale=NaN", "scale: 'NaN'", attention, "attention", "--set", "scale=NaN"),
                bad("scale=inf", "scale: 'inf'", attention, "attention", "--set", "scale=inf"),
                bad("scale=1e999", "scale: '1e999'", attention, "attention", "--set", "scale=1e999"),
                bad("scale=0x1p3", "scale: '0x1p3'", attention, "attention", "--set", "scale=0x1p3"),
                bad("scale=1f", "scale: '1f'", attention, "attention", "--set", "scale=1f"),
                bad("causal=perhaps", "causal: 'perhaps'", attention, "attention", "--set", "causal=perhaps"),
                bad("form=fast", "form: 'fast'", dual, "dual-form", "--set", "form=fast"),
                bad("momentum without a mask", "causal", eta, "momentum-attention", "--set", "causal=false"),
                bad("no eta", "eta: missing", attention, "momentum-attention"),
                bad("eta twice", "eta: given both", eta, "momentum-attention", "--set", "eta=0.5"));
        Stream<Bad> etas = Stream.of("nan", "1", "-0.1", "inf", "", "0.5x", "0.99999999999")
                .map(value -> bad("eta=" + value, "eta", attention, "momentum-attention", "--set", "eta=" + value));
        Stream<Bad> tensors = Stream.of(
                bad("no v", "v: missing", without(attention, "v"), "attention"),
                bad("no dout", "dout: missing", without(attention, "dout"), "attention", "--backward"),
                bad("no w0", "w0: missing", without(dual, "w0"), "dual-form"),
                bad("q of rank 3", "q: shape (3,4,8)", with(attention, "q", random(DType.F32, g, 3, 4, 8)), "attention"),
                bad("other head size", "k", with(attention, "k", random(DType.F32, g, 2, 5, 2, 7)), "attention"),
                bad("other number of values", "v", with(attention, "v", random(DType.F32, g, 2, 6, 2, 8)), "attention"),
                bad("other batch", "k", with(attention, "k", random(DType.F32, g, 3, 5, 2, 8)), "attention"),
                bad("heads not a multiple", "expected", with(with(attention, "k", random(DType.F32, g, 2, 5, 3, 8)), "v",
                        random(DType.F32, g, 2, 5, 3, 8)), "attention"),
                bad("head size 257", "257", Map.of("q", random(DType.F32, g, 1, 2, 1, 257), "k", random(DType.F32, g, 1, 2, 1, 257), "v",
                        random(DType.F32, g, 1, 2, 1, 257)), "attention"),
                bad("shape of dout", "dout", with(attention, "dout", random(DType.F32, g, 2, 4, 4, 8)), "attention", "--backward"),
                bad("mixed dtypes", "k: dtype F64", with(attention, "k", random(DType.F64, g, 2, 5, 2, 8)), "attention"),
                bad("dtype of dout", "dout: dtype F64", with(attention, "dout", random(DType.F64, g, 2, 3, 4, 8)), "attention",
                        "--backward"),
                bad("integers", "q: dtype I32", with(attention, "q", random(DType.I32, g, 2, 3, 4, 8)), "attention"),
                bad("lengths above S", "lengths[1]: 6", with(attention, "lengths", new Array(DType.I32, new long[] {2}, new double[] {5,
                        6})), "attention"),
                bad("lengths below 0", "lengths[0]: -1",
                        with(attention, "lengths", new Array(DType.I32, new long[] {2}, new double[] {-1, 5})), "attention"),
                bad("lengths not whole", "lengths: dtype F32", with(attention, "lengths", random(DType.F32, g, 2)), "attention"),
                bad("shape of lengths", "lengths", with(attention, "lengths", new Array(DType.I32, new long[] {1}, new double[] {5})),
                        "attention"),
                bad("eta 1", "eta[1]: 1", with(attention, "eta", new Array(DType.F32, new long[] {4}, new double[] {0, 1, 0, 0})),
                        "momentum-attention"),
                bad("eta NaN", "eta[2]: NaN", with(attention, "eta",
                        new Array(DType.F32, new long[] {4}, new double[] {0, 0, Double.NaN, 0})), "momentum-attention"),
                bad("shape of eta", "eta", with(attention, "eta", new Array(DType.F32, new long[] {3}, new double[3])),
                        "momentum-attention"),
                bad("dtype of eta", "eta: dtype BF16", with(attention, "eta", new Array(DType.BF16, new long[] {4}, new double[4])),
                        "momentum-attention"),
                bad("columns of x", "x", with(dual, "x", random(DType.F32, g, 2, 5)), "dual-form"),
                bad("rows of e", "e", with(dual, "e", random(DType.F32, g, 6, 3)), "dual-form"),
                bad("decay above 1", "decay[1]: 1.5", with(linear, "decay", new Array(DType.F32, new long[] {2}, new double[] {0.5,
                        1.5})), "linear-attention"),
                bad("shape of s0", "s0: shape", with(linear, "s0", random(DType.F32, g, 2, 2, 3, 4)), "linear-attention"),
                bad("dtype of s0", "s0: dtype F64", with(linear, "s0", random(DType.F64, g, 2, 2, 3, 3)), "linear-attention"),
                bad("grouped heads", "k", with(linear, "k", random(DType.F32, g, 2, 4, 1, 3)), "linear-attention"));
        byte[] whole = file(header("F32", "1,1,1,2", 8, 8), 24);
        Stream<Bad> files = Stream.of(
                badFile("empty file", "", new byte[0]),
                badFile("one byte short", "", Arrays.copyOf(whole, whole.length - 1)),
                badFile("one byte long", "", Arrays.copyOf(whole, whole.length + 1)),
                badFile("header cut", "", Arrays.copyOf(whole, 40)),
                badFile("header longer than the file", "", ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putLong(1L << 40)
                        .array()),
                badFile("negative header length", "", ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putLong(-1).array()),
                badFile("not JSON", "", file("not json at all", 8)),
                badFile("text", "", "hello, this is no tensor file".getBytes(StandardCharsets.UTF_8)),
                badFile("no tensors", "q: missing", file("{}", 0)),
                badFile("float16", "q: dtype F16", file(header("F16", "1,1,1,2", 4, 4), 12)),
                badFile("no queries", "q", file(header("F32", "1,0,1,2", 0, 8), 16)));
        return Stream.of(commands, etas, tensors, files).flatMap(bads -> bads);
    }

    @Test
    void longestFileNameIsWritten() throws IOException {
        Path in = folder.resolve("in.safetensors");
        Path out = folder.resolve("x".repeat(255));
        Run.write(in, attention(DType.F32, 30));
        assertEquals(ExitCode.OK, Run.of(Run.words("attention", in, out)).code());
        assertEquals(Set.of("out", "lse"), Run.read(out).keySet());
    }

    @Test
    void linkIsWrittenThrough() throws IOException {
        Path in = folder.resolve("in.safetensors");
        Path file = Files.createFile(folder.resolve("file"));
        Path link = Files.createSymbolicLink(folder.resolve("link"), file);
        Run.write(in, attention(DType.F32, 30));
        assertEquals(ExitCode.OK, Run.of(Run.words("attention", in, link)).code());
        assertTrue(Files.isSymbolicLink(link));
        assertEquals(Set.of("out", "lse"), Run.read(file).keySet());
    }

    @Test
    void aLinkToNothingMakesWhatItLeadsTo() throws IOException {
        Path in = folder.resolve("in.safetensors");
        Path results = Files.createDirectory(folder.resolve("results"));
        Path link = Files.createSymbolicLink(folder.resolve("link"), Path.of("results/new"));
        Path second = Files.createSymbolicLink(folder.resolve("second"), link);
        Run.write(in, attention(DType.F32, 30));
        assertEquals(ExitCode.OK, Run.of(Run.words("attention", in, second)).code());
        assertTrue(Files.isSymbolicLink(link) && Files.isSymbolicLink(second));
        assertEquals(Set.of("out", "lse"), Run.read(results.resolve("new")).keySet());
        Path loop = folder.resolve("loop");
        Files.createSymbolicLink(loop, loop);
        assertRefused(refused(ExitCode.USAGE, Run.words("attention", in, loop)), "leads nowhere");
        Path astray = Files.createSymbolicLink(folder.resolve("astray"), Path.of("nowhere/new"));
        assertRefused(refused(ExitCode.USAGE, Run.words("attention", in, astray)), "there is no folder");
    }

    @Test
    void theBackendPropertyIsReadAsTheLibraryReadsIt() throws IOException {
        Path in = folder.resolve("in.safetensors");
        Path out = folder.resolve("out.safetensors");
        Run.write(in, attention(DType.F32, 30));
        String before = System.getProperty(Backends.PROPERTY);
        try {
            for (String value : new String[] {"", "  ", " CPU "}) {
                System.setProperty(Backends.PROPERTY, value);
                assertEquals(ExitCode.OK, Run.of(Run.words("attention", in, out)).code(), "'" + value + "'");
            }
            System.setProperty(Backends.PROPERTY, "abacus");
            assertRefused(refused(ExitCode.USAGE, Run.words("attention", in, out)), "-Ddualform.backend abacus");
        } finally {
            if (before == null) {
                System.clearProperty(Backends.PROPERTY);
            } else {
                System.setProperty(Backends.PROPERTY, before);
            }
        }
    }

    @Test
    void missingWordsAreRefused() throws IOException {
        Path in = folder.resolve("in.safetensors");
        Run.write(in, attention(DType.F32, 30));
        assertRefused(refused(ExitCode.USAGE), "a command is expected");
        assertRefused(refused(ExitCode.USAGE, "fly"), "fly");
        assertRefused(refused(ExitCode.USAGE, "op"), "NAME");
        assertRefused(refused(ExitCode.USAGE, "op", "attention", "--in", in.toString()), "--out");
        assertRefused(refused(ExitCode.USAGE, "op", "attention", "--out", folder.resolve("x").toString()), "--in");
        assertRefused(refused(ExitCode.USAGE, Run.words("attention", in, folder.resolve("nowhere/out"))), "there is no folder");
        assertRefused(refused(ExitCode.USAGE, Run.words("attention", in, folder)), "is a folder");
        assertRefused(refused(ExitCode.USAGE, Run.words("attention", folder, folder.resolve("x"))), "is not a file");
        assertEquals(1, Run.files(folder).size(), "only the input is there");
    }

    private static Run refused(int code, String... words) {
        Run run = Run.of(words);
        assertEquals(code, run.code(), run.err());
        return run;
    }

    // ---- tensors ----

    private static Map<String, Array> attention(DType dtype, long seed) {
        Random g = new Random(seed);
        Map<String, Array> tensors = new LinkedHashMap<>();
        tensors.put("q", random(dtype, g, 2, 3, 4, 8));
        tensors.put("k", random(dtype, g, 2, 5, 2, 8));
        tensors.put("v", random(dtype, g, 2, 5, 2, 8));
        tensors.put("dout", random(dtype, g, 2, 3, 4, 8));
        return tensors;
    }

    private static Map<String, Array> dual(DType dtype, long seed) {
        Random g = new Random(seed);
        Map<String, Array> tensors = new LinkedHashMap<>();
        tensors.put("w0", random(dtype, g, 3, 4));
        tensors.put("e", random(dtype, g, 5, 3));
        tensors.put("xp", random(dtype, g, 5, 4));
        tensors.put("x", random(dtype, g, 2, 4));
        tensors.put("dout", random(dtype, g, 2, 3));
        return tensors;
    }

    private static Map<String, Array> linear(DType dtype, long seed) {
        Random g = new Random(seed);
        Map<String, Array> tensors = new LinkedHashMap<>();
        for (String name : new String[] {"q", "k", "v", "dout"}) {
            tensors.put(name, random(dtype, g, 2, 4, 2, 3));
        }
        return tensors;
    }

    private static Array random(DType dtype, Random g, long... shape) {
        double[] values = new double[(int) Arrays.stream(shape).reduce(1, (a, b) -> a * b)];
        Arrays.setAll(values, i -> dtype == DType.I32 ? g.nextInt(5) : g.nextGaussian());
        return new Array(dtype, shape, values);
    }

    private static Map<String, Array> with(Map<String, Array> base, String name, Array array) {
        Map<String, Array> changed = new LinkedHashMap<>(base);
        changed.put(name, array);
        return changed;
    }

    private static Map<String, Array> without(Map<String, Array> base, String name) {
        Map<String, Array> changed = new LinkedHashMap<>(base);
        changed.remove(name);
        return changed;
    }

    /** q of the given shape and size in bytes, then k and v of one token. */
    private static String header(String dtype, String shape, int q, int other) {
        String entry = "\"%s\":{\"dtype\":\"" + dtype + "\",\"shape\":[%s],\"data_offsets\":[%d,%d]}";
        return "{" + String.format(entry, "q", shape, 0, q) + "," + String.format(entry, "k", "1,1,1,2", q, q + other) + ","
                + String.format(entry, "v", "1,1,1,2", q + other, q + 2 * other) + "}";
    }

    private static byte[] file(String header, int data) {
        byte[] text = header.getBytes(StandardCharsets.UTF_8);
        return ByteBuffer.allocate(8 + text.length + data).order(ByteOrder.LITTLE_ENDIAN).putLong(text.length).put(text).array();
    }
}
