package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.DualForm;
import org.dualform.Ops;
import org.dualform.Tensor;

/** The dual form of a gradient step, of one linear layer or of many that have nothing to do with each other. */
final class DualFormWork implements Workload {
    /** Views of one problem; those of the backward pass null without it. */
    private record Problem(Tensor out, Tensor w0, Tensor e, Tensor xp, Tensor x, Tensor dout, Tensor dw0, Tensor de, Tensor dxp,
            Tensor dx) {}

    private final Pass pass;
    private final List<Problem> problems = new ArrayList<>();
    private final Tensor w0;
    private final Tensor e;
    private final Tensor xp;
    private final Tensor x;
    private final Tensor out;
    private Tensor dout;
    private Tensor dw0;
    private Tensor de;
    private Tensor dxp;
    private Tensor dx;

    /** The shape is P,N,M,O,I. */
    DualFormWork(BenchTensors tensors, long[] shape, Pass pass) {
        this.pass = pass;
        long p = shape[0];
        long n = shape[1];
        long m = shape[2];
        long o = shape[3];
        long i = shape[4];
        w0 = tensors.normal("w0", 1 / Math.sqrt(i), p, o, i);
        e = tensors.normal("e", 1 / Math.sqrt(n), p, n, o);
        xp = tensors.normal("xp", 1, p, n, i);
        x = tensors.normal("x", 1, p, m, i);
        out = tensors.make(tensors.dtype(), p, m, o);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, p, m, o);
            dw0 = tensors.like(w0);
            de = tensors.like(e);
            dxp = tensors.like(xp);
            dx = tensors.like(x);
        }
        for (long j = 0; j < p; j++) {
            problems.add(new Problem(part(tensors, out, j), part(tensors, w0, j), part(tensors, e, j), part(tensors, xp, j),
                    part(tensors, x, j), part(tensors, dout, j), part(tensors, dw0, j), part(tensors, de, j), part(tensors, dxp, j),
                    part(tensors, dx, j)));
        }
    }

    private static Tensor part(BenchTensors tensors, Tensor whole, long index) {
        return whole == null ? null : tensors.own(whole.select(0, index));
    }

    @Override
    public void run() {
        for (Problem p : problems) {
            if (pass.forward()) {
                Ops.dualFormForward(p.out, null, p.w0, p.e, p.xp, p.x, DualForm.AUTO);
            }
            if (pass.backward()) {
                Ops.dualFormBackward(p.dw0, p.de, p.dxp, p.dx, p.dout, p.w0, p.e, p.xp, p.x, DualForm.AUTO, false);
            }
        }
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(out);
        }
        if (pass.backward()) {
            results.addAll(List.of(dw0, de, dxp, dx));
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(out, w0, e, xp, x) : 0)
                + (pass.backward() ? Workload.bytes(dw0, de, dxp, dx, dout, w0, e, xp, x) : 0);
    }
}
