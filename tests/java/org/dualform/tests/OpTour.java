package org.dualform.tests;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;

/** Program: every call of {@link ValidCalls} once, then a file written and read, on the CPU. */
public final class OpTour {
    private OpTour() {}

    public static void main(String[] arguments) throws Exception {
        int calls = 0;
        try (Device device = Device.cpu(2)) {
            try (ValidCalls valid = new ValidCalls(device)) {
                for (ValidCalls.Call call : valid.calls()) {
                    if (!call.method().getName().equals("useStream")) { // CUDA only
                        call.discard(call.invoke());
                        calls++;
                    }
                }
            }
            Path file = Files.createTempFile(Path.of("").toAbsolutePath(), "tour", ".safetensors");
            try (Tensor x = Tensor.full(device, DType.BF16, 0.5, 3, 5)) {
                Safetensors.write(file, Map.of("x", x), Map.of());
                Safetensors.read(file, device).get("x").close();
            } finally {
                Files.delete(file);
            }
        }
        System.out.println(calls + " calls made");
    }
}
