package org.dualform.nn;

import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;

/** The models whose folders are committed under {@code tests/golden/nn}, for Hugging Face's classes to load. */
final class GoldenModels {
    /** No power of two among the sizes, nor two that are equal. */
    private static final GptConfig CONFIG = new GptConfig(101, 20, 2, 24, 3, 40, AttentionKind.SOFTMAX, 0, false, Double.NaN,
            Positions.LEARNED, 3e-5);

    private GoldenModels() {}

    static Map<String, GptConfig> configs() {
        Map<String, GptConfig> configs = new LinkedHashMap<>();
        configs.put("exported", CONFIG);
        configs.put("exported-sinusoidal", CONFIG.withPositions(Positions.SINUSOIDAL));
        return configs;
    }

    /** Draws of Java's own generator: the same bits on every machine. */
    static Gpt model(Device device, GptConfig config) {
        Gpt gpt = new Gpt(device, config, DType.F32);
        Random random = new Random(20221210);
        for (Parameter parameter : gpt.parameters().all()) {
            float[] values = new float[(int) parameter.value().numel()];
            float centre = parameter.name().contains("ln_") && parameter.name().endsWith("weight") ? 1 : 0;
            for (int i = 0; i < values.length; i++) {
                values[i] = centre + 0.2f * (float) random.nextGaussian();
            }
            parameter.value().write(values);
        }
        return gpt;
    }

    /** Where the golden data lies. */
    static Path root() {
        String root = System.getProperty("dualform.test.root");
        return (root == null ? Path.of("..") : Path.of(root)).resolve(Path.of("tests", "golden", "nn"));
    }

    /** Logits (B,T,V) of ids (B,T). */
    static Tensor logits(Gpt gpt, Tensor ids, Tape tape) {
        return gpt.logits(tape, gpt.hidden(tape, ids));
    }

    /** Writes the model folders anew. */
    public static void main(String[] arguments) throws IOException {
        try (Device device = Device.cpu(1)) {
            for (Map.Entry<String, GptConfig> entry : configs().entrySet()) {
                try (Gpt gpt = model(device, entry.getValue())) {
                    GptFiles.save(gpt, root().resolve(entry.getKey()));
                }
            }
        }
    }
}
