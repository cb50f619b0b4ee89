package org.dualform.tests;

import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.lang.reflect.Executable;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.Channels;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.Function;
import java.util.function.Supplier;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.Binary;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DualForm;
import org.dualform.Dualform;
import org.dualform.Gelu;
import org.dualform.Graph;
import org.dualform.Kernels;
import org.dualform.Ops;
import org.dualform.Precision;
import org.dualform.Reduction;
import org.dualform.Tensor;
import org.dualform.Unary;
import org.dualform.autograd.Tape;
import org.dualform.io.Safetensors;

/**
 * One call that works for every public method that can be called wrong: the point from which {@link RobustnessTest} spoils one argument at
 * a time. Ops and the tape's ops are written as lines "name:shape ?optional:shape" of F32 tensors, i before a shape meaning I32.
 */
final class ValidCalls implements AutoCloseable {
    private final Device device;
    private final Path folder;
    private final List<Call> calls = new ArrayList<>();
    private final List<AutoCloseable> open = new ArrayList<>();

    /** A call: its receiver (null for static methods and constructors) and arguments are made anew each time. */
    record Call(Executable method, Supplier<Object> receiver, Function<Object, Object[]> arguments, Set<Integer> optional) {
        Object invoke() throws Exception {
            Object on = receiver.get();
            return invoke(on, arguments.apply(on));
        }

        /** Closes what the call made. */
        void discard(Object result) throws Exception {
            if (method.getName().equals("device")) {
                return; // the tensor's own
            }
            for (Object part : result instanceof Map<?, ?> map ? map.values() : Arrays.asList(result)) {
                if (part instanceof AutoCloseable closeable) {
                    closeable.close();
                }
            }
        }

        Object invoke(Object on, Object[] values) throws Exception {
            try {
                return method instanceof Method m ? m.invoke(on, values) : ((java.lang.reflect.Constructor<?>) method).newInstance(values);
            } catch (InvocationTargetException e) {
                if (e.getCause() instanceof Error error) {
                    throw error;
                }
                throw (Exception) e.getCause();
            }
        }
    }

    ValidCalls(Device device) {
        this.device = device;
        try {
            folder = Files.createTempDirectory("valid-calls");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        addOps();
        addTape();
        addTensor();
        addDevice();
        addRest();
    }

    List<Call> calls() {
        return calls;
    }

    /** Something to close with this. */
    <T extends AutoCloseable> T keep(T resource) {
        open.add(resource);
        return resource;
    }

    /** Closes what the calls so far made. */
    void release() throws Exception {
        for (int i = open.size() - 1; i >= 0; i--) {
            open.get(i).close();
        }
        open.clear();
    }

    @Override
    public void close() throws Exception {
        release();
        Backends.clearChoices();
        try (var files = Files.list(folder)) {
            for (Path file : files.toList()) {
                Files.delete(file);
            }
        }
        Files.delete(folder);
    }

    Tensor tensor(DType dtype, long... shape) {
        return keep(dtype == DType.I32 ? Tensor.full(device, dtype, 1, shape) : Tensor.full(device, dtype, 0.25, shape));
    }

    // ---- how calls are written ----

    private void op(String name, String tensors, Object... more) {
        add(Ops.class, name, () -> null, on -> arguments(tensors, more), optional(tensors));
    }

    private void tape(String name, String tensors, Object... more) {
        add(Tape.class, name, this::tape, on -> arguments(tensors, more), optional(tensors));
    }

    private Tape tape() {
        return keep(new Tape(device));
    }

    private void on(Class<?> type, String name, Supplier<Object> receiver, Object... arguments) {
        add(type, name, receiver, on -> arguments.clone(), Set.of());
    }

    private void add(Class<?> type, String name, Supplier<Object> receiver, Function<Object, Object[]> arguments, Set<Integer> optional) {
        Object on = receiver.get();
        Object[] sample = arguments.apply(on);
        Executable method = Arrays.stream(name.equals("new") ? type.getConstructors() : (Executable[]) type.getMethods())
                .filter(m -> (m.getName().equals(name) || name.equals("new")) && m.getDeclaringClass() == type && accepts(m, sample))
                .findFirst()
                .orElseThrow(() -> new AssertionError(type.getSimpleName() + " has no " + name + Arrays.toString(sample)));
        calls.add(new Call(method, receiver, arguments, optional));
    }

    private static boolean accepts(Executable method, Object[] values) {
        Class<?>[] types = method.getParameterTypes();
        boolean fits = types.length == values.length;
        for (int i = 0; fits && i < types.length; i++) {
            fits = boxed(types[i]).isInstance(values[i]);
        }
        return fits;
    }

    private static Class<?> boxed(Class<?> type) {
        return java.lang.invoke.MethodType.methodType(type).wrap().returnType();
    }

    private Object[] arguments(String tensors, Object... more) {
        List<Object> all = new ArrayList<>();
        for (String word : tensors.split(" +")) {
            String shape = word.substring(word.indexOf(':') + 1);
            DType dtype = shape.startsWith("i") ? DType.I32 : DType.F32;
            long[] sizes = Arrays.stream(shape.replace("i", "").split(",")).filter(size -> !size.isEmpty()).mapToLong(Long::parseLong)
                    .toArray();
            all.add(tensor(dtype, sizes));
        }
        all.addAll(Arrays.asList(more));
        return all.toArray();
    }

    private static Set<Integer> optional(String tensors) {
        Set<Integer> places = new TreeSet<>();
        String[] words = tensors.split(" +");
        for (int i = 0; i < words.length; i++) {
            if (words[i].startsWith("?")) {
                places.add(i);
            }
        }
        return places;
    }

    // ---- the calls ----

    private void addOps() {
        String qkv = " q:2,3,4,8 k:2,5,2,8 v:2,5,2,8 ";
        String dqkv = "dq:2,3,4,8 dk:2,5,2,8 dv:2,5,2,8 ";
        op("attentionForward", "out:2,3,4,8 lse:2,4,3" + qkv + "?lengths:i2", 0.3, true);
        op("attentionBackward", dqkv + "dout:2,3,4,8" + qkv + "out:2,3,4,8 lse:2,4,3 ?lengths:i2", 0.3, true);
        op("momentumAttentionForward", "out:2,3,4,8 ?attn:2,3,4,8 lse:2,4,3 ?state:2,4,8" + qkv + "?lengths:i2 eta:4 ?state:2,4,8", 0.3);
        op("momentumAttentionBackward", dqkv + "?deta:4 dout:2,3,4,8" + qkv + "attn:2,3,4,8 lse:2,4,3 ?lengths:i2 eta:4", 0.3, false);
        op("deltaAccumulate", "dw:3,4 e:5,3 xp:5,4", false);
        op("deltaApply", "out:2,3 x:2,4 ?w0:3,4 dw:3,4");
        op("dualFormForward", "out:2,3 ?dw:3,4 w0:3,4 e:5,3 xp:5,4 x:2,4", DualForm.AUTO);
        op("dualFormBackward", "?dw0:3,4 ?de:5,3 ?dxp:5,4 ?dx:2,4 dout:2,3 w0:3,4 e:5,3 xp:5,4 x:2,4", DualForm.AUTO, false);
        op("linearAttentionForward", "out:2,3,2,4 ?state:2,2,4,4 q:2,3,2,4 k:2,3,2,4 v:2,3,2,4 ?decay:2 ?state:2,2,4,4");
        op("linearAttentionBackward", "dq:2,3,2,4 dk:2,3,2,4 dv:2,3,2,4 ?ddecay:2 ?ds0:2,2,4,4 dout:2,3,2,4 ?dstate:2,2,4,4 "
                + "q:2,3,2,4 k:2,3,2,4 v:2,3,2,4 ?decay:2 ?s0:2,2,4,4", false);
        op("matmul", "out:3,5 a:3,4 b:4,5 ?bias:5", false, false, false);
        op("biasBackward", "dbias:4 dout:3,4", false);
        op("residualLayernormForward", "?sum:3,4 out:3,4 mean:3 rstd:3 x:3,4 ?residual:3,4 weight:4 bias:4", 1e-5);
        op("residualLayernormBackward", "dx:3,4 ?dweight:4 ?dbias:4 dout:3,4 ?dsum:3,4 sum:3,4 weight:4 mean:3 rstd:3", false);
        op("biasGeluForward", "out:3,4 x:3,4 ?bias:4", Gelu.EXACT);
        op("biasGeluBackward", "dx:3,4 ?dbias:4 dout:3,4 x:3,4 ?bias:4", Gelu.TANH, false);
        op("matmulGeluForward", "out:3,5 ?pre:3,5 a:3,4 b:4,5 ?bias:5", false, false, Gelu.TANH);
        op("matmulGeluBackward", "dpre:3,5 ?dbias:5 dout:3,4 w:4,5 pre:3,5", false, Gelu.TANH, false);
        op("embeddingForward", "out:2,3,4 ids:i2,3 wte:7,4 ?wpe:5,4", 1L);
        op("embeddingBackward", "?dwte:7,4 ?dwpe:5,4 dout:2,3,4 ids:i2,3", 1L, false);
        op("crossEntropy", "loss: losses:3 ?dlogits:3,5 logits:3,5 targets:i3", -100);
        op("unaryForward", "out:3,4 x:3,4", Unary.TANH);
        op("unaryBackward", "dx:3,4 dout:3,4 x:3,4", Unary.ABS);
        op("binaryForward", "out:3,4 a:3,4 b:4", Binary.MUL);
        op("affine", "out:3,4 x:3,4", 2.0, 1.0);
        op("copy", "out:3,4 x:3,4");
        op("fill", "out:3,4", 1.5);
        op("reduceForward", "out:3 x:3,4", Reduction.SUM, new int[] {1});
        op("reduceBackward", "dx:3,4 dout:3 x:3,4 out:3", Reduction.MAX, new int[] {1});
        op("argmax", "out:i3 x:3,4");
        op("squaredNorm", "sumsq: x:3,4", false);
        op("clipScale", "scale: sumsq:", 1.0);
        op("adamwStep", "param:3,4 m:3,4 v:3,4 ?master:3,4 grad:3,4 ?scale:", 0.1, 0.9, 0.99, 1e-8, 0.01, 1L);
        op("clipStep", "scale: step:i sumsq: ?loss: ?maxNorm:");
        op("adamwRanges", "param:12 m:12 v:12 ?master:12 grad:12 ?scale: ?rates:3 ?steps:i", new long[] {0, 5, 6, 12}, new double[] {0.1, 0},
                0.1, 0.9, 0.99, 1e-8, 1L);
        op("sgdStep", "param:3,4 ?buffer:3,4 ?master:3,4 grad:3,4 ?scale:", 0.1, 0.9, 0.01);
        op("randomUniform", "out:3,4", 1L, 0L, 0.0, 1.0);
        op("randomNormal", "out:3,4", 1L, 0L, 0.0, 1.0);
        op("randomUniformNext", "out:3,4 state:i4", 0.0, 1.0);
        op("randomNormalNext", "out:3,4 state:i4", 0.0, 1.0);
    }

    private void addTape() {
        String qkv = "q:2,3,4,8 k:2,5,2,8 v:2,5,2,8 ";
        add(Tape.class, "new", () -> null, on -> new Object[] {device}, Set.of());
        tape("parameter", "value:3");
        tape("parameter", "value:3 gradient:3");
        tape("watch", "value:3");
        tape("retain", "result:3");
        tape("gradient", "leaf:3");
        add(Tape.class, "noGrad", this::tape, on -> new Object[] {(Supplier<Object>) () -> "done"}, Set.of());
        add(Tape.class, "noGrad", this::tape, on -> new Object[] {(Runnable) () -> {}}, Set.of());
        add(Tape.class, "backward", this::tape, on -> new Object[] {loss((Tape) on)}, Set.of());
        add(Tape.class, "backward", this::tape, on -> new Object[] {loss((Tape) on), tensor(DType.F32)}, Set.of());
        tape("attention", qkv + "?lengths:i2", 0.3, true);
        tape("momentumAttention", qkv + "eta:4 ?lengths:i2", 0.3);
        tape("linearAttention", "q:2,3,2,4 k:2,3,2,4 v:2,3,2,4 ?decay:2 ?state:2,2,4,4");
        tape("dualForm", "w0:3,4 e:5,3 xp:5,4 x:2,4", DualForm.DUAL);
        tape("deltaAccumulate", "e:5,3 xp:5,4");
        tape("deltaApply", "x:2,4 ?w0:3,4 dw:3,4");
        tape("matmul", "a:3,4 b:4,5");
        tape("matmul", "a:3,4 b:4,5 ?bias:5", false, false);
        tape("residualLayernorm", "x:3,4 ?residual:3,4 weight:4 bias:4", 1e-5);
        tape("biasGelu", "x:3,4 ?bias:4", Gelu.TANH);
        tape("feedForward", "x:3,4 inWeight:5,4 ?inBias:5 outWeight:2,5 ?outBias:2", Gelu.TANH);
        tape("embedding", "ids:i2,3 wte:7,4 ?wpe:5,4", 1L);
        tape("crossEntropy", "logits:3,5 targets:i3", -100);
        tape("unary", "x:3", Unary.EXP);
        for (String name : List.of("add", "sub", "mul", "div", "max", "min")) {
            tape(name, "a:3,4 b:4");
        }
        tape("affine", "x:3", 2.0, 1.0);
        tape("copy", "x:3");
        tape("cast", "x:3", DType.F64);
        tape("broadcast", "x:3", new long[] {2, 3});
        tape("reshape", "x:3,4", new long[] {12});
        tape("slice", "x:3,4", 0, 1L, 2L);
        tape("select", "x:3,4", 0, 1L);
        tape("transpose", "x:3,4,5", 0, 1);
        tape("reduce", "x:3,4", Reduction.MEAN, new int[] {0});
        on(Tape.class, "isClosed", this::tape);
        on(Tape.class, "close", this::tape);
    }

    private Tensor loss(Tape tape) {
        return tape.reduce(tape.parameter(tensor(DType.F32, 3)), Reduction.SUM);
    }

    private void addTensor() {
        long[] shape = {3, 4};
        Supplier<Object> x = () -> tensor(DType.F32, shape);
        add(Tensor.class, "empty", () -> null, on -> new Object[] {device, DType.F32, shape}, Set.of());
        add(Tensor.class, "zeros", () -> null, on -> new Object[] {device, DType.F32, shape}, Set.of());
        add(Tensor.class, "full", () -> null, on -> new Object[] {device, DType.F32, 2.0, shape}, Set.of());
        add(Tensor.class, "scalar", () -> null, on -> new Object[] {device, DType.F32, 2.0}, Set.of());
        add(Tensor.class, "of", () -> null, on -> new Object[] {device, new float[12], shape}, Set.of());
        add(Tensor.class, "of", () -> null, on -> new Object[] {device, new double[12], shape}, Set.of());
        add(Tensor.class, "of", () -> null, on -> new Object[] {device, new int[12], shape}, Set.of());
        add(Tensor.class, "of", () -> null, on -> new Object[] {device, DType.BF16, new double[12], shape}, Set.of());
        for (String name : List.of("device", "dtype", "rank", "shape", "strides", "numel", "byteSize", "isContiguous", "address",
                "isClosed", "close",
                "copy", "toFloats", "toDoubles", "toString")) {
            on(Tensor.class, name, x);
        }
        on(Tensor.class, "toInts", () -> tensor(DType.I32, shape));
        on(Tensor.class, "item", () -> tensor(DType.F32, 1));
        on(Tensor.class, "size", x, 1);
        on(Tensor.class, "view", x, new long[] {2, 2}, new long[] {4, 1}, 1L);
        on(Tensor.class, "reshape", x, (Object) new long[] {12});
        on(Tensor.class, "slice", x, 0, 1L, 2L);
        on(Tensor.class, "select", x, 0, 1L);
        on(Tensor.class, "transpose", () -> tensor(DType.F32, 2, 3, 4), 0, 1);
        on(Tensor.class, "cast", x, DType.F64);
        add(Tensor.class, "to", x, on -> new Object[] {device}, Set.of());
        for (String name : List.of("read", "write")) {
            on(Tensor.class, name, x, (Object) new float[12]);
            on(Tensor.class, name, x, (Object) new double[12]);
            on(Tensor.class, name, () -> tensor(DType.I32, shape), (Object) new int[12]);
            add(Tensor.class, name, x, on -> new Object[] {ByteBuffer.allocateDirect(48).order(ByteOrder.LITTLE_ENDIAN)}, Set.of());
        }
    }

    private void addDevice() {
        Supplier<Object> fresh = () -> keep(Device.cpu(1));
        on(Device.class, "open", () -> null);
        on(Device.class, "open", () -> null, Backend.CPU);
        on(Device.class, "open", () -> null, Backend.CPU, 0, 1);
        on(Device.class, "cpu", () -> null);
        on(Device.class, "cpu", () -> null, 1);
        for (String name : List.of("backend", "description", "threads", "synchronize", "memory", "resetPeak", "trim", "isClosed", "close",
                "toString")) {
            on(Device.class, name, fresh);
        }
        on(Device.class, "peakGflops", fresh, DType.F32);
        on(Device.class, "useStream", fresh, 0L);
        on(Device.class, "startTimer", fresh);
        on(Device.class, "stopTimer", () -> {
            Device started = keep(Device.cpu(1));
            started.startTimer();
            return started;
        });
        on(Device.class, "capture", fresh, (Runnable) () -> {});
        Supplier<Object> graph = () -> keep(device.capture(() -> {}));
        for (String name : List.of("replay", "isClosed", "close")) {
            on(Graph.class, name, graph);
        }
        add(Device.class, "wrap", fresh, on -> new Object[] {tensor(DType.F32, 4).address(), 16L, DType.F32, new long[] {4}}, Set.of());
    }

    private void addRest() {
        on(Dualform.class, "crossing", () -> null, 1);
        on(Backends.class, "status", () -> null, Backend.CPU);
        on(Backends.class, "setKernels", () -> null, Kernels.PLAIN);
        on(Backends.class, "setPrecision", () -> null, Precision.FLOAT32);
        on(Backend.class, "parse", () -> null, "cpu");
        on(Kernels.class, "parse", () -> null, "mma");
        on(Precision.class, "parse", () -> null, "tf32");
        Supplier<Object> file = () -> keep(opened());
        for (String name : List.of("names", "metadata", "close")) {
            on(Safetensors.class, name, file);
        }
        for (String name : List.of("dtypeName", "dtype", "shape")) {
            on(Safetensors.class, name, file, "x");
        }
        add(Safetensors.class, "load", file, on -> new Object[] {"x", device}, Set.of());
        add(Safetensors.class, "open", () -> null, on -> new Object[] {written()}, Set.of());
        add(Safetensors.class, "read", () -> null, on -> new Object[] {written(), device}, Set.of());
        add(Safetensors.class, "write", () -> null,
                on -> new Object[] {folder.resolve("new.safetensors"), named(), new LinkedHashMap<>(Map.of("a", "b"))}, Set.of(2));
        add(Safetensors.class, "write", () -> null, on -> new Object[] {Channels.newChannel(OutputStream.nullOutputStream()), named(),
            new LinkedHashMap<>(Map.of("a", "b"))}, Set.of(2));
    }

    private Map<String, Tensor> named() {
        return new LinkedHashMap<>(Map.of("x", tensor(DType.F32, 3)));
    }

    private Path written() {
        Path file = folder.resolve("x.safetensors");
        try {
            Safetensors.write(file, named(), Map.of());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return file;
    }

    private Safetensors opened() {
        try {
            return Safetensors.open(written());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
