package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Ops;
import org.dualform.Tensor;

/** Causal linear attention. */
final class LinearAttentionWork implements Workload {
    private final Pass pass;
    private final Tensor q;
    private final Tensor k;
    private final Tensor v;
    private final Tensor decay;
    private final Tensor out;
    private Tensor dout;
    private Tensor dq;
    private Tensor dk;
    private Tensor dv;
    private Tensor ddecay;

    /** The shape is B,T,NH,HS. */
    LinearAttentionWork(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
        this.pass = pass;
        double deviation = 1 / Math.sqrt(shape[3]);
        q = tensors.normal("q", deviation, shape);
        k = tensors.normal("k", deviation, shape);
        v = tensors.normal("v", 1, shape);
        decay = settings.decay() == 1 ? null : tensors.constant("decay", settings.decay(), shape[2]);
        out = tensors.like(q);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, shape);
            dq = tensors.like(q);
            dk = tensors.like(k);
            dv = tensors.like(v);
            ddecay = decay == null ? null : tensors.like(decay);
        }
    }

    @Override
    public void run() {
        if (pass.forward()) {
            Ops.linearAttentionForward(out, null, q, k, v, decay, null);
        }
        if (pass.backward()) {
            Ops.linearAttentionBackward(dq, dk, dv, ddecay, null, dout, null, q, k, v, decay, null, false);
        }
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(out);
        }
        if (pass.backward()) {
            results.addAll(List.of(dq, dk, dv));
            if (ddecay != null) {
                results.add(ddecay);
            }
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(q, k, v, decay, out) : 0)
                + (pass.backward() ? Workload.bytes(dq, dk, dv, ddecay, dout, q, k, v, decay) : 0);
    }
}
