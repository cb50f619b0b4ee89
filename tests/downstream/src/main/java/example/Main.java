package example;

import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Ops;
import org.dualform.Tensor;

/** Attention over one token is its value. */
public final class Main {
    private Main() {}

    public static void main(String[] arguments) {
        try (Device device = Device.open();
                Tensor q = Tensor.of(device, new float[] {1, 2, 3, 4}, 1, 1, 1, 4);
                Tensor v = Tensor.of(device, new float[] {5, 6, 7, 8}, 1, 1, 1, 4);
                Tensor out = Tensor.empty(device, DType.F32, 1, 1, 1, 4);
                Tensor lse = Tensor.empty(device, DType.F32, 1, 1, 1)) {
            Ops.attentionForward(out, lse, q, q, v, null, 0.5, true);
            System.out.println("attention on " + device.backend().id() + ": " + java.util.Arrays.toString(out.toFloats()));
        }
    }
}
