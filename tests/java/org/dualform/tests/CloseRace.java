package org.dualform.tests;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Ops;
import org.dualform.Tensor;

/**
 * Program: eight threads race close against use of the same tensors and of a device, round after round. A use either works or throws
 * IllegalStateException; afterwards no tensor is left and the device closes.
 */
public final class CloseRace {
    private static final int THREADS = 8;

    private final Device device = Device.cpu(2);
    private final CyclicBarrier start = new CyclicBarrier(THREADS);
    private final CyclicBarrier end = new CyclicBarrier(THREADS);
    private final AtomicReference<Throwable> failure = new AtomicReference<>();
    private final AtomicLong served = new AtomicLong();
    private final AtomicLong refused = new AtomicLong();
    private final AtomicLong servedByDevice = new AtomicLong();
    private final AtomicLong refusedByDevice = new AtomicLong();
    private volatile Tensor x;
    private volatile Tensor out;
    private volatile Tensor slice;
    private volatile Device passing; // of one round

    private CloseRace() {}

    /** rounds, and optionally a mode: "provoke" reads freed memory on purpose, which a sanitized library must report. */
    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 1 && arguments[1].equals("provoke")) {
            provoke();
            return;
        }
        new CloseRace().race(Integer.parseInt(arguments[0]));
    }

    /** The control of the test: a tensor wrapped around memory that is freed before it is used. */
    private static void provoke() throws IOException {
        try (Device device = Device.cpu(1); Tensor result = Tensor.empty(device, DType.F32, 64)) {
            long address;
            try (Tensor freed = Tensor.full(device, DType.F32, 1, 64)) {
                address = freed.address();
            }
            device.trim(); // gives the freed memory back to the system
            try (Tensor dangling = device.wrap(address, 256, DType.F32, 64)) {
                Ops.affine(result, dangling, 1, 0);
            }
        }
        System.out.println("nothing noticed, maps: " + Files.lines(Path.of("/proc/self/maps")).filter(line -> line.contains("asan"))
                .count());
    }

    private void race(int rounds) throws InterruptedException {
        Thread[] threads = new Thread[THREADS];
        for (int i = 0; i < THREADS; i++) {
            int number = i;
            threads[i] = new Thread(() -> run(number, rounds));
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        if (failure.get() != null) {
            failure.get().printStackTrace();
            System.exit(4);
        }
        long live = device.memory().liveTensors();
        device.close();
        System.out.println("rounds " + rounds + ", tensors served " + served + " refused " + refused + " live " + live
                + ", devices served " + servedByDevice + " refused " + refusedByDevice);
        // A race in which nobody was ever too late, or everybody always, has tested nothing.
        boolean raced = served.get() > 0 && refused.get() > 0 && servedByDevice.get() > 0 && refusedByDevice.get() > 0;
        System.exit(live == 0 && raced ? 0 : 5);
    }

    private void run(int number, int rounds) {
        try {
            for (int round = 0; round < rounds; round++) {
                if (number == 0) {
                    x = Tensor.full(device, DType.F32, 1, 4, 16);
                    out = Tensor.empty(device, DType.F32, 4, 16);
                    slice = x.slice(0, 1, 3);
                    passing = Device.cpu(1);
                }
                start.await();
                // Every thread is at some round one that closes; the others use.
                int kind = (round + number) % 4;
                int now = round;
                attempt(() -> tensors(kind, now), served, refused);
                attempt(() -> device(kind), servedByDevice, refusedByDevice);
                end.await();
                if (number == 0) {
                    x.close();
                    out.close();
                    slice.close();
                    passing.close();
                }
            }
        } catch (Throwable e) {
            failure.compareAndSet(null, e);
            start.reset();
            end.reset();
        }
    }

    private static void attempt(Runnable call, AtomicLong served, AtomicLong refused) {
        try {
            call.run();
            served.incrementAndGet();
        } catch (IllegalStateException e) {
            refused.incrementAndGet();
        }
    }

    private void tensors(int kind, int round) {
        switch (kind) {
            case 0 -> {
                Tensor[] tensors = {x, out, slice};
                tensors[round % 3].close();
                tensors[(round + 1) % 3].close();
            }
            case 1 -> Ops.affine(out, x, 2, 1);
            case 2 -> slice.toFloats();
            default -> x.slice(1, 0, 8).close();
        }
    }

    private void device(int kind) {
        switch (kind) {
            case 0 -> passing.close(); // refuses while a tensor lives, and at the end of the round closes again
            case 1 -> Tensor.zeros(passing, DType.F32, 16).close();
            case 2 -> passing.memory();
            default -> passing.trim();
        }
    }
}
