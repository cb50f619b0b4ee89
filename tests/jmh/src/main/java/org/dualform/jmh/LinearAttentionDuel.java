package org.dualform.jmh;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.dualform.Ops;

/** Causal linear attention against its form in chunks of 128: batched products, and the sum of the states before each chunk. */
final class LinearAttentionDuel extends Duel.WithTorch {
    private static final long CHUNK = 128;

    private final long[] shape;
    private final boolean backward;
    private final Tensor q;
    private final Tensor k;
    private final Tensor v;
    private final Tensor dout;
    private final Tensor mask;

    LinearAttentionDuel(String name, Ours ours, boolean backward, long... shape) {
        super(name, ours, backward);
        this.shape = shape;
        this.backward = backward;
        double deviation = 1 / Math.sqrt(shape[3]);
        q = input(ours, "q", deviation);
        k = input(ours, "k", deviation);
        v = input(ours, "v", 1);
        dout = backward ? Torch.of(ours.dtype(), ours.draw("dout", 1, shape), shape) : null;
        mask = torch.tril(torch.ones(CHUNK, CHUNK)).to(Torch.type(ours.dtype()));
        for (String name0 : List.of("out", "dq", "dk", "dv")) {
            ours.room(name0, shape);
        }
    }

    private Tensor input(Ours ours, String name, double deviation) {
        float[] values = ours.draw(name, deviation, shape);
        return backward ? Torch.leaf(ours.dtype(), values, shape) : Torch.of(ours.dtype(), values, shape);
    }

    @Override
    void runOurs() {
        Ours o = ours();
        Ops.linearAttentionForward(o.get("out"), null, o.get("q"), o.get("k"), o.get("v"), null, null);
        if (backward) {
            Ops.linearAttentionBackward(o.get("dq"), o.get("dk"), o.get("dv"), null, null, o.get("dout"), null, o.get("q"), o.get("k"),
                    o.get("v"), null, null, false);
        }
    }

    /** (B,T,NH,HS) to (B,NH,chunks,CHUNK,HS), in one copy that all products read. */
    private Tensor chunks(Tensor x) {
        return x.reshape(shape[0], shape[1] / CHUNK, CHUNK, shape[2], shape[3]).permute(0, 3, 1, 2, 4).contiguous();
    }

    @Override
    List<Tensor> compute() {
        Tensor qc = chunks(q);
        Tensor kc = chunks(k);
        Tensor vc = chunks(v);
        Tensor states = torch.matmul(kc.transpose(3, 4), vc);
        Tensor before = torch.cumsum(states, 2).sub(states);
        Tensor within = torch.matmul(torch.matmul(qc, kc.transpose(3, 4)).mul(mask), vc);
        Tensor out = within.add(torch.matmul(qc, before)).permute(0, 2, 3, 1, 4).reshape(shape);
        if (!backward) {
            return List.of(out);
        }
        TensorVector gradients = Torch.gradients(out, dout, q, k, v);
        return List.of(out, gradients.get(0), gradients.get(1), gradients.get(2));
    }

    @Override
    List<float[]> ourResults() {
        return (backward ? List.of("out", "dq", "dk", "dv") : List.of("out")).stream().map(ours()::floats).toList();
    }
}
