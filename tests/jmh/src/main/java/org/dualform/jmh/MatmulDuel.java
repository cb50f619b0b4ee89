package org.dualform.jmh;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.dualform.DType;
import org.dualform.Ops;

/** A product as a linear layer makes it, into a matrix that is there, against PyTorch. */
final class MatmulDuel extends Duel.WithTorch {
    /** Which product of a layer with M rows of K inputs and N outputs. */
    enum Form {
        /** out (M,N) = x (M,K) w (N,K)^T. */
        FORWARD,
        /** dx (M,K) = dout (M,N) w (N,K). */
        INPUT,
        /** dw (N,K) = dout (M,N)^T x (M,K). */
        WEIGHT;

        boolean transA() {
            return this == WEIGHT;
        }

        boolean transB() {
            return this == FORWARD;
        }

        long[] a(long m, long n, long k) {
            return this == FORWARD ? new long[] {m, k} : new long[] {m, n};
        }

        long[] b(long m, long n, long k) {
            return this == WEIGHT ? new long[] {m, k} : new long[] {n, k};
        }

        long[] out(long m, long n, long k) {
            return this == FORWARD ? new long[] {m, n} : this == INPUT ? new long[] {m, k} : new long[] {n, k};
        }
    }

    private final Form form;
    private final Tensor a;
    private final Tensor b;
    private final Tensor out;

    MatmulDuel(String name, Ours ours, Form form, long m, long n, long k) {
        super(name, ours, false);
        this.form = form;
        DType dtype = ours.dtype();
        Tensor storedA = Torch.of(dtype, ours.draw("a", 1, form.a(m, n, k)), form.a(m, n, k));
        Tensor storedB = Torch.of(dtype, ours.draw("b", 1, form.b(m, n, k)), form.b(m, n, k));
        a = form.transA() ? storedA.transpose(0, 1) : storedA;
        b = form.transB() ? storedB.transpose(0, 1) : storedB;
        out = Torch.room(dtype, form.out(m, n, k));
        ours.room("out", form.out(m, n, k));
    }

    @Override
    void runOurs() {
        Ops.matmul(ours().get("out"), ours().get("a"), ours().get("b"), null, form.transA(), form.transB(), false);
    }

    @Override
    List<Tensor> compute() {
        return List.of(torch.mm_out(out, a, b));
    }

    @Override
    List<float[]> ourResults() {
        return List.of(ours().floats("out"));
    }
}
