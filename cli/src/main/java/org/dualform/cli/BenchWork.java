package org.dualform.cli;

import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.dualform.Binary;
import org.dualform.Ops;
import org.dualform.Reduction;
import org.dualform.Unary;

/** The works of {@code bench}: which shapes they take, and how many floating-point operations their formulas ask for. */
enum BenchWork {
    ATTENTION("B,T,NH,HS", "B,T,S,NH,NKV,HS") {
        @Override
        long[] normalized(long[] s) {
            return s.length == 4 ? new long[] {s[0], s[1], s[1], s[2], s[2], s[3]} : s;
        }

        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
            return new AttentionWork(tensors, shape, pass, settings, false);
        }

        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return attentionFlops(s, pass, settings);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return product(s[0], Math.max(s[1], s[2]), s[3], s[5]);
        }
    },

    MOMENTUM_ATTENTION("B,T,NH,HS", "B,T,S,NH,NKV,HS") {
        @Override
        long[] normalized(long[] s) {
            return ATTENTION.normalized(s);
        }

        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
            return new AttentionWork(tensors, shape, pass, settings, true);
        }

        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return attentionFlops(s, pass, settings);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return ATTENTION.elements(s, settings);
        }
    },

    LINEAR_ATTENTION("B,T,NH,HS") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
            return new LinearAttentionWork(tensors, shape, pass, settings);
        }

        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return share(4 * product(s[0], s[1], s[2], s[3], s[3]), 2.5, pass);
        }
    },

    LINEAR_ATTENTION_STEP(OpWorks::linearAttentionStep, false, "B,NH,HS") {
        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return 4 * product(s[0], s[1], s[2], s[2]);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return product(s[0], s[1], s[2], s[2]);
        }
    },

    DUAL_FORM("N,M,O,I", "P,N,M,O,I") {
        @Override
        long[] normalized(long[] s) {
            return s.length == 4 ? new long[] {1, s[0], s[1], s[2], s[3]} : s;
        }

        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
            return new DualFormWork(tensors, shape, pass);
        }

        /** Forward in the cheaper of both forms; backward the four products of its formulas, and deltaW once more. */
        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            double primal = 2 * product(s[3], s[4]) * ((double) s[1] + s[2]);
            double dual = 2 * ((double) s[3] * s[4] + product(s[1], s[3]) + product(s[1], s[4])) * s[2];
            double backward = 2 * product(s[3], s[4]) * (2.0 * s[2] + 3.0 * s[1]);
            return s[0] * ((pass.forward() ? Math.min(primal, dual) : 0) + (pass.backward() ? backward : 0));
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return product(s[0], Math.max(s[1], Math.max(s[2], s[3])), Math.max(s[3], s[4]));
        }
    },

    DELTA_ACCUMULATE(OpWorks::deltaAccumulate, false, "N,O,I") {
        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return 2 * product(s);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return MATMUL.elements(s, settings);
        }
    },

    DELTA_APPLY(OpWorks::deltaApply, false, "M,O,I") {
        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return 2 * product(s);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return MATMUL.elements(s, settings);
        }
    },

    MATMUL("M,N,K") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
            return new MatmulWork(tensors, shape, pass);
        }

        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return share(2 * product(s), 2, pass);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return Math.max(product(s[0], s[1]), Math.max(product(s[0], s[2]), product(s[1], s[2])));
        }
    },

    MATMUL_GELU(OpWorks::matmulGelu, true, "M,N,K") {
        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return share(2 * product(s), 1, pass);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return MATMUL.elements(s, settings);
        }
    },

    GPT_STEP("B,T,layers,width,heads") {
        @Override
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
            return new GptStepWork(tensors, shape, pass, settings);
        }

        @Override
        double flops(long[] s, Pass pass, BenchSettings settings) {
            return GptStepWork.flops(s, pass, settings);
        }

        @Override
        double elements(long[] s, BenchSettings settings) {
            return product(s[0], s[1], Math.max(4 * s[3], settings.vocabulary()));
        }

        @Override
        Pass usualPass() {
            return Pass.BOTH;
        }
    },

    LAYERNORM((t, s, pass, settings) -> new LayernormWork(t, s, pass, false), true, "N,C"),
    RESIDUAL_LAYERNORM((t, s, pass, settings) -> new LayernormWork(t, s, pass, true), true, "N,C"),
    GELU((t, s, pass, settings) -> new GeluWork(t, s, pass), true, "N,C"),
    CROSS_ENTROPY((t, s, pass, settings) -> new CrossEntropyWork(t, s, pass), true, "N,V"),
    EMBEDDING(OpWorks::embedding, true, "B,T,V,C") {
        @Override
        double elements(long[] s, BenchSettings settings) {
            return s[3] * Math.max(product(s[0], s[1]), s[2]);
        }
    },
    BIAS_BACKWARD(OpWorks::biasBackward, false, "N,C"),
    ADAMW((t, s, pass, settings) -> OpWorks.optimizer(t, s, pass, OpWorks.Rule.ADAMW), false, "N"),
    ADAMW_RANGES((t, s, pass, settings) -> OpWorks.optimizer(t, s, pass, OpWorks.Rule.ADAMW_RANGES), false, "N"),
    SGD((t, s, pass, settings) -> OpWorks.optimizer(t, s, pass, OpWorks.Rule.SGD), false, "N"),
    SQUARED_NORM(OpWorks::squaredNorm, false, "N"),
    CLIP_SCALE(OpWorks::clipScale, false, "N"),
    NEG(Unary.NEG),
    EXP(Unary.EXP),
    LOG(Unary.LOG),
    SQRT(Unary.SQRT),
    RSQRT(Unary.RSQRT),
    RECIPROCAL(Unary.RECIPROCAL),
    SQUARE(Unary.SQUARE),
    ABS(Unary.ABS),
    TANH(Unary.TANH),
    SIGMOID(Unary.SIGMOID),
    RELU(Unary.RELU),
    SIN(Unary.SIN),
    COS(Unary.COS),
    ADD(Binary.ADD),
    SUB(Binary.SUB),
    MUL(Binary.MUL),
    DIV(Binary.DIV),
    MAX(Binary.MAX),
    MIN(Binary.MIN),
    AFFINE((t, s, pass, settings) -> OpWorks.mapping(t, s, pass, (out, x) -> Ops.affine(out, x, 1.5, -0.25)), false, "N"),
    COPY((t, s, pass, settings) -> OpWorks.mapping(t, s, pass, Ops::copy), false, "N"),
    FILL((t, s, pass, settings) -> OpWorks.writing(t, s, pass, out -> Ops.fill(out, 0.5)), false, "N"),
    REDUCE_SUM(Reduction.SUM),
    REDUCE_MEAN(Reduction.MEAN),
    REDUCE_MAX(Reduction.MAX),
    REDUCE_MIN(Reduction.MIN),
    ARGMAX(OpWorks::argmax, false, "N,C"),
    RANDOM_UNIFORM((t, s, pass, settings) -> OpWorks.writing(t, s, pass, out -> Ops.randomUniform(out, 7, 0, 0, 1)), false, "N"),
    RANDOM_NORMAL((t, s, pass, settings) -> OpWorks.writing(t, s, pass, out -> Ops.randomNormal(out, 7, 0, 0, 1)), false, "N");

    /** How a work is made of sizes. */
    private interface Maker {
        Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings);
    }

    /** Float64 is slow: results are compared with it at no more than so many flops, and elements of the largest tensor. */
    private static final double COMPARED_FLOPS = 2e10;
    private static final double COMPARED_ELEMENTS = 1 << 24;
    private static final Pattern SIZE = Pattern.compile("[1-9]\\d{0,8}");

    private final Maker maker;
    private final boolean differentiable;
    private final String[] layouts;

    BenchWork(Maker maker, boolean differentiable, String... layouts) {
        this.maker = maker;
        this.differentiable = differentiable;
        this.layouts = layouts;
    }

    BenchWork(String... layouts) {
        this(null, true, layouts); // makes its workloads itself
    }

    BenchWork(Unary op) {
        this((t, s, pass, settings) -> OpWorks.unary(t, s, pass, op), true, "N");
    }

    BenchWork(Binary op) {
        this((t, s, pass, settings) -> OpWorks.binary(t, s, pass, op), false, "N");
    }

    BenchWork(Reduction op) {
        this((t, s, pass, settings) -> OpWorks.reduce(t, s, pass, op), true, "N,C");
    }

    boolean isDifferentiable() {
        return differentiable;
    }

    List<String> layouts() {
        return List.of(layouts);
    }

    /** The layout with the most axes, from any. */
    long[] normalized(long[] shape) {
        return shape;
    }

    Workload make(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
        return maker.make(tensors, shape, pass, settings);
    }

    /** Of the formula, whatever the algorithm; 0 where bytes are what counts. */
    double flops(long[] shape, Pass pass, BenchSettings settings) {
        return 0;
    }

    /** Elements of the largest tensor. */
    double elements(long[] shape, BenchSettings settings) {
        return product(shape);
    }

    Pass usualPass() {
        return Pass.FORWARD;
    }

    /**
     * The shape at which results are compared with float64: the whole one if it is small enough, else with its first axis halved until it
     * is, then its second. Keys are halved with queries.
     */
    long[] compared(long[] shape, Pass pass, BenchSettings settings) {
        long[] s = shape.clone();
        for (int axis = 0; axis < s.length; axis++) {
            while (s[axis] > 1 && (flops(s, pass, settings) > COMPARED_FLOPS || elements(s, settings) > COMPARED_ELEMENTS)) {
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

    /** The shape is B,T,S,NH,NKV,HS; if causal, each query sees the keys up to its own position, counted from the end. */
    private static double attentionFlops(long[] s, Pass pass, BenchSettings settings) {
        double seen = !settings.causal() ? (double) s[1] * s[2] : s[1] <= s[2] ? s[1] * (s[2] - s[1] / 2.0) : s[2] * (s[2] / 2.0);
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
