package org.dualform.cli;

/** The four operations of {@code op} in plain loops over doubles, as their formulas are written. */
final class Naive {
    private Naive() {}

    /** Row-major tensor of rank 4. */
    private static int at(int[] shape, int a, int b, int c, int d) {
        return ((a * shape[1] + b) * shape[2] + c) * shape[3] + d;
    }

    /** Softmax attention, plus the momentum term when eta (one value per query head) is given. Returns out and lse. */
    static double[][] attention(double[] q, int[] qs, double[] k, double[] v, int[] ks, int[] lengths, double scale, boolean causal,
            double[] eta) {
        int time = qs[1];
        int keys = ks[1];
        double[] out = new double[q.length];
        double[] lse = new double[qs[0] * qs[2] * time];
        for (int b = 0; b < qs[0]; b++) {
            int length = lengths == null ? keys : lengths[b];
            for (int h = 0; h < qs[2]; h++) {
                int g = h / (qs[2] / ks[2]);
                for (int t = 0; t < time; t++) {
                    int position = t + keys - time;
                    double total = 0;
                    double[] weights = new double[keys];
                    double largest = Double.NEGATIVE_INFINITY;
                    for (int s = 0; s < length; s++) {
                        weights[s] = Double.NEGATIVE_INFINITY;
                        if (!causal || s <= position) {
                            weights[s] = 0;
                            for (int c = 0; c < qs[3]; c++) {
                                weights[s] += scale * q[at(qs, b, t, h, c)] * k[at(ks, b, s, g, c)];
                            }
                            largest = Math.max(largest, weights[s]);
                        }
                    }
                    for (int s = 0; s < length; s++) {
                        weights[s] = largest == Double.NEGATIVE_INFINITY ? 0 : Math.exp(weights[s] - largest);
                        total += weights[s];
                    }
                    lse[(b * qs[2] + h) * time + t] = largest + Math.log(total);
                    for (int s = 0; s < length; s++) {
                        double weight = total == 0 ? 0 : weights[s] / total;
                        if (eta != null && s < position) {
                            weight += Math.pow(eta[h], position - s);
                        }
                        for (int c = 0; c < qs[3]; c++) {
                            out[at(qs, b, t, h, c)] += weight * v[at(ks, b, s, g, c)];
                        }
                    }
                }
            }
        }
        return new double[][] {out, lse};
    }

    /** out = x (w0 + e^T xp)^T, and e^T xp. */
    static double[][] dualForm(double[] w0, double[] e, double[] xp, double[] x, int n, int m, int o, int i) {
        double[] dw = new double[o * i];
        double[] out = new double[m * o];
        for (int row = 0; row < o; row++) {
            for (int column = 0; column < i; column++) {
                for (int example = 0; example < n; example++) {
                    dw[row * i + column] += e[example * o + row] * xp[example * i + column];
                }
                for (int query = 0; query < m; query++) {
                    out[query * o + row] += x[query * i + column] * (w0[row * i + column] + dw[row * i + column]);
                }
            }
        }
        return new double[][] {out, dw};
    }

    /** S = decay S + v k^T, out = S q. Returns out and the last S. */
    static double[][] linearAttention(double[] q, double[] k, double[] v, int[] shape, double[] decay, double[] s0) {
        int head = shape[3];
        double[] out = new double[q.length];
        double[] states = new double[shape[0] * shape[2] * head * head];
        for (int b = 0; b < shape[0]; b++) {
            for (int h = 0; h < shape[2]; h++) {
                int base = (b * shape[2] + h) * head * head;
                for (int i = 0; i < head * head; i++) {
                    states[base + i] = s0 == null ? 0 : s0[base + i];
                }
                for (int t = 0; t < shape[1]; t++) {
                    for (int row = 0; row < head; row++) {
                        for (int column = 0; column < head; column++) {
                            int cell = base + row * head + column;
                            double kept = (decay == null ? 1 : decay[h]) * states[cell];
                            states[cell] = kept + v[at(shape, b, t, h, row)] * k[at(shape, b, t, h, column)];
                            out[at(shape, b, t, h, row)] += states[cell] * q[at(shape, b, t, h, column)];
                        }
                    }
                }
            }
        }
        return new double[][] {out, states};
    }
}
