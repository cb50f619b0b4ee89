package org.dualform;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

class DeviceTest {
    private static final List<String> PROPERTIES = List.of(Backends.PROPERTY, Backends.THREADS, Backends.CPU, Backends.KERNELS,
            Backends.PRECISION, Backends.DETERMINISTIC);
    private final Map<String, String> before = new HashMap<>();

    @BeforeEach
    void noProperties() {
        for (String property : PROPERTIES) {
            before.put(property, System.getProperty(property));
            System.clearProperty(property);
        }
    }

    @AfterEach
    void propertiesAsBefore() {
        PROPERTIES.forEach(System::clearProperty);
        before.forEach((property, value) -> {
            if (value != null) {
                System.setProperty(property, value);
            }
        });
        Backends.clearChoices();
    }

    @Test
    void closeRefusesWhileTensorsLive() {
        Device device = Device.cpu(1);
        Tensor tensor = Tensor.zeros(device, DType.F32, 3);
        IllegalStateException e = assertThrows(IllegalStateException.class, device::close);
        assertTrue(e.getMessage().contains("1 tensor"), e.getMessage());
        assertFalse(device.isClosed());
        Ops.fill(tensor, 2);
        assertEquals(2, tensor.toFloats()[1]);
        tensor.close();
        device.close();
        device.close();
        assertTrue(device.isClosed());
    }

    @Test
    void closedDeviceRejectsUse() {
        Device device = Device.cpu(1);
        device.close();
        Executable[] calls = {
            device::description, device::synchronize, device::memory, device::resetPeak, () -> device.peakGflops(DType.F32), device::startTimer,
            device::stopTimer, device::trim, device::threads,
            () -> device.useStream(0), () -> device.capture(() -> {}), () -> device.wrap(64, 4, DType.F32, 1), () -> Tensor.empty(device, DType.F32, 1),
        };
        for (int i = 0; i < calls.length; i++) {
            IllegalStateException e = assertThrows(IllegalStateException.class, calls[i], "call " + i);
            assertEquals("device: this device is closed", e.getMessage());
        }
    }

    @Test
    void memoryIsCounted() {
        try (Device device = Device.cpu(1)) {
            MemoryStats before = device.memory();
            assertEquals(0, before.liveTensors());
            try (Tensor tensor = Tensor.empty(device, DType.F32, 1000); Tensor view = tensor.slice(0, 0, 10)) {
                MemoryStats during = device.memory();
                assertEquals(2, during.liveTensors());
                assertTrue(during.bytesInUse() >= before.bytesInUse() + 4000, during.toString());
                assertTrue(during.bytesReserved() >= during.bytesInUse());
                assertNotNull(view);
            }
            MemoryStats after = device.memory();
            assertEquals(before.bytesInUse(), after.bytesInUse());
            assertTrue(after.peakBytes() >= before.bytesInUse() + 4000);
            device.resetPeak();
            assertEquals(after.bytesInUse(), device.memory().peakBytes());
            device.trim();
            assertTrue(device.memory().bytesReserved() <= after.bytesReserved());
        }
    }

    @Test
    void propertiesChooseBackendAndThreads() {
        System.setProperty(Backends.PROPERTY, " CPU ");
        System.setProperty(Backends.THREADS, "3");
        try (Device device = Device.open()) {
            assertEquals(Backend.CPU, device.backend());
            assertEquals(3, device.threads());
            assertFalse(device.description().isBlank());
        }
        System.setProperty(Backends.PROPERTY, "tpu");
        InvalidArgumentException e = assertThrows(InvalidArgumentException.class, Device::open);
        assertEquals("-Ddualform.backend: tpu, expected auto, cpu or cuda", e.getMessage());
        System.setProperty(Backends.PROPERTY, "auto");
        for (String threads : new String[] {"-1", "two", "1e3", "99999999999"}) {
            System.setProperty(Backends.THREADS, threads);
            assertThrows(InvalidArgumentException.class, Device::open, threads);
        }
    }

    @Test
    void aPropertyForcesTheCpuLevel() {
        String json = Backends.status(Backend.CPU).json();
        String best = level(json);
        List<String> supported = List.of(json.replaceAll(".*\"supported\":\\[|\\].*|\"", "").split(","));
        assertTrue(supported.contains("base") && supported.contains(best), json);
        for (String level : List.of("base", "avx2", "avx512", "avx512bf16", "amx")) {
            System.setProperty(Backends.CPU, " " + level.toUpperCase(Locale.ROOT) + " ");
            if (supported.contains(level)) {
                try (Device device = Device.cpu(1)) {
                    assertTrue(device.description().contains("(" + level + ","), device.description());
                }
                assertEquals(level, level(Backends.status(Backend.CPU).json()));
            } else {
                String message = assertThrows(BackendUnavailableException.class, () -> Device.cpu(1)).getMessage();
                assertEquals("-Ddualform.cpu: " + level + ", this machine has " + String.join(", ", supported), message);
            }
        }
        for (String unknown : List.of("sse9", "base,avx2", "0")) {
            System.setProperty(Backends.CPU, unknown);
            String message = "-Ddualform.cpu: " + unknown + ", expected one of base, avx2, avx512, avx512bf16, amx; this machine has "
                    + String.join(", ", supported);
            assertEquals(message, assertThrows(InvalidArgumentException.class, Device::open).getMessage());
            assertEquals(message, assertThrows(InvalidArgumentException.class, () -> Backends.status(Backend.CPU)).getMessage());
        }
        System.setProperty(Backends.CPU, " ");
        assertEquals(best, level(Backends.status(Backend.CPU).json()));
    }

    private static String level(String json) {
        return json.replaceAll(".*\"instruction_set\":\"|\".*", "");
    }

    @Test
    void devicesOpenedByManyThreadsHaveTheLevelOfTheProperty() throws InterruptedException {
        System.setProperty(Backends.CPU, "base");
        List<String> others = new CopyOnWriteArrayList<>();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            Thread thread = new Thread(() -> {
                for (int j = 0; j < 50; j++) {
                    try (Device device = Device.cpu(1)) {
                        if (!device.description().contains("(base,")) {
                            others.add(device.description());
                        }
                    }
                }
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        assertEquals(List.of(), others);
    }

    @Test
    void whatCodeChoosesGoesBeforeProperties() {
        String inherited = System.getenv("DUALFORM_KERNELS");
        if (inherited == null) {
            assertEquals(Kernels.PLAIN, Backends.kernels());
        }
        System.setProperty(Backends.KERNELS, " MMA ");
        System.setProperty(Backends.PRECISION, "tf32");
        System.setProperty(Backends.DETERMINISTIC, "true");
        assertEquals(Kernels.MMA, Backends.kernels());
        assertEquals(Precision.TF32, Backends.precision());
        assertTrue(Backends.deterministic());
        Backends.setKernels(Kernels.HOPPER);
        Backends.setPrecision(Precision.BF16X3);
        Backends.setDeterministic(false);
        assertEquals(Kernels.HOPPER, Backends.kernels());
        assertEquals(Precision.BF16X3, Backends.precision());
        assertFalse(Backends.deterministic());
        System.setProperty(Backends.KERNELS, "fast");
        Backends.status(Backend.CUDA); // a property that yields is not read
        assertEquals(Kernels.HOPPER, Backends.kernels());
        assertThrows(NullPointerException.class, () -> Backends.setKernels(null));
        assertThrows(NullPointerException.class, () -> Backends.setPrecision(null));
        assertEquals(Kernels.HOPPER, Backends.kernels());
        System.setProperty(Backends.KERNELS, "mma");
        Backends.clearChoices();
        assertEquals(Kernels.MMA, Backends.kernels());
        assertEquals(Precision.TF32, Backends.precision());
        assertTrue(Backends.deterministic());
    }

    @Test
    void aChoiceThatIsNotUnderstoodIsASentence() {
        System.setProperty(Backends.KERNELS, "fast");
        System.setProperty(Backends.PRECISION, "fp8");
        System.setProperty(Backends.DETERMINISTIC, "maybe");
        assertEquals("-Ddualform.kernels: fast, expected plain, mma or hopper",
                assertThrows(InvalidArgumentException.class, Backends::kernels).getMessage());
        assertEquals("-Ddualform.precision: fp8, expected float32, tf32 or bf16x3",
                assertThrows(InvalidArgumentException.class, Backends::precision).getMessage());
        assertEquals("-Ddualform.deterministic: maybe, expected true or false",
                assertThrows(InvalidArgumentException.class, Backends::deterministic).getMessage());
        for (Kernels kernels : Kernels.values()) {
            assertEquals(kernels, Kernels.parse(" " + kernels.id().toUpperCase(Locale.ROOT)));
        }
        for (Precision precision : Precision.values()) {
            assertEquals(precision, Precision.parse(precision.id()));
        }
        assertThrows(InvalidArgumentException.class, () -> Kernels.parse("fast"));
        assertThrows(InvalidArgumentException.class, () -> Precision.parse(""));
    }

    @Test
    void theTimerTellsTheTimeOfTheWork() {
        try (Device device = Device.cpu(1); Tensor x = Tensor.full(device, DType.F32, 2, 1 << 20)) {
            assertThrows(IllegalStateException.class, device::stopTimer);
            long start = System.nanoTime();
            device.startTimer();
            Ops.unaryForward(x, x, Unary.TANH);
            double seconds = device.stopTimer();
            double around = (System.nanoTime() - start) / 1e9;
            assertTrue(seconds > 0 && seconds <= around, seconds + " of " + around);
            assertThrows(IllegalStateException.class, device::stopTimer);
            IllegalStateException e = assertThrows(IllegalStateException.class, () -> device.capture(device::startTimer).close());
            assertTrue(e.getMessage().contains("timing"), e.getMessage());
        }
    }

    @Test
    void thePeakIsMeasured() {
        System.setProperty(Backends.CPU, "base");
        try (Device device = Device.cpu(1)) {
            for (DType dtype : new DType[] {DType.F32, DType.BF16, DType.F64}) {
                double peak = device.peakGflops(dtype);
                assertTrue(peak > 0.01 && peak < 1e6, dtype + " " + peak);
            }
            assertThrows(InvalidArgumentException.class, () -> device.peakGflops(DType.I32));
            assertThrows(NullPointerException.class, () -> device.peakGflops(null));
        }
    }

    @Test
    void cudaThatIsNotThereIsAnExceptionWithTheReason() {
        System.setProperty(Backends.PROPERTY, "cuda");
        Backends.Status status = Backends.status(Backend.CUDA);
        if (status.available()) {
            try (Device device = Device.open()) {
                assertEquals(Backend.CUDA, device.backend());
            }
            return;
        }
        BackendUnavailableException e = assertThrows(BackendUnavailableException.class, Device::open);
        assertTrue(e.getMessage().contains(status.reason()), e.getMessage());
        assertTrue(e.getMessage().contains("-Ddualform.backend=cpu"), e.getMessage());
        assertThrows(BackendUnavailableException.class, () -> Device.cuda(0));
        System.setProperty(Backends.PROPERTY, "auto");
        assertEquals(Backend.CPU, Backends.choose().backend());
        assertTrue(Backends.choose().reason().contains(status.reason()));
    }

    @Test
    void impossibleDevicesAreRefused() {
        assertThrows(InvalidArgumentException.class, () -> Device.open(Backend.CPU, 1, 0));
        assertThrows(InvalidArgumentException.class, () -> Device.open(Backend.CPU, -1, 0));
        assertThrows(InvalidArgumentException.class, () -> Device.cpu(-1));
        assertThrows(NullPointerException.class, () -> Device.open(null));
        try (Device device = Device.cpu(1)) {
            assertThrows(UnsupportedOperationException.class, () -> device.useStream(1));
            assertThrows(InvalidArgumentException.class, () -> device.wrap(64, 4, DType.F32, 2));
        }
    }

    @Test
    void buildsAndLibrariesAreReported() {
        assertEquals(Dualform.buildId(), Dualform.nativeBuildId());
        assertTrue(Dualform.buildId().matches("[0-9a-f]{16}"), Dualform.buildId());
        assertTrue(Dualform.version().startsWith(Dualform.nativeVersion()), Dualform.version());
        assertEquals(8, Dualform.crossing(7));
        assertTrue(Files.exists(Dualform.libraries().get("dualform")));
        assertTrue(Files.exists(Dualform.libraries().get("jniDualformNative")));
        Backends.Status cpu = Backends.status(Backend.CPU);
        assertTrue(cpu.available());
        assertEquals(1, cpu.devices());
        assertNull(cpu.reason());
        assertTrue(cpu.json().startsWith("{") && cpu.json().endsWith("}"), cpu.json());
        assertEquals(2, Backends.all().size());
    }
}
