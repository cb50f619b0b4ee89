package org.dualform.cli;

import java.math.BigDecimal;
import java.util.List;
import java.util.Locale;
import java.util.stream.IntStream;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;

/** How far results may be from float64, and how far they are. */
final class Accuracy {
    /** The results of a work that is wrong. */
    static final class WrongAnswerException extends RuntimeException {
        private static final long serialVersionUID = 1;

        WrongAnswerException(String sentence) {
            super(sentence);
        }
    }

    /** How the work of one run is made. */
    interface Maker {
        Workload make(BenchTensors tensors);
    }

    private static final double WRONG_F32 = 1e-4;
    private static final double WRONG_TF32 = 1e-2;
    private static final double WRONG_BF16X3 = 1e-3;
    private static final double WRONG_BF16 = 5e-2;
    private static final double OF_A_MODEL = 10; // the products of a model's layers come one after the other

    private Accuracy() {}

    /** What no right answer reaches: those are far below, and the native suite has the tight rule. */
    static double bound(BenchWork work, Backend backend, DType dtype) {
        if (dtype == DType.BF16) {
            return WRONG_BF16;
        }
        double one = backend == Backend.CPU ? WRONG_F32 : switch (Backends.precision()) {
            case FLOAT32 -> WRONG_F32;
            case TF32 -> WRONG_TF32;
            case BF16X3 -> WRONG_BF16X3;
        };
        return work == BenchWork.GPT_STEP ? OF_A_MODEL * one : one;
    }

    /**
     * The largest difference of a work's results from those of the same in float64 on the same values, each relative to its largest value.
     *
     * @throws WrongAnswerException if that is more than the bound
     */
    static double check(String name, Device device, DType dtype, double bound, Maker maker) {
        try (Device cpu = Device.cpu(device.backend() == Backend.CPU ? device.threads() : 0);
                BenchTensors ours = BenchTensors.drawn(device, dtype, 0);
                BenchTensors exact = BenchTensors.of(ours, cpu, DType.F64)) {
            Workload run = maker.make(ours);
            Workload reference = maker.make(exact);
            for (Workload workload : List.of(run, reference)) {
                for (int i = 0; i < workload.runsToCompare(); i++) {
                    if (workload.preparation() != null) {
                        workload.preparation().run();
                    }
                    workload.run();
                }
            }
            double largest = 0;
            List<Tensor> results = run.results();
            List<Tensor> expected = reference.results();
            for (int i = 0; i < results.size(); i++) {
                double error = difference(results.get(i), expected.get(i));
                if (error > bound) {
                    throw new WrongAnswerException(String.format(Locale.ROOT,
                            "wrong answer: %s: result %d of %d is off by %.3g of its largest value, at most %s was expected", name, i + 1,
                            results.size(), error, BigDecimal.valueOf(bound).stripTrailingZeros().toPlainString()));
                }
                largest = Math.max(largest, error);
            }
            return largest;
        }
    }

    /** The largest difference, relative to the largest value; infinite where a result is not what float64's is that is not finite. */
    static double difference(Tensor result, Tensor expected) {
        double[] most = {0, 0}; // difference, value
        BenchTensors.pieces(expected.shape(), (from, to) -> {
            double[] values = values(result, from, to);
            double[] exact = values(expected, from, to);
            IntStream.range(0, exact.length).forEach(i -> {
                if (Double.isFinite(exact[i])) {
                    most[1] = Math.max(most[1], Math.abs(exact[i]));
                }
                if (values[i] != exact[i]) {
                    double apart = Math.abs(values[i] - exact[i]);
                    most[0] = Math.max(most[0], Double.isNaN(apart) ? Double.POSITIVE_INFINITY : apart);
                }
            });
        });
        return most[0] == 0 ? 0 : most[0] / most[1];
    }

    private static double[] values(Tensor tensor, long from, long to) {
        try (Tensor part = BenchTensors.part(tensor, from, to)) {
            return part.dtype() == DType.I32 ? IntStream.of(part.toInts()).asDoubleStream().toArray() : part.toDoubles();
        }
    }
}
