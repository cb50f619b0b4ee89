package org.dualform.cli;

import java.util.Arrays;
import java.util.Locale;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** The works of {@code bench}: which shapes they take, and how many floating-point operations their formulas ask for. */
enum BenchWork {
    ATTENTION("B,T,NH,HS", "B,T,S,NH,NKV,HS") {
        @Override
        long[] normalized(long[] s) {
            return s.length == 4 ? new long[] {s[0], s[1], s[1], s[2], s[2], s[3]} : s;
        }

        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new AttentionWork(tensors, shape, pass, false);
        }

        @Override
        double flops(long[] s, Pass pass) {
            return attentionFlops(s, pass);
        }

        @Override
        double elements(long[] s) {
            return product(s[0], Math.max(s[1], s[2]), s[3], s[5]);
        }
    },

    MOMENTUM_ATTENTION("B,T,NH,HS", "B,T,S,NH,NKV,HS") {
        @Override
        long[] normalized(long[] s) {
            return ATTENTION.normalized(s);
        }

        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new AttentionWork(tensors, shape, pass, true);
        }

        @Override
        double flops(long[] s, Pass pass) {
            return attentionFlops(s, pass);
        }

        @Override
        double elements(long[] s) {
            return ATTENTION.elements(s);
        }
    },

    LINEAR_ATTENTION("B,T,NH,HS") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new LinearAttentionWork(tensors, shape, pass);
        }

        @Override
        double flops(long[] s, Pass pass) {
            return share(4 * product(s[0], s[1], s[2], s[3], s[3]), 2.5, pass);
        }
    },

    DUAL_FORM("N,M,O,I", "P,N,M,O,I") {
        @Override
        long[] normalized(long[] s) {
            return s.length == 4 ? new long[] {1, s[0], s[1], s[2], s[3]} : s;
        }

        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new DualFormWork(tensors, shape, pass);
        }

        /** Forward in the cheaper of both forms; backward the four products of its formulas, and deltaW once more. */
        @Override
        double flops(long[] s, Pass pass) {
            double primal = 2 * product(s[3], s[4]) * ((double) s[1] + s[2]);
            double dual = 2 * ((double) s[3] * s[4] + product(s[1], s[3]) + product(s[1], s[4])) * s[2];
            double backward = 2 * product(s[3], s[4]) * (2.0 * s[2] + 3.0 * s[1]);
            return s[0] * ((pass.forward() ? Math.min(primal, dual) : 0) + (pass.backward() ? backward : 0));
        }

        @Override
        double elements(long[] s) {
            return product(s[0], Math.max(s[1], Math.max(s[2], s[3])), Math.max(s[3], s[4]));
        }
    },

    MATMUL("M,N,K") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new MatmulWork(tensors, shape, pass);
        }

        @Override
        double flops(long[] s, Pass pass) {
            return share(2 * product(s), 2, pass);
        }

        @Override
        double elements(long[] s) {
            return Math.max(product(s[0], s[1]), Math.max(product(s[0], s[2]), product(s[1], s[2])));
        }
    },

    GPT_STEP("B,T,layers,width,heads") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new GptStepWork(tensors, shape, pass);
        }

        @Override
        double flops(long[] s, Pass pass) {
            return GptStepWork.flops(s, pass);
        }

        @Override
        double elements(long[] s) {
            return product(4, s[0], s[1], s[3]);
        }

        @Override
        Pass usualPass() {
            return Pass.BOTH;
        }
    },

    LAYERNORM("N,C") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new LayernormWork(tensors, shape, pass);
        }
    },

    GELU("N,C") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new GeluWork(tensors, shape, pass);
        }
    },

    CROSS_ENTROPY("N,V") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            return new CrossEntropyWork(tensors, shape, pass);
        }
    },

    ADAMW("N") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass) {
            if (pass != Pass.FORWARD) {
                throw new UsageException("--pass " + pass.id() + ": adamw has no backward pass, expected forward");
            }
            return new AdamwWork(tensors, shape);
        }
    };

    /** Float64 is slow: results are compared with it at no more than so many flops, and elements of the largest tensor. */
    private static final double COMPARED_FLOPS = 2e10;
    private static final double COMPARED_ELEMENTS = 1 << 24;
    private static final Pattern SIZE = Pattern.compile("[1-9]\\d{0,8}");

    private final String[] layouts;

    BenchWork(String... layouts) {
        this.layouts = layouts;
    }

    /** The layout with the most axes, from any. */
    long[] normalized(long[] shape) {
        return shape;
    }

    abstract Workload make(BenchTensors tensors, long[] shape, Pass pass);

    /** Of the formula, whatever the algorithm; 0 where bytes are what counts. */
    double flops(long[] shape, Pass pass) {
        return 0;
    }

    /** Elements of the largest tensor. */
    double elements(long[] shape) {
        return product(shape);
    }

    Pass usualPass() {
        return Pass.FORWARD;
    }

    /**
     * The shape at which results are compared with float64: the whole one if it is small enough, else with its first axis halved until it
     * is, then its second. Keys are halved with queries.
     */
    long[] compared(long[] shape, Pass pass) {
        long[] s = shape.clone();
        for (int axis = 0; axis < s.length; axis++) {
            while (s[axis] > 1 && (flops(s, pass) > COMPARED_FLOPS || elements(s) > COMPARED_ELEMENTS)) {
                s[axis] = (s[axis] + 1) / 2;
                if (axis == 1 && s.length == 6) {
                    s[2] = (s[2] + 1) / 2;
                }
            }
        }
        return s;
    }

    String id() {
        return name().toLowerCase(Locale.ROOT).replace('_', '-');
    }

    /** The sizes of a shape in one of the layouts. */
    long[] shape(String text) {
        String[] words = text.split(",", -1);
        boolean fits = Arrays.stream(layouts).anyMatch(layout -> layout.split(",").length == words.length);
        if (!fits || !Arrays.stream(words).allMatch(word -> SIZE.matcher(word).matches())) {
            throw new UsageException("--shape " + text + ": expected " + String.join(" or ", layouts)
                    + ", each a whole number from 1 to 999999999");
        }
        return Arrays.stream(words).mapToLong(Long::parseLong).toArray();
    }

    static BenchWork parse(String id) {
        for (BenchWork work : values()) {
            if (work.id().equals(id)) {
                return work;
            }
        }
        String known = Arrays.stream(values()).map(BenchWork::id).collect(Collectors.joining(", "));
        throw new UsageException("bench " + id + ": no such work, expected one of " + known);
    }

    /** The shape is B,T,S,NH,NKV,HS; each query sees the keys up to its own position, counted from the end. */
    private static double attentionFlops(long[] s, Pass pass) {
        double seen = s[1] <= s[2] ? s[1] * (s[2] - s[1] / 2.0) : s[2] * (s[2] / 2.0);
        return share(4 * product(s[0], s[3], s[5]) * seen, 2.5, pass);
    }

    /** The flops of a pass, from those of the forward pass and how many times as many the backward pass has. */
    private static double share(double forward, double backward, Pass pass) {
        return forward * ((pass.forward() ? 1 : 0) + (pass.backward() ? backward : 0));
    }

    private static double product(long... sizes) {
        return Arrays.stream(sizes).mapToDouble(size -> size).reduce(1, (a, b) -> a * b);
    }
}
