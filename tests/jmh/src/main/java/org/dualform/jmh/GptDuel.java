package org.dualform.jmh;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.pytorch.AdamW;
import org.bytedeco.pytorch.AdamWOptions;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.dualform.autograd.Tape;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.optim.GradientNorm;

/**
 * A training step of a GPT with 256 tokens: loss, gradients, clipping, AdamW. The peer has the same layers, one product for queries, keys
 * and values, and PyTorch's AdamW of C++, which goes over one parameter after the other.
 */
final class GptDuel extends Duel.WithTorch {
    private static final int VOCABULARY = 256;
    private static final double RATE = 3e-4;
    private static final double DECAY = 0.1;

    /** The peer's block. */
    private record Block(Tensor ln1, Tensor ln1Bias, Tensor qkv, Tensor qkvBias, Tensor proj, Tensor projBias, Tensor ln2, Tensor ln2Bias,
            Tensor fc, Tensor fcBias, Tensor out, Tensor outBias) {}

    private final long b;
    private final long t;
    private final GptConfig config;
    private final Gpt gpt;
    private final org.dualform.optim.AdamW adamw;
    private final GradientNorm norm;
    private float loss;

    private final TensorVector parameters = new TensorVector();
    private final Tensor ids;
    private final Tensor targets;
    private final Tensor wte;
    private final Tensor wpe;
    private final Tensor lnf;
    private final Tensor lnfBias;
    private final List<Block> blocks = new ArrayList<>();
    private final AdamW optimizer;

    GptDuel(String name, Ours ours, int b, int t, int layers, int width, int heads) {
        super(name, ours, true);
        this.b = b;
        this.t = t;
        config = GptConfig.of(VOCABULARY, t, layers, width, heads);
        gpt = Gpt.create(ours.device(), config, ours.dtype(), 1);
        adamw = new org.dualform.optim.AdamW(gpt.parameters(), 0.9, 0.95, 1e-8, DECAY);
        norm = new GradientNorm(gpt.parameters());
        ids = Torch.of(ours.drawIntegers("ids", VOCABULARY, b, t), b, t);
        targets = Torch.of(ours.drawIntegers("targets", VOCABULARY, b, t), (long) b * t);
        wte = parameter("wte.weight");
        wpe = parameter("wpe.weight");
        for (int i = 0; i < layers; i++) {
            String h = "h." + i + ".";
            blocks.add(new Block(parameter(h + "ln_1.weight"), parameter(h + "ln_1.bias"), qkv(h, "weight"), qkv(h, "bias"),
                    parameter(h + "attn.c_proj.weight"), parameter(h + "attn.c_proj.bias"), parameter(h + "ln_2.weight"),
                    parameter(h + "ln_2.bias"), parameter(h + "mlp.c_fc.weight"), parameter(h + "mlp.c_fc.bias"),
                    parameter(h + "mlp.c_proj.weight"), parameter(h + "mlp.c_proj.bias")));
        }
        lnf = parameter("ln_f.weight");
        lnfBias = parameter("ln_f.bias");
        AdamWOptions options = new AdamWOptions(RATE);
        options.betas().put(0.9, 0.95);
        options.eps().put(1e-8);
        options.weight_decay().put(DECAY);
        optimizer = new AdamW(parameters, options);
    }

    private Tensor parameter(String name) {
        org.dualform.Tensor value = gpt.parameters().get(name).value();
        return trained(Torch.of(ours().dtype(), value.toFloats(), value.shape()));
    }

    private Tensor qkv(String block, String kind) {
        TensorVector parts = new TensorVector();
        for (String part : List.of("q_proj.", "k_proj.", "v_proj.")) {
            org.dualform.Tensor value = gpt.parameters().get(block + "attn." + part + kind).value();
            parts.push_back(Torch.of(ours().dtype(), value.toFloats(), value.shape()));
        }
        return trained(torch.cat(parts, 0));
    }

    private Tensor trained(Tensor tensor) {
        tensor.requires_grad_(true);
        parameters.push_back(tensor);
        return tensor;
    }

    @Override
    void runOurs() {
        gpt.parameters().clearGradients();
        try (Tape tape = new Tape(gpt.device())) {
            gpt.declare(tape);
            org.dualform.Tensor result = gpt.loss(tape, ours().get("ids"), ours().get("targets"));
            tape.backward(result);
            norm.measure();
            loss = (float) result.item();
        }
        adamw.step(RATE, norm.clip(1));
    }

    @Override
    List<Tensor> compute() {
        optimizer.zero_grad(true);
        Tensor x = torch.embedding(wte, ids).add(wpe);
        for (Block w : blocks) {
            x = x.add(linear(mixed(w, norm(x, w.ln1, w.ln1Bias)), w.proj, w.projBias));
            x = x.add(linear(torch.gelu(linear(norm(x, w.ln2, w.ln2Bias), w.fc, w.fcBias), "tanh"), w.out, w.outBias));
        }
        Tensor logits = torch.linear(norm(x, lnf, lnfBias), wte).reshape(b * t, VOCABULARY);
        Tensor result = torch.cross_entropy_loss(logits, targets);
        result.backward();
        torch.clip_grad_norm_(parameters, 1);
        Tensor gradient = wte.grad();
        optimizer.step();
        return List.of(result, gradient);
    }

    private Tensor mixed(Block w, Tensor x) {
        TensorVector parts = linear(x, w.qkv, w.qkvBias).split(config.width(), 2);
        long[] heads = {b, t, config.heads(), config.headSize()};
        return Torch.attention(parts.get(0).view(heads), parts.get(1).view(heads), parts.get(2).view(heads))
                .reshape(b, t, config.width());
    }

    private Tensor norm(Tensor x, Tensor weight, Tensor bias) {
        return torch.layer_norm(x, new long[] {config.width()}, new TensorOptional(weight), new TensorOptional(bias), config.epsilon(),
                false);
    }

    private static Tensor linear(Tensor x, Tensor weight, Tensor bias) {
        return torch.linear(x, weight, new TensorOptional(bias));
    }

    /** Of the first step, when both have the same weights. Clipping is part of the peer's gradient. */
    @Override
    List<float[]> ourResults() {
        double length = norm.measure();
        float clip = (float) Math.min(1, 1 / (length + 1e-6));
        float[] gradient = gpt.parameters().get("wte.weight").gradient().toFloats();
        for (int i = 0; i < gradient.length; i++) {
            gradient[i] *= clip;
        }
        return List.of(new float[] {loss}, gradient);
    }

    @Override
    public void close() {
        norm.close();
        adamw.close();
        gpt.close();
        super.close();
    }
}
