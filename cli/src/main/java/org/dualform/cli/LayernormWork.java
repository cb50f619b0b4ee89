package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Ops;
import org.dualform.Tensor;

/** LayerNorm over rows. */
final class LayernormWork implements Workload {
    private static final double EPSILON = 1e-5;

    private final Pass pass;
    private final Tensor x;
    private final Tensor weight;
    private final Tensor bias;
    private final Tensor out;
    private final Tensor mean;
    private final Tensor rstd;
    private Tensor dout;
    private Tensor dx;
    private Tensor dweight;
    private Tensor dbias;

    /** The shape is N,C. */
    LayernormWork(BenchTensors tensors, long[] shape, Pass pass) {
        this.pass = pass;
        x = tensors.normal("x", 1, shape);
        weight = tensors.normal("weight", 1, shape[1]);
        bias = tensors.normal("bias", 1, shape[1]);
        out = tensors.like(x);
        mean = tensors.make(tensors.dtype().accumulation(), shape[0]);
        rstd = tensors.like(mean);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, shape);
            dx = tensors.like(x);
            dweight = tensors.like(weight);
            dbias = tensors.like(bias);
            forward();
        }
    }

    @Override
    public void run() {
        if (pass.forward()) {
            forward();
        }
        if (pass.backward()) {
            Ops.residualLayernormBackward(dx, dweight, dbias, dout, null, x, weight, mean, rstd, false);
        }
    }

    private void forward() {
        Ops.residualLayernormForward(null, out, mean, rstd, x, null, weight, bias, EPSILON);
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(out);
        }
        if (pass.backward()) {
            results.addAll(List.of(dx, dweight, dbias));
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(out, mean, rstd, x, weight, bias) : 0)
                + (pass.backward() ? Workload.bytes(dx, dweight, dbias, dout, x, weight, mean, rstd) : 0);
    }
}
