package org.dualform.jmh;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.dualform.Binary;
import org.dualform.Ops;

/** What one call costs: the product of two numbers, into a third that is there. */
final class CallDuel extends Duel.WithTorch {
    private final Tensor a;
    private final Tensor b;
    private final Tensor out;
    private final org.dualform.Tensor ourA;
    private final org.dualform.Tensor ourB;
    private final org.dualform.Tensor ourOut;

    CallDuel(String name, Ours ours) {
        super(name, ours, false);
        a = Torch.of(ours.dtype(), ours.draw("a", 1, 1), 1);
        b = Torch.of(ours.dtype(), ours.draw("b", 1, 1), 1);
        out = Torch.room(ours.dtype(), 1);
        ours.room("out", 1);
        ourA = ours.get("a");
        ourB = ours.get("b");
        ourOut = ours.get("out");
    }

    @Override
    void runOurs() {
        Ops.binaryForward(ourOut, ourA, ourB, Binary.MUL);
    }

    @Override
    List<Tensor> compute() {
        return List.of(torch.mul_out(out, a, b));
    }

    @Override
    int callsPerSample() {
        return 5000;
    }

    @Override
    List<float[]> ourResults() {
        return List.of(ours().floats("out"));
    }
}
