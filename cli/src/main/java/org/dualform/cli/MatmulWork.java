package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Ops;
import org.dualform.Tensor;

/** A product of two matrices, and with the gradient of the result the gradients of both. */
final class MatmulWork implements Workload {
    private final Pass pass;
    private final Tensor a;
    private final Tensor b;
    private final Tensor out;
    private Tensor dout;
    private Tensor da;
    private Tensor db;

    /** The shape is M,N,K. */
    MatmulWork(BenchTensors tensors, long[] shape, Pass pass) {
        this.pass = pass;
        a = tensors.normal("a", 1, shape[0], shape[2]);
        b = tensors.normal("b", 1, shape[2], shape[1]);
        out = tensors.make(tensors.dtype(), shape[0], shape[1]);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, out.shape());
            da = tensors.like(a);
            db = tensors.like(b);
        }
    }

    @Override
    public void run() {
        if (pass.forward()) {
            Ops.matmul(out, a, b, null, false, false, false);
        }
        if (pass.backward()) {
            Ops.matmul(da, dout, b, null, false, true, false);
            Ops.matmul(db, a, dout, null, true, false, false);
        }
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(out);
        }
        if (pass.backward()) {
            results.addAll(List.of(da, db));
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(out, a, b) : 0) + (pass.backward() ? Workload.bytes(da, dout, b, db, a, dout) : 0);
    }
}
