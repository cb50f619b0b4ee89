package org.dualform;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@ExtendWith(TestDevice.class)
class LifetimeTest {
    @Test
    void leakedTensorsAreFreed() throws InterruptedException {
        try (Device device = TestDevice.open(1)) {
            leak(device);
            for (int i = 0; i < 100 && device.memory().liveTensors() > 0; i++) {
                System.gc();
                Thread.sleep(20);
            }
            assertEquals(0, device.memory().liveTensors());
        }
    }

    private static void leak(Device device) {
        for (int i = 0; i < 100; i++) {
            Tensor.empty(device, DType.F32, 10).slice(0, 0, 5);
        }
    }

    @Test
    void closeRacesWithUse() throws Exception {
        AtomicReference<Throwable> failure = new AtomicReference<>();
        try (Device device = TestDevice.open(1); Tensor source = Tensor.full(device, DType.F32, 1, 64)) {
            for (int round = 0; round < 200 && failure.get() == null; round++) {
                Tensor shared = Tensor.zeros(device, DType.F32, 64);
                CyclicBarrier start = new CyclicBarrier(4);
                List<Thread> threads = new ArrayList<>();
                for (int t = 0; t < 4; t++) {
                    boolean closes = t == 3;
                    Thread thread = new Thread(() -> {
                        try {
                            start.await();
                            for (int i = 0; i < 50; i++) {
                                if (closes && i == 25) {
                                    shared.close();
                                }
                                Ops.affine(shared, source, 2, 1);
                            }
                        } catch (IllegalStateException closed) {
                            // what a closed tensor promises
                        } catch (Throwable e) {
                            failure.set(e);
                        }
                    });
                    threads.add(thread);
                    thread.start();
                }
                for (Thread thread : threads) {
                    thread.join();
                }
                assertTrue(shared.isClosed());
                assertEquals(1, device.memory().liveTensors());
            }
        }
        assertNull(failure.get());
    }

    @Test
    void anOpOnReusedTensorsAllocatesNothing() {
        com.sun.management.ThreadMXBean threads = (com.sun.management.ThreadMXBean) ManagementFactory.getThreadMXBean();
        try (Device device = TestDevice.open(1);
                Tensor x = Tensor.zeros(device, DType.F32, 4);
                Tensor out = Tensor.zeros(device, DType.F32, 4)) {
            affine(out, x, 20_000);
            long reserved = device.memory().systemAllocations();
            long before = threads.getCurrentThreadAllocatedBytes();
            affine(out, x, 20_000);
            long allocated = threads.getCurrentThreadAllocatedBytes() - before;
            assertTrue(allocated < 20_000, allocated + " bytes of heap for 20,000 ops");
            assertEquals(reserved, device.memory().systemAllocations());
        }
    }

    private static void affine(Tensor out, Tensor x, int times) {
        for (int i = 0; i < times; i++) {
            Ops.affine(out, x, 2, 1);
        }
    }
}
