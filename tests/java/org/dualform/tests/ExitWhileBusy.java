package org.dualform.tests;

import java.util.concurrent.CountDownLatch;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Ops;
import org.dualform.Tensor;

/** Program: leaves, by System.exit or an uncaught exception, while four daemon threads are inside native code. */
public final class ExitWhileBusy {
    private static final int CODE = 17;

    private ExitWhileBusy() {}

    public static void main(String[] arguments) throws InterruptedException {
        CountDownLatch busy = new CountDownLatch(4);
        Device device = Device.cpu(2);
        for (int i = 0; i < 4; i++) {
            Thread thread = new Thread(() -> work(device, busy));
            thread.setDaemon(true);
            thread.start();
        }
        busy.await();
        Thread.sleep(Integer.parseInt(arguments[1]));
        if (arguments[0].equals("exit")) {
            System.exit(CODE);
        }
        throw new IllegalStateException("uncaught on purpose");
    }

    private static void work(Device device, CountDownLatch busy) {
        Tensor a = Tensor.full(device, DType.F32, 1, 256, 256);
        Tensor out = Tensor.empty(device, DType.F32, 256, 256);
        for (boolean first = true; ; first = false) {
            Ops.matmul(out, a, a, null, false, true, false);
            if (first) {
                busy.countDown();
            }
        }
    }
}
