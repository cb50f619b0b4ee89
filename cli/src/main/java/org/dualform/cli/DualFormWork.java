package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.DualForm;
import org.dualform.Ops;
import org.dualform.Tensor;

/** The dual form of a gradient step, of one linear layer or of many that have nothing to do with each other. */
final class DualFormWork implements Workload {
    private final Pass pass;
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
    }

    @Override
    public void run() {
        if (pass.forward()) {
            Ops.dualFormForward(out, null, w0, e, xp, x, DualForm.AUTO);
        }
        if (pass.backward()) {
            Ops.dualFormBackward(dw0, de, dxp, dx, dout, w0, e, xp, x, DualForm.AUTO, false);
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
