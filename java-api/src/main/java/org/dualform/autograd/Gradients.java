package org.dualform.autograd;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import org.dualform.Binary;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Reduction;
import org.dualform.Tensor;

/**
 * The gradients of a tape and the memory it owns. The first contribution to a gradient assigns, later ones add. The gradient of a view
 * is a view of its base's gradient: where the views partition the base (q, k and v of one projection), each assigns its part in place;
 * where they do not, the base starts from zeros.
 */
final class Gradients implements AutoCloseable {
    final Device device;
    private final Map<Tensor, Node> nodes = new IdentityHashMap<>();
    private final List<Tensor> owned = new ArrayList<>();
    private final List<Tensor> temporaries = new ArrayList<>();

    Gradients(Device device) {
        this.device = device;
    }

    // ---- memory ----

    /** Lives until the tape closes, or until it is closed earlier. */
    Tensor own(Tensor tensor) {
        owned.add(tensor);
        return tensor;
    }

    Tensor empty(DType dtype, long... shape) {
        return own(Tensor.empty(device, dtype, shape));
    }

    /** Lives until the running op, forward or backward, is done. */
    Tensor temporary(Tensor tensor) {
        temporaries.add(tensor);
        return tensor;
    }

    Tensor temporary(DType dtype, long... shape) {
        return temporary(Tensor.empty(device, dtype, shape));
    }

    void closeTemporaries() {
        closeAll(temporaries);
    }

    @Override
    public void close() {
        closeAll(temporaries);
        closeAll(owned);
        nodes.clear();
    }

    private static void closeAll(List<Tensor> tensors) {
        for (int i = tensors.size() - 1; i >= 0; i--) {
            tensors.get(i).close();
        }
        tensors.clear();
    }

    // ---- nodes ----

    void put(Node node) {
        nodes.put(node.value, node);
    }

    /** The node of a tensor, or null when its gradient is not wanted. */
    Node node(Tensor value) {
        return value == null ? null : nodes.get(value);
    }

    boolean wanted(Tensor value) {
        return node(value) != null;
    }

    /** The finished gradient of a node; null when nothing contributed to it. */
    Tensor finished(Node node) {
        if (node == null || !(node.isDefined() || node.isTouched())) {
            return null;
        }
        settle(node);
        return memory(node);
    }

    /** Drops what a node's backward no longer needs. */
    void release(Node node) {
        if (!node.retained && node.gradient != null) {
            node.views().forEach(this::keepRetained);
            node.gradient.close();
            node.gradient = null;
        }
    }

    /** Views of a gradient share its memory, which then lives as long as they do. */
    private void keepRetained(Node view) {
        if (view.retained) {
            memory(view);
        }
        view.views().forEach(this::keepRetained);
    }

    private Tensor memory(Node node) {
        if (node.gradient == null) {
            node.gradient = node.base == null
                    ? empty(node.value.dtype(), node.value.shape())
                    : own(node.view.taking().of(memory(node.base)));
        }
        return node.gradient;
    }

    /** Before a part is written: a base whose views do not partition it starts from zeros. */
    private void prepare(Node node) {
        if (node.base != null) {
            prepare(node.base);
            if (!node.base.isDefined() && !node.base.isPartitioned()) {
                settle(node.base);
            }
        }
    }

    /** Zeros wherever nothing was written. */
    private void settle(Node node) {
        if (node.isDefined()) {
            return;
        }
        if (node.isTouched()) {
            node.views().forEach(this::settle);
        } else {
            Ops.fill(memory(node), 0);
        }
        node.defined = true;
    }

    /** Announces a contribution: true when it must add to what is there, false when it must assign. */
    private boolean begin(Node node) {
        node.unit = false;
        prepare(node);
        if (node.isDefined()) {
            unshare(node);
            return true;
        }
        if (node.isTouched()) {
            settle(node);
            return true;
        }
        node.defined = true;
        return false;
    }

    private void unshare(Node node) {
        if (node.shared) {
            Tensor copy = empty(node.gradient.dtype(), node.gradient.shape());
            Ops.copy(copy, node.gradient);
            node.gradient.close();
            node.gradient = copy;
            node.shared = false;
        }
    }

    // ---- contributions ----

    /** Where an op that assigns writes the gradient of an input; {@link #commit()} when it has. */
    final class Destination {
        private final Node node;
        final Tensor tensor;

        private Destination(Node node, Tensor tensor) {
            this.node = node;
            this.tensor = tensor;
        }

        void commit() {
            if (node != null) {
                add(memory(node), tensor);
            }
        }
    }

    /** For an output an op must write, wanted or not. */
    Destination assigned(Tensor input) {
        Node node = node(input);
        if (node == null) {
            return new Destination(null, temporary(input.dtype(), input.shape()));
        }
        return begin(node)
                ? new Destination(node, temporary(input.dtype(), input.shape()))
                : new Destination(null, memory(node));
    }

    /** For an output an op can leave out: its tensor is null when the gradient is not wanted. */
    Destination assignedIfWanted(Tensor input) {
        return wanted(input) ? assigned(input) : new Destination(null, null);
    }

    /** Where an op with one accumulate flag for several outputs writes; a tensor is null when its gradient is not wanted. */
    final class Sums {
        final Tensor[] tensors;
        boolean accumulate;
        private final Node[] later;

        private Sums(int count) {
            tensors = new Tensor[count];
            later = new Node[count];
        }

        void commit() {
            for (int i = 0; i < tensors.length; i++) {
                if (later[i] != null) {
                    add(memory(later[i]), tensors[i]);
                }
            }
        }
    }

    /** For outputs that may be in the inputs' dtype or in its accumulation dtype. */
    Sums sums(Tensor... inputs) {
        return sums(true, inputs);
    }

    /** For outputs that must be in their input's dtype. */
    Sums sumsInDtype(Tensor... inputs) {
        return sums(false, inputs);
    }

    private Sums sums(boolean accumulationDtypeAllowed, Tensor... inputs) {
        Sums sums = new Sums(inputs.length);
        boolean[] assign = new boolean[inputs.length];
        for (int i = 0; i < inputs.length; i++) {
            Node node = node(inputs[i]);
            if (node == null) {
                continue;
            }
            boolean again = Arrays.asList(inputs).indexOf(inputs[i]) < i;
            assign[i] = !begin(node);
            if (again || !(accumulationDtypeAllowed || memory(node).dtype() == inputs[i].dtype())) {
                sums.later[i] = node;
                sums.tensors[i] = temporary(inputs[i].dtype(), inputs[i].shape());
                assign[i] = true;
            } else {
                sums.tensors[i] = memory(node);
                sums.accumulate |= !assign[i];
            }
        }
        for (int i = 0; sums.accumulate && i < inputs.length; i++) {
            if (assign[i]) {
                Ops.fill(sums.tensors[i], 0);
            }
        }
        return sums;
    }

    /** A gradient shaped like the input, whatever its dtype. */
    void contribute(Tensor input, Tensor gradient) {
        Node node = node(input);
        if (node == null) {
            return;
        }
        if (begin(node)) {
            add(memory(node), gradient);
        } else {
            Ops.copy(memory(node), gradient);
        }
    }

    /** The gradient that was just assigned to one input, for another one too: as the same memory where possible. */
    void contributeSame(Tensor input, Tensor assignedInput, Tensor gradient) {
        Node node = node(input);
        Node other = node(assignedInput);
        boolean own = other != null && other != node && other.gradient == gradient;
        if (own && node != null && node.canShare() && other.canShare() && !node.defined) {
            node.defined = true;
            node.gradient = own(gradient.reshape(gradient.shape()));
            node.shared = true;
            other.shared = true;
        } else {
            contribute(input, gradient);
        }
    }

    /** A gradient that may be given away: taken as it is where possible. */
    void give(Tensor input, Tensor gradient) {
        Node node = node(input);
        if (node != null && node.base == null && node.views().isEmpty() && !node.defined) {
            node.defined = true;
            node.gradient = gradient;
        } else {
            contribute(input, gradient);
        }
    }

    /** A gradient of the shape the input was broadcast to: summed over the axes that were. */
    void contributeBroadcast(Tensor input, Tensor gradient) {
        Node node = node(input);
        if (node == null) {
            return;
        }
        long[] shape = input.shape();
        long[] broadcast = gradient.shape();
        if (Arrays.equals(shape, broadcast)) {
            contribute(input, gradient);
            return;
        }
        long[] kept = new long[broadcast.length];
        int[] axes = new int[broadcast.length];
        int count = 0;
        for (int axis = 0; axis < broadcast.length; axis++) {
            int from = axis - (broadcast.length - shape.length);
            kept[axis] = from < 0 ? 1 : shape[from];
            if (kept[axis] != broadcast[axis]) {
                axes[count++] = axis;
            }
        }
        Destination sum = assigned(input);
        Tensor target = temporary(sum.tensor.reshape(kept));
        if (count == 0) {
            Ops.copy(target, gradient);
        } else {
            Ops.reduceForward(target, gradient, Reduction.SUM, Arrays.copyOf(axes, count));
        }
        sum.commit();
    }

    private void add(Tensor sum, Tensor summand) {
        Ops.binaryForward(sum, sum, as(sum.dtype(), summand), Binary.ADD);
    }

    /** The tensor itself, or a temporary copy in another dtype. */
    Tensor as(DType dtype, Tensor tensor) {
        if (tensor.dtype() == dtype) {
            return tensor;
        }
        Tensor converted = temporary(dtype, tensor.shape());
        Ops.copy(converted, tensor);
        return converted;
    }

    /** A leaf whose gradient the caller owns. */
    static void checkGradient(Tensor value, Tensor gradient) {
        if (!Arrays.equals(value.shape(), gradient.shape())) {
            throw new InvalidArgumentException("gradient: shape " + Arrays.toString(gradient.shape()) + ", expected "
                    + Arrays.toString(value.shape()));
        }
        if (gradient.dtype() != value.dtype() && gradient.dtype() != value.dtype().accumulation()) {
            throw new InvalidArgumentException("gradient: " + gradient.dtype() + ", expected " + value.dtype() + " or "
                    + value.dtype().accumulation());
        }
    }
}
