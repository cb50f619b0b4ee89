package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.util.ServiceLoader;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.Pointer;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.cuda.CudaBackend;
import org.dualform.cuda.CudaInterop;
import org.dualform.spi.BackendProvider;
import org.junit.jupiter.api.Test;

/** The presets' pointers and streams; what needs no GPU is tested with the CPU's memory. */
class CudaInteropTest {
    @Test
    void theBackendIsFoundAndLoadsOrSaysWhyNot() {
        assertTrue(ServiceLoader.load(BackendProvider.class).stream().anyMatch(provider -> provider.type() == CudaBackend.class));
        Backends.Status status = Backends.status(Backend.CUDA);
        assertTrue(status.available() || !status.reason().isBlank());
        if (new CudaBackend().library() != null) {
            // A driver may be missing, but the plug-in itself loads.
            assertTrue(status.json() != null, status.reason());
        }
    }

    @Test
    void aPointersMemoryBecomesATensorAndBack() {
        try (Device device = Device.cpu(1);
                FloatPointer memory = new FloatPointer(1, 2, 3, 4, 5, 6);
                Tensor all = CudaInterop.wrap(device, memory, DType.F32, 2, 3);
                Tensor tail = CudaInterop.wrap(device, memory.getPointer(4), DType.F32, 2)) {
            assertArrayEquals(new float[] {1, 2, 3, 4, 5, 6}, all.toFloats());
            assertArrayEquals(new float[] {5, 6}, tail.toFloats());
            tail.write(new float[] {7, 8});
            assertEquals(8, memory.get(5));
            Pointer pointer = CudaInterop.pointer(all);
            assertEquals(memory.address(), pointer.address());
            assertEquals(24, pointer.limit());
        }
    }

    @Test
    void memoryThatIsTooSmallIsRefused() {
        try (Device device = Device.cpu(1); FloatPointer memory = new FloatPointer(1, 2, 3)) {
            assertThrows(InvalidArgumentException.class, () -> CudaInterop.wrap(device, memory, DType.F32, 4));
            assertThrows(NullPointerException.class, () -> CudaInterop.wrap(device, null, DType.F32, 4));
        }
    }

    @Test
    void aViewWithGapsHasNoPointer() {
        try (Device device = Device.cpu(1); Tensor x = Tensor.zeros(device, DType.F32, 3, 4); Tensor columns = x.slice(1, 0, 2)) {
            assertThrows(IllegalArgumentException.class, () -> CudaInterop.pointer(columns));
        }
    }

    @Test
    void theCpuHasNoStreams() {
        try (Device device = Device.cpu(1)) {
            assertThrows(UnsupportedOperationException.class, () -> CudaInterop.useStream(device, null));
        }
    }

    @Test
    void aCudaDeviceReturnsToItsOwnStream() {
        Backends.Status status = Backends.status(Backend.CUDA);
        assumeTrue(status.available(), "cuda not available: " + status.reason());
        try (Device device = Device.cuda(0); Tensor x = Tensor.full(device, DType.F32, 2, 3)) {
            CudaInterop.useStream(device, null);
            try (Tensor same = CudaInterop.wrap(device, CudaInterop.pointer(x), DType.F32, 3)) {
                assertArrayEquals(new float[] {2, 2, 2}, same.toFloats());
            }
        }
    }
}
