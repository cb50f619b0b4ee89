package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Constructor;
import java.lang.reflect.Executable;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.ByteBuffer;
import java.nio.file.FileSystem;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DualformException;
import org.dualform.Tensor;
import org.junit.jupiter.api.Test;

/**
 * Every public method of the API, called with null, closed objects, wrong shapes, wrong dtypes, tensors of another device and numbers out
 * of range: each such call throws one of the documented exceptions or, where the value is allowed, returns.
 */
class RobustnessTest {
    private static final List<String> PACKAGES = List.of("org.dualform", "org.dualform.autograd", "org.dualform.io", "org.dualform.spi");

    /** Cannot be called wrong: nothing to close, no argument. */
    private static final Set<String> NOTHING_TO_SPOIL = Set.of("Device.open()", "Device.cpu()", "Dualform.version()", "Dualform.buildId()",
            "Dualform.nativeVersion()", "Dualform.nativeBuildId()", "Dualform.libraries()", "Dualform.crossing(int)", "Backends.all()",
            "Backends.choose()", "Backends.kernels()", "Backends.precision()", "Backends.deterministic()", "Backends.setDeterministic(boolean)",
            "Backends.clearChoices()", "Backend.id()", "Kernels.id()", "Precision.id()", "DType.bytes()", "DType.isFloating()", "DType.accumulation()");
    /** Answer on a closed object too: they ask only about it, or close it again. */
    private static final Set<String> FINE_WHEN_CLOSED = Set.of("close", "isClosed", "toString");
    /** What a closed tensor, device or file still knows of itself. */
    private static final Set<String> STILL_KNOWN = Set.of("device", "dtype", "dtypeName", "rank", "shape", "strides", "numel", "byteSize",
            "isContiguous", "size", "backend", "description", "threads", "names", "metadata");
    /** Opening CUDA cannot be tried where there is none; refused with a documented exception there. */
    private static final Set<String> MAY_BE_UNAVAILABLE = Set.of("Device.cuda(int)");

    private static final Set<String> UNSUPPORTED_ON_CPU = Set.of("Device.useStream(long)");

    private final List<String> faults = new ArrayList<>();
    private final Map<String, Integer> refusals = new TreeMap<>();
    private int spoiled;

    @Test
    void everyPublicMethodRefusesBadArgumentsWithADocumentedException() throws Exception {
        Set<String> called = new TreeSet<>();
        try (Device device = Device.cpu(2); Device other = Device.cpu(1)) {
            try (ValidCalls valid = new ValidCalls(device)) {
                for (ValidCalls.Call call : valid.calls()) {
                    called.add(name(call.method()));
                    refusals.putIfAbsent(name(call.method()), 0);
                    works(call);
                    spoilReceiver(call);
                    for (int i = 0; i < call.method().getParameterCount(); i++) {
                        spoilArgument(valid, call, i, other);
                    }
                    valid.release();
                }
            }
            assertEquals(0, device.memory().liveTensors(), "tensors left by refused calls");
        }
        List<String> methods = new ArrayList<>();
        List<String> unchecked = new ArrayList<>();
        for (Class<?> type : publicClasses()) {
            for (Executable method : publicMethods(type)) {
                methods.add(name(method));
                boolean refusing = refusals.getOrDefault(name(method), 0) > 0;
                if (!refusing && !harmless(type, method) && !refusesSimply(method)) {
                    unchecked.add(name(method));
                }
            }
        }
        System.out.println("robustness: " + methods.size() + " public methods, " + called.size() + " with state or arguments to spoil, "
                + spoiled
                + " bad calls, " + refusals.values().stream().mapToInt(Integer::intValue).sum() + " refused");
        assertEquals(List.of(), unchecked, "public methods that no bad call was made to, or that refused none");
        assertTrue(faults.isEmpty(), faults.size() + " faults:\n" + String.join("\n", faults));
    }

    private void works(ValidCalls.Call call) {
        try {
            call.discard(call.invoke());
        } catch (UnsupportedOperationException e) {
            if (!UNSUPPORTED_ON_CPU.contains(name(call.method()))) {
                faults.add(name(call.method()) + " should have worked: " + e);
            }
        } catch (Exception e) {
            faults.add(name(call.method()) + " should have worked: " + e);
        }
    }

    private void spoilReceiver(ValidCalls.Call call) throws Exception {
        Object on = call.receiver().get();
        if (!(on instanceof AutoCloseable closeable)) {
            return;
        }
        Object[] arguments = call.arguments().apply(on);
        closeable.close();
        String method = call.method().getName();
        boolean fine = FINE_WHEN_CLOSED.contains(method) || STILL_KNOWN.contains(method);
        Outcome outcome = call(call, on, arguments, "closed receiver");
        if (fine) {
            refusals.merge(name(call.method()), 1, Integer::sum); // it was called closed, which is all there is to spoil
        } else if (outcome == null || !(outcome.thrown instanceof IllegalStateException)) {
            faults.add(name(call.method()) + " on a closed receiver: " + outcome + ", expected IllegalStateException");
        }
    }

    private void spoilArgument(ValidCalls valid, ValidCalls.Call call, int i, Device other) throws Exception {
        Class<?> type = call.method().getParameterTypes()[i];
        for (Map.Entry<String, Object> bad : badValues(valid, type, call, i, other).entrySet()) {
            Object on = call.receiver().get();
            Object[] arguments = call.arguments().apply(on);
            arguments[i] = bad.getValue();
            String what = "argument " + i + " " + bad.getKey();
            Outcome outcome = call(call, on, arguments, what);
            Class<? extends Throwable> expected = expected(bad.getKey(), call, i);
            if (expected != null && (outcome == null || !expected.isInstance(outcome.thrown))) {
                faults.add(name(call.method()) + " with " + what + ": " + outcome + ", expected " + expected.getSimpleName());
            }
        }
    }

    /** What a kind of bad value must lead to; null where the method may take it. */
    private static Class<? extends Throwable> expected(String kind, ValidCalls.Call call, int i) {
        boolean optional = call.optional().contains(i);
        return switch (kind) {
            case "null" -> optional ? null : NullPointerException.class;
            // Three methods only look the tensor up on the tape, where it may be unknown.
            case "closed" -> switch (call.method().getName()) {
                case "retain", "gradient" -> null;
                case "backward" -> RuntimeException.class;
                default -> IllegalStateException.class;
            };
            case "another device" -> call.method().getName().matches("fill|random(Uniform|Normal)|to|retain|gradient") ? null
                    : IllegalArgumentException.class;
            default -> null;
        };
    }

    private record Outcome(Throwable thrown) {
        @Override
        public String toString() {
            return thrown == null ? "returned" : thrown.toString();
        }
    }

    private Outcome call(ValidCalls.Call call, Object on, Object[] arguments, String what) {
        spoiled++;
        try {
            call.discard(call.invoke(on, arguments));
            return new Outcome(null);
        } catch (Throwable e) {
            refusals.merge(name(call.method()), 1, Integer::sum);
            boolean nullGiven = what.endsWith("null") || what.contains("with null");
            if (!documented(e, nullGiven)) {
                faults.add(name(call.method()) + " with " + what + " threw " + e);
            }
            return new Outcome(e);
        }
    }

    private static boolean documented(Throwable e, boolean nullGiven) {
        if (e instanceof NullPointerException) {
            // Ours names the argument; the JVM's own message would tell of a place inside the library.
            return nullGiven && e.getMessage() != null && !e.getMessage().startsWith("Cannot ");
        }
        return e.getMessage() != null
                && (e instanceof IllegalArgumentException
                        || e instanceof IllegalStateException
                        || e instanceof UnsupportedOperationException
                        || e instanceof DualformException
                        || e instanceof IOException);
    }

    private static Map<String, Object> badValues(ValidCalls valid, Class<?> type, ValidCalls.Call call, int i, Device other)
            throws Exception {
        Map<String, Object> bad = new LinkedHashMap<>();
        if (!type.isPrimitive()) {
            bad.put("null", null);
        }
        if (type == Tensor.class) {
            Tensor good = (Tensor) call.arguments().apply(call.receiver().get())[i];
            Tensor closed = valid.tensor(good.dtype(), good.shape());
            closed.close();
            bad.put("closed", closed);
            bad.put("wrong rank", valid.tensor(DType.F32, 1, 1, 1, 1, 7));
            bad.put("wrong shape", valid.tensor(DType.F32, 13, 17));
            bad.put("scalar", valid.tensor(DType.F32));
            bad.put("integers", valid.tensor(DType.I32, 3, 4));
            bad.put("doubles", valid.tensor(DType.F64, 3, 4));
            bad.put("wrong dtype", valid.tensor(good.dtype() == DType.I32 ? DType.F32 : DType.I32, good.shape()));
            bad.put("another device", valid.keep(good.dtype() == DType.I32
                    ? Tensor.full(other, DType.I32, 1, good.shape()) : Tensor.full(other, good.dtype(), 0.25, good.shape())));
        } else if (type == Device.class) {
            Device closed = Device.cpu(1);
            closed.close();
            bad.put("closed", closed);
        } else if (type == long.class || type == int.class) {
            for (long value : new long[] {-1, Integer.MIN_VALUE, Integer.MAX_VALUE, 1L << 31, 1L << 62, Long.MIN_VALUE, Long.MAX_VALUE}) {
                if (type == long.class) {
                    bad.put(Long.toString(value), value);
                } else if (value == (int) value) {
                    bad.put(Long.toString(value), (int) value);
                }
            }
        } else if (type == double.class) {
            for (double value : new double[] {Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY, -1, Double.MAX_VALUE}) {
                bad.put(Double.toString(value), value);
            }
        } else if (type == long[].class) {
            for (long[] value : new long[][] {{}, {0}, {-1}, {-3, -4}, {Long.MAX_VALUE, Long.MAX_VALUE}, {1L << 62, 4},
                    {1L << 31, 1L << 31}, {1, 1, 1, 1, 1, 1, 1, 1, 12}}) {
                bad.put("shape " + Arrays.toString(value), value);
            }
        } else if (type == int[].class) {
            for (int[] value : new int[][] {{}, {-1}, {99}, {0, 0}, {Integer.MAX_VALUE}, {Integer.MIN_VALUE}, new int[13]}) {
                bad.put("integers " + Arrays.toString(value), value);
            }
        } else if (type == float[].class) {
            bad.put("too few", new float[11]);
            bad.put("too many", new float[13]);
        } else if (type == double[].class) {
            bad.put("too few", new double[11]);
            bad.put("too many", new double[13]);
        } else if (type == ByteBuffer.class) {
            bad.put("too small", ByteBuffer.allocate(47));
            bad.put("read-only and small", ByteBuffer.allocate(3).asReadOnlyBuffer());
        } else if (type == String.class) {
            bad.put("empty", "");
            bad.put("unknown", "no such name");
        } else if (type == Path.class) {
            bad.put("missing", Path.of("no such folder", "no such file"));
            bad.put("folder", Path.of("/"));
        } else if (type == Map.class) {
            Map<Object, Object> withNull = new LinkedHashMap<>();
            withNull.put("x", null);
            bad.put("with null value", withNull);
            Map<Object, Object> nullKey = new LinkedHashMap<>();
            nullKey.put(null, null);
            bad.put("with null key", nullKey);
        }
        return bad;
    }

    /** Static methods that take one value of a kind that is always refused. */
    private boolean refusesSimply(Executable method) throws Exception {
        if (!Modifier.isStatic(method.getModifiers()) || !(method instanceof Method m)) {
            return false;
        }
        boolean refused = true;
        if (Arrays.equals(m.getParameterTypes(), new Class<?>[] {String.class})) {
            refused = throwsDocumented(m, (Object) null) && throwsDocumented(m, "no such name");
        } else if (MAY_BE_UNAVAILABLE.contains(name(m))) {
            refused = throwsDocumented(m, -1) && throwsDocumented(m, Integer.MAX_VALUE);
        } else {
            return false;
        }
        return refused;
    }

    private boolean throwsDocumented(Method method, Object... arguments) throws Exception {
        spoiled++;
        try {
            method.invoke(null, arguments);
            return false;
        } catch (java.lang.reflect.InvocationTargetException e) {
            // Enum.valueOf is the JDK's, with its own message for null.
            return documented(e.getCause(), true) || (method.getName().equals("valueOf") && e.getCause() instanceof NullPointerException);
        }
    }

    /** No argument and no state, or generated: enum constants, record accessors, exceptions. */
    private static boolean harmless(Class<?> type, Executable method) {
        boolean noArguments = method.getParameterCount() == 0;
        return NOTHING_TO_SPOIL.contains(name(method))
                || type.isRecord()
                || Throwable.class.isAssignableFrom(type)
                || type.isInterface()
                || (type.isEnum() && noArguments && method.getName().equals("values"));
    }

    private static String name(Executable method) {
        String parameters = Stream.of(method.getParameterTypes()).map(Class::getSimpleName).reduce((a, b) -> a + "," + b).orElse("");
        String owner = method.getDeclaringClass().getSimpleName();
        return (method instanceof Constructor ? "new " + owner : owner + "." + method.getName()) + "(" + parameters + ")";
    }

    private static List<Executable> publicMethods(Class<?> type) {
        return Stream.concat(Arrays.stream(type.getDeclaredConstructors()), Arrays.stream(type.getDeclaredMethods()))
                .filter(method -> Modifier.isPublic(method.getModifiers()) && !method.isSynthetic())
                .toList();
    }

    private static List<Class<?>> publicClasses() throws Exception {
        List<Class<?>> classes = new ArrayList<>();
        Path source = Path.of(Device.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        try (FileSystem jar = Files.isDirectory(source) ? null : FileSystems.newFileSystem(source)) {
            Path root = jar == null ? source : jar.getPath("/");
            for (String name : PACKAGES) {
                try (Stream<Path> files = Files.list(root.resolve(name.replace('.', File.separatorChar)))) {
                    for (Path file : files.filter(path -> path.toString().endsWith(".class") && !path.toString().endsWith("-info.class"))
                            .toList()) {
                        Class<?> type = Class.forName(name + "." + file.getFileName().toString().replace(".class", ""), false,
                                Device.class.getClassLoader());
                        boolean visible = Modifier.isPublic(type.getModifiers())
                                && (type.getEnclosingClass() == null || Modifier.isPublic(type.getEnclosingClass().getModifiers()));
                        if (visible) {
                            classes.add(type);
                        }
                    }
                }
            }
        }
        assertTrue(classes.size() > 20, "found only " + classes);
        return classes;
    }
}
