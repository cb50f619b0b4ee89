package org.dualform.autograd;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;
import org.dualform.Binary;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DualForm;
import org.dualform.Gelu;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Reduction;
import org.dualform.Tensor;
import org.dualform.Unary;

/**
 * Records ops and runs them backward. Leaves are declared with {@link #parameter(Tensor)}; an op of which no input descends from a leaf
 * is computed but not recorded, and no gradient is computed for inputs that are neither leaves nor descend from one.
 *
 * <p>The tape owns every tensor it returns and every gradient it makes; nobody else closes them. An activation is closed when the
 * backward pass has used it for the last time, {@link #retain retained} ones, the loss, results that were not recorded and leaf
 * gradients when the tape closes. The same sequence of requests takes the same memory from the device's pool, so a training step with a
 * tape of its own allocates nothing from the system after the first.
 *
 * <p>The first contribution to a gradient assigns, later ones add; gradients the caller handed over are always added to. Gradients of
 * views (slices, reshapes) are views of the base's gradient: parts of one projection write into one tensor.
 *
 * <p>Every op throws as the op of the same name in {@link Ops} does, and {@link IllegalStateException} on a closed tape or, when it would
 * be recorded, after the backward pass. Contents of tensors that were inputs must not change before the backward pass.
 *
 * <p>Threading: a tape is used by one thread at a time.
 */
public final class Tape implements AutoCloseable {
    private final Device device;
    private final Gradients gradients;
    private final List<Entry> entries = new ArrayList<>();
    private boolean recording = true;
    private boolean finished;
    private boolean closed;

    /** One recorded op: what it made, what else it saved, and how its gradients flow back (null for a view). */
    private record Entry(List<Node> outputs, List<Tensor> saved, Runnable backward) {}

    /**
     * An empty tape.
     *
     * @param device where results are computed; inputs live there too
     * @throws IllegalStateException if the device is closed
     */
    public Tape(Device device) {
        if (notNull(device, "device").isClosed()) {
            throw new IllegalStateException("device: this device is closed");
        }
        this.device = device;
        this.gradients = new Gradients(device);
    }

    // ---- leaves and gradients ----

    /**
     * Declares a leaf whose gradient the tape makes and owns; see {@link #gradient}.
     *
     * @param value a floating tensor; stays the caller's
     * @return value
     * @throws InvalidArgumentException if value is I32 or on another device
     * @throws IllegalStateException if the tape or a tensor is closed, or value is on the tape already
     */
    public Tensor parameter(Tensor value) {
        return leaf(value, null);
    }

    /**
     * Declares a leaf whose gradient is added into a tensor of the caller.
     *
     * @param value a floating tensor; stays the caller's
     * @param gradient shaped like value, in its dtype or its accumulation dtype, with contents; stays the caller's
     * @return value
     * @throws InvalidArgumentException if value is I32 or on another device, or gradient does not fit
     * @throws IllegalStateException if the tape or a tensor is closed, or value is on the tape already
     */
    public Tensor parameter(Tensor value, Tensor gradient) {
        return leaf(value, notNull(gradient, "gradient"));
    }

    /**
     * The same as {@link #parameter(Tensor)}, for a tensor that is no parameter.
     *
     * @param value a floating tensor; stays the caller's
     * @return value
     * @throws InvalidArgumentException if value is I32 or on another device
     * @throws IllegalStateException if the tape or a tensor is closed, or value is on the tape already
     */
    public Tensor watch(Tensor value) {
        return leaf(value, null);
    }

    private Tensor leaf(Tensor value, Tensor gradient) {
        requireOpen();
        floating(here(open(value, "value"), "value"), "value");
        if (gradients.wanted(value)) {
            throw new IllegalStateException("value: this tensor is on the tape already");
        }
        Node leaf = new Node(value);
        leaf.retained = true;
        if (gradient != null) {
            Gradients.checkGradient(value, here(open(gradient, "gradient"), "gradient"));
            leaf.gradient = gradient;
            leaf.defined = true;
        }
        gradients.put(leaf);
        return value;
    }

    /**
     * Keeps a result of this tape and its gradient through the backward pass, until the tape closes.
     *
     * @param result of a recorded op
     * @return result
     * @throws IllegalStateException if the tape is closed
     */
    public Tensor retain(Tensor result) {
        requireOpen();
        Node node = gradients.node(notNull(result, "result"));
        if (node != null) {
            node.retained = true;
        }
        return result;
    }

    /**
     * The gradient of a leaf or of a {@link #retain retained} result, after the backward pass.
     *
     * @param tensor the leaf or result
     * @return its gradient, the tape's unless the caller handed it over; null when none was computed
     * @throws IllegalStateException if the tape is closed
     */
    public Tensor gradient(Tensor tensor) {
        requireOpen();
        Node node = gradients.node(notNull(tensor, "tensor"));
        return node != null && node.retained ? gradients.finished(node) : null;
    }

    /**
     * Runs a body whose ops are computed but not recorded.
     *
     * @param body what to run
     * @param <T> what it returns
     * @return what the body returned
     * @throws IllegalStateException if the tape is closed
     */
    public <T> T noGrad(Supplier<T> body) {
        requireOpen();
        notNull(body, "body");
        boolean before = recording;
        recording = false;
        try {
            return body.get();
        } finally {
            recording = before;
        }
    }

    /**
     * Runs a body whose ops are computed but not recorded.
     *
     * @param body what to run
     * @throws IllegalStateException if the tape is closed
     */
    public void noGrad(Runnable body) {
        notNull(body, "body");
        noGrad(() -> {
            body.run();
            return null;
        });
    }

    // ---- backward ----

    /**
     * Computes the gradients of a loss with respect to every leaf it depends on. Once per tape.
     *
     * @param loss a recorded result with one element
     * @throws InvalidArgumentException if it has more elements, or does not depend on a leaf
     * @throws IllegalStateException if the tape or a tensor is closed, or the tape ran backward already
     */
    public void backward(Tensor loss) {
        requireOpen();
        if (open(loss, "loss").numel() != 1) {
            throw new InvalidArgumentException("loss: shape " + Arrays.toString(loss.shape()) + ", expected one element");
        }
        try (Tensor one = Tensor.full(device, loss.dtype(), 1, loss.shape())) {
            run(loss, one, "loss", true);
        }
    }

    /**
     * Computes vector-Jacobian products: the gradients of {@code sum(output seed)}. Once per tape.
     *
     * @param output a recorded result
     * @param seed the gradient of output, of its shape and dtype; stays the caller's
     * @throws InvalidArgumentException if seed does not fit, or output does not depend on a leaf
     * @throws IllegalStateException if the tape or a tensor is closed, or the tape ran backward already
     */
    public void backward(Tensor output, Tensor seed) {
        requireOpen();
        if (!Arrays.equals(open(output, "output").shape(), open(seed, "seed").shape()) || output.dtype() != seed.dtype()) {
            throw new InvalidArgumentException("seed: " + seed.dtype() + " " + Arrays.toString(seed.shape()) + ", expected "
                    + output.dtype() + " " + Arrays.toString(output.shape()));
        }
        run(output, seed, "output", false);
    }

    private void run(Tensor output, Tensor seed, String argument, boolean unit) {
        if (finished) {
            throw new IllegalStateException("this tape ran backward already");
        }
        Node last = gradients.node(output);
        if (last == null) {
            throw new InvalidArgumentException(argument + ": does not depend on a parameter of this tape");
        }
        finished = true;
        try {
            last.retained = true;
            gradients.contribute(output, seed);
            last.unit = unit;
            for (int i = entries.size() - 1; i >= 0; i--) {
                runEntry(entries.get(i));
            }
        } finally {
            gradients.closeTemporaries();
            entries.clear();
        }
    }

    private void runEntry(Entry entry) {
        if (entry.backward != null) {
            boolean reached = false;
            for (Node output : entry.outputs) {
                reached |= gradients.finished(output) != null;
            }
            if (reached) {
                entry.backward.run();
                gradients.closeTemporaries();
            }
        }
        entry.saved.forEach(Tensor::close);
        for (Node output : entry.outputs) {
            gradients.release(output);
            if (!output.retained) {
                output.value.close();
            }
        }
    }

    /** The gradient that arrived at a result; null when none did. */
    private Tensor arrived(Tensor result) {
        return gradients.finished(gradients.node(result));
    }

    // ---- recording ----

    private boolean records(Tensor... inputs) {
        requireOpen();
        if (!recording) {
            return false;
        }
        for (Tensor input : inputs) {
            if (gradients.wanted(input)) {
                if (finished) {
                    throw new IllegalStateException("this tape ran backward already; a new tape records again");
                }
                return true;
            }
        }
        return false;
    }

    /** Adds a result, with tensors that only its backward reads. */
    private Tensor record(Tensor result, Runnable backward, Tensor... saved) {
        record(List.of(result), backward, saved);
        return result;
    }

    private void record(List<Tensor> results, Runnable backward, Tensor... saved) {
        List<Node> outputs = new ArrayList<>(results.size());
        for (Tensor result : results) {
            Node output = new Node(result);
            gradients.put(output);
            outputs.add(output);
        }
        entries.add(new Entry(outputs, List.of(saved), backward));
    }

    private Tensor view(Tensor base, Node.View view) {
        requireOpen();
        Tensor result = gradients.own(view.taking().of(here(notNull(base, "x"), "x")));
        if (records(base)) {
            Node output = new Node(result, gradients.node(base), view);
            gradients.put(output);
            entries.add(new Entry(List.of(output), List.of(), null));
        }
        return result;
    }

    /** A tensor the backward pass needs; only temporary when nothing is recorded. */
    private Tensor saved(boolean records, DType dtype, long... shape) {
        return records ? gradients.empty(dtype, shape) : gradients.temporary(dtype, shape);
    }

    private Tensor like(Tensor x) {
        return gradients.empty(x.dtype(), x.shape());
    }

    private static <T> T notNull(T value, String argument) {
        if (value == null) {
            throw new NullPointerException(argument + " is null");
        }
        return value;
    }

    private static Tensor open(Tensor tensor, String argument) {
        if (notNull(tensor, argument).isClosed()) {
            throw new IllegalStateException(argument + ": this tensor is closed");
        }
        return tensor;
    }

    private Tensor here(Tensor tensor, String argument) {
        if (tensor.device() != device) {
            throw new InvalidArgumentException(argument + ": on another device, expected that of the tape");
        }
        return tensor;
    }

    private static Tensor floating(Tensor tensor, String argument) {
        if (!notNull(tensor, argument).dtype().isFloating()) {
            throw new InvalidArgumentException(argument + ": I32, expected a floating dtype");
        }
        return tensor;
    }

    private static Tensor ranked(Tensor tensor, int rank, String argument) {
        if (notNull(tensor, argument).rank() != rank) {
            throw new InvalidArgumentException(argument + ": shape " + Arrays.toString(tensor.shape()) + ", expected rank " + rank);
        }
        return tensor;
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException("this tape is closed");
        }
    }

    // ---- attention ----

    /**
     * Records {@link Ops#attentionForward}; gradients reach q, k and v.
     *
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,S,NKV,HS)
     * @param v values (B,S,NKV,HS)
     * @param lengths (B) I32, keys of each batch row that count; null for all
     * @param scale factor of the scores, usually {@code 1/sqrt(HS)}
     * @param causal whether query t sees only keys {@code s <= t + S - T}
     * @return (B,T,NH,HS)
     */
    public Tensor attention(Tensor q, Tensor k, Tensor v, Tensor lengths, double scale, boolean causal) {
        boolean records = records(q, k, v);
        floating(ranked(q, 4, "q"), "q");
        Tensor out = like(q);
        Tensor lse = saved(records, q.dtype().accumulation(), q.size(0), q.size(2), q.size(1));
        Ops.attentionForward(out, lse, q, k, v, lengths, scale, causal);
        if (!records) {
            return unrecorded(out);
        }
        return record(out, () -> {
            Gradients.Destination dq = gradients.assigned(q);
            Gradients.Destination dk = gradients.assigned(k);
            Gradients.Destination dv = gradients.assigned(v);
            Ops.attentionBackward(dq.tensor, dk.tensor, dv.tensor, arrived(out), q, k, v, out, lse, lengths, scale, causal);
            commit(dq, dk, dv);
        }, lse);
    }

    /**
     * Records {@link Ops#momentumAttentionForward} without a carried state; gradients reach q, k, v and eta.
     *
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,S,NKV,HS)
     * @param v values (B,S,NKV,HS)
     * @param eta (NH), {@code 0 <= eta < 1}
     * @param lengths (B) I32, keys of each batch row that count; null for all
     * @param scale factor of the scores, usually {@code 1/sqrt(HS)}
     * @return (B,T,NH,HS)
     */
    public Tensor momentumAttention(Tensor q, Tensor k, Tensor v, Tensor eta, Tensor lengths, double scale) {
        boolean records = records(q, k, v, eta);
        floating(ranked(q, 4, "q"), "q");
        Tensor out = like(q);
        Tensor attn = records ? like(q) : null;
        Tensor lse = saved(records, q.dtype().accumulation(), q.size(0), q.size(2), q.size(1));
        Ops.momentumAttentionForward(out, attn, lse, null, q, k, v, lengths, eta, null, scale);
        if (!records) {
            return unrecorded(out);
        }
        return record(out, () -> {
            Gradients.Destination dq = gradients.assigned(q);
            Gradients.Destination dk = gradients.assigned(k);
            Gradients.Destination dv = gradients.assigned(v);
            Gradients.Sums deta = gradients.sumsInDtype(eta);
            Ops.momentumAttentionBackward(dq.tensor, dk.tensor, dv.tensor, deta.tensors[0], arrived(out), q, k, v, attn, lse, lengths, eta,
                    scale, deta.accumulate);
            commit(dq, dk, dv);
            deta.commit();
        }, attn, lse);
    }

    /**
     * Records {@link Ops#linearAttentionForward}; gradients reach q, k, v, decay and stateIn.
     *
     * @param q queries (B,T,NH,HS)
     * @param k keys (B,T,NH,HS)
     * @param v values (B,T,NH,HS)
     * @param decay (NH), {@code 0 <= decay <= 1}; null for 1
     * @param stateIn (B,NH,HS,HS); null for 0
     * @return the result and the state after the last token
     */
    public LinearAttention linearAttention(Tensor q, Tensor k, Tensor v, Tensor decay, Tensor stateIn) {
        boolean records = records(q, k, v, decay, stateIn);
        floating(ranked(q, 4, "q"), "q");
        Tensor out = like(q);
        Tensor state = gradients.empty(q.dtype().accumulation(), q.size(0), q.size(2), q.size(3), q.size(3));
        Ops.linearAttentionForward(out, state, q, k, v, decay, stateIn);
        if (records) {
            record(List.of(out, state), () -> linearAttentionBackward(out, state, q, k, v, decay, stateIn));
        }
        return new LinearAttention(out, state);
    }

    private void linearAttentionBackward(Tensor out, Tensor state, Tensor q, Tensor k, Tensor v, Tensor decay, Tensor stateIn) {
        Tensor dout = arrived(out);
        if (dout == null) {
            dout = gradients.temporary(out.dtype(), out.shape());
            Ops.fill(dout, 0);
        }
        Gradients.Destination dq = gradients.assigned(q);
        Gradients.Destination dk = gradients.assigned(k);
        Gradients.Destination dv = gradients.assigned(v);
        Gradients.Sums ddecay = gradients.sumsInDtype(decay);
        Gradients.Destination dstateIn = gradients.assignedIfWanted(stateIn);
        Ops.linearAttentionBackward(dq.tensor, dk.tensor, dv.tensor, ddecay.tensors[0], dstateIn.tensor, dout, arrived(state), q, k, v,
                decay, stateIn, ddecay.accumulate);
        commit(dq, dk, dv, dstateIn);
        ddecay.commit();
    }

    private static void commit(Gradients.Destination... destinations) {
        for (Gradients.Destination destination : destinations) {
            destination.commit();
        }
    }

    private Tensor unrecorded(Tensor result) {
        gradients.closeTemporaries();
        return result;
    }

    // ---- the dual form ----

    /**
     * Records {@link Ops#dualFormForward}; gradients reach all four.
     *
     * @param w0 (O,I)
     * @param e (N,O)
     * @param xp (N,I)
     * @param x (M,I)
     * @param form how it is evaluated, forward and backward
     * @return (M,O)
     */
    public Tensor dualForm(Tensor w0, Tensor e, Tensor xp, Tensor x, DualForm form) {
        boolean records = records(w0, e, xp, x);
        floating(ranked(x, 2, "x"), "x");
        Tensor out = gradients.empty(x.dtype(), x.size(0), ranked(w0, 2, "w0").size(0));
        Ops.dualFormForward(out, null, w0, e, xp, x, form);
        return !records ? out : record(out, () -> {
            Gradients.Sums dw0 = gradients.sums(w0);
            Gradients.Destination de = gradients.assignedIfWanted(e);
            Gradients.Destination dxp = gradients.assignedIfWanted(xp);
            Gradients.Destination dx = gradients.assignedIfWanted(x);
            Ops.dualFormBackward(dw0.tensors[0], de.tensor, dxp.tensor, dx.tensor, arrived(out), w0, e, xp, x, form, dw0.accumulate);
            commit(de, dxp, dx);
            dw0.commit();
        });
    }

    /**
     * Records {@link Ops#deltaAccumulate} into a new tensor; gradients reach e and xp:
     * {@code de = xp Gᵀ}, {@code dxp = e G} for a gradient G of the result.
     *
     * @param e (N,O)
     * @param xp (N,I)
     * @return the weight update (O,I) in the accumulation dtype
     */
    public Tensor deltaAccumulate(Tensor e, Tensor xp) {
        boolean records = records(e, xp);
        floating(ranked(e, 2, "e"), "e");
        Tensor deltaW = gradients.empty(e.dtype().accumulation(), e.size(1), ranked(xp, 2, "xp").size(1));
        Ops.deltaAccumulate(deltaW, e, xp, false);
        return !records ? deltaW : record(deltaW, () -> {
            Tensor g = gradients.as(e.dtype(), arrived(deltaW));
            matmulInto(e, xp, g, false, true);
            matmulInto(xp, e, g, false, false);
        });
    }

    /**
     * Records {@link Ops#deltaApply}; gradients reach all three: with {@code G = doutᵀ x}, {@code dw0 = G}, {@code ddeltaW = G},
     * {@code dx = dout (w0 + deltaW)}.
     *
     * @param x (M,I)
     * @param w0 (O,I); null for none
     * @param deltaW (O,I) in the accumulation dtype
     * @return (M,O)
     */
    public Tensor deltaApply(Tensor x, Tensor w0, Tensor deltaW) {
        boolean records = records(x, w0, deltaW);
        floating(ranked(x, 2, "x"), "x");
        Tensor out = gradients.empty(x.dtype(), x.size(0), ranked(deltaW, 2, "deltaW").size(0));
        Ops.deltaApply(out, x, w0, deltaW);
        return !records ? out : record(out, () -> {
            Tensor dout = arrived(out);
            if (gradients.wanted(x)) {
                Tensor w = deltaW;
                if (w0 != null) {
                    w = gradients.temporary(deltaW.dtype(), deltaW.shape());
                    Ops.binaryForward(w, deltaW, gradients.as(deltaW.dtype(), w0), Binary.ADD);
                }
                Tensor dx = gradients.temporary(deltaW.dtype(), x.shape());
                Ops.matmul(dx, gradients.as(deltaW.dtype(), dout), w, null, false, false, false);
                gradients.contribute(x, dx);
            }
            matmulInto(w0, dout, x, true, false);
            matmulInto(deltaW, dout, x, true, false);
        });
    }

    // ---- layers ----

    /**
     * A product of two matrices or batches of them, {@code a b}.
     *
     * @param a (..,M,K)
     * @param b (..,K,N), or (K,N) shared by the batch
     * @return (..,M,N)
     */
    public Tensor matmul(Tensor a, Tensor b) {
        return matmul(a, b, null, false, false);
    }

    /**
     * Records {@link Ops#matmul} into a new tensor; gradients reach a, b and bias.
     *
     * @param a (..,M,K), or (..,K,M) when transA
     * @param b (..,K,N), or (..,N,K) when transB; leading dimensions equal to those of a, or none
     * @param bias (N); null for none
     * @param transA whether a is transposed
     * @param transB whether b is transposed
     * @return (..,M,N)
     */
    public Tensor matmul(Tensor a, Tensor b, Tensor bias, boolean transA, boolean transB) {
        boolean records = records(a, b, bias);
        int rank = floating(a, "a").rank();
        int rankB = notNull(b, "b").rank();
        if (rank < 2 || (rankB != rank && rankB != 2)) {
            throw new InvalidArgumentException("a: rank " + rank + ", b: rank " + rankB + ", expected at least 2, and b like a or 2");
        }
        long[] shape = a.shape();
        shape[rank - 2] = a.size(transA ? rank - 1 : rank - 2);
        shape[rank - 1] = b.size(transB ? rankB - 2 : rankB - 1);
        Tensor out = gradients.empty(a.dtype(), shape);
        Ops.matmul(out, a, b, bias, transA, transB, false);
        return !records ? out : record(out, () -> matmulBackward(arrived(out), a, b, bias, transA, transB));
    }

    private void matmulBackward(Tensor dout, Tensor a, Tensor b, Tensor bias, boolean transA, boolean transB) {
        boolean shared = b.rank() == 2 && a.rank() > 2;
        if (!transA) {
            matmulInto(a, dout, b, false, !transB);
        } else if (gradients.wanted(a)) {
            matmulInto(a, shared ? repeated(b, a) : b, dout, transB, true);
        }
        if (gradients.wanted(b) && !shared) {
            matmulIntoB(b, dout, a, transA, transB);
        } else if (gradients.wanted(b) && !transA) {
            matmulIntoB(b, rows(dout), rows(a), false, transB);
        } else if (gradients.wanted(b)) {
            matmulIntoShared(b, dout, a, transB);
        }
        if (gradients.wanted(bias)) {
            Gradients.Sums dbias = gradients.sums(bias);
            Ops.biasBackward(dbias.tensors[0], dout, dbias.accumulate);
            dbias.commit();
        }
    }

    private void matmulIntoB(Tensor b, Tensor dout, Tensor a, boolean transA, boolean transB) {
        if (transB) {
            matmulInto(b, dout, a, true, transA);
        } else {
            matmulInto(b, a, dout, !transA, false);
        }
    }

    /** A b shared by a batch of transposed a: one product per batch entry, then their sum. */
    private void matmulIntoShared(Tensor b, Tensor dout, Tensor a, boolean transB) {
        long[] shape = a.shape();
        shape[shape.length - 2] = b.size(0);
        shape[shape.length - 1] = b.size(1);
        Tensor products = gradients.temporary(b.dtype(), shape);
        if (transB) {
            Ops.matmul(products, dout, a, null, true, true, false);
        } else {
            Ops.matmul(products, a, dout, null, false, false, false);
        }
        gradients.contributeBroadcast(b, products);
    }

    /** Adds op(left) op(right) to the gradient of an input, if it is wanted. */
    private void matmulInto(Tensor input, Tensor left, Tensor right, boolean transLeft, boolean transRight) {
        if (gradients.wanted(input)) {
            Gradients.Sums sum = gradients.sums(input);
            Ops.matmul(sum.tensors[0], left, right, null, transLeft, transRight, sum.accumulate);
            sum.commit();
        }
    }

    /** The matrix b once per batch entry of a. */
    private Tensor repeated(Tensor b, Tensor a) {
        long[] shape = a.shape();
        shape[shape.length - 2] = b.size(0);
        shape[shape.length - 1] = b.size(1);
        Tensor copies = gradients.temporary(b.dtype(), shape);
        Ops.copy(copies, b);
        return copies;
    }

    /** All leading dimensions as one, copied if the strides do not allow a view. */
    private Tensor rows(Tensor x) {
        long last = x.size(x.rank() - 1);
        Tensor contiguous = x;
        if (!x.isContiguous()) {
            contiguous = gradients.temporary(x.dtype(), x.shape());
            Ops.copy(contiguous, x);
        }
        return gradients.temporary(contiguous.reshape(x.numel() / last, last));
    }

    /**
     * Records {@link Ops#residualLayernormForward}; gradients reach x, residual, weight and bias, from the sum as well as from the result.
     *
     * @param x (..,C)
     * @param residual (..,C); null for none
     * @param weight (C)
     * @param bias (C)
     * @param eps added to the variance
     * @return the sum and the result
     */
    public ResidualLayernorm residualLayernorm(Tensor x, Tensor residual, Tensor weight, Tensor bias, double eps) {
        boolean records = records(x, residual, weight, bias);
        int rank = floating(x, "x").rank();
        if (rank == 0) {
            throw new InvalidArgumentException("x: a scalar, expected rank 1 or more");
        }
        long rows = x.numel() / x.size(rank - 1);
        Tensor sum = residual == null ? x : like(x);
        Tensor out = like(x);
        Tensor mean = saved(records, x.dtype().accumulation(), rows);
        Tensor rstd = saved(records, x.dtype().accumulation(), rows);
        Ops.residualLayernormForward(residual == null ? null : sum, out, mean, rstd, x, residual, weight, bias, eps);
        if (records) {
            List<Tensor> results = residual == null ? List.of(out) : List.of(sum, out);
            record(results, () -> layernormBackward(sum, out, x, residual, weight, bias, mean, rstd), mean, rstd);
        } else {
            gradients.closeTemporaries();
        }
        return new ResidualLayernorm(sum, out);
    }

    private void layernormBackward(Tensor sum, Tensor out, Tensor x, Tensor residual, Tensor weight, Tensor bias, Tensor mean,
            Tensor rstd) {
        Tensor dout = arrived(out);
        Tensor dsum = residual == null ? null : arrived(sum);
        if (dout == null) {
            gradients.contribute(x, dsum);
            gradients.contribute(residual, dsum);
            return;
        }
        Gradients.Destination dx = gradients.assigned(gradients.wanted(x) || residual == null ? x : residual);
        Gradients.Sums sums = gradients.sums(weight, bias);
        Tensor dweight = sums.tensors[0];
        Tensor dbias = sums.tensors[1];
        if (dweight == null && dbias != null) {
            dweight = discarded(weight);
        } else if (dweight != null && dbias == null) {
            dbias = discarded(bias);
        }
        Ops.residualLayernormBackward(dx.tensor, dweight, dbias, dout, dsum, sum, weight, mean, rstd, sums.accumulate);
        if (gradients.wanted(x)) {
            gradients.contributeSame(residual, x, dx.tensor);
        }
        dx.commit();
        sums.commit();
    }

    /** A gradient that an op must write together with another, and nobody wants. */
    private Tensor discarded(Tensor input) {
        Tensor gradient = gradients.temporary(input.dtype(), input.shape());
        Ops.fill(gradient, 0);
        return gradient;
    }

    /**
     * Records {@link Ops#biasGeluForward}; gradients reach x and bias.
     *
     * @param x (..,C)
     * @param bias (C); null for none
     * @param kind which GELU
     * @return (..,C)
     */
    public Tensor biasGelu(Tensor x, Tensor bias, Gelu kind) {
        boolean records = records(x, bias);
        Tensor out = like(floating(x, "x"));
        Ops.biasGeluForward(out, x, bias, kind);
        return !records ? out : record(out, () -> {
            Gradients.Destination dx = gradients.assigned(x);
            Gradients.Sums dbias = gradients.sums(bias);
            Ops.biasGeluBackward(dx.tensor, dbias.tensors[0], arrived(out), x, bias, kind, dbias.accumulate);
            dx.commit();
            dbias.commit();
        });
    }

    /**
     * A feed-forward layer, {@code gelu(x inWeightᵀ + inBias) outWeightᵀ + outBias}: records {@link Ops#matmulGeluForward} and
     * {@link Ops#matmul} as one; gradients reach all five.
     *
     * @param x (..,M,C)
     * @param inWeight (H,C)
     * @param inBias (H); null for none
     * @param outWeight (O,H)
     * @param outBias (O); null for none
     * @param kind which GELU
     * @return (..,M,O)
     */
    public Tensor feedForward(Tensor x, Tensor inWeight, Tensor inBias, Tensor outWeight, Tensor outBias, Gelu kind) {
        boolean records = records(x, inWeight, inBias, outWeight, outBias);
        if (floating(x, "x").rank() < 2) {
            throw new InvalidArgumentException("x: rank " + x.rank() + ", expected at least 2");
        }
        long[] shape = x.shape();
        shape[x.rank() - 1] = ranked(inWeight, 2, "inWeight").size(0);
        Tensor hidden = saved(records, x.dtype(), shape);
        Tensor pre = records ? like(hidden) : null;
        Ops.matmulGeluForward(hidden, pre, x, inWeight, inBias, false, true, kind);
        shape[x.rank() - 1] = ranked(outWeight, 2, "outWeight").size(0);
        Tensor out = gradients.empty(x.dtype(), shape);
        Ops.matmul(out, hidden, outWeight, outBias, false, true, false);
        return !records ? unrecorded(out) : record(out, () -> {
            Tensor dout = arrived(out);
            matmulBackward(dout, hidden, outWeight, outBias, false, true);
            if (gradients.wanted(x) || gradients.wanted(inWeight) || gradients.wanted(inBias)) {
                Tensor dpre = gradients.temporary(pre.dtype(), pre.shape());
                Gradients.Sums dbias = gradients.sums(inBias);
                Ops.matmulGeluBackward(dpre, dbias.tensors[0], dout, outWeight, pre, false, kind, dbias.accumulate);
                dbias.commit();
                matmulBackward(dpre, x, inWeight, null, false, true);
            }
        }, hidden, pre);
    }

    /**
     * Records {@link Ops#embeddingForward}; gradients reach wte and wpe.
     *
     * @param ids (B,T) I32
     * @param wte token embeddings (V,C)
     * @param wpe position embeddings (P,C); null for none
     * @param position of the first token
     * @return (B,T,C)
     */
    public Tensor embedding(Tensor ids, Tensor wte, Tensor wpe, long position) {
        boolean records = records(wte, wpe);
        ranked(ids, 2, "ids");
        floating(ranked(wte, 2, "wte"), "wte");
        Tensor out = gradients.empty(wte.dtype(), ids.size(0), ids.size(1), wte.size(1));
        Ops.embeddingForward(out, ids, wte, wpe, position);
        return !records ? out : record(out, () -> {
            Gradients.Sums sums = gradients.sums(wte, wpe);
            Ops.embeddingBackward(sums.tensors[0], sums.tensors[1], arrived(out), ids, position, sums.accumulate);
            sums.commit();
        });
    }

    /**
     * Records {@link Ops#crossEntropy}; the gradient reaches logits. It is computed with the loss.
     *
     * @param logits (N,V)
     * @param targets (N) I32
     * @param ignoreIndex target of rows that do not count
     * @return the mean loss, a scalar in the accumulation dtype
     */
    public Tensor crossEntropy(Tensor logits, Tensor targets, int ignoreIndex) {
        boolean records = records(logits);
        floating(ranked(logits, 2, "logits"), "logits");
        DType accumulation = logits.dtype().accumulation();
        Tensor loss = gradients.empty(accumulation);
        Tensor losses = gradients.temporary(accumulation, logits.size(0));
        Tensor dlogits = records ? like(logits) : null;
        Ops.crossEntropy(loss, losses, dlogits, logits, targets, ignoreIndex);
        gradients.closeTemporaries();
        return !records ? loss : record(loss, () -> {
            if (gradients.node(loss).unit) {
                gradients.give(logits, dlogits);
            } else {
                Gradients.Destination destination = gradients.assigned(logits);
                scaleInto(destination.tensor, dlogits, arrived(loss));
                destination.commit();
                dlogits.close();
            }
        });
    }

    /** out = x factor, formed in the accumulation dtype, some rows at a time. */
    private void scaleInto(Tensor out, Tensor x, Tensor factor) {
        if (x.dtype() == factor.dtype()) {
            Ops.binaryForward(out, x, factor, Binary.MUL);
            return;
        }
        long step = Math.max(1, (1 << 20) / x.size(1));
        for (long row = 0; row < x.size(0); row += step) {
            long end = Math.min(x.size(0), row + step);
            try (Tensor from = x.slice(0, row, end); Tensor to = out.slice(0, row, end); Tensor scaled = from.cast(factor.dtype())) {
                Ops.binaryForward(scaled, scaled, factor, Binary.MUL);
                Ops.copy(to, scaled);
            }
        }
    }

    // ---- elementwise ----

    /**
     * Records {@link Ops#unaryForward}.
     *
     * @param x any shape
     * @param op which function
     * @return shaped like x
     */
    public Tensor unary(Tensor x, Unary op) {
        boolean records = records(x);
        Tensor out = like(floating(x, "x"));
        Ops.unaryForward(out, x, op);
        return !records ? out : record(out, () -> {
            Gradients.Destination dx = gradients.assigned(x);
            Ops.unaryBackward(dx.tensor, arrived(out), x, op);
            dx.commit();
        });
    }

    /**
     * {@code a + b} with NumPy broadcasting; gradients are summed over broadcast axes.
     *
     * @param a any shape
     * @param b a shape that broadcasts with a's
     * @return the common shape
     */
    public Tensor add(Tensor a, Tensor b) {
        Tensor out = binary(a, b, Binary.ADD);
        return !records(a, b) ? out : record(out, () -> {
            gradients.contributeBroadcast(a, arrived(out));
            gradients.contributeBroadcast(b, arrived(out));
        });
    }

    /**
     * {@code a - b} with NumPy broadcasting; gradients are summed over broadcast axes.
     *
     * @param a any shape
     * @param b a shape that broadcasts with a's
     * @return the common shape
     */
    public Tensor sub(Tensor a, Tensor b) {
        Tensor out = binary(a, b, Binary.SUB);
        return !records(a, b) ? out : record(out, () -> {
            gradients.contributeBroadcast(a, arrived(out));
            contributeNegative(b, arrived(out));
        });
    }

    /**
     * {@code a b}, elementwise with NumPy broadcasting; gradients are summed over broadcast axes.
     *
     * @param a any shape
     * @param b a shape that broadcasts with a's
     * @return the common shape
     */
    public Tensor mul(Tensor a, Tensor b) {
        Tensor out = binary(a, b, Binary.MUL);
        return !records(a, b) ? out : record(out, () -> {
            contributeBinary(a, arrived(out), b, Binary.MUL);
            contributeBinary(b, arrived(out), a, Binary.MUL);
        });
    }

    /**
     * {@code a / b}, elementwise with NumPy broadcasting; gradients are summed over broadcast axes.
     *
     * @param a any shape
     * @param b a shape that broadcasts with a's
     * @return the common shape
     */
    public Tensor div(Tensor a, Tensor b) {
        Tensor out = binary(a, b, Binary.DIV);
        return !records(a, b) ? out : record(out, () -> {
            contributeBinary(a, arrived(out), b, Binary.DIV);
            if (gradients.wanted(b)) {
                Tensor slope = gradients.temporary(out.dtype(), out.shape());
                Ops.binaryForward(slope, out, b, Binary.DIV);
                Ops.binaryForward(slope, slope, arrived(out), Binary.MUL);
                contributeNegative(b, slope);
            }
        });
    }

    /**
     * The larger of a and b, elementwise with NumPy broadcasting; the gradient goes to the larger, and to b where they are equal.
     *
     * @param a any shape
     * @param b a shape that broadcasts with a's
     * @return the common shape
     */
    public Tensor max(Tensor a, Tensor b) {
        Tensor out = binary(a, b, Binary.MAX);
        return !records(a, b) ? out : record(out, () -> extremeBackward(arrived(out), a, b, a, b));
    }

    /**
     * The smaller of a and b, elementwise with NumPy broadcasting; the gradient goes to the smaller, and to b where they are equal.
     *
     * @param a any shape
     * @param b a shape that broadcasts with a's
     * @return the common shape
     */
    public Tensor min(Tensor a, Tensor b) {
        Tensor out = binary(a, b, Binary.MIN);
        return !records(a, b) ? out : record(out, () -> extremeBackward(arrived(out), a, b, b, a));
    }

    /** a has the gradient where larger exceeds smaller, the slope of relu at their difference; b has the rest. */
    private void extremeBackward(Tensor dout, Tensor a, Tensor b, Tensor larger, Tensor smaller) {
        Tensor difference = gradients.temporary(dout.dtype(), dout.shape());
        Ops.binaryForward(difference, larger, smaller, Binary.SUB);
        Tensor da = gradients.temporary(dout.dtype(), dout.shape());
        Ops.unaryBackward(da, dout, difference, Unary.RELU);
        gradients.contributeBroadcast(a, da);
        if (gradients.wanted(b)) {
            Ops.binaryForward(difference, dout, da, Binary.SUB);
            gradients.contributeBroadcast(b, difference);
        }
    }

    private Tensor binary(Tensor a, Tensor b, Binary op) {
        requireOpen();
        Tensor out = gradients.empty(floating(a, "a").dtype(), broadcastShape(a, floating(b, "b")));
        Ops.binaryForward(out, a, b, op);
        return out;
    }

    private static long[] broadcastShape(Tensor a, Tensor b) {
        int rank = Math.max(a.rank(), b.rank());
        long[] shape = new long[rank];
        for (int axis = 0; axis < rank; axis++) {
            int axisA = axis - rank + a.rank();
            int axisB = axis - rank + b.rank();
            shape[axis] = Math.max(axisA < 0 ? 1 : a.size(axisA), axisB < 0 ? 1 : b.size(axisB));
        }
        return shape;
    }

    private void contributeBinary(Tensor input, Tensor dout, Tensor other, Binary op) {
        if (gradients.wanted(input)) {
            Tensor gradient = gradients.temporary(dout.dtype(), dout.shape());
            Ops.binaryForward(gradient, dout, other, op);
            gradients.contributeBroadcast(input, gradient);
        }
    }

    private void contributeNegative(Tensor input, Tensor gradient) {
        if (gradients.wanted(input)) {
            Tensor negative = gradients.temporary(gradient.dtype(), gradient.shape());
            Ops.affine(negative, gradient, -1, 0);
            gradients.contributeBroadcast(input, negative);
        }
    }

    /**
     * Records {@link Ops#affine}.
     *
     * @param x any shape
     * @param alpha factor
     * @param beta summand
     * @return {@code alpha x + beta}
     */
    public Tensor affine(Tensor x, double alpha, double beta) {
        boolean records = records(x);
        Tensor out = like(floating(x, "x"));
        Ops.affine(out, x, alpha, beta);
        return !records ? out : record(out, () -> {
            Gradients.Destination dx = gradients.assigned(x);
            Ops.affine(dx.tensor, arrived(out), alpha, 0);
            dx.commit();
        });
    }

    /**
     * A contiguous copy.
     *
     * @param x any shape
     * @return shaped like x
     */
    public Tensor copy(Tensor x) {
        return cast(x, floating(x, "x").dtype());
    }

    /**
     * A contiguous copy in another dtype; the gradient is converted back.
     *
     * @param x any shape
     * @param dtype a floating dtype
     * @return shaped like x
     */
    public Tensor cast(Tensor x, DType dtype) {
        boolean records = records(x);
        Tensor out = gradients.empty(notNull(dtype, "dtype"), floating(x, "x").shape());
        Ops.copy(out, x);
        return !records ? out : record(out, () -> gradients.contribute(x, arrived(out)));
    }

    /**
     * A copy broadcast to another shape; the gradient is summed over broadcast axes.
     *
     * @param x a shape that broadcasts to the other
     * @param shape the other
     * @return a tensor of that shape
     */
    public Tensor broadcast(Tensor x, long... shape) {
        boolean records = records(x);
        Tensor out = gradients.empty(floating(x, "x").dtype(), notNull(shape, "shape"));
        Ops.copy(out, x);
        return !records ? out : record(out, () -> gradients.contributeBroadcast(x, arrived(out)));
    }

    // ---- views ----

    /**
     * {@link Tensor#reshape} with a gradient.
     *
     * @param x any shape
     * @param shape as many elements
     * @return a view of x
     */
    public Tensor reshape(Tensor x, long... shape) {
        long[] dimensions = notNull(shape, "shape").clone();
        return view(x, Node.View.whole(base -> base.reshape(dimensions)));
    }

    /**
     * {@link Tensor#slice} with a gradient.
     *
     * @param x any shape
     * @param axis which
     * @param from first index
     * @param to one past the last index
     * @return a view of x
     */
    public Tensor slice(Tensor x, int axis, long from, long to) {
        return view(x, new Node.View(axis, from, to, base -> base.slice(axis, from, to)));
    }

    /**
     * {@link Tensor#select} with a gradient.
     *
     * @param x any shape
     * @param axis which
     * @param index along the axis
     * @return a view of x without the axis
     */
    public Tensor select(Tensor x, int axis, long index) {
        return view(x, new Node.View(axis, index, index + 1, base -> base.select(axis, index)));
    }

    /**
     * {@link Tensor#transpose} with a gradient.
     *
     * @param x any shape
     * @param a one axis
     * @param b the other
     * @return a view of x
     */
    public Tensor transpose(Tensor x, int a, int b) {
        return view(x, Node.View.whole(base -> base.transpose(a, b)));
    }

    // ---- reductions ----

    /**
     * Records {@link Ops#reduceForward}; the axes are removed. The gradient of MAX and MIN goes to the first extreme element.
     *
     * @param x any shape
     * @param op what is taken
     * @param axes which axes; none for all
     * @return x's shape without the axes
     */
    public Tensor reduce(Tensor x, Reduction op, int... axes) {
        boolean records = records(x);
        int[] reduced = notNull(axes, "axes").clone();
        Tensor out = gradients.empty(floating(x, "x").dtype(), shapeWithout(x, reduced));
        Ops.reduceForward(out, x, op, reduced);
        return !records ? out : record(out, () -> {
            Gradients.Destination dx = gradients.assigned(x);
            Ops.reduceBackward(dx.tensor, arrived(out), x, out, op, reduced);
            dx.commit();
        });
    }

    private static long[] shapeWithout(Tensor x, int[] axes) {
        if (axes.length == 0) {
            return new long[0];
        }
        List<Long> kept = new ArrayList<>();
        for (int axis = 0; axis < x.rank(); axis++) {
            int candidate = axis;
            if (Arrays.stream(axes).noneMatch(reduced -> reduced == candidate)) {
                kept.add(x.size(axis));
            }
        }
        return kept.stream().mapToLong(Long::longValue).toArray();
    }

    // ---- the end ----

    /**
     * Whether the tape is closed.
     *
     * @return true after {@link #close()}
     */
    public boolean isClosed() {
        return closed;
    }

    /** Closes every tensor the tape owns. Closing it again does nothing. */
    @Override
    public void close() {
        if (!closed) {
            closed = true;
            entries.clear();
            gradients.close();
        }
    }
}
