package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Ops;
import org.dualform.Tensor;

/** Cross-entropy of logits: the losses alone, or in the same call the gradient of the logits. */
final class CrossEntropyWork implements Workload {
    private final Pass pass;
    private final Tensor logits;
    private final Tensor targets;
    private final Tensor loss;
    private final Tensor losses;
    private final Tensor dlogits;

    /** The shape is N,V. */
    CrossEntropyWork(BenchTensors tensors, long[] shape, Pass pass) {
        this.pass = pass;
        logits = tensors.normal("logits", 1, shape);
        targets = tensors.integers("targets", (int) shape[1], shape[0]);
        loss = tensors.make(tensors.dtype().accumulation());
        losses = tensors.make(tensors.dtype().accumulation(), shape[0]);
        dlogits = pass.backward() ? tensors.like(logits) : null;
    }

    @Override
    public void run() {
        Ops.crossEntropy(loss, losses, dlogits, logits, targets, -1);
    }

    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.addAll(List.of(loss, losses));
        }
        if (pass.backward()) {
            results.add(dlogits);
        }
        return results;
    }

    @Override
    public double bytes() {
        return Workload.bytes(loss, losses, dlogits, logits, targets);
    }
}
