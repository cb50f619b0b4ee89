package org.dualform.jmh;

import java.util.concurrent.TimeUnit;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Dualform;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * What one call from Java costs: an empty crossing, the smallest ops, a small attention. Tensors are reused, so after the first call no op
 * may take memory from the system; the run fails if one does.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class Boundary {
    private Device device;
    private Tensor one;
    private Tensor other;
    private Tensor q;
    private Tensor k;
    private Tensor v;
    private Tensor out;
    private Tensor lse;
    private Tensor attn;
    private Tensor eta;
    private long systemAllocations;

    /** Everything allocated, every op called once. */
    @Setup(Level.Trial)
    public void open() {
        device = Device.cpu(1);
        one = Tensor.full(device, DType.F32, 1, 1);
        other = Tensor.full(device, DType.F32, 2, 1);
        long[] shape = {1, 16, 2, 16};
        q = Tensor.full(device, DType.F32, 0.1, shape);
        k = Tensor.full(device, DType.F32, 0.2, shape);
        v = Tensor.full(device, DType.F32, 0.3, shape);
        out = Tensor.empty(device, DType.F32, shape);
        attn = Tensor.empty(device, DType.F32, shape);
        lse = Tensor.empty(device, DType.F32, 1, 2, 16);
        eta = Tensor.full(device, DType.F32, 0.5, 2);
        fill();
        affine();
        attention();
        momentumAttention();
        systemAllocations = device.memory().systemAllocations();
    }

    /** Refuses a run in which an op took memory from the system. */
    @TearDown(Level.Trial)
    public void close() {
        long now = device.memory().systemAllocations();
        for (Tensor tensor : new Tensor[] {one, other, q, k, v, out, lse, attn, eta}) {
            tensor.close();
        }
        device.close();
        if (now != systemAllocations) {
            throw new IllegalStateException((now - systemAllocations) + " allocations from the system, expected none");
        }
    }

    /** An empty call. */
    @Benchmark
    public int crossing() {
        return Dualform.crossing(1);
    }

    /** One element set. */
    @Benchmark
    public void fill() {
        Ops.fill(one, 3);
    }

    /** One element read and written. */
    @Benchmark
    public void affine() {
        Ops.affine(one, other, 2, 1);
    }

    /** 16 tokens, 2 heads of 16. */
    @Benchmark
    public void attention() {
        Ops.attentionForward(out, lse, q, k, v, null, 0.25, true);
    }

    /** The same with momentum. */
    @Benchmark
    public void momentumAttention() {
        Ops.momentumAttentionForward(out, attn, lse, null, q, k, v, null, eta, null, 0.25);
    }
}
