package org.dualform;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Arrays;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.dualform.internal.global.DualformNative;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.extension.ExtendWith;

@ExtendWith(TestDevice.class)
class OpsTest {
    private Device device;

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
    }

    @AfterEach
    void close() {
        device.close();
    }

    private static Stream<Method> ops() {
        return Arrays.stream(Ops.class.getDeclaredMethods()).filter(method -> Modifier.isPublic(method.getModifiers()));
    }

    @TestFactory
    Stream<DynamicTest> everyOpNamesANullArgument() {
        return ops().map(op -> DynamicTest.dynamicTest(op.getName(), () -> {
            Throwable e = thrownBy(op, null);
            assertInstanceOf(NullPointerException.class, e);
            assertTrue(e.getMessage().endsWith(" is null"), e.getMessage());
        }));
    }

    @TestFactory
    Stream<DynamicTest> everyOpRejectsAClosedTensor() {
        return ops().map(op -> DynamicTest.dynamicTest(op.getName(), () -> {
            Tensor closed = Tensor.zeros(device, DType.F32, 2);
            closed.close();
            Throwable e = thrownBy(op, closed);
            assertInstanceOf(IllegalStateException.class, e);
            assertTrue(e.getMessage().endsWith("this tensor is closed"), e.getMessage());
        }));
    }

    /** One tensor as every argument: a wrong shape, or an output that overlaps an input. Elementwise ops in place are exempt. */
    @TestFactory
    Stream<DynamicTest> everyOpOfManyTensorsRejectsOneInAllPlaces() {
        Set<String> inPlace = Set.of("binaryForward", "unaryBackward");
        return ops().filter(op -> Arrays.stream(op.getParameterTypes()).filter(Tensor.class::equals).count() > 2)
                .filter(op -> !inPlace.contains(op.getName()))
                .map(op -> DynamicTest.dynamicTest(op.getName(), () -> {
                    try (Tensor odd = Tensor.zeros(device, DType.F32, 2, 3, 5)) {
                        Throwable e = thrownBy(op, odd);
                        assertTrue(e instanceof InvalidArgumentException || e instanceof UnsupportedOperationException, String.valueOf(e));
                    }
                    assertEquals(0, device.memory().liveTensors());
                }));
    }

    private static Throwable thrownBy(Method op, Tensor tensor) {
        Object[] arguments = Arrays.stream(op.getParameterTypes()).map(type -> argument(type, tensor)).toArray();
        return assertThrows(InvocationTargetException.class, () -> op.invoke(null, arguments)).getCause();
    }

    private static Object argument(Class<?> type, Tensor tensor) {
        if (type == Tensor.class) {
            return tensor;
        } else if (type == double.class) {
            return 0.5;
        } else if (type == boolean.class) {
            return true;
        } else if (type == int.class) {
            return 1;
        } else if (type == long.class) {
            return 1L;
        } else if (type == int[].class) {
            return new int[0];
        } else if (type == long[].class) {
            return new long[0];
        } else if (type == double[].class) {
            return new double[0];
        }
        return type.getEnumConstants()[0];
    }

    @Test
    void enumsMatchTheNativeConstants() throws ReflectiveOperationException {
        check(DType.values(), "DF_");
        check(DualForm.values(), "DF_FORM_");
        check(Gelu.values(), "DF_GELU_");
        check(Unary.values(), "DF_UNARY_");
        check(Binary.values(), "DF_BINARY_");
        check(Reduction.values(), "DF_REDUCE_");
    }

    private static void check(Enum<?>[] values, String prefix) throws ReflectiveOperationException {
        for (Enum<?> value : values) {
            assertEquals(value.ordinal(), DualformNative.class.getField(prefix + value.name()).getInt(null), prefix + value);
        }
        long constants = Arrays.stream(DualformNative.class.getFields()).filter(f -> f.getName().startsWith(prefix)).count();
        assertTrue(prefix.equals("DF_") || constants == values.length, prefix);
    }

    @Test
    void exportedSymbolsAreTheDeclaredMethods() throws Exception {
        Process nm = new ProcessBuilder("nm", "-D", "--defined-only", Dualform.libraries().get("dualform").toString())
                .redirectErrorStream(true)
                .start();
        Set<String> exported;
        try (BufferedReader lines = new BufferedReader(new InputStreamReader(nm.getInputStream()))) {
            exported = lines.lines().map(line -> line.substring(line.lastIndexOf(' ') + 1)).collect(Collectors.toCollection(TreeSet::new));
        }
        Set<String> declared = Arrays.stream(DualformNative.class.getDeclaredMethods())
                .filter(method -> Modifier.isNative(method.getModifiers()))
                .map(Method::getName)
                .collect(Collectors.toCollection(TreeSet::new));
        assertEquals(exported, declared);
    }

    @Test
    void arithmetic() {
        try (Tensor a = Tensor.of(device, new float[] {1, 2, 3, 4}, 2, 2);
                Tensor b = Tensor.of(device, new float[] {10, 20}, 2);
                Tensor out = Tensor.empty(device, DType.F32, 2, 2);
                Tensor column = Tensor.empty(device, DType.F32, 2);
                Tensor index = Tensor.empty(device, DType.I32, 2)) {
            Ops.binaryForward(out, a, b, Binary.ADD);
            assertArrayEquals(new float[] {11, 22, 13, 24}, out.toFloats());
            Ops.affine(out, a, 2, -1);
            assertArrayEquals(new float[] {1, 3, 5, 7}, out.toFloats());
            Ops.matmul(out, a, a, b, false, true, false);
            assertArrayEquals(new float[] {15, 31, 21, 45}, out.toFloats());
            Ops.reduceForward(column, a, Reduction.SUM, 1);
            assertArrayEquals(new float[] {3, 7}, column.toFloats());
            Ops.argmax(index, a);
            assertArrayEquals(new int[] {1, 1}, index.toInts());
            assertThrows(InvalidArgumentException.class, () -> Ops.reduceForward(column, a, Reduction.SUM, 2));
            assertThrows(InvalidArgumentException.class, () -> Ops.reduceForward(column, a, Reduction.SUM, 1, 1));
            InvalidArgumentException e = assertThrows(InvalidArgumentException.class, () -> Ops.affine(column, a, 1, 0));
            assertTrue(e.getMessage().contains("(2)") || e.getMessage().contains("(2, 2)"), e.getMessage());
        }
    }
}
