package org.dualform.cli;

import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import org.dualform.Tensor;

/** One work of {@code bench}, ready to run any number of times; its {@link BenchTensors} own what it made. */
interface Workload {
    /** What goes before each run and is not part of it; null for nothing. */
    default Runnable preparation() {
        return null;
    }

    /** What is timed. */
    void run();

    /** How many runs go before a look at the results. */
    default int runsToCompare() {
        return 1;
    }

    /** What the run computed: the outputs of a forward pass, the gradients of a backward pass. */
    List<Tensor> results();

    /** Bytes that must move: every tensor of the pass once, what is updated twice. */
    double bytes();

    static double bytes(Tensor... tensors) {
        return Arrays.stream(tensors).filter(Objects::nonNull).mapToDouble(Tensor::byteSize).sum();
    }
}
