package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;

/** One command line run inside this process: exit code and what it printed. */
record Run(int code, String out, String err) {
    /** A tensor as a test writes it: values in double, rounded when stored. */
    record Array(DType dtype, long[] shape, double[] values) {}

    static Run of(String... words) {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        int code = Main.run(new PrintWriter(out), new PrintWriter(err), words);
        return new Run(code, out.toString(), err.toString());
    }

    /** {@code op} on the given tensors in a folder of its own; its results must come without a word. */
    static Map<String, Array> op(Path folder, String operation, Map<String, Array> inputs, String... more) throws IOException {
        Path in = folder.resolve("in.safetensors");
        Path out = folder.resolve("out.safetensors");
        write(in, inputs);
        Run run = of(words(operation, in, out, more));
        assertEquals("", run.err());
        assertEquals("", run.out());
        assertEquals(ExitCode.OK, run.code());
        return read(out);
    }

    static String[] words(String operation, Path in, Path out, String... more) {
        List<String> words = new ArrayList<>(List.of("op", operation, "--in", in.toString(), "--out", out.toString()));
        words.addAll(List.of(more));
        return words.toArray(String[]::new);
    }

    static void write(Path file, Map<String, Array> arrays) throws IOException {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        try (Device device = Device.cpu()) {
            try {
                arrays.forEach((name, array) -> tensors.put(name, tensor(device, array)));
                Safetensors.write(file, tensors, Map.of());
            } finally {
                tensors.values().forEach(Tensor::close);
            }
        }
    }

    private static Tensor tensor(Device device, Array array) {
        if (array.dtype() != DType.I32) {
            return Tensor.of(device, array.dtype(), array.values(), array.shape());
        }
        int[] values = new int[array.values().length];
        for (int i = 0; i < values.length; i++) {
            values[i] = (int) array.values()[i];
        }
        return Tensor.of(device, values, array.shape());
    }

    static Map<String, Array> read(Path file) throws IOException {
        Map<String, Array> arrays = new LinkedHashMap<>();
        try (Device device = Device.cpu()) {
            Map<String, Tensor> tensors = Safetensors.read(file, device);
            tensors.forEach((name, tensor) -> {
                arrays.put(name, new Array(tensor.dtype(), tensor.shape(), tensor.toDoubles()));
                tensor.close();
            });
        }
        return arrays;
    }

    static List<Path> files(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.toList();
        }
    }
}
