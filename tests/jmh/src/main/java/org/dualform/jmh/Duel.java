package org.dualform.jmh;

import java.util.List;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.NoGradGuard;
import org.bytedeco.pytorch.Tensor;

/** The same work, on the same values, done by us and by a peer. */
abstract class Duel implements AutoCloseable {
    private final String name;
    private final String peer;

    Duel(String name, String peer) {
        this.name = name;
        this.peer = peer;
    }

    final String name() {
        return name;
    }

    final String peer() {
        return peer;
    }

    /** What is timed. */
    abstract void runOurs();

    /** What is timed. */
    abstract void runPeer();

    /** What we computed, after {@link #runOurs}. */
    abstract List<float[]> ourResults();

    /** What the peer computes. */
    abstract List<float[]> peerResults();

    /** Largest difference that rounding explains, relative to the largest value. */
    abstract double tolerance();

    /** Works of one call so short that a sample is made of many. */
    int callsPerSample() {
        return 1;
    }

    /** A duel with PyTorch: its results are tensors. */
    abstract static class WithTorch extends Duel {
        private final Ours ours;
        private final boolean gradients;

        WithTorch(String name, Ours ours, boolean gradients) {
            super(name, "torch");
            this.ours = ours;
            this.gradients = gradients;
        }

        /** Inside a scope of its own, and without a record for gradients unless they were asked for. */
        abstract List<Tensor> compute();

        final Ours ours() {
            return ours;
        }

        @Override
        void runPeer() {
            try (PointerScope scope = new PointerScope()) {
                if (gradients) {
                    compute();
                } else {
                    try (NoGradGuard guard = new NoGradGuard()) {
                        compute();
                    }
                }
            }
        }

        @Override
        List<float[]> peerResults() {
            try (PointerScope scope = new PointerScope()) {
                return compute().stream().map(Torch::floats).toList();
            }
        }

        @Override
        double tolerance() {
            return Torch.tolerance(ours.dtype());
        }

        @Override
        public void close() {
            ours.close();
        }
    }

    @Override
    public abstract void close();
}
