package org.dualform.io;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;

@ExtendWith(TestDevice.class)
class SafetensorsTest {
    private static final String A = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";

    @TempDir
    Path directory;

    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    @AfterEach
    void close() {
        device.close();
    }

    private Path file(byte[] header, long headerBytes, int dataBytes) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(8 + header.length + dataBytes).order(ByteOrder.LITTLE_ENDIAN);
        bytes.putLong(headerBytes).put(header);
        Path path = Files.createTempFile(directory, "case", ".safetensors");
        Files.write(path, bytes.array());
        return path;
    }

    private Path file(String header, int dataBytes) throws IOException {
        byte[] bytes = header.getBytes(StandardCharsets.UTF_8);
        return file(bytes, bytes.length, dataBytes);
    }

    @Test
    void whatIsWrittenIsRead() throws IOException {
        Path path = directory.resolve("all.safetensors");
        double[] values = {1, -2.5, 3e-3, 1e10, 0, -0.0};
        Map<String, Tensor> written = new LinkedHashMap<>();
        try (Tensor base = Tensor.of(device, values, 2, 3); Tensor strided = base.slice(1, 1, 3);
                Tensor f32 = base.cast(DType.F32); Tensor bf16 = base.cast(DType.BF16);
                Tensor ids = Tensor.of(device, new int[] {7, -7}, 2, 1); Tensor scalar = Tensor.scalar(device, DType.F32, 3)) {
            written.put("bf16", bf16);
            written.put("a \"quoted\" näme\n\u0001😀", f32);
            written.put("strided", strided);
            written.put("ids", ids);
            written.put("scalar", scalar);
            Map<String, String> metadata = Map.of("format", "df", "key \\ \"", "välue\t");
            Safetensors.write(path, written, metadata);
            ByteArrayOutputStream channel = new ByteArrayOutputStream();
            Safetensors.write(Channels.newChannel(channel), written, metadata);
            assertArrayEquals(Files.readAllBytes(path), channel.toByteArray());
            try (Safetensors file = Safetensors.open(path)) {
                assertEquals(written.keySet(), file.names());
                assertEquals(metadata, file.metadata());
                assertEquals(DType.BF16, file.dtype("bf16"));
                assertArrayEquals(new long[] {2, 2}, file.shape("strided"));
                assertThrows(InvalidArgumentException.class, () -> file.load("nothing", device));
            }
            Map<String, Tensor> read = Safetensors.read(path, device);
            for (Map.Entry<String, Tensor> entry : read.entrySet()) {
                Tensor expected = written.get(entry.getKey());
                assertEquals(expected.dtype(), entry.getValue().dtype());
                assertArrayEquals(expected.shape(), entry.getValue().shape());
                if (expected.dtype() == DType.I32) {
                    assertArrayEquals(expected.toInts(), entry.getValue().toInts());
                } else {
                    assertArrayEquals(expected.toDoubles(), entry.getValue().toDoubles());
                }
                assertEquals(0, entry.getValue().address() % 64);
            }
            read.values().forEach(Tensor::close);
        }
        assertEquals(0, device.memory().liveTensors());
        assertEquals(List.of(path), files());
    }

    @Test
    void tensorsLargerThanTheBufferArrive() throws IOException {
        Path path = directory.resolve("large.safetensors");
        int[] values = new Random(1).ints((1 << 20) * 3 / 2 + 7).toArray();
        try (Tensor large = Tensor.of(device, values, values.length)) {
            Safetensors.write(path, Map.of("large", large), null);
        }
        Map<String, Tensor> read = Safetensors.read(path, device);
        assertArrayEquals(values, read.get("large").toInts());
        read.values().forEach(Tensor::close);
    }

    @Test
    void aNameAsLongAsTheFileSystemAllowsIsWritten() throws IOException {
        Path path = directory.resolve("n".repeat(255));
        try (Tensor tensor = Tensor.full(device, DType.F32, 2, 3)) {
            Safetensors.write(path, Map.of("a", tensor), null);
        }
        Map<String, Tensor> read = Safetensors.read(path, device);
        assertArrayEquals(new float[] {2, 2, 2}, read.get("a").toFloats());
        read.values().forEach(Tensor::close);
        assertEquals(List.of(path), files());
    }

    private List<Path> files() throws IOException {
        try (Stream<Path> files = Files.list(directory)) {
            return files.toList();
        }
    }

    @Test
    void anEmptyFileOfTensorsIsValid() throws IOException {
        try (Safetensors file = Safetensors.open(file("{}", 0))) {
            assertTrue(file.names().isEmpty());
        }
        Safetensors.write(directory.resolve("empty"), Map.of(), null);
        assertTrue(Safetensors.read(directory.resolve("empty"), device).isEmpty());
    }

    @Test
    void unknownMembersAndSpacesAreAllowed() throws IOException {
        String header = " { \"a\" : { \"extra\": {\"x\":[1,-2.5e-3,true,null,\"\\u00e9\",[],{}]}, \"dtype\":\"F32\" , \"shape\":[ 1 , 2 ],"
                + "\"data_offsets\":[0,8] } } \n\t ";
        try (Safetensors file = Safetensors.open(file(header, 8)); Tensor a = file.load("a", device)) {
            assertArrayEquals(new long[] {1, 2}, a.shape());
        }
    }

    @Test
    void unsupportedDtypesAreNamedWhenLoaded() throws IOException {
        String header = "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                + "\"b\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[8,9]},"
                + "\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9,13]},"
                + "\"d\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[13,13]}}";
        Path path = file(header, 13);
        try (Safetensors file = Safetensors.open(path)) {
            assertEquals("I64", file.dtypeName("a"));
            assertTrue(assertThrows(SafetensorsException.class, () -> file.load("a", device)).getMessage().contains("I64"));
            assertTrue(assertThrows(UnsupportedOperationException.class, () -> file.dtype("b")).getMessage().contains("F4"));
            assertThrows(SafetensorsException.class, () -> file.load("d", device));
            file.load("c", device).close();
        }
        assertThrows(SafetensorsException.class, () -> Safetensors.read(path, device));
        assertEquals(0, device.memory().liveTensors());
    }

    @TestFactory
    Stream<DynamicTest> malformedHeadersAreRefused() {
        String big = "4611686018427387904"; // 2^62
        String name1025 = "n".repeat(1025);
        return Map.ofEntries(
                        Map.entry("overlap", entries("[0,8]", "[4,12]")),
                        Map.entry("hole", entries("[0,8]", "[12,20]")),
                        Map.entry("hole at the start", entries("[4,12]", "[12,20]")),
                        Map.entry("same place twice", entries("[0,8]", "[0,8]")),
                        Map.entry("backwards", A.replace("[0,8]", "[8,0]")),
                        Map.entry("beyond the file", A.replace("[0,8]", "[0,16]").replace("[2]", "[4]")),
                        Map.entry("offset 2^63-1", A.replace("[0,8]", "[0,9223372036854775807]")),
                        Map.entry("offset 2^64", A.replace("[0,8]", "[0,18446744073709551616]")),
                        Map.entry("shape and offsets differ", A.replace("[2]", "[3]")),
                        Map.entry("dtype and offsets differ", A.replace("F32", "F64")),
                        Map.entry("2^62 elements", A.replace("[2]", "[" + big + "]")),
                        Map.entry("product wraps to 0", A.replace("[2]", "[" + big + ",4]").replace("[0,8]", "[0,0]")),
                        Map.entry("product wraps before a 0", A.replace("[2]", "[" + big + "," + big + ",0]").replace("[0,8]", "[0,0]")),
                        Map.entry("bytes wrap", A.replace("[2]", "[" + big + "]").replace("[0,8]", "[0,0]")),
                        Map.entry("2^32 squared", A.replace("[2]", "[4294967296,4294967296]").replace("[0,8]", "[0,0]")),
                        Map.entry("negative dimension", A.replace("[2]", "[-2]")),
                        Map.entry("negative offset", A.replace("[0,8]", "[-8,0]")),
                        Map.entry("fraction", A.replace("[2]", "[2.0]")),
                        Map.entry("exponent", A.replace("[2]", "[2e0]")),
                        Map.entry("leading zero", A.replace("[2]", "[02]")),
                        Map.entry("dimension is text", A.replace("[2]", "[\"2\"]")),
                        Map.entry("rank 9", A.replace("[2]", "[2,1,1,1,1,1,1,1,1]")),
                        Map.entry("three offsets", A.replace("[0,8]", "[0,8,8]")),
                        Map.entry("one offset", A.replace("[0,8]", "[8]")),
                        Map.entry("no dtype", A.replace("\"dtype\":\"F32\",", "")),
                        Map.entry("no shape", A.replace("\"shape\":[2],", "")),
                        Map.entry("dtype twice", A.replace("\"dtype\":\"F32\",", "\"dtype\":\"F32\",\"dtype\":\"F32\",")),
                        Map.entry("name twice", "{\"a\":" + body() + ",\"a\":" + body() + "}"),
                        Map.entry("name twice, once escaped", "{\"a\":" + body() + ",\"\\u0061\":" + body() + "}"),
                        Map.entry("metadata twice", "{\"__metadata__\":{},\"__metadata__\":{},\"a\":" + body() + "}"),
                        Map.entry("metadata key twice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"},\"a\":" + body() + "}"),
                        Map.entry("metadata not text", "{\"__metadata__\":{\"k\":1},\"a\":" + body() + "}"),
                        Map.entry("name of 1025 bytes", A.replace("\"a\"", "\"" + name1025 + "\"")),
                        Map.entry("65 levels", A.replace("[2],", "[2],\"x\":" + "[".repeat(63) + "]".repeat(63) + ",")),
                        Map.entry("a million levels", A.replace("[2],", "[2],\"x\":" + "[".repeat(1_000_000) + ",")),
                        Map.entry("a million objects", A.replace("[2],", "[2],\"x\":" + "{\"a\":".repeat(1_000_000) + ",")),
                        Map.entry("not an object", "[" + A + "]"),
                        Map.entry("nothing", ""),
                        Map.entry("spaces", "    "),
                        Map.entry("trailing garbage", A + "x"),
                        Map.entry("trailing object", A + "{}"),
                        Map.entry("trailing comma", A.replace("}}", "},}")),
                        Map.entry("comma in array", A.replace("[2]", "[2,]")),
                        Map.entry("cut short", A.substring(0, A.length() - 1)),
                        Map.entry("cut in a string", A.substring(0, 3)),
                        Map.entry("cut in an escape", "{\"\\u00"),
                        Map.entry("bad escape", A.replace("\"a\"", "\"\\x\"")),
                        Map.entry("lone surrogate", A.replace("\"a\"", "\"\\ud800\"")),
                        Map.entry("control character", A.replace("\"a\"", "\"a\u0001\"")),
                        Map.entry("NaN", A.replace("[2]", "[NaN]")),
                        Map.entry("byte order mark", "\ufeff" + A),
                        Map.entry("polyglot comment", A + "/* */"))
                .entrySet().stream()
                .map(entry -> DynamicTest.dynamicTest(entry.getKey(), () -> refused(file(entry.getValue(), 8))));
    }

    private static String body() {
        return "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}";
    }

    private static String entries(String first, String second) {
        return "{\"a\":" + body().replace("[0,8]", first) + ",\"b\":" + body().replace("[0,8]", second) + "}";
    }

    private void refused(Path path) {
        SafetensorsException e = assertThrows(SafetensorsException.class, () -> Safetensors.open(path).close());
        assertTrue(e.getMessage().startsWith(path.toString()), e.getMessage());
        assertTrue(e.getMessage().length() < 600, e.getMessage());
    }

    @Test
    void limitsHoldAtTheirEdge() throws IOException {
        Safetensors.open(file(A.replace("\"a\"", "\"" + "n".repeat(1024) + "\""), 8)).close();
        Safetensors.open(file(A.replace("[2]", "[2,1,1,1,1,1,1,1]"), 8)).close();
        Safetensors.open(file(A.replace("[2],", "[2],\"x\":" + "[".repeat(62) + "]".repeat(62) + ","), 8)).close();
    }

    @Test
    void wrongSizesAreRefused() throws IOException {
        byte[] header = A.getBytes(StandardCharsets.UTF_8);
        refused(file(header, header.length, 7));
        refused(file(header, header.length, 9));
        refused(file(header, header.length + 9, 8));
        for (long headerBytes : new long[] {-1, Long.MIN_VALUE, Long.MAX_VALUE, 1L << 62, 100_000_001, 1L << 32, 0}) {
            refused(file(header, headerBytes, 8));
        }
        Path tiny = directory.resolve("tiny");
        Files.write(tiny, new byte[7]);
        refused(tiny);
        refused(directory);
        assertThrows(NoSuchFileException.class, () -> Safetensors.open(directory.resolve("nothing")));
    }

    @Test
    void invalidUtf8IsRefused() throws IOException {
        for (int[] bytes : new int[][] {{0xff}, {0xc0, 0xaf}, {0xed, 0xa0, 0x80}, {0xf4, 0x90, 0x80, 0x80}, {0xe2, 0x82}}) {
            byte[] header = A.replace("\"a\"", "\"" + "?".repeat(bytes.length) + "\"").getBytes(StandardCharsets.UTF_8);
            for (int i = 0; i < bytes.length; i++) {
                header[2 + i] = (byte) bytes[i];
            }
            refused(file(header, header.length, 8));
        }
    }

    @Test
    void randomDamageIsRefusedOrReadWithinTheFile() throws IOException {
        byte[] intact = Files.readAllBytes(file(entries("[0,8]", "[8,16]"), 16));
        Random random = new Random(7);
        Path path = directory.resolve("damaged");
        for (int i = 0; i < 500; i++) {
            byte[] damaged = Arrays.copyOf(intact, random.nextInt(8) == 0 ? random.nextInt(intact.length + 1) : intact.length);
            for (int flips = random.nextInt(4); flips >= 0 && damaged.length > 0; flips--) {
                damaged[random.nextInt(damaged.length)] = (byte) random.nextInt(256);
            }
            Files.write(path, damaged);
            try {
                Safetensors.read(path, device).values().forEach(Tensor::close);
            } catch (SafetensorsException e) {
                // what a damaged file is
            }
            assertEquals(0, device.memory().liveTensors());
        }
    }

    @Test
    void aFileTruncatedUnderneathIsAnException() throws IOException {
        Path path = file(A, 8);
        try (Safetensors file = Safetensors.open(path)) {
            try (FileChannel channel = FileChannel.open(path, StandardOpenOption.WRITE)) {
                channel.truncate(Files.size(path) - 4);
            }
            SafetensorsException e = assertThrows(SafetensorsException.class, () -> file.load("a", device));
            assertTrue(e.getMessage().contains("ends at byte"), e.getMessage());
        }
        assertEquals(0, device.memory().liveTensors());
    }

    @Test
    void aClosedFileRejectsUse() throws IOException {
        Safetensors file = Safetensors.open(file(A, 8));
        file.close();
        file.close();
        assertThrows(IllegalStateException.class, () -> file.load("a", device));
    }

    @Test
    void failedWritesLeaveNothingBehind() throws IOException {
        Path target = directory.resolve("kept.safetensors");
        Files.writeString(target, "old");
        Tensor closed = Tensor.zeros(device, DType.F32, 2);
        closed.close();
        try (Tensor open = Tensor.zeros(device, DType.F32, 2)) {
            assertThrows(IllegalStateException.class, () -> Safetensors.write(target, Map.of("a", open, "b", closed), null));
            assertThrows(InvalidArgumentException.class, () -> Safetensors.write(target, Map.of("__metadata__", open), null));
            assertThrows(InvalidArgumentException.class, () -> Safetensors.write(target, Map.of("n".repeat(1025), open), null));
            assertThrows(InvalidArgumentException.class, () -> Safetensors.write(target, Map.of("\ud800", open), null));
            Map<String, Tensor> withNull = new HashMap<>();
            withNull.put("a", null);
            assertThrows(NullPointerException.class, () -> Safetensors.write(target, withNull, null));
            Path folder = Files.createDirectory(directory.resolve("folder"));
            Files.writeString(folder.resolve("inside"), "x");
            assertThrows(IOException.class, () -> Safetensors.write(folder, Map.of("a", open), null));
            assertThrows(IOException.class, () -> Safetensors.write(directory.resolve("no/such/place"), Map.of("a", open), null));
            Files.delete(folder.resolve("inside"));
            Files.delete(folder);
        }
        assertEquals("old", Files.readString(target));
        assertEquals(List.of(target), files());
    }
}
