package org.dualform.autograd;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.dualform.Tensor;

/** A tensor whose gradient is wanted: a leaf, the result of a recorded op, or a view of another node. */
final class Node {
    final Tensor value;
    /** What this is a view of, and how; null for a node with a gradient of its own. */
    final Node base;
    final View view;
    private final List<Node> views = new ArrayList<>(0);

    /** Memory of the gradient; for a view, a view of the base's. */
    Tensor gradient;
    /** Whether the gradient's contents mean something; a view's do, too, when its base's do. */
    boolean defined;
    /** Whether value and gradient outlive the backward pass. */
    boolean retained;
    /** Whether the gradient is exactly one. */
    boolean unit;
    /** Whether another node's gradient is the same memory: who adds to one of them copies first. */
    boolean shared;

    private Boolean partitioned;

    Node(Tensor value) {
        this(value, null, null);
    }

    Node(Tensor value, Node base, View view) {
        this.value = value;
        this.base = base;
        this.view = view;
        if (base != null) {
            base.views.add(this);
        }
    }

    List<Node> views() {
        return views;
    }

    boolean isDefined() {
        for (Node node = this; node != null; node = node.base) {
            if (node.defined) {
                return true;
            }
        }
        return false;
    }

    /** Whether its gradient may be memory that another node has too. */
    boolean canShare() {
        return base == null && views.isEmpty() && !retained;
    }

    /** Whether anything was written to the gradient, or to a part of it. */
    boolean isTouched() {
        if (defined) {
            return true;
        }
        for (Node part : views) {
            if (part.isTouched()) {
                return true;
            }
        }
        return false;
    }

    /** Whether the views are disjoint and cover everything, so that each can assign its part. */
    boolean isPartitioned() {
        if (partitioned == null) {
            partitioned = isPartition();
        }
        return partitioned;
    }

    private boolean isPartition() {
        if (views.size() == 1) {
            View only = views.get(0).view;
            return only.axis() < 0 || (only.from() == 0 && only.to() == value.size(only.axis()));
        }
        List<View> parts = new ArrayList<>();
        for (Node part : views) {
            parts.add(part.view);
        }
        parts.sort(Comparator.comparingLong(View::from));
        long end = 0;
        int axis = parts.isEmpty() ? -1 : parts.get(0).axis();
        for (View part : parts) {
            if (axis < 0 || part.axis() != axis || part.from() != end) {
                return false;
            }
            end = part.to();
        }
        return axis >= 0 && end == value.size(axis);
    }

    /** How a view is taken: of the whole (axis -1), or of from to to along an axis. */
    record View(int axis, long from, long to, Taking taking) {
        static View whole(Taking taking) {
            return new View(-1, 0, 0, taking);
        }
    }

    /** Makes the view of a tensor shaped like the base. */
    interface Taking {
        Tensor of(Tensor base);
    }
}
