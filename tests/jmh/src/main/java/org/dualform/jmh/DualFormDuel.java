package org.dualform.jmh;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.dualform.DType;
import org.dualform.DualForm;
import org.dualform.Ops;

/** The dual form of P problems in one call, against two batched products into tensors that are there: (w0 + e^T xp), then x times it. */
final class DualFormDuel extends Duel.WithTorch {
    private final Tensor w0;
    private final Tensor e;
    private final Tensor xp;
    private final Tensor x;
    private final Tensor weight;
    private final Tensor out;

    DualFormDuel(String name, Ours ours, long p, long n, long m, long o, long i) {
        super(name, ours, false);
        DType dtype = ours.dtype();
        w0 = Torch.of(dtype, ours.draw("w0", 1 / Math.sqrt(i), p, o, i), p, o, i);
        e = Torch.of(dtype, ours.draw("e", 1 / Math.sqrt(n), p, n, o), p, n, o);
        xp = Torch.of(dtype, ours.draw("xp", 1, p, n, i), p, n, i);
        x = Torch.of(dtype, ours.draw("x", 1, p, m, i), p, m, i);
        weight = Torch.room(dtype, p, o, i);
        out = Torch.room(dtype, p, m, o);
        ours.room("out", p, m, o);
    }

    @Override
    void runOurs() {
        Ours o = ours();
        Ops.dualFormForward(o.get("out"), null, o.get("w0"), o.get("e"), o.get("xp"), o.get("x"), DualForm.AUTO);
    }

    @Override
    List<Tensor> compute() {
        torch.baddbmm_out(weight, w0, e.transpose(1, 2), xp);
        return List.of(torch.bmm_out(out, x, weight.transpose(1, 2)));
    }

    @Override
    List<float[]> ourResults() {
        return List.of(ours().floats("out"));
    }
}
