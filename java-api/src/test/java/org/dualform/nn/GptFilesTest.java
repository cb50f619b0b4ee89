package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.io.Safetensors;
import org.dualform.io.SafetensorsException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

@ExtendWith(TestDevice.class)
class GptFilesTest {
    @TempDir
    Path folder;

    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    /** Fails when a load that was refused left a tensor open. */
    @AfterEach
    void close() {
        device.close();
    }

    private void save(GptConfig config) throws IOException {
        try (Gpt gpt = Gpt.create(device, config, DType.F32, 1)) {
            GptFiles.save(gpt, folder);
        }
    }

    private Path config() {
        return folder.resolve("config.json");
    }

    private Path tensors() {
        return folder.resolve("model.safetensors");
    }

    @ParameterizedTest
    @MethodSource("org.dualform.nn.Models#names")
    void aSavedModelComesBackBitForBit(String kind) throws IOException {
        for (DType dtype : new DType[] {DType.F32, DType.F64, DType.BF16}) {
            try (Gpt gpt = Gpt.create(device, Models.kinds().get(kind), dtype, 1)) {
                if (dtype == DType.BF16) {
                    Ops.affine(gpt.parameters().master(), gpt.parameters().master(), 1 + 1e-4, 0);
                    Ops.copy(gpt.parameters().values(), gpt.parameters().master());
                }
                GptFiles.save(gpt, folder.resolve("deeper").resolve("model"));
                try (Gpt loaded = GptFiles.load(folder.resolve("deeper").resolve("model"), device, dtype)) {
                    assertEquals(gpt.config(), loaded.config());
                    assertArrayEquals(Models.bits(gpt.parameters().values()), Models.bits(loaded.parameters().values()));
                    if (dtype == DType.BF16) {
                        assertArrayEquals(Models.bits(gpt.parameters().master()), Models.bits(loaded.parameters().master()));
                    }
                }
            }
        }
        try (Stream<Path> files = Files.list(folder.resolve("deeper").resolve("model"))) {
            assertEquals(List.of("config.json", "model.safetensors"), files.map(file -> file.getFileName().toString()).sorted().toList());
        }
    }

    @Test
    void everyOptionOfTheShapeComesBack() throws IOException {
        for (GptConfig config : List.of(
                new GptConfig(7, 5, 1, 6, 3, 11, AttentionKind.MOMENTUM, 0.123456789012345, true, Double.NaN, Positions.SINUSOIDAL, 1e-12),
                new GptConfig(7, 5, 3, 6, 1, 24, AttentionKind.LINEAR, 0, false, 0.9, Positions.LEARNED, 1e-6),
                new GptConfig(7, 5, 1, 6, 2, 3, AttentionKind.MOMENTUM, 0, false, Double.NaN, Positions.LEARNED, 1e-5))) {
            save(config);
            try (Gpt gpt = GptFiles.load(folder, device, DType.F32)) {
                assertEquals(config, gpt.config());
            }
        }
    }

    @Test
    void onlyPlainModelsCallThemselvesGpt2() throws IOException {
        for (String kind : Models.names().toList()) {
            save(Models.kinds().get(kind));
            assertEquals(kind.startsWith("softmax"), Files.readString(config()).contains("\"model_type\": \"gpt2\""), kind);
            assertEquals(!kind.startsWith("softmax"), Files.readString(config()).contains("\"model_type\": \"dualform_gpt\""), kind);
        }
    }

    @Test
    void aFailedSaveLeavesTheOldModelAndNothingElse() throws IOException {
        save(Models.plain());
        byte[] before = Files.readAllBytes(tensors());
        Gpt closed = Gpt.create(device, Models.plain(), DType.F32, 2);
        closed.close();
        assertThrows(IllegalStateException.class, () -> GptFiles.save(closed, folder));
        assertArrayEquals(before, Files.readAllBytes(tensors()));
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(2, files.count());
        }
    }

    @Test
    void filesOfOtherDtypesAreConverted() throws IOException {
        try (Gpt gpt = Models.rough(device, Models.plain(), 1)) {
            GptFiles.save(gpt, folder);
            try (Gpt brain = GptFiles.load(folder, device, DType.BF16); Gpt single = GptFiles.load(folder, device, DType.F32);
                    Tensor asSingle = gpt.parameters().values().cast(DType.F32);
                    Tensor asBrain = gpt.parameters().values().cast(DType.BF16)) {
                assertArrayEquals(Models.bits(asSingle), Models.bits(single.parameters().values()));
                assertArrayEquals(Models.bits(asBrain), Models.bits(brain.parameters().values()));
                assertArrayEquals(Models.bits(asSingle), Models.bits(brain.parameters().master()));
            }
        }
    }

    /** As older classes of Hugging Face wrote them. */
    @Test
    void namesWithoutPrefixAndMasksAreRead() throws IOException {
        save(Models.plain());
        long[] expected;
        try (Gpt gpt = GptFiles.load(folder, device, DType.F32)) {
            expected = Models.bits(gpt.parameters().values());
        }
        rewrite(tensors -> {
            Map<String, Tensor> old = new LinkedHashMap<>(tensors);
            tensors.clear();
            old.forEach((name, tensor) -> tensors.put(name.replace("transformer.", ""), tensor));
            tensors.put("h.0.attn.bias", Tensor.full(device, DType.F32, 1, 1, 1, Models.CONTEXT, Models.CONTEXT));
            tensors.put("h.0.attn.masked_bias", Tensor.full(device, DType.F32, -1e4));
        });
        try (Gpt gpt = GptFiles.load(folder, device, DType.F32)) {
            assertArrayEquals(expected, Models.bits(gpt.parameters().values()));
        }
    }

    private void rewrite(Consumer<Map<String, Tensor>> change) throws IOException {
        Map<String, Tensor> tensors = Safetensors.read(tensors(), device);
        List<Tensor> all = new ArrayList<>(tensors.values());
        try {
            change.accept(tensors);
            all.addAll(tensors.values());
            Safetensors.write(tensors(), tensors, null);
        } finally {
            all.forEach(Tensor::close);
        }
    }

    private String refused(Class<? extends IOException> kind) {
        IOException e = assertThrows(IOException.class, () -> GptFiles.load(folder, device, DType.F32).close());
        assertEquals(kind, e.getClass(), e.getMessage());
        assertFalse(e.getMessage().contains("\n"), e.getMessage());
        return e.getMessage();
    }

    private void refusedTensors(String expected, Consumer<Map<String, Tensor>> change) throws IOException {
        save(Models.plain().withLearnedMomentum(0.5));
        rewrite(change);
        assertEquals(tensors() + ": " + expected, refused(ModelFileException.class));
    }

    @Test
    void missingFilesAreNamed() throws IOException {
        assertTrue(refused(NoSuchFileException.class).startsWith(config() + ": no such file"));
        save(Models.plain());
        Files.delete(tensors());
        assertTrue(refused(NoSuchFileException.class).startsWith(tensors() + ": no such file"));
        folder = folder.resolve("nowhere");
        assertTrue(refused(NoSuchFileException.class).startsWith(config() + ": no such file"));
    }

    @Test
    void tensorsThatDoNotFitAreNamed() throws IOException {
        refusedTensors("tensor \"transformer.h.1.attn.c_attn.weight\" is missing",
                tensors -> tensors.remove("transformer.h.1.attn.c_attn.weight"));
        refusedTensors("tensor \"transformer.h.0.attn.eta_logit\" is missing", tensors -> tensors.remove("transformer.h.0.attn.eta_logit"));
        refusedTensors("tensor \"wte.weight\" is missing", Map::clear);
        refusedTensors("tensor \"transformer.h.0.mlp.c_fc.weight\": shape [32, 8], expected [8, 32]",
                tensors -> tensors.put("transformer.h.0.mlp.c_fc.weight", Tensor.zeros(device, DType.F32, 32, 8)));
        refusedTensors("tensor \"transformer.ln_f.bias\": I32, expected F32, F64 or BF16",
                tensors -> tensors.put("transformer.ln_f.bias", Tensor.of(device, new int[8], 8)));
        refusedTensors("tensor \"transformer.h.2.ln_1.weight\" is there, expected the 2 layers of the config",
                tensors -> tensors.put("transformer.h.2.ln_1.weight", Tensor.zeros(device, DType.F32, 8)));
    }

    @Test
    void aTruncatedTensorFileIsRefused() throws IOException {
        save(Models.plain());
        byte[] bytes = Files.readAllBytes(tensors());
        for (int length : new int[] {0, 7, 8, 100, bytes.length - 1}) {
            Files.write(tensors(), Arrays.copyOf(bytes, length));
            assertTrue(refused(SafetensorsException.class).startsWith(tensors() + ": "));
        }
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', value = {
        "\"n_embd\": 8 | \"n_embd\": 8.5 | n_embd: 8.5, expected a whole number from 1 to 2147483647",
        "\"n_embd\": 8 | \"n_embd\": 3000000000 | n_embd: 3000000000, expected a whole number from 1 to 2147483647",
        "\"n_embd\": 8 | \"n_embd\": -8 | n_embd: -8, expected a whole number from 1 to 2147483647",
        "\"n_embd\": 8 | \"n_embd\": \"8\" | n_embd: 8, expected a whole number from 1 to 2147483647",
        "\"n_embd\": 8 | \"width\": 8 | n_embd: missing, expected a whole number from 1 to 2147483647",
        "\"n_embd\": 8 | \"n_embd\": [8] | n_embd: an object or array, expected a whole number from 1 to 2147483647",
        "\"n_embd\": 8 | \"n_embd\": 9 | width: 9, expected a multiple of the 2 heads",
        "\"vocab_size\": 11 | \"vocab_size\": null | vocab_size: null, expected a whole number from 1 to 2147483647",
        "\"n_head\": 2 | \"n_head\": 0 | n_head: 0, expected a whole number from 1 to 2147483647",
        "\"attention\": \"momentum\" | \"attention\": \"flash\" | attention: flash, expected softmax or momentum or linear",
        "\"attention\": \"momentum\" | \"attention\": 3 | attention: 3, expected a string",
        "\"attention\": \"momentum\" | \"attention\": \"softmax\" | model_type: dualform_gpt, expected gpt2 for softmax attention",
        "\"dualform_gpt\" | \"gpt2\" | model_type: gpt2, expected dualform_gpt for momentum attention",
        "\"dualform_gpt\" | \"llama\" | model_type: llama, expected dualform_gpt for momentum attention",
        "\"positions\": \"learned\" | \"positions\": \"rotary\" | positions: rotary, expected learned or sinusoidal",
        "\"eta\": 0.5 | \"eta\": 1.0 | eta: 1.0, expected at least 0 and less than 1",
        "\"eta\": 0.5 | \"eta\": \"big\" | eta: big, expected a number",
        "\"eta\": 0.5 | \"eta\": 1e999 | eta: Infinity, expected at least 0 and less than 1",
        "\"eta_learned\": true | \"eta_learned\": 1 | eta_learned: 1, expected true or false",
        "\"gelu_new\" | \"relu\" | activation_function: relu, expected gelu_new",
        "\"tie_word_embeddings\": true | \"tie_word_embeddings\": false | tie_word_embeddings: false, expected true",
        "\"eta\": 0.5 | \"eta\": 0.5, \"scale_attn_weights\": false | scale_attn_weights: false, expected true",
        "\"layer_norm_epsilon\": 1.0E-5 | \"layer_norm_epsilon\": 0 | epsilon: 0.0, expected more than 0 and less than 1",
        "\"n_embd\": 8, | \"n_embd\": 8, \"n_embd\": 8, | not the JSON of a model: the name \"n_embd\" is there twice",
        "\"n_embd\": 8, | \"n_embd\": 08, | not the JSON of a model: ',' at character 140, expected no leading zero",
        "\"n_embd\": 8, | \"n_embd\": 8 | not the JSON of a model: '\"' at character 142, expected '}'",
    })
    void aConfigThatIsNotOneOfOursIsRefusedByKey(String from, String to, String expected) throws IOException {
        save(Models.plain().withLearnedMomentum(0.5));
        String text = Files.readString(config());
        assertTrue(text.contains(from), text);
        Files.writeString(config(), text.replace(from, to));
        assertEquals(config() + ": " + expected, refused(ModelFileException.class));
    }

    @Test
    void whatIsNotJsonIsRefused() throws IOException {
        save(Models.plain());
        String[] texts = {"", "null", "[1]", "{} {}", "{\"a\":" + "[".repeat(100000), "{\"a\":" + "9".repeat(500000) + "}",
            "{\"a\":1e99999999999}", "{\"\u00ff\": 1}"};
        for (String text : texts) {
            // Latin 1: the last one is not UTF-8.
            byte[] bytes = text.getBytes(StandardCharsets.ISO_8859_1);
            Files.write(config(), bytes);
            assertTrue(refused(ModelFileException.class).startsWith(config() + ": not the JSON of a model: "));
        }
        Files.write(config(), new byte[(1 << 20) + 1]);
        assertEquals(config() + ": 1048577 bytes, expected at most 1048576", refused(ModelFileException.class));
    }

    @Test
    void aConfigThatPromisesTooMuchTakesNeitherTimeNorMemory() throws IOException {
        save(Models.plain());
        String text = Files.readString(config());
        for (String[] change : new String[][] {{"\"n_layer\": 2", "\"n_layer\": 2147483647"}, {"\"n_positions\": 12",
            "\"n_positions\": 2147483647"}, {"\"vocab_size\": 11", "\"vocab_size\": 2147483647"}, {"\"n_inner\": 32",
                "\"n_inner\": 2147483647"}, {"\"n_inner\": 32", "\"n_inner\": 16"}}) {
            Files.writeString(config(), text.replace(change[0], change[1]));
            device.resetPeak();
            assertTimeoutPreemptively(Duration.ofSeconds(5), () -> refused(ModelFileException.class));
            assertEquals(0, device.memory().peakBytes());
        }
    }

    @Test
    void noMutationOfAConfigEscapesAsAnythingButAnIoException() throws IOException {
        save(Models.plain().withLearnedMomentum(0.5));
        byte[] original = Files.readAllBytes(config());
        Random random = new Random(1);
        int refused = 0;
        for (int i = 0; i < 400; i++) {
            byte[] bytes = original.clone();
            for (int j = 0; j <= random.nextInt(3); j++) {
                bytes[random.nextInt(bytes.length)] = (byte) (random.nextBoolean() ? random.nextInt(256) : "{}[]\",:0129eE.-".charAt(random
                        .nextInt(15)));
            }
            Files.write(config(), bytes);
            try {
                GptFiles.load(folder, device, DType.F32).close();
            } catch (ModelFileException e) {
                refused++;
                assertTrue(e.getMessage().startsWith(config() + ": ") || e.getMessage().startsWith(tensors() + ": "), e.getMessage());
            }
        }
        assertTrue(refused > 200, refused + " refused");
    }

    @Test
    void wholeNumbersAreNoDtypeOfAModel() throws IOException {
        save(Models.plain());
        assertThrows(InvalidArgumentException.class, () -> GptFiles.load(folder, device, DType.I32));
    }
}
