package org.dualform.cli;

import java.util.function.BiConsumer;
import java.util.function.Consumer;
import org.dualform.Binary;
import org.dualform.DType;
import org.dualform.Gelu;
import org.dualform.Ops;
import org.dualform.Reduction;
import org.dualform.Tensor;
import org.dualform.Unary;

/** The works of one op without a class of their own: what each moves, computes and is compared in is as {@code df_bench} has it. */
final class OpWorks {
    private static final int RANGES = 75; // as many as the tensors of a small model

    private OpWorks() {}

    /** One token after a state: what generation does. The shape is B,NH,HS. */
    static Workload linearAttentionStep(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        long[] token = {s[0], 1, s[1], s[2]};
        long[] state = {s[0], s[1], s[2], s[2]};
        DType sums = t.dtype().accumulation();
        double deviation = 1 / Math.sqrt(s[2]);
        Tensor q = w.moves("f", t.normal("q", deviation, token));
        Tensor k = w.moves("f", t.normal("k", deviation, token));
        Tensor v = w.moves("f", t.normal("v", 1, token));
        Tensor stateIn = w.moves("f", t.normalSums("state_in", 1, state));
        Tensor decay = settings.decay() == 1 ? null : w.moves("f", t.constant("decay", settings.decay(), s[1]));
        Tensor out = w.result("f", t.like(q));
        Tensor stateOut = w.result("f", t.make(sums, state));
        return w.calls(() -> Ops.linearAttentionForward(out, stateOut, q, k, v, decay, stateIn), null);
    }

    /** The shape is N,O,I. */
    static Workload deltaAccumulate(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        Tensor e = w.moves("f", t.normal("e", 1, s[0], s[1]));
        Tensor xp = w.moves("f", t.normal("xp", 1, s[0], s[2]));
        Tensor deltaW = w.result("f", t.make(t.dtype().accumulation(), s[1], s[2]));
        return w.calls(() -> Ops.deltaAccumulate(deltaW, e, xp, false), null);
    }

    /** The shape is M,O,I. */
    static Workload deltaApply(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        Tensor x = w.moves("f", t.normal("x", 1, s[0], s[2]));
        Tensor w0 = w.moves("f", t.normal("w0", 1, s[1], s[2]));
        Tensor deltaW = w.moves("f", t.normalSums("delta_w", 1, s[1], s[2]));
        Tensor out = w.result("f", t.make(t.dtype(), s[0], s[1]));
        return w.calls(() -> Ops.deltaApply(out, x, w0, deltaW), null);
    }

    /** A product and the GELU of it; backward the product before which that GELU stands, and its gradient. The shape is M,N,K. */
    static Workload matmulGelu(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        boolean back = pass.backward();
        double deviation = 1 / Math.sqrt(s[2]);
        Tensor a = w.moves("f", t.normal("a", 1, s[0], s[2]));
        Tensor b = w.moves("f", t.normal("b", deviation, s[2], s[1]));
        Tensor bias = w.moves("f", t.normal("bias", 1, s[1]));
        Tensor out = w.result("f", t.make(t.dtype(), s[0], s[1]));
        Tensor pre = w.result("fb", t.like(out));
        Tensor dout = back ? w.moves("b", t.normal("dout", 1, s[0], s[2])) : null;
        Tensor weight = back ? w.moves("b", t.normal("w", deviation, s[2], s[1])) : null;
        Tensor dpre = back ? w.gradient(t.like(pre)) : null;
        Tensor dbias = back ? w.gradient(t.like(bias)) : null;
        return w.savingCalls(() -> Ops.matmulGeluForward(out, pre, a, b, bias, false, false, Gelu.TANH),
                () -> Ops.matmulGeluBackward(dpre, dbias, dout, weight, pre, false, Gelu.TANH, false));
    }

    /** The shape is N,C. */
    static Workload biasBackward(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        Tensor dout = w.moves("f", t.normal("dout", 1, s));
        Tensor dbias = w.result("f", t.make(t.dtype().accumulation(), s[1]));
        return w.calls(() -> Ops.biasBackward(dbias, dout, false), null);
    }

    /** The shape is B,T,V,C. Of the table only the rows of the ids are read: they are counted with out, which is as large. */
    static Workload embedding(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        boolean back = pass.backward();
        Tensor ids = w.moves("fb", t.integers("ids", Math.toIntExact(s[2]), s[0], s[1]));
        Tensor out = w.result("ff", t.make(t.dtype(), s[0], s[1], s[3]));
        Tensor wte = pass.forward() ? w.moves("", t.normal("wte", 1, s[2], s[3])) : null;
        Tensor wpe = pass.forward() ? w.moves("f", t.normal("wpe", 1, s[1], s[3])) : null;
        Tensor dout = back ? w.moves("b", t.normal("dout", 1, out.shape())) : null;
        Tensor dwte = back ? w.gradient(t.make(t.dtype(), s[2], s[3])) : null;
        Tensor dwpe = back ? w.gradient(t.make(t.dtype(), s[1], s[3])) : null;
        return w.calls(() -> Ops.embeddingForward(out, ids, wte, wpe, 0), () -> Ops.embeddingBackward(dwte, dwpe, dout, ids, 0, false));
    }

    /** Which rule an optimizer's step has. */
    enum Rule {
        ADAMW,
        /** AdamW over parts in one call. */
        ADAMW_RANGES,
        SGD
    }

    /** The shape is N. Parameters in bfloat16 have a copy in float32, as in training. */
    static Workload optimizer(BenchTensors t, long[] s, Pass pass, Rule rule) {
        OpWork w = new OpWork(pass);
        Tensor param = w.result("ff", t.normal("param", 1, s));
        Tensor m = w.result("ff", t.uniform("m", -1, 1, s));
        Tensor v = rule == Rule.SGD ? null : w.result("ff", t.uniform("v", 0.5, 1.5, s));
        Tensor grad = w.moves("f", t.normal("grad", 1, s));
        Tensor master = t.hasMaster() ? w.result("ff", t.make(t.dtype().accumulation(), s)) : null;
        if (master != null) {
            Ops.copy(master, param);
        }
        long[] step = {0};
        int count = (int) Math.min(RANGES, s[0]);
        long[] bounds = new long[2 * count];
        double[] decays = new double[count];
        for (int i = 0; i < count; i++) {
            bounds[2 * i] = s[0] * i / count;
            bounds[2 * i + 1] = s[0] * (i + 1) / count;
            decays[i] = 0.1;
        }
        return w.calls(() -> {
            step[0]++;
            switch (rule) {
                case ADAMW -> Ops.adamwStep(param, m, v, master, grad, null, 1e-3, 0.9, 0.95, 1e-8, 0.1, step[0]);
                case ADAMW_RANGES -> Ops.adamwRanges(param, m, v, master, grad, null, null, null, bounds, decays, 1e-3, 0.9, 0.95, 1e-8,
                        step[0]);
                case SGD -> Ops.sgdStep(param, m, master, grad, null, 1e-3, 0.9, 0.1);
            }
        }, null);
    }

    /** The shape is N. */
    static Workload squaredNorm(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        Tensor x = w.moves("f", t.normal("x", 1, s));
        Tensor sumsq = w.result("f", t.make(t.dtype().accumulation()));
        return w.calls(() -> Ops.squaredNorm(sumsq, x, false), null);
    }

    /** The norm's whole way: the squares of N numbers and the factor that clips them. */
    static Workload clipScale(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        Tensor x = w.moves("f", t.normal("x", 1, s));
        Tensor sumsq = w.result("f", t.make(t.dtype().accumulation()));
        Tensor scale = w.result("f", t.make(t.dtype().accumulation()));
        return w.calls(() -> {
            Ops.squaredNorm(sumsq, x, false);
            Ops.clipScale(scale, sumsq, 1);
        }, null);
    }

    /** The shape is N. Roots, logarithms and reciprocals are of numbers away from 0. */
    static Workload unary(BenchTensors t, long[] s, Pass pass, Unary op) {
        OpWork w = new OpWork(pass);
        boolean positive = switch (op) {
            case LOG, SQRT, RSQRT, RECIPROCAL -> true;
            default -> false;
        };
        Tensor x = w.moves("fb", positive ? t.uniformHere("x", 0.5, 2, s) : t.normal("x", 1, s));
        Tensor out = w.result("f", t.like(x));
        Tensor dout = pass.backward() ? w.moves("b", t.normal("dout", 1, s)) : null;
        Tensor dx = pass.backward() ? w.gradient(t.like(x)) : null;
        return w.calls(() -> Ops.unaryForward(out, x, op), () -> Ops.unaryBackward(dx, dout, x, op));
    }

    /** The shape is N. */
    static Workload binary(BenchTensors t, long[] s, Pass pass, Binary op) {
        OpWork w = new OpWork(pass);
        Tensor a = w.moves("f", t.normal("a", 1, s));
        Tensor b = w.moves("f", t.uniformHere("b", 0.5, 2, s));
        Tensor out = w.result("f", t.like(a));
        return w.calls(() -> Ops.binaryForward(out, a, b, op), null);
    }

    /** An op from a tensor into another of its shape. */
    static Workload mapping(BenchTensors t, long[] s, Pass pass, BiConsumer<Tensor, Tensor> op) {
        OpWork w = new OpWork(pass);
        Tensor x = w.moves("f", t.normal("x", 1, s));
        Tensor out = w.result("f", t.like(x));
        return w.calls(() -> op.accept(out, x), null);
    }

    /** An op that writes a tensor and reads none. */
    static Workload writing(BenchTensors t, long[] s, Pass pass, Consumer<Tensor> op) {
        OpWork w = new OpWork(pass);
        Tensor out = w.result("f", t.make(t.dtype(), s));
        return w.calls(() -> op.accept(out), null);
    }

    /** Over the last axis. The shape is N,C. */
    static Workload reduce(BenchTensors t, long[] s, Pass pass, Reduction op) {
        OpWork w = new OpWork(pass);
        Tensor x = w.moves("fb", t.normal("x", 1, s));
        Tensor out = w.result("fb", t.make(t.dtype(), s[0]));
        Tensor dout = pass.backward() ? w.moves("b", t.normal("dout", 1, s[0])) : null;
        Tensor dx = pass.backward() ? w.gradient(t.like(x)) : null;
        return w.savingCalls(() -> Ops.reduceForward(out, x, op, 1), () -> Ops.reduceBackward(dx, dout, x, out, op, 1));
    }

    /** Over the last axis. The shape is N,C. */
    static Workload argmax(BenchTensors t, long[] s, Pass pass, BenchSettings settings) {
        OpWork w = new OpWork(pass);
        Tensor x = w.moves("f", t.normal("x", 1, s));
        Tensor out = w.result("f", t.make(DType.I32, s[0]));
        return w.calls(() -> Ops.argmax(out, x), null);
    }
}
