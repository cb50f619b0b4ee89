package org.dualform.jmh;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.dualform.DType;
import org.dualform.DualForm;
import org.dualform.Ops;

/** The dual form of P problems, one call each, against two batched products into tensors that are there: (w0 + e^T xp), then x times it. */
final class DualFormDuel extends Duel.WithTorch {
    /** Views of one problem of ours. */
    private record Problem(org.dualform.Tensor out, org.dualform.Tensor w0, org.dualform.Tensor e, org.dualform.Tensor xp,
            org.dualform.Tensor x) {}

    private final List<Problem> problems = new ArrayList<>();
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
        for (long j = 0; j < p; j++) {
            problems.add(new Problem(part(j, "out"), part(j, "w0"), part(j, "e"), part(j, "xp"), part(j, "x")));
        }
    }

    private org.dualform.Tensor part(long j, String name) {
        org.dualform.Tensor part = ours().get(name).select(0, j);
        ours().put(name + j, part);
        return part;
    }

    @Override
    void runOurs() {
        for (Problem p : problems) {
            Ops.dualFormForward(p.out, null, p.w0, p.e, p.xp, p.x, DualForm.AUTO);
        }
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
