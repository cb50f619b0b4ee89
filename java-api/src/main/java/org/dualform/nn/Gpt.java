package org.dualform.nn;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Gelu;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.Unary;
import org.dualform.autograd.ResidualLayernorm;
import org.dualform.autograd.Tape;
import org.dualform.nn.Parameters.Slot;

/**
 * A pre-LN GPT with the layout of GPT-2: token and position embeddings, blocks of attention and feed-forward, a final LayerNorm, and the
 * token embeddings again as output layer. The attention is softmax, momentum or linear; see {@link GptConfig}.
 *
 * <p>Parameters are named as in GPT-2, with queries, keys and values apart: {@code wte.weight} (V,C), {@code wpe.weight} (T,C), and for
 * each block {@code h.i.ln_1.*}, {@code h.i.attn.q_proj.*}, {@code k_proj}, {@code v_proj}, {@code c_proj}, {@code h.i.ln_2.*},
 * {@code h.i.mlp.c_fc.*}, {@code c_proj}, then {@code ln_f.*}; where eta is learned also {@code h.i.attn.eta_logit} (NH).
 *
 * <p>Results belong to the tape that is passed in. With {@link #declare} before, they are recorded for the backward pass.
 *
 * <pre>{@code
 * GptConfig config = GptConfig.of(vocabulary, 128, 2, 128, 4).withMomentumAttention(0.5);
 * try (Gpt gpt = Gpt.create(device, config, DType.F32, seed);
 *         AdamW optimizer = new AdamW(gpt.parameters(), 0.9, 0.95, 1e-8, 0.1);
 *         GradientNorm norm = new GradientNorm(gpt.parameters())) {
 *     gpt.parameters().clearGradients();                          // a training step:
 *     try (Tape tape = new Tape(device)) {
 *         gpt.declare(tape);
 *         tape.backward(gpt.loss(tape, ids, targets));            // ids and targets (B,T)
 *     }
 *     norm.measure();
 *     optimizer.step(2e-3, norm.clip(1));
 *     try (Generator generator = new Generator(gpt)) {            // and what the model says after a prompt
 *         int[] tokens = generator.generate(prompt, Sampling.random(100, 0.8, 40, seed));
 *     }
 * }
 * }</pre>
 *
 * <p>Threading: one thread at a time.
 */
public final class Gpt implements AutoCloseable {
    /** Target of a position that does not count in the loss. */
    public static final int IGNORE = -1;

    /** A learned eta stops here, where values 1,000 tokens back still count a third: the operation needs eta below 1, also when rounded. */
    private static final double LARGEST_ETA = 1 - 0x1p-10;

    private static final int MAX_TABLE = 1 << 28;

    private final GptConfig config;
    private final Device device;
    private final Parameters parameters;
    private final Tensor wte;
    private final Tensor wpe;
    private final List<Block> blocks = new ArrayList<>();
    private final Tensor lnWeight;
    private final Tensor lnBias;
    /** Constants: the table of sines, the fixed eta or decay of each head. */
    private final List<Tensor> constants = new ArrayList<>();
    private final Tensor eta;
    private final Tensor etaLimit;
    private final Tensor decay;

    /** The tensors of one block. */
    private record Block(Tensor ln1Weight, Tensor ln1Bias, Tensor qkvWeight, Tensor qkvBias, Tensor etaLogit, Tensor attnWeight,
            Tensor attnBias, Tensor ln2Weight, Tensor ln2Bias, Tensor fcWeight, Tensor fcBias, Tensor mlpWeight, Tensor mlpBias) {}

    /** The residual stream between blocks: what is there, and what the last layer adds to it. */
    private record Stream(Tensor added, Tensor residual) {}

    /** With all parameters zero. */
    Gpt(Device device, GptConfig config, DType dtype) {
        this.device = device;
        this.config = config;
        parameters = new Parameters(device, dtype, slots(config));
        try {
            wte = value("wte.weight");
            wpe = config.positions() == Positions.LEARNED ? value("wpe.weight") : constant(sinusoids(config), dtype, config.context(),
                    config.width());
            for (int layer = 0; layer < config.layers(); layer++) {
                String h = "h." + layer + ".";
                blocks.add(new Block(value(h + "ln_1.weight"), value(h + "ln_1.bias"), value(h + "attn.qkv.weight"),
                        value(h + "attn.qkv.bias"), config.learnedEta() ? value(h + "attn.eta_logit") : null,
                        value(h + "attn.c_proj.weight"), value(h + "attn.c_proj.bias"), value(h + "ln_2.weight"), value(h + "ln_2.bias"),
                        value(h + "mlp.c_fc.weight"), value(h + "mlp.c_fc.bias"), value(h + "mlp.c_proj.weight"),
                        value(h + "mlp.c_proj.bias")));
            }
            lnWeight = value("ln_f.weight");
            lnBias = value("ln_f.bias");
            DType accumulation = dtype.accumulation();
            boolean fixedEta = config.attention() == AttentionKind.MOMENTUM && !config.learnedEta();
            eta = fixedEta ? constant(equal(config, config.eta()), accumulation, config.heads()) : null;
            etaLimit = config.learnedEta() ? constant(equal(config, LARGEST_ETA), accumulation, config.heads()) : null;
            decay = config.attention() == AttentionKind.LINEAR ? constant(decays(config), accumulation, config.heads()) : null;
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    private static List<Slot> slots(GptConfig config) {
        List<Slot> outer = outerSlots(config);
        List<Slot> slots = new ArrayList<>(outer.subList(0, outer.size() - 2));
        for (int layer = 0; layer < config.layers(); layer++) {
            slots.addAll(layerSlots(config, layer));
        }
        slots.addAll(outer.subList(outer.size() - 2, outer.size()));
        return slots;
    }

    /** The embeddings, then weight and bias of the final LayerNorm. */
    static List<Slot> outerSlots(GptConfig config) {
        List<Slot> slots = new ArrayList<>();
        slots.add(slot("wte.weight", true, config.vocabulary(), config.width()));
        if (config.positions() == Positions.LEARNED) {
            slots.add(slot("wpe.weight", true, config.context(), config.width()));
        }
        linear(slots, "ln_f", false, config.width());
        return slots;
    }

    static List<Slot> layerSlots(GptConfig config, int layer) {
        long c = config.width();
        String h = "h." + layer + ".";
        List<Slot> slots = new ArrayList<>();
        linear(slots, h + "ln_1", false, c);
        for (String part : new String[] {"weight", "bias"}) {
            List<String> rows = List.of(h + "attn.q_proj." + part, h + "attn.k_proj." + part, h + "attn.v_proj." + part);
            boolean matrix = part.equals("weight");
            slots.add(new Slot(h + "attn.qkv." + part, matrix, rows, matrix ? new long[] {3 * c, c} : new long[] {3 * c}));
        }
        if (config.learnedEta()) {
            slots.add(slot(h + "attn.eta_logit", false, config.heads()));
        }
        linear(slots, h + "attn.c_proj", true, c, c);
        linear(slots, h + "ln_2", false, c);
        linear(slots, h + "mlp.c_fc", true, config.hidden(), c);
        linear(slots, h + "mlp.c_proj", true, c, config.hidden());
        return slots;
    }

    private static Slot slot(String name, boolean decayed, long... shape) {
        return new Slot(name, decayed, List.of(name), shape);
    }

    private static void linear(List<Slot> slots, String name, boolean decayed, long... shape) {
        slots.add(slot(name + ".weight", decayed, shape));
        slots.add(slot(name + ".bias", false, shape[0]));
    }

    private Tensor value(String slot) {
        return parameters.slot(slot).value;
    }

    private Tensor constant(double[] values, DType dtype, long... shape) {
        Tensor constant = Tensor.of(device, dtype, values, shape);
        constants.add(constant);
        return constant;
    }

    static double[] sinusoids(GptConfig config) {
        long size = (long) config.context() * config.width();
        if (size > MAX_TABLE) {
            throw new InvalidArgumentException("context: " + config.context() + " sinusoidal positions of width " + config.width()
                    + ", expected at most " + MAX_TABLE + " numbers");
        }
        double[] table = new double[(int) size];
        for (int t = 0; t < config.context(); t++) {
            for (int c = 0; c < config.width(); c++) {
                double angle = t * Math.pow(10000, -(c - c % 2) / (double) config.width());
                table[t * config.width() + c] = c % 2 == 0 ? Math.sin(angle) : Math.cos(angle);
            }
        }
        return table;
    }

    private static double[] equal(GptConfig config, double value) {
        double[] values = new double[config.heads()];
        Arrays.fill(values, value);
        return values;
    }

    private static double[] decays(GptConfig config) {
        double[] decays = new double[config.heads()];
        for (int h = 0; h < decays.length; h++) {
            decays[h] = Double.isNaN(config.decay()) ? 1 - Math.pow(2, -5 - h) : config.decay();
        }
        return decays;
    }

    /**
     * A model with fresh weights: normal with deviation 0.02, that of the projections into the residual stream divided by
     * {@code sqrt(2 L)}, biases 0, LayerNorms 1 (Radford et al. 2019). The same seed gives the same weights whatever the attention.
     *
     * @param device where it lives
     * @param config its shape
     * @param dtype it computes in; BF16 keeps a float32 master copy
     * @param seed of the draws
     * @return the model; the caller closes it
     * @throws InvalidArgumentException if dtype is I32
     */
    public static Gpt create(Device device, GptConfig config, DType dtype, long seed) {
        return create(device, config, dtype, seed, Initialization.GPT2);
    }

    /**
     * A model with fresh weights of other sizes.
     *
     * @param device where it lives
     * @param config its shape
     * @param dtype it computes in; BF16 keeps a float32 master copy
     * @param seed of the draws
     * @param initialization their deviations
     * @return the model; the caller closes it
     * @throws InvalidArgumentException if dtype is I32
     */
    public static Gpt create(Device device, GptConfig config, DType dtype, long seed, Initialization initialization) {
        requireFloating(dtype);
        Gpt gpt = new Gpt(device, config, dtype);
        gpt.initialize(seed, initialization);
        return gpt;
    }

    static void requireFloating(DType dtype) {
        if (!dtype.isFloating()) {
            throw new InvalidArgumentException("dtype: I32, expected a floating dtype");
        }
    }

    private void initialize(long seed, Initialization initialization) {
        double weights = initialization.weights();
        double residual = weights / Math.sqrt(2.0 * config.layers());
        draw("wte.weight", seed, 0, initialization.embeddings());
        if (config.positions() == Positions.LEARNED) {
            draw("wpe.weight", seed, 1, initialization.embeddings());
        }
        for (int layer = 0; layer < config.layers(); layer++) {
            String h = "h." + layer + ".";
            int stream = 2 + 4 * layer;
            Ops.fill(value(h + "ln_1.weight"), 1);
            draw(h + "attn.qkv.weight", seed, stream, weights);
            draw(h + "attn.c_proj.weight", seed, stream + 1, residual);
            Ops.fill(value(h + "ln_2.weight"), 1);
            draw(h + "mlp.c_fc.weight", seed, stream + 2, weights);
            draw(h + "mlp.c_proj.weight", seed, stream + 3, residual);
            if (config.learnedEta()) {
                Ops.fill(value(h + "attn.eta_logit"), Math.log(config.eta() / (1 - config.eta())));
            }
        }
        Ops.fill(lnWeight, 1);
        parameters.valuesChanged();
    }

    private void draw(String slot, long seed, int stream, double deviation) {
        Ops.randomNormal(value(slot), seed, (long) stream << 40, 0, deviation);
    }

    // ---- what it is ----

    /**
     * Its shape.
     *
     * @return the configuration
     */
    public GptConfig config() {
        return config;
    }

    /**
     * Its parameters.
     *
     * @return the model's
     */
    public Parameters parameters() {
        return parameters;
    }

    /**
     * Where it lives.
     *
     * @return the device
     */
    public Device device() {
        return device;
    }

    /**
     * Declares the trained parameters as leaves; their gradients are added to {@link Parameter#gradient}.
     *
     * @param tape a new tape
     */
    public void declare(Tape tape) {
        parameters.declare(tape);
    }

    // ---- forward ----

    /**
     * The last hidden states, after the final LayerNorm.
     *
     * @param tape owns the result
     * @param ids (B,T) I32, {@code T <= context}
     * @return (B,T,C)
     * @throws InvalidArgumentException if a shape or an id does not fit
     */
    public Tensor hidden(Tape tape, Tensor ids) {
        return hidden(tape, ids, null, null);
    }

    /**
     * The same, attending to what a cache holds as well and adding to it, and recorded by a probe.
     *
     * @param tape owns the result; without declared parameters when there is a cache
     * @param ids (B,T) I32
     * @param cache keys and values of what came before; null for none
     * @param probe records what passes; null for none
     * @return (B,T,C)
     * @throws InvalidArgumentException if a shape or an id does not fit
     */
    public Tensor hidden(Tape tape, Tensor ids, KvCache cache, Probe probe) {
        int position = cache == null ? 0 : cache.length();
        checkIds(ids, position);
        if (cache != null) {
            cache.requireFits(this, ids.size(0));
        }
        if (probe != null) {
            probe.requireFits(ids);
        }
        Stream stream = new Stream(tape.embedding(ids, wte, wpe, position), null);
        for (int layer = 0; layer < config.layers(); layer++) {
            stream = block(tape, layer, stream, cache, probe);
        }
        if (cache != null) {
            cache.advance((int) ids.size(1));
        }
        return tape.residualLayernorm(stream.added, stream.residual, lnWeight, lnBias, config.epsilon()).out();
    }

    private void checkIds(Tensor ids, int position) {
        if (ids.rank() != 2) {
            throw new InvalidArgumentException("ids: rank " + ids.rank() + ", expected (B,T)");
        }
        if (position + ids.size(1) > config.context()) {
            throw new InvalidArgumentException("ids: " + (position + ids.size(1)) + " tokens, expected at most the context of "
                    + config.context());
        }
    }

    private Stream block(Tape tape, int layer, Stream stream, KvCache cache, Probe probe) {
        Block w = blocks.get(layer);
        ResidualLayernorm first = tape.residualLayernorm(stream.added, stream.residual, w.ln1Weight, w.ln1Bias, config.epsilon());
        Tensor attended = attention(tape, layer, first.out(), cache, probe);
        ResidualLayernorm second = tape.residualLayernorm(attended, first.sum(), w.ln2Weight, w.ln2Bias, config.epsilon());
        Tensor out = tape.feedForward(second.out(), w.fcWeight, w.fcBias, w.mlpWeight, w.mlpBias, Gelu.TANH);
        return new Stream(out, second.sum());
    }

    private Tensor attention(Tape tape, int layer, Tensor x, KvCache cache, Probe probe) {
        Block w = blocks.get(layer);
        long b = x.size(0);
        long t = x.size(1);
        Tensor qkv = tape.reshape(tape.matmul(x, w.qkvWeight, w.qkvBias, false, true), b, t, 3, config.heads(), config.headSize());
        Tensor q = tape.select(qkv, 2, 0);
        Tensor k = tape.select(qkv, 2, 1);
        Tensor v = tape.select(qkv, 2, 2);
        double scale = 1 / Math.sqrt(config.headSize());
        Tensor mixed;
        if (cache == null) {
            mixed = mix(tape, w, q, k, v, scale);
        } else {
            cache.append(layer, k, v);
            mixed = cache.mix(layer, q, v, etaOf(tape, w), decay, scale);
        }
        Tensor out = tape.matmul(tape.reshape(mixed, b, t, config.width()), w.attnWeight, w.attnBias, false, true);
        if (probe != null) {
            probe.record(q, cache == null ? k : cache.keys(layer), scale, out);
        }
        return out;
    }

    private Tensor mix(Tape tape, Block w, Tensor q, Tensor k, Tensor v, double scale) {
        return switch (config.attention()) {
            case SOFTMAX -> tape.attention(q, k, v, null, scale, true);
            case MOMENTUM -> tape.momentumAttention(q, k, v, etaOf(tape, w), null, scale);
            case LINEAR -> tape.linearAttention(tape.affine(q, scale, 0), k, v, decay, null).out();
        };
    }

    private Tensor etaOf(Tape tape, Block w) {
        if (w.etaLogit == null) {
            return eta;
        }
        DType accumulation = w.etaLogit.dtype().accumulation();
        Tensor logit = w.etaLogit.dtype() == accumulation ? w.etaLogit : tape.cast(w.etaLogit, accumulation);
        return tape.min(tape.unary(logit, Unary.SIGMOID), etaLimit);
    }

    /**
     * Next-token logits, not normalised.
     *
     * @param tape owns the result
     * @param hidden of {@link #hidden}, (B,T,C) or any part of it (..,C)
     * @return (..,V)
     */
    public Tensor logits(Tape tape, Tensor hidden) {
        return tape.matmul(hidden, wte, null, false, true);
    }

    /**
     * Mean cross-entropy of the next token, in nats.
     *
     * @param tape owns the result
     * @param ids (B,T) I32
     * @param targets (B,T) I32, {@link #IGNORE} where a position does not count
     * @return a scalar in the accumulation dtype
     * @throws InvalidArgumentException if a shape or an id does not fit
     */
    public Tensor loss(Tape tape, Tensor ids, Tensor targets) {
        return crossEntropy(tape, hidden(tape, ids), targets);
    }

    private Tensor crossEntropy(Tape tape, Tensor hidden, Tensor targets) {
        long n = targets.numel();
        Tensor logits = tape.reshape(logits(tape, hidden), n, config.vocabulary());
        return tape.crossEntropy(logits, tape.reshape(targets, n), IGNORE);
    }

    /**
     * The loss of layer-causal gradient descent (Deutch et al. 2023, arXiv:2311.07772): the sum over layers of the cross-entropy that the
     * final LayerNorm and the output layer give on that layer's output. No gradient passes from a layer to the one before.
     *
     * @param tape owns the result
     * @param ids (B,T) I32
     * @param targets (B,T) I32, {@link #IGNORE} where a position does not count
     * @return a scalar in the accumulation dtype
     * @throws InvalidArgumentException if a shape or an id does not fit
     */
    public Tensor layerCausalLoss(Tape tape, Tensor ids, Tensor targets) {
        checkIds(ids, 0);
        Tensor x = tape.noGrad(() -> tape.embedding(ids, wte, wpe, 0));
        Tensor total = null;
        for (int layer = 0; layer < config.layers(); layer++) {
            Stream after = block(tape, layer, new Stream(x, null), null, null);
            ResidualLayernorm last = tape.residualLayernorm(after.added, after.residual, lnWeight, lnBias, config.epsilon());
            Tensor loss = crossEntropy(tape, last.out(), targets);
            total = total == null ? loss : tape.add(total, loss);
            x = tape.noGrad(() -> tape.copy(last.sum()));
        }
        return total;
    }

    /**
     * An empty cache for this model.
     *
     * @param batch rows B
     * @return the cache; the caller closes it
     */
    public KvCache newCache(int batch) {
        return new KvCache(this, batch);
    }

    @Override
    public void close() {
        constants.forEach(Tensor::close);
        parameters.close();
    }
}
