package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Ops;
import org.dualform.Tensor;

/** Softmax attention, with momentum or without. */
final class AttentionWork implements Workload {
    private final Pass pass;
    private final double scale;
    private final boolean causal;
    private final Tensor q;
    private final Tensor k;
    private final Tensor v;
    private final Tensor eta;
    private final Tensor out;
    private final Tensor attn;
    private final Tensor lse;
    private Tensor dout;
    private Tensor dq;
    private Tensor dk;
    private Tensor dv;
    private Tensor deta;

    /** The shape is B,T,S,NH,NKV,HS. */
    AttentionWork(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings, boolean momentum) {
        this.pass = pass;
        causal = settings.causal();
        long b = shape[0];
        long heads = shape[3];
        long size = shape[5];
        scale = 1 / Math.sqrt(size);
        q = tensors.normal("q", 1, b, shape[1], heads, size);
        k = tensors.normal("k", 1, b, shape[2], shape[4], size);
        v = tensors.normal("v", 1, b, shape[2], shape[4], size);
        eta = momentum ? tensors.constant("eta", settings.eta(), heads) : null;
        out = tensors.like(q);
        attn = momentum && pass.backward() ? tensors.like(q) : null;
        lse = tensors.make(tensors.dtype().accumulation(), b, heads, shape[1]);
        if (pass.backward()) {
            dout = tensors.normal("dout", 1, q.shape());
            dq = tensors.like(q);
            dk = tensors.like(k);
            dv = tensors.like(v);
            deta = momentum ? tensors.like(eta) : null;
            forward();
        }
    }

    @Override
    public void run() {
        if (pass.forward()) {
            forward();
        }
        if (pass.backward()) {
            backward();
        }
    }

    private void forward() {
        if (eta == null) {
            Ops.attentionForward(out, lse, q, k, v, null, scale, causal);
        } else {
            Ops.momentumAttentionForward(out, attn, lse, null, q, k, v, null, eta, null, scale);
        }
    }

    private void backward() {
        if (eta == null) {
            Ops.attentionBackward(dq, dk, dv, dout, q, k, v, out, lse, null, scale, causal);
        } else {
            Ops.momentumAttentionBackward(dq, dk, dv, deta, dout, q, k, v, attn, lse, null, eta, scale, false);
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
            if (deta != null) {
                results.add(deta);
            }
        }
        return results;
    }

    @Override
    public double bytes() {
        return (pass.forward() ? Workload.bytes(q, k, v, eta, out, attn, lse) : 0)
                + (pass.backward() ? Workload.bytes(dq, dk, dv, deta, dout, q, k, v, attn == null ? out : attn, lse, eta) : 0);
    }
}
