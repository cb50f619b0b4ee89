package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import org.dualform.Tensor;

/**
 * A work of one or two calls: its tensors as they are named, then {@link #calls}. Moves has a letter for each time that a pass must move a
 * tensor, f forward, b backward.
 */
final class OpWork implements Workload {
    private final Pass pass;
    private final List<Tensor> results = new ArrayList<>();
    private double bytes;
    private Runnable forward;
    private Runnable backward;

    OpWork(Pass pass) {
        this.pass = pass;
    }

    /** A tensor that is read, or written without being a result. */
    Tensor moves(String moves, Tensor tensor) {
        bytes += moves.chars().filter(letter -> letter == 'f' ? pass.forward() : pass.backward()).count() * (double) tensor.byteSize();
        return tensor;
    }

    /** A result of the forward pass. */
    Tensor result(String moves, Tensor tensor) {
        if (pass.forward()) {
            results.add(tensor);
        }
        return moves(moves, tensor);
    }

    /** A result of the backward pass. */
    Tensor gradient(Tensor tensor) {
        results.add(tensor);
        return moves("b", tensor);
    }

    /** What the passes are; the backward pass needs nothing that the forward pass saved. */
    OpWork calls(Runnable forwardCall, Runnable backwardCall) {
        forward = forwardCall;
        backward = backwardCall;
        return this;
    }

    /** What the passes are, when forward saves something for backward. */
    OpWork savingCalls(Runnable forwardCall, Runnable backwardCall) {
        calls(forwardCall, backwardCall);
        if (!pass.forward()) {
            forward.run();
        }
        return this;
    }

    @Override
    public void run() {
        if (pass.forward()) {
            forward.run();
        }
        if (pass.backward()) {
            backward.run();
        }
    }

    @Override
    public List<Tensor> results() {
        return List.copyOf(results);
    }

    @Override
    public double bytes() {
        return bytes;
    }
}
