package org.dualform.cli;

import java.util.List;
import org.dualform.DType;
import org.dualform.Ops;
import org.dualform.Tensor;

/** Steps of AdamW, with a float32 copy of bfloat16 parameters. */
final class AdamwWork implements Workload {
    private final Tensor parameters;
    private final Tensor m;
    private final Tensor v;
    private final Tensor master;
    private final Tensor gradient;
    private long step;

    /** The shape is N. */
    AdamwWork(BenchTensors tensors, long[] shape) {
        parameters = tensors.normal("parameters", 1, shape);
        m = tensors.uniform("m", -1, 1, shape);
        v = tensors.uniform("v", 0.5, 1.5, shape);
        gradient = tensors.normal("gradient", 1, shape);
        master = tensors.dtype() == DType.BF16 ? tensors.make(DType.F32, shape) : null;
        if (master != null) {
            Ops.copy(master, parameters);
        }
    }

    @Override
    public void run() {
        Ops.adamwStep(parameters, m, v, master, gradient, null, 1e-3, 0.9, 0.95, 1e-8, 0.1, ++step);
    }

    @Override
    public List<Tensor> results() {
        return List.of(parameters);
    }

    @Override
    public double bytes() {
        return 2 * Workload.bytes(parameters, m, v, master) + Workload.bytes(gradient);
    }
}
