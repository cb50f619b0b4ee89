package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Ops;
import org.dualform.Tensor;

/** LayerNorm over rows, of a sum of two or not. */
final class LayernormWork implements Workload {
    private static final double EPSILON = 1e-5;

    private final Pass pass;
    private final Tensor x;
    private final Tensor residual;
    private final Tensor sum;
    private final Tensor weight;
    private final Tensor bias;
    private final Tensor out;
    private final Tensor mean;
    private final Tensor rstd;
    private Tensor dout;
    private Tensor dsum;
    private Tensor dx;
    private Tensor dweight;
    private Tensor dbias;

    /** The shape is N,C. */
    LayernormWork(BenchTensors tensors, long[] shape, Pass pass, boolean hasResidual) {
        this.pass = pass;
        x = tensors.normal("x", 1, shape);
        residual = hasResidual ? tensors.normal("residual", 1, shape) : null;
        sum = hasResidual ? tensors.like(x) : null;
        weight = tensors.normal("weight", 1, shape[1]);
        bias = tensors.normal("bias", 1, shape[1]);
        out = tensors.like(x);
        mean = tensors.make(tensors.dtype().accumulation(), shape[0]);
        rstd = tensors.like(mean);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, shape);
            dsum = hasResidual ? tensors.normal("dsum", 1, shape) : null;
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
            Ops.residualLayernormBackward(dx, dweight, dbias, dout, dsum, sum == null ? x : sum, weight, mean, rstd, false);
        }
    }

    private void forward() {
        Ops.residualLayernormForward(sum, out, mean, rstd, x, residual, weight, bias, EPSILON);
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(out);
            if (sum != null) {
                results.add(sum);
            }
        }
        if (pass.backward()) {
            results.addAll(List.of(dx, dweight, dbias));
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(sum, out, mean, rstd, x, residual, weight, bias) : 0)
                + (pass.backward() ? Workload.bytes(dx, dweight, dbias, dout, dsum, sum == null ? x : sum, weight, mean, rstd) : 0);
    }
}
