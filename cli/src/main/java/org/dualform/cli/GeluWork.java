package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Gelu;
import org.dualform.Ops;
import org.dualform.Tensor;

/** A bias and GELU in its tanh form. */
final class GeluWork implements Workload {
    private final Pass pass;
    private final Tensor x;
    private final Tensor bias;
    private final Tensor out;
    private Tensor dout;
    private Tensor dx;
    private Tensor dbias;

    /** The shape is N,C. */
    GeluWork(BenchTensors tensors, long[] shape, Pass pass) {
        this.pass = pass;
        x = tensors.normal("x", 1, shape);
        bias = tensors.normal("bias", 1, shape[1]);
        out = tensors.like(x);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, shape);
            dx = tensors.like(x);
            dbias = tensors.like(bias);
        }
    }

    @Override
    public void run() {
        if (pass.forward()) {
            Ops.biasGeluForward(out, x, bias, Gelu.TANH);
        }
        if (pass.backward()) {
            Ops.biasGeluBackward(dx, dbias, dout, x, bias, Gelu.TANH, false);
        }
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(out);
        }
        if (pass.backward()) {
            results.addAll(List.of(dx, dbias));
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(out, x, bias) : 0) + (pass.backward() ? Workload.bytes(dx, dbias, dout, x, bias) : 0);
    }
}
