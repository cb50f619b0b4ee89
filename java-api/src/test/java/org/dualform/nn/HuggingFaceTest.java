package org.dualform.nn;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.TestDevice;
import org.dualform.autograd.Tape;
import org.dualform.io.Safetensors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Against logits recorded from Hugging Face's GPT-2 classes by {@code tests/golden/nn_huggingface.py}. */
@ExtendWith(TestDevice.class)
class HuggingFaceTest {
    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    @AfterEach
    void close() {
        device.close();
    }

    private double[] logits(Path folder, DType dtype, Tensor ids) throws IOException {
        try (Gpt gpt = GptFiles.load(folder, device, dtype); Tape tape = new Tape(device)) {
            return GoldenModels.logits(gpt, ids, tape).toDoubles();
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"exported", "exported-sinusoidal", "huggingface"})
    void logitsAreThoseOfTheirClasses(String name) throws IOException {
        Path root = GoldenModels.root();
        Map<String, Tensor> golden = Safetensors.read(root.resolve(name + "-logits.safetensors"), device);
        try (Tensor ids = golden.get("ids"); Tensor recorded = golden.get("logits"); Tensor exact = golden.get("exact");
                Tensor wide = recorded.cast(DType.F64)) {
            assertTrue(Models.largest(exact.toDoubles()) > 1);
            double[] single = logits(root.resolve(name), DType.F32, ids);
            assertEquals(0, Models.largestDifference(wide.toDoubles(), single), 1e-5);
            // The table of sines is float32 in the file and exact here.
            double rounding = name.contains("sinusoidal") ? 1e-6 : 1e-13;
            assertEquals(0, Models.largestDifference(exact.toDoubles(), logits(root.resolve(name), DType.F64, ids)), rounding);
            double[] brain = logits(root.resolve(name), DType.BF16, ids);
            assertEquals(0, Models.largestDifference(exact.toDoubles(), brain), 0.1);
        }
    }

    @Test
    void theirFolderGivesTheirShape() throws IOException {
        try (Gpt gpt = GptFiles.load(GoldenModels.root().resolve("huggingface"), device, DType.F32)) {
            assertEquals(GptConfig.of(103, 18, 2, 20, 4), gpt.config());
        }
    }

    /** The recorded logits are those of what is exported today. */
    @Test
    void exportsAreTheCommittedFilesByteForByte(@TempDir Path folder) throws IOException {
        for (Map.Entry<String, GptConfig> entry : GoldenModels.configs().entrySet()) {
            try (Gpt gpt = GoldenModels.model(device, entry.getValue())) {
                GptFiles.save(gpt, folder);
            }
            for (String file : new String[] {"config.json", "model.safetensors"}) {
                assertArrayEquals(Files.readAllBytes(GoldenModels.root().resolve(entry.getKey()).resolve(file)),
                        Files.readAllBytes(folder.resolve(file)), entry.getKey() + " " + file);
            }
        }
    }
}
