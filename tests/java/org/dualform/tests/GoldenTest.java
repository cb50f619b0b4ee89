package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.lang.reflect.Method;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.Binary;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DualForm;
import org.dualform.Gelu;
import org.dualform.Ops;
import org.dualform.Reduction;
import org.dualform.Tensor;
import org.dualform.Unary;
import org.dualform.io.Safetensors;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** The golden tensors of tests/golden through the Java API: float64 as they are, float32 on every backend as a check of the wiring. */
class GoldenTest {
    private static final double LIMIT_F64 = 1e-11;
    /** Coarse on purpose: the rule for float32 accuracy is applied by the native suite. */
    private static final double LIMIT_F32 = 1e-4;

    /**
     * Calls by function of the golden files. {@code >x}: output (starts from x_before if the file has it), {@code x}: input, ? marks what
     * may be absent, {@code $x}: scalar from the metadata. A second line is the backward call, made when the file has dout.
     */
    private static final Map<String, String[]> CALLS = calls("""
            attention: attentionForward >out >lse q k v ?lengths $scale $causal
            attention: attentionBackward >dq >dk >dv dout q k v out lse ?lengths $scale $causal
            momentum_attention: momentumAttentionForward >out >?attn >lse >?state_out q k v ?lengths eta ?state_in $scale
            momentum_attention: momentumAttentionBackward >dq >dk >dv >?deta dout q k v attn lse ?lengths eta $scale $accumulate_deta
            delta_accumulate: deltaAccumulate >delta_w e xp $accumulate
            delta_apply: deltaApply >out x ?w0 delta_w
            dual_form: dualFormForward >out >?delta_w w0 e xp x $form
            dual_form: dualFormBackward >?dw0 >?de >?dxp >?dx dout w0 e xp x $form $accumulate_dw0
            linear_attention: linearAttentionForward >out >?state_out q k v ?decay ?state_in
            linear_attention: linearAttentionBackward >dq >dk >dv >?ddecay >?dstate_in dout \
            ?dstate_out q k v ?decay ?state_in $accumulate_ddecay
            matmul: matmul >out a b ?bias $trans_a $trans_b $accumulate
            bias_backward: biasBackward >dbias dout $accumulate
            residual_layernorm: residualLayernormForward >?sum >out >mean >rstd x ?residual weight bias $eps
            residual_layernorm: residualLayernormBackward >dx >?dweight >?dbias dout ?dsum sum weight mean rstd $accumulate
            bias_gelu: biasGeluForward >out x ?bias $kind
            bias_gelu: biasGeluBackward >dx >?dbias dout x ?bias $kind $accumulate
            embedding: embeddingForward >out ids wte ?wpe $position
            embedding: embeddingBackward >?dwte >?dwpe dout ids $position $accumulate
            cross_entropy: crossEntropy >loss >losses >?dlogits logits targets $ignore_index
            unary: unaryForward >out x $op
            unary: unaryBackward >dx dout x $op
            binary: binaryForward >out a b $op
            affine: affine >out x $alpha $beta
            copy: copy >out x
            fill: fill >out $value
            reduce: reduceForward >out x $op $axes
            reduce: reduceBackward >dx dout x out $op $axes
            argmax: argmax >out x
            squared_norm: squaredNorm >sumsq x $accumulate
            clip_scale: clipScale >scale sumsq $max_norm
            adamw_step: adamwStep >param >m >v >?master grad ?scale $lr $beta1 $beta2 $eps $weight_decay $step
            sgd_step: sgdStep >param >?momentum_buffer >?master grad ?scale $lr $momentum $weight_decay
            random_uniform: randomUniform >out $seed $offset $lo $hi
            random_normal: randomNormal >out $seed $offset $mean $std
            """);

    @TestFactory
    Stream<DynamicTest> float64OnTheCpu() throws IOException {
        return tests(Backend.CPU, DType.F64, LIMIT_F64);
    }

    @TestFactory
    Stream<DynamicTest> float32OnTheCpu() throws IOException {
        return tests(Backend.CPU, DType.F32, LIMIT_F32);
    }

    @TestFactory
    Stream<DynamicTest> float32OnCuda() throws IOException {
        return tests(Backend.CUDA, DType.F32, LIMIT_F32);
    }

    private static Stream<DynamicTest> tests(Backend backend, DType dtype, double limit) throws IOException {
        try (Stream<Path> files = Files.list(Jvm.ROOT.resolve("tests/golden/data"))) {
            List<Path> sorted = files.filter(file -> file.toString().endsWith(".safetensors")).sorted().toList();
            assertTrue(sorted.size() > 100, "only " + sorted.size() + " golden files");
            return sorted.stream().map(file -> DynamicTest.dynamicTest(
                    file.getFileName().toString().replace(".safetensors", "") + " " + dtype + " " + backend.id(),
                            () -> check(file, backend, dtype, limit)));
        }
    }

    private static void check(Path file, Backend backend, DType dtype, double limit) throws Exception {
        Backends.Status status = Backends.status(backend);
        assumeTrue(status.available(), backend.id() + " not available: " + status.reason());
        try (Device device = Device.open(backend, 0, 2); Case golden = new Case(file, device, dtype)) {
            golden.run(limit);
        }
    }

    private static Map<String, String[]> calls(String text) {
        Map<String, String[]> calls = new LinkedHashMap<>();
        for (String line : text.lines().toList()) {
            String[] parts = line.split(": ");
            calls.merge(parts[0], new String[] {parts[1]}, (forward, backward) -> new String[] {forward[0], backward[0]});
        }
        return calls;
    }

    /** One file: its tensors, and the calls it holds. */
    private static final class Case implements AutoCloseable {
        private final Map<String, Tensor> expected;
        private final Map<String, String> scalars;
        private final Map<String, Tensor> values = new LinkedHashMap<>(); // what our own calls wrote
        private final Deque<Tensor> made = new ArrayDeque<>();
        private final Device device;
        private final DType dtype;
        private final Device cpu = Device.cpu(1);

        Case(Path file, Device device, DType dtype) throws IOException {
            this.device = device;
            this.dtype = dtype;
            try (Safetensors header = Safetensors.open(file)) {
                scalars = header.metadata();
            }
            expected = Safetensors.read(file, cpu);
        }

        void run(double limit) throws Exception {
            String[] calls = CALLS.get(scalars.get("function"));
            assertTrue(calls != null, "no call for " + scalars.get("function"));
            int compared = call(calls[0], limit);
            if (calls.length > 1 && expected.containsKey("dout")) {
                compared += call(calls[1], limit);
            }
            assertTrue(compared > 0, "nothing compared");
        }

        private int call(String line, double limit) throws Exception {
            String[] words = line.split(" ");
            Method method = Arrays.stream(Ops.class.getMethods()).filter(m -> m.getName().equals(words[0])).findFirst().orElseThrow();
            Class<?>[] types = method.getParameterTypes();
            assertEquals(types.length, words.length - 1, line);
            Object[] arguments = new Object[types.length];
            List<String> outputs = new ArrayList<>();
            for (int i = 0; i < types.length; i++) {
                arguments[i] = argument(words[i + 1], types[i], outputs);
            }
            method.invoke(null, arguments);
            for (String name : outputs) {
                compare(name, values.get(name), limit);
            }
            return outputs.size();
        }

        private Object argument(String word, Class<?> type, List<String> outputs) {
            if (word.startsWith("$")) {
                return scalar(scalars.get(word.substring(1)), word, type);
            }
            String name = word.replaceAll("[>?]", "");
            if (!expected.containsKey(name)) {
                assertTrue(word.contains("?"), name + " is not in the file");
                return null;
            }
            if (word.startsWith(">")) {
                outputs.add(name);
                Tensor before = expected.get(name + "_before");
                values.put(name, before == null ? undefined(expected.get(name)) : placed(before));
            }
            return values.computeIfAbsent(name, input -> placed(expected.get(input)));
        }

        private static Object scalar(String text, String word, Class<?> type) {
            assertTrue(text != null, word + " is not in the metadata");
            if (type == double.class) {
                return Double.valueOf(text);
            }
            if (type == boolean.class) {
                return text.equals("true");
            }
            if (type == long.class) {
                return Long.parseUnsignedLong(text);
            }
            if (type == int.class) {
                return Integer.valueOf(text);
            }
            if (type == int[].class) {
                int mask = Integer.parseInt(text);
                return IntStream.range(0, Integer.SIZE).filter(axis -> (mask >> axis & 1) == 1).toArray();
            }
            return Stream.<Enum<?>[]>of(DualForm.values(), Gelu.values(), Unary.values(), Binary.values(), Reduction.values())
                    .flatMap(Arrays::stream)
                    .filter(constant -> constant.getDeclaringClass() == type && constant.name().equalsIgnoreCase(text))
                    .findFirst()
                    .orElseThrow();
        }

        /** On the device under test; float64 becomes the dtype under test. */
        private Tensor placed(Tensor tensor) {
            if (tensor.dtype() != DType.F64 || dtype == DType.F64) {
                return keep(tensor.to(device));
            }
            try (Tensor rounded = tensor.cast(dtype)) {
                return keep(rounded.to(device));
            }
        }

        private Tensor undefined(Tensor like) {
            if (like.dtype() == DType.I32) {
                return keep(Tensor.full(device, DType.I32, Integer.MIN_VALUE, like.shape()));
            }
            return keep(Tensor.full(device, like.dtype() == DType.F64 ? dtype : like.dtype(), Double.NaN, like.shape()));
        }

        private Tensor keep(Tensor tensor) {
            made.push(tensor);
            return tensor;
        }

        private void compare(String name, Tensor actual, double limit) {
            double[] want = doubles(expected.get(name));
            double[] got = doubles(actual);
            double largest = largest(want);
            if (name.startsWith("d") && expected.containsKey("dout")) {
                // The gradient's size alone means nothing where it is a small difference of large terms.
                largest = Math.max(largest, largest(doubles(expected.get("dout"))));
            }
            for (int i = 0; i < want.length; i++) {
                double tolerance = limit * largest;
                assertTrue(
                        Double.isFinite(want[i]) ? Math.abs(want[i] - got[i]) <= tolerance : Double.compare(want[i], got[i]) == 0,
                        name + "[" + i + "]: " + got[i] + ", expected " + want[i] + " within " + tolerance);
            }
        }

        private static double largest(double[] values) {
            return Arrays.stream(values).filter(Double::isFinite).map(Math::abs).max().orElse(0);
        }

        private static double[] doubles(Tensor tensor) {
            return tensor.dtype() == DType.I32 ? Arrays.stream(tensor.toInts()).asDoubleStream().toArray() : tensor.toDoubles();
        }

        @Override
        public void close() {
            made.forEach(Tensor::close);
            expected.values().forEach(Tensor::close);
            cpu.close();
        }
    }
}
