package org.dualform.lab.train;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.lab.data.Batches;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;

/** A model and data small enough that a step takes well under a millisecond. */
final class TinyRun {
    static final int VOCABULARY = 11;
    static final GptConfig CONFIG = GptConfig.of(VOCABULARY, 8, 1, 8, 2);
    static final Map<String, String> IDENTITY = Map.of("model", "tiny");

    private TinyRun() {}

    static Gpt model(Device device, DType dtype) {
        return Gpt.create(device, CONFIG.withMomentumAttention(0.5), dtype, 5);
    }

    /** Rows that count up by one, from a place that depends on the index: something to learn. */
    static Batches counting() {
        return new Batches() {
            @Override
            public int rows() {
                return 2;
            }

            @Override
            public int length() {
                return 8;
            }

            @Override
            public void fill(long index, int[] ids, int[] targets) {
                Random random = new Random(index * 7919 + 3);
                int first = 0;
                for (int i = 0; i < ids.length; i++) {
                    first = i % 8 == 0 ? random.nextInt(VOCABULARY) : first + 1;
                    ids[i] = first % VOCABULARY;
                    targets[i] = (first + 1) % VOCABULARY;
                }
            }
        };
    }

    /** The same, with something happening whenever a batch is asked for. */
    static Batches counting(Consumer<Long> first) {
        Batches counting = counting();
        return new Batches() {
            @Override
            public int rows() {
                return counting.rows();
            }

            @Override
            public int length() {
                return counting.length();
            }

            @Override
            public void fill(long index, int[] ids, int[] targets) {
                first.accept(index);
                counting.fill(index, ids, targets);
            }
        };
    }

    /** Every number of some tensors; bfloat16 and float32 are exact in double. */
    static Map<String, List<Long>> bits(Map<String, Tensor> tensors) {
        Map<String, List<Long>> bits = new TreeMap<>();
        tensors.forEach((name, tensor) -> {
            List<Long> numbers = new ArrayList<>();
            try (Tensor wide = tensor.cast(DType.F64)) {
                for (double value : wide.toDoubles()) {
                    numbers.add(Double.doubleToRawLongBits(value));
                }
            }
            bits.put(name, numbers);
        });
        return bits;
    }

    static List<Path> files(Path folder) {
        try (Stream<Path> files = Files.list(folder)) {
            return files.sorted().toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static List<String> names(Path folder) {
        return files(folder).stream().map(file -> file.getFileName().toString()).toList();
    }
}
