package org.dualform.cli;

import java.io.IOException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.dualform.DType;
import org.dualform.Ops;
import org.dualform.Tensor;

/** The operations of {@code op}: which tensors and settings each reads, and what it writes. Formulas: df_ops.h. */
enum Operation {
    ATTENTION(List.of("q", "k", "v"), "causal", "scale") {
        @Override
        Map<String, Tensor> run(Inputs in, Settings settings, boolean backward) throws IOException {
            boolean causal = settings.truth("causal", true);
            Heads heads = new Heads(in, settings);
            Tensor out = in.like(heads.q);
            Tensor lse = heads.lse(in);
            Tensor dout = backward ? in.load("dout", QUERIES) : null;
            Ops.attentionForward(out, lse, heads.q, heads.k, heads.v, heads.lengths, heads.scale, causal);
            Map<String, Tensor> results = results("out", out, "lse", lse);
            if (backward) {
                Tensor dq = in.like(heads.q);
                Tensor dk = in.like(heads.k);
                Tensor dv = in.like(heads.v);
                Ops.attentionBackward(dq, dk, dv, dout, heads.q, heads.k, heads.v, out, lse, heads.lengths, heads.scale, causal);
                results.putAll(results("dq", dq, "dk", dk, "dv", dv));
            }
            return results;
        }
    },

    MOMENTUM_ATTENTION(List.of("q", "k", "v"), "causal", "scale", "eta") {
        @Override
        Map<String, Tensor> run(Inputs in, Settings settings, boolean backward) throws IOException {
            if (!settings.truth("causal", true)) {
                throw new UsageException("causal: 'false', momentum attention is causal only");
            }
            Heads heads = new Heads(in, settings);
            Tensor eta = eta(in, settings, heads.q.size(2));
            Tensor out = in.like(heads.q);
            Tensor attn = backward ? in.like(heads.q) : null;
            Tensor lse = heads.lse(in);
            Tensor dout = backward ? in.load("dout", QUERIES) : null;
            Ops.momentumAttentionForward(out, attn, lse, null, heads.q, heads.k, heads.v, heads.lengths, eta, null, heads.scale);
            Map<String, Tensor> results = results("out", out, "lse", lse);
            if (backward) {
                Tensor dq = in.like(heads.q);
                Tensor dk = in.like(heads.k);
                Tensor dv = in.like(heads.v);
                Tensor deta = in.like(eta);
                Ops.momentumAttentionBackward(
                        dq, dk, dv, deta, dout, heads.q, heads.k, heads.v, attn, lse, heads.lengths, eta, heads.scale, false);
                results.putAll(results("dq", dq, "dk", dk, "dv", dv, "deta", in.rounded(deta)));
            }
            return results;
        }

        private Tensor eta(Inputs in, Settings settings, long heads) throws IOException {
            if (in.has("eta") && settings.has("eta")) {
                throw new UsageException("eta: given both as a tensor and as a setting, expected one of them");
            }
            if (in.has("eta")) {
                Tensor eta = in.load("eta", "(NH)");
                Inputs.checkRange("eta", eta, 0, 1, false);
                return eta;
            }
            if (!settings.has("eta")) {
                throw new UsageException("eta: missing, expected a tensor eta (NH) in the input file or --set eta=number");
            }
            double value = settings.number("eta", 0);
            Inputs.checkRange("eta", value, 0, 1, false);
            // A number is not rounded to the inputs' dtype, but it must stay below 1 in the dtype it is kept in.
            if (in.dtype() != DType.F64 && (float) value >= 1) {
                throw new UsageException("eta: " + value + " rounds to 1 in F32, expected less");
            }
            return in.full(in.dtype().accumulation(), value, heads);
        }
    },

    DUAL_FORM(List.of("w0", "e", "xp", "x"), "form") {
        @Override
        Map<String, Tensor> run(Inputs in, Settings settings, boolean backward) throws IOException {
            var form = settings.form("form");
            Tensor w0 = in.load("w0", "(O,I)");
            Tensor e = in.load("e", "(N,O)");
            Tensor xp = in.load("xp", "(N,I)");
            Tensor x = in.load("x", "(M,I)");
            Tensor dout = backward ? in.load("dout", "(M,O)") : null;
            Tensor out = in.make(in.dtype(), x.size(0), w0.size(0));
            Tensor dw = in.make(in.dtype().accumulation(), w0.shape());
            Ops.dualFormForward(out, dw, w0, e, xp, x, form);
            Map<String, Tensor> results = results("out", out, "dw", dw);
            if (backward) {
                Tensor dw0 = in.like(w0);
                Tensor de = in.like(e);
                Tensor dxp = in.like(xp);
                Tensor dx = in.like(x);
                Ops.dualFormBackward(dw0, de, dxp, dx, dout, w0, e, xp, x, form, false);
                results.putAll(results("dw0", dw0, "de", de, "dxp", dxp, "dx", dx));
            }
            return results;
        }
    },

    LINEAR_ATTENTION(List.of("q", "k", "v")) {
        @Override
        Map<String, Tensor> run(Inputs in, Settings settings, boolean backward) throws IOException {
            Tensor q = in.load("q", QUERIES);
            Tensor k = in.load("k", QUERIES);
            Tensor v = in.load("v", QUERIES);
            DType wide = in.dtype().accumulation();
            Tensor decay = in.loadIfPresent("decay", "(NH)", in.dtype(), in.dtype());
            Tensor s0 = in.loadIfPresent("s0", "(B,NH,HS,HS)", in.dtype(), wide);
            Tensor dout = backward ? in.load("dout", QUERIES) : null;
            if (decay != null) {
                Inputs.checkRange("decay", decay, 0, 1, true);
            }
            Tensor out = in.like(q);
            Tensor state = in.make(wide, q.size(0), q.size(2), q.size(3), q.size(3));
            if (s0 != null && !Arrays.equals(s0.shape(), state.shape())) {
                throw new UsageException("s0: shape " + Arrays.toString(s0.shape()) + ", expected " + Arrays.toString(state.shape()));
            }
            Ops.linearAttentionForward(out, state, q, k, v, decay, s0);
            Map<String, Tensor> results = results("out", out, "state", state);
            if (backward) {
                Tensor dq = in.like(q);
                Tensor dk = in.like(k);
                Tensor dv = in.like(v);
                Tensor ddecay = decay == null ? null : in.like(decay);
                Tensor ds0 = s0 == null ? null : in.like(s0);
                Ops.linearAttentionBackward(dq, dk, dv, ddecay, ds0, dout, null, q, k, v, decay, s0, false);
                results.putAll(results("dq", dq, "dk", dk, "dv", dv));
                if (ddecay != null) {
                    results.put("ddecay", ddecay);
                }
                if (ds0 != null) {
                    results.put("ds0", in.rounded(ds0));
                }
            }
            return results;
        }
    };

    private static final String QUERIES = "(B,T,NH,HS)";
    private static final String KEYS = "(B,S,NKV,HS)";

    private final List<String> main;
    private final Set<String> settings;

    Operation(List<String> main, String... settings) {
        this.main = main;
        this.settings = new LinkedHashSet<>(List.of(settings));
    }

    /** Reads what it needs, computes, and returns the results by name. */
    abstract Map<String, Tensor> run(Inputs in, Settings settings, boolean backward) throws IOException;

    /** The tensors it cannot do without, which share the dtype it computes in. */
    List<String> main() {
        return main;
    }

    Set<String> settings() {
        return settings;
    }

    String id() {
        return name().toLowerCase(java.util.Locale.ROOT).replace('_', '-');
    }

    static Operation parse(String id) {
        for (Operation operation : values()) {
            if (operation.id().equals(id)) {
                return operation;
            }
        }
        String known = Arrays.stream(values()).map(Operation::id).collect(Collectors.joining(", "));
        throw new UsageException("op " + id + ": no such operation, expected one of " + known);
    }

    /** What both kinds of softmax attention read. */
    private static final class Heads {
        final Tensor q;
        final Tensor k;
        final Tensor v;
        final Tensor lengths;
        final double scale;

        Heads(Inputs in, Settings settings) throws IOException {
            double given = settings.number("scale", Double.NaN);
            q = in.load("q", QUERIES);
            k = in.load("k", KEYS);
            v = in.load("v", KEYS);
            lengths = in.loadIfPresent("lengths", "(B)", DType.I32, DType.I32);
            if (lengths != null) {
                Inputs.checkRange("lengths", lengths, 0, k.size(1), true);
            }
            scale = Double.isNaN(given) ? 1 / Math.sqrt(q.size(3)) : given;
        }

        Tensor lse(Inputs in) {
            return in.make(in.dtype().accumulation(), q.size(0), q.size(2), q.size(1));
        }
    }

    private static Map<String, Tensor> results(Object... namesAndTensors) {
        Map<String, Tensor> results = new LinkedHashMap<>();
        for (int i = 0; i < namesAndTensors.length; i += 2) {
            results.put((String) namesAndTensors[i], (Tensor) namesAndTensors[i + 1]);
        }
        return results;
    }
}
