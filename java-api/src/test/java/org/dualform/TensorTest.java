package org.dualform;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.function.Executable;

@ExtendWith(TestDevice.class)
class TensorTest {
    private Device device;
    private Tensor x; // (2,3,4): 0 1 2 ...

    @BeforeEach
    void open() {
        device = TestDevice.open(1);
        double[] values = new double[24];
        for (int i = 0; i < 24; i++) {
            values[i] = i;
        }
        x = Tensor.of(device, values, 2, 3, 4);
    }

    @AfterEach
    void close() {
        x.close();
        device.close();
    }

    @Test
    void carriesItsShape() {
        assertArrayEquals(new long[] {2, 3, 4}, x.shape());
        assertArrayEquals(new long[] {12, 4, 1}, x.strides());
        assertEquals(24, x.numel());
        assertEquals(192, x.byteSize());
        assertEquals(DType.F64, x.dtype());
        assertTrue(x.isContiguous());
        assertEquals(0, x.address() % 64);
        assertEquals("Tensor F64 (2, 3, 4) on " + device.backend().id(), x.toString());
    }

    @Test
    void returnedShapesAreCopies() {
        x.shape()[0] = 99;
        x.strides()[0] = 99;
        assertEquals(2, x.size(0));
        assertEquals(12, x.strides()[0]);
    }

    @Test
    void viewsShareMemory() {
        try (Tensor middle = x.slice(1, 1, 2); Tensor second = x.select(0, 1); Tensor swapped = x.transpose(0, 1);
                Tensor flat = x.reshape(24); Tensor diagonal = x.view(new long[] {2, 1}, new long[] {13, 1}, 5)) {
            assertArrayEquals(new double[] {4, 5, 6, 7, 16, 17, 18, 19}, middle.toDoubles());
            assertArrayEquals(new long[] {3, 4}, second.shape());
            assertEquals(12, second.toDoubles()[0]);
            assertArrayEquals(new double[] {0, 1, 2, 3, 12, 13, 14, 15}, java.util.Arrays.copyOf(swapped.toDoubles(), 8));
            assertArrayEquals(new double[] {5, 18}, diagonal.toDoubles());
            middle.write(new double[] {-1, -2, -3, -4, -5, -6, -7, -8});
            assertEquals(-1, flat.toDoubles()[4]);
        }
    }

    @Test
    void memoryOutlivesTheBaseOfAView() {
        Tensor base = Tensor.of(device, new float[] {1, 2, 3, 4}, 4);
        Tensor view = base.slice(0, 1, 3);
        base.close();
        assertArrayEquals(new float[] {2, 3}, view.toFloats());
        view.close();
    }

    @Test
    void reshapeOfStridedViewsKeepsTheOrderOrRefuses() {
        try (Tensor rows = x.slice(1, 0, 2); Tensor same = rows.reshape(2, 1, 8); Tensor split = rows.reshape(2, 2, 2, 2)) {
            assertArrayEquals(rows.toDoubles(), same.toDoubles());
            assertArrayEquals(rows.toDoubles(), split.toDoubles());
            assertThrows(InvalidArgumentException.class, () -> rows.reshape(16));
            assertThrows(InvalidArgumentException.class, () -> rows.reshape(3, 5));
            try (Tensor copied = rows.copy(); Tensor flat = copied.reshape(16)) {
                assertArrayEquals(rows.toDoubles(), flat.toDoubles());
            }
        }
    }

    @Test
    void invalidViewsAreRefused() {
        Executable[] calls = {
            () -> x.slice(3, 0, 1), () -> x.slice(-1, 0, 1), () -> x.slice(0, 0, 3), () -> x.slice(0, 1, 1), () -> x.slice(0, -1, 1),
            () -> x.select(0, 2), () -> x.select(0, -1), () -> x.transpose(0, 3), () -> x.transpose(0, 2),
            () -> x.view(new long[] {25}, new long[] {1}, 0), () -> x.view(new long[] {24}, new long[] {1}, 1),
            () -> x.view(new long[] {2}, new long[] {-1}, 4), () -> x.view(new long[] {2, 2}, new long[] {0, 1}, 0),
            () -> x.view(new long[] {2, 2}, new long[] {1, 1}, 0), () -> x.view(new long[] {2}, new long[] {1, 1}, 0),
            () -> x.view(new long[] {1}, new long[] {1}, -1), () -> x.view(new long[] {1}, new long[] {1}, Long.MAX_VALUE),
            () -> x.view(new long[] {2, 1}, new long[] {Long.MAX_VALUE, 1}, 1),
            () -> x.view(new long[] {1L << 62, 4}, new long[] {4, 1}, 0),
        };
        for (int i = 0; i < calls.length; i++) {
            assertThrows(InvalidArgumentException.class, calls[i], "call " + i);
        }
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void shapesThatOverflowAreRefused() {
        long big = 1L << 62;
        for (long[] shape : new long[][] {
            {big}, {big, 2}, {big, 4}, {2, big}, {1, big, 1}, {Long.MAX_VALUE}, {Long.MAX_VALUE, Long.MAX_VALUE}, {1L << 32, 1L << 32},
            {0}, {3, 0}, {big, 0}, {-1}, {2, -3}, {Long.MIN_VALUE}, {1, 1, 1, 1, 1, 1, 1, 1, 1}
        }) {
            assertThrows(InvalidArgumentException.class, () -> Tensor.empty(device, DType.F64, shape), Arguments.describe(shape));
        }
        assertThrows(DeviceOutOfMemoryException.class, () -> Tensor.empty(device, DType.F32, 1L << 55));
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void scalarsHaveOneElement() {
        try (Tensor scalar = Tensor.scalar(device, DType.F32, 2.5); Tensor count = Tensor.full(device, DType.I32, 7)) {
            assertEquals(0, scalar.rank());
            assertEquals(2.5, scalar.item());
            assertEquals(7, count.item());
        }
        assertThrows(InvalidArgumentException.class, x::item);
    }

    @Test
    void valuesAreRoundedToTheDtype() {
        double[] values = {1, 1.00390625, -3.14159, 1e30};
        try (Tensor bf16 = Tensor.of(device, DType.BF16, values, 4); Tensor f32 = bf16.cast(DType.F32)) {
            assertArrayEquals(new double[] {1, 1, -3.140625, f32.toDoubles()[3]}, bf16.toDoubles());
            assertEquals(1e30, bf16.toDoubles()[3], 1e30 / 256);
        }
    }

    @Test
    void integersAndFloatsDoNotMix() {
        try (Tensor ids = Tensor.of(device, new int[] {1, -2, 3}, 3)) {
            assertArrayEquals(new int[] {1, -2, 3}, ids.toInts());
            assertThrows(InvalidArgumentException.class, ids::toFloats);
            assertThrows(InvalidArgumentException.class, x::toInts);
            assertThrows(InvalidArgumentException.class, () -> ids.cast(DType.F32));
            assertThrows(InvalidArgumentException.class, () -> Tensor.of(device, DType.I32, new double[] {1}, 1));
        }
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void wrongCountsAreRefused() {
        assertThrows(InvalidArgumentException.class, () -> Tensor.of(device, new float[3], 2, 2));
        assertThrows(InvalidArgumentException.class, () -> x.read(new double[23]));
        assertThrows(InvalidArgumentException.class, () -> x.write(new float[25]));
        assertThrows(InvalidArgumentException.class, () -> x.write(ByteBuffer.allocate(191)));
        assertThrows(InvalidArgumentException.class, () -> x.read(ByteBuffer.allocate(192).asReadOnlyBuffer()));
    }

    @Test
    void bytesAreTheTensorsOwn() {
        for (ByteBuffer buffer : new ByteBuffer[] {ByteBuffer.allocate(200), ByteBuffer.allocateDirect(200)}) {
            buffer.position(8);
            x.read(buffer);
            assertEquals(0, buffer.remaining());
            buffer.order(ByteOrder.LITTLE_ENDIAN);
            assertEquals(23, buffer.getDouble(8 + 23 * 8));
            buffer.putDouble(8, 42).position(8);
            x.write(buffer);
            assertEquals(42, x.toDoubles()[0]);
        }
    }

    @Test
    void copiesToAnotherDevice() {
        try (Device other = Device.cpu(2); Tensor swapped = x.transpose(0, 1); Tensor copy = swapped.to(other)) {
            assertArrayEquals(swapped.toDoubles(), copy.toDoubles());
            assertEquals(other, copy.device());
        }
    }

    @Test
    void closedTensorRejectsUse() {
        Tensor closed = Tensor.zeros(device, DType.F64, 2);
        closed.close();
        closed.close();
        assertTrue(closed.isClosed());
        assertEquals(2, closed.numel());
        Executable[] calls = {
            closed::address, closed::toDoubles, closed::toFloats, closed::copy, () -> closed.reshape(1, 2), () -> closed.slice(0, 0, 1),
            () -> closed.write(new double[2]), () -> closed.to(device), () -> Ops.fill(closed, 1), () -> closed.cast(DType.F32),
        };
        for (int i = 0; i < calls.length; i++) {
            IllegalStateException e = assertThrows(IllegalStateException.class, calls[i], "call " + i);
            assertTrue(e.getMessage().endsWith("this tensor is closed"), e.getMessage());
        }
        assertEquals(1, device.memory().liveTensors());
    }

    @Test
    void nullArgumentsAreNamed() {
        assertEquals("device is null", message(() -> Tensor.empty(null, DType.F32, 1)));
        assertEquals("dtype is null", message(() -> Tensor.empty(device, null, 1)));
        assertEquals("shape is null", message(() -> Tensor.empty(device, DType.F32, (long[]) null)));
        assertEquals("values is null", message(() -> Tensor.of(device, (float[]) null, 1)));
        assertEquals("values is null", message(() -> x.read((double[]) null)));
        assertEquals("bytes is null", message(() -> x.write((ByteBuffer) null)));
        assertEquals("strides is null", message(() -> x.view(new long[] {1}, null, 0)));
    }

    private static String message(Executable call) {
        return assertThrows(NullPointerException.class, call).getMessage();
    }

    @Test
    void wrappedMemoryStaysTheCallers() {
        try (Tensor wrapped = device.wrap(x.address(), x.byteSize(), DType.F64, 24)) {
            assertArrayEquals(x.toDoubles(), wrapped.toDoubles());
        }
        assertEquals(23, x.toDoubles()[23]);
        assertThrows(InvalidArgumentException.class, () -> device.wrap(x.address(), 191, DType.F64, 24));
        assertThrows(InvalidArgumentException.class, () -> device.wrap(0, 192, DType.F64, 24));
        assertFalse(x.isClosed());
    }
}
