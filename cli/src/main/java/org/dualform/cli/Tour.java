package org.dualform.cli;

import java.io.PrintWriter;
import java.util.Arrays;
import java.util.Locale;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.DualForm;
import org.dualform.Ops;
import org.dualform.Tensor;

/** A short tour which checks what it shows, in float64: the dual form of gradient descent, then momentum attention. */
final class Tour {
    /** Inputs and outputs of the layer; equal, so that one attention head can hold the examples. */
    private static final int WIDTH = 32;
    private static final int EXAMPLES = 24;
    private static final int QUERIES = 8;
    private static final double LEARNING_RATE = 0.01;
    private static final double LIMIT = 1e-12;
    private static final long SEED = 2212;

    private final PrintWriter out;
    private boolean sound = true;

    Tour(PrintWriter out) {
        this.out = out;
    }

    /** Prints the tour; false if an identity failed. */
    boolean holds() {
        try (Device device = Device.cpu()) { // float64 is the CPU's
            dualForm(device);
            say("");
            momentum(device);
        }
        return sound;
    }

    private void dualForm(Device device) {
        say("1. Gradient descent is linear attention");
        say("   A linear layer W0 (" + WIDTH + "x" + WIDTH + ") learns " + EXAMPLES
                + " examples x' -> y by SGD on |Wx' - y|^2/2, one at a time. Each step adds");
        say("   the outer product of an error signal and its input, e_i x'_i^T with e_i = " + LEARNING_RATE
                + " (y_i - W x'_i), so after training");
        say("       W x  =  (W0 + dW) x  =  W0 x + LinAttn(E, X', x)  =  W0 x + sum_i e_i (x'_i . x)");
        say("   The examples act as keys x'_i and values e_i for the query x: attention without softmax.");
        say("");
        try (Tensor w0 = normal(device, 1, 1 / Math.sqrt(WIDTH), WIDTH, WIDTH);
                Tensor xp = normal(device, 2, 1, EXAMPLES, WIDTH);
                Tensor y = normal(device, 3, 1, EXAMPLES, WIDTH);
                Tensor x = normal(device, 4, 1, QUERIES, WIDTH);
                Tensor e = Tensor.zeros(device, DType.F64, EXAMPLES, WIDTH);
                Tensor dw = Tensor.empty(device, DType.F64, WIDTH, WIDTH)) {
            double[] trained = train(w0.toDoubles(), xp.toDoubles(), y.toDoubles(), e);
            double[] expected = apply(trained, x.toDoubles());
            Ops.deltaAccumulate(dw, e, xp, false);
            say("   dW = sum_i e_i x'_i^T        against the trained W - W0:   "
                    + verdict(difference(dw.toDoubles(), minus(trained, w0.toDoubles()))));
            try (Tensor primal = Tensor.empty(device, DType.F64, QUERIES, WIDTH);
                    Tensor dual = Tensor.empty(device, DType.F64, QUERIES, WIDTH)) {
                Ops.dualFormForward(primal, null, w0, e, xp, x, DualForm.PRIMAL);
                Ops.dualFormForward(dual, null, w0, e, xp, x, DualForm.DUAL);
                say("   (W0 + dW) x                  against sequential SGD:       " + verdict(difference(primal.toDoubles(), expected)));
                say("   W0 x + LinAttn(E, X', x)     against (W0 + dW) x:          "
                        + verdict(difference(dual.toDoubles(), primal.toDoubles())));
                say("   the op linear-attention      against dW x:                 " + verdict(linearAttention(device, e, xp, x, dw)));
                double before = loss(w0.toDoubles(), xp.toDoubles(), y.toDoubles());
                double after = loss(trained, xp.toDoubles(), y.toDoubles());
                say(String.format(Locale.ROOT, "   Loss on the examples: %.3f before, %.3f after.", before, after));
            }
        }
    }

    /** One pass of SGD in plain Java; fills e with the error signals and returns the trained weights. */
    private static double[] train(double[] w0, double[] xp, double[] y, Tensor e) {
        double[] w = w0.clone();
        double[] errors = new double[EXAMPLES * WIDTH];
        for (int i = 0; i < EXAMPLES; i++) {
            double[] input = Arrays.copyOfRange(xp, i * WIDTH, (i + 1) * WIDTH);
            double[] predicted = apply(w, input);
            for (int o = 0; o < WIDTH; o++) {
                double error = LEARNING_RATE * (y[i * WIDTH + o] - predicted[o]);
                errors[i * WIDTH + o] = error;
                for (int c = 0; c < WIDTH; c++) {
                    w[o * WIDTH + c] += error * input[c];
                }
            }
        }
        e.write(errors);
        return w;
    }

    /** The examples as keys and values of one head, each query as the token after them, against dW x. */
    private static double linearAttention(Device device, Tensor e, Tensor xp, Tensor x, Tensor dw) {
        double worst = 0;
        double[] queries = x.toDoubles();
        double[] weights = dw.toDoubles();
        for (int m = 0; m < QUERIES; m++) {
            double[] query = Arrays.copyOfRange(queries, m * WIDTH, (m + 1) * WIDTH);
            double[] q = new double[(EXAMPLES + 1) * WIDTH];
            System.arraycopy(query, 0, q, EXAMPLES * WIDTH, WIDTH);
            long[] shape = {1, EXAMPLES + 1, 1, WIDTH};
            try (Tensor qs = Tensor.of(device, q, shape);
                    Tensor ks = Tensor.of(device, Arrays.copyOf(xp.toDoubles(), q.length), shape);
                    Tensor vs = Tensor.of(device, Arrays.copyOf(e.toDoubles(), q.length), shape);
                    Tensor attended = Tensor.empty(device, DType.F64, shape)) {
                Ops.linearAttentionForward(attended, null, qs, ks, vs, null, null);
                double[] all = attended.toDoubles();
                worst = Math.max(worst, difference(Arrays.copyOfRange(all, EXAMPLES * WIDTH, all.length), apply(weights, query)));
            }
        }
        return worst;
    }

    private void momentum(Device device) {
        int time = 8;
        int head = 16;
        double[] etas = {0, 0.5, 0.9};
        say("2. Momentum attention");
        say("   SGD with momentum remembers past updates; momentum attention remembers past values:");
        say("       out_t = attention_t + sum_{s<t} eta^(t-s) v_s");
        say("   One channel of the output for " + time + " tokens (causal, values around 1), and the largest difference from attention:");
        say("");
        long[] shape = {1, time, 1, head};
        try (Tensor q = normal(device, 5, 1, shape);
                Tensor k = normal(device, 6, 1, shape);
                Tensor v = Tensor.empty(device, DType.F64, shape);
                Tensor plain = Tensor.empty(device, DType.F64, shape);
                Tensor momentum = Tensor.empty(device, DType.F64, shape);
                Tensor lse = Tensor.empty(device, DType.F64, 1, 1, time)) {
            Ops.randomNormal(v, SEED, 7L << 32, 1, 0.25);
            double scale = 1 / Math.sqrt(head);
            Ops.attentionForward(plain, lse, q, k, v, null, scale, true);
            double[] attention = plain.toDoubles();
            StringBuilder title = new StringBuilder("   t          ");
            for (int t = 1; t <= time; t++) {
                title.append(String.format(Locale.ROOT, "%8d", t));
            }
            say(title.toString());
            say("   attention  " + row(attention, head));
            for (double eta : etas) {
                try (Tensor etaPerHead = Tensor.full(device, DType.F64, eta, 1)) {
                    Ops.momentumAttentionForward(momentum, null, lse, null, q, k, v, null, etaPerHead, null, scale);
                }
                double[] values = momentum.toDoubles();
                say(String.format(Locale.ROOT, "   eta %.1f    %s   %s", eta, row(values, head), remark(eta, values, attention)));
            }
        }
    }

    private String remark(double eta, double[] values, double[] attention) {
        if (eta != 0) {
            return String.format(Locale.ROOT, "%.3f", difference(values, attention));
        }
        boolean equal = true;
        for (int i = 0; i < values.length; i++) {
            equal &= Double.doubleToRawLongBits(values[i]) == Double.doubleToRawLongBits(attention[i]);
        }
        sound &= equal;
        return equal ? "equal in every bit" : "FAILED: not equal in every bit";
    }

    private String verdict(double difference) {
        boolean holds = difference <= LIMIT;
        sound &= holds;
        return String.format(Locale.ROOT, "max difference %.1e  %s (limit %.0e)", difference, holds ? "ok" : "FAILED", LIMIT);
    }

    private void say(String line) {
        out.println(line);
    }

    private static String row(double[] values, int head) {
        StringBuilder row = new StringBuilder();
        for (int at = 0; at < values.length; at += head) {
            row.append(String.format(Locale.ROOT, "%8.3f", values[at]));
        }
        return row.toString();
    }

    private static Tensor normal(Device device, long stream, double deviation, long... shape) {
        Tensor tensor = Tensor.empty(device, DType.F64, shape);
        Ops.randomNormal(tensor, SEED, stream << 32, 0, deviation);
        return tensor;
    }

    /** w x for one input or for rows of inputs. */
    private static double[] apply(double[] w, double[] x) {
        double[] result = new double[x.length];
        for (int n = 0; n < x.length / WIDTH; n++) {
            for (int o = 0; o < WIDTH; o++) {
                double sum = 0;
                for (int c = 0; c < WIDTH; c++) {
                    sum += w[o * WIDTH + c] * x[n * WIDTH + c];
                }
                result[n * WIDTH + o] = sum;
            }
        }
        return result;
    }

    private static double loss(double[] w, double[] xp, double[] y) {
        double[] error = minus(apply(w, xp), y);
        return Arrays.stream(error).map(value -> value * value).sum() / 2 / EXAMPLES;
    }

    private static double[] minus(double[] a, double[] b) {
        double[] result = new double[a.length];
        Arrays.setAll(result, i -> a[i] - b[i]);
        return result;
    }

    /** NaN where either has one. */
    private static double difference(double[] a, double[] b) {
        double worst = 0;
        for (double value : minus(a, b)) {
            worst = Math.max(worst, Math.abs(value)); // Math.max keeps a NaN
        }
        return worst;
    }
}
