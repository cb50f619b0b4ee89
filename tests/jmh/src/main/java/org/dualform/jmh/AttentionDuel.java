package org.dualform.jmh;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.dualform.DType;
import org.dualform.Ops;

/**
 * Causal attention against scaled_dot_product_attention, forward, or forward and backward. With momentum the peer adds D v, D the matrix of
 * powers of eta, made once.
 */
final class AttentionDuel extends Duel.WithTorch {
    private static final float ETA = 0.9f;
    private static final double TINY = 1e-30;

    private final long[] shape;
    private final boolean backward;
    private final boolean momentum;
    private final Tensor q;
    private final Tensor k;
    private final Tensor v;
    private final Tensor dout;
    private final Tensor decay;

    AttentionDuel(String name, Ours ours, boolean momentum, boolean backward, long... shape) {
        super(name, ours, backward);
        this.shape = shape;
        this.momentum = momentum;
        this.backward = backward;
        DType dtype = ours.dtype();
        q = input(ours, "q");
        k = input(ours, "k");
        v = input(ours, "v");
        dout = backward ? Torch.of(dtype, ours.draw("dout", 1, shape), shape) : null;
        decay = momentum ? Torch.of(dtype, powers((int) shape[1]), shape[1], shape[1]) : null;
        for (String name0 : List.of("out", "attn", "dq", "dk", "dv")) {
            ours.room(name0, shape);
        }
        ours.room("lse", DType.F32, shape[0], shape[2], shape[1]);
        ours.put("eta", org.dualform.Tensor.full(ours.device(), DType.F32, ETA, shape[2]));
    }

    private Tensor input(Ours ours, String name) {
        float[] values = ours.draw(name, 1, shape);
        return backward ? Torch.leaf(ours.dtype(), values, shape) : Torch.of(ours.dtype(), values, shape);
    }

    /** eta^(t-s) below the diagonal; 0 where that is tiny, since denormal numbers would slow the peer down. */
    private static float[] powers(int t) {
        float[] powers = new float[t * t];
        for (int i = 0; i < t; i++) {
            for (int j = 0; j < i; j++) {
                double power = Math.pow(ETA, i - j);
                powers[i * t + j] = power > TINY ? (float) power : 0;
            }
        }
        return powers;
    }

    @Override
    void runOurs() {
        Ours o = ours();
        double scale = 1 / Math.sqrt(shape[3]);
        if (momentum) {
            Ops.momentumAttentionForward(o.get("out"), backward ? o.get("attn") : null, o.get("lse"), null, o.get("q"), o.get("k"),
                    o.get("v"), null, o.get("eta"), null, scale);
        } else {
            Ops.attentionForward(o.get("out"), o.get("lse"), o.get("q"), o.get("k"), o.get("v"), null, scale, true);
        }
        if (backward && momentum) {
            Ops.momentumAttentionBackward(o.get("dq"), o.get("dk"), o.get("dv"), null, o.get("dout"), o.get("q"), o.get("k"), o.get("v"),
                    o.get("attn"), o.get("lse"), null, o.get("eta"), scale, false);
        } else if (backward) {
            Ops.attentionBackward(o.get("dq"), o.get("dk"), o.get("dv"), o.get("dout"), o.get("q"), o.get("k"), o.get("v"), o.get("out"),
                    o.get("lse"), null, scale, true);
        }
    }

    @Override
    List<Tensor> compute() {
        Tensor out = Torch.attention(q, k, v);
        if (momentum) {
            out = out.add(torch.matmul(decay, v.reshape(shape[0], shape[1], shape[2] * shape[3])).reshape(shape));
        }
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
