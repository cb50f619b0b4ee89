package org.dualform.nn;

import java.util.ArrayList;
import java.util.List;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;

/**
 * What a model remembers of the tokens it has seen, so that the next ones cost only themselves: keys and values per layer, with momentum
 * attention one more vector per head, with linear attention one matrix per head, which alone is read for the next token.
 *
 * <p>Threading: one thread at a time.
 */
public final class KvCache implements AutoCloseable {
    private final Gpt gpt;
    private final GptConfig config;
    private final Device device;
    private final int batch;
    private final List<Layer> layers = new ArrayList<>();
    private int length;
    private int marked;

    private static final class Layer {
        Tensor keys;
        Tensor values;
        /** Momentum (B,NH,HS), or the linear state (B,NH,HS,HS): now, at the mark, and where the next one is written. */
        Tensor state;
        Tensor mark;
        Tensor next;
        final List<Tensor> passing = new ArrayList<>();
    }

    KvCache(Gpt gpt, int batch) {
        this.gpt = gpt;
        config = gpt.config();
        device = gpt.device();
        if (batch <= 0) {
            throw new InvalidArgumentException("batch: " + batch + ", expected more than 0");
        }
        this.batch = batch;
        try {
            allocate(gpt.parameters().dtype());
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    private void allocate(DType dtype) {
        long hs = config.headSize();
        for (int i = 0; i < config.layers(); i++) {
            Layer layer = new Layer();
            layers.add(layer);
            layer.keys = Tensor.zeros(device, dtype, batch, config.context(), config.heads(), hs);
            layer.values = Tensor.zeros(device, dtype, batch, config.context(), config.heads(), hs);
            if (config.attention() != AttentionKind.SOFTMAX) {
                long[] shape = config.attention() == AttentionKind.MOMENTUM ? new long[] {batch, config.heads(), hs}
                        : new long[] {batch, config.heads(), hs, hs};
                layer.state = Tensor.zeros(device, dtype.accumulation(), shape);
                layer.mark = Tensor.zeros(device, dtype.accumulation(), shape);
                layer.next = Tensor.zeros(device, dtype.accumulation(), shape);
            }
        }
    }

    /**
     * Tokens in the cache.
     *
     * @return their number, in every row
     */
    public int length() {
        return length;
    }

    /** Remembers this point for {@link #rewind}. */
    public void mark() {
        marked = length;
        for (Layer layer : layers) {
            if (layer.state != null) {
                Ops.copy(layer.mark, layer.state);
            }
        }
    }

    /** Forgets everything since the mark; without a mark, everything. */
    public void rewind() {
        length = marked;
        for (Layer layer : layers) {
            if (layer.state != null) {
                Ops.copy(layer.state, layer.mark);
            }
        }
    }

    /** Before anything is changed: after a refused call the cache is what it was. */
    void requireFits(Gpt model, long rows) {
        if (model != gpt) {
            throw new InvalidArgumentException("cache: of another model");
        }
        if (rows != batch) {
            throw new InvalidArgumentException("ids: " + rows + " rows, expected the cache's " + batch);
        }
    }

    void append(int index, Tensor k, Tensor v) {
        Layer layer = layers.get(index);
        layer.passing.forEach(Tensor::close);
        layer.passing.clear();
        long to = length + k.size(1);
        try (Tensor keys = layer.keys.slice(1, length, to); Tensor values = layer.values.slice(1, length, to)) {
            Ops.copy(keys, k);
            Ops.copy(values, v);
        }
    }

    private Tensor passing(Layer layer, Tensor tensor) {
        layer.passing.add(tensor);
        return tensor;
    }

    /** The keys so far (B,S,NH,HS), with those of the tokens being processed. */
    Tensor keys(int index) {
        return layers.get(index).passing.get(0);
    }

    Tensor mix(int index, Tensor q, Tensor v, Tensor eta, Tensor decay, double scale) {
        Layer layer = layers.get(index);
        long t = q.size(1);
        Tensor keys = passing(layer, layer.keys.slice(1, 0, length + t));
        Tensor values = passing(layer, layer.values.slice(1, 0, length + t));
        Tensor out = passing(layer, Tensor.empty(device, q.dtype(), q.shape()));
        try (Tensor lse = Tensor.empty(device, q.dtype().accumulation(), batch, config.heads(), t)) {
            switch (config.attention()) {
                case SOFTMAX -> Ops.attentionForward(out, lse, q, keys, values, null, scale, true);
                case MOMENTUM -> Ops.momentumAttentionForward(out, null, lse, layer.next, q, keys, values, null, eta, layer.state, scale);
                case LINEAR -> linear(layer, out, q, scale, decay);
            }
        }
        if (layer.state != null) {
            Tensor before = layer.state;
            layer.state = layer.next;
            layer.next = before;
        }
        return out;
    }

    private void linear(Layer layer, Tensor out, Tensor q, double scale, Tensor decay) {
        long to = length + q.size(1);
        try (Tensor scaled = Tensor.empty(device, q.dtype(), q.shape());
                Tensor keys = layer.keys.slice(1, length, to);
                Tensor values = layer.values.slice(1, length, to)) {
            Ops.affine(scaled, q, scale, 0);
            Ops.linearAttentionForward(out, layer.next, scaled, keys, values, decay, layer.state);
        }
    }

    void advance(int tokens) {
        length += tokens;
    }

    @Override
    public void close() {
        for (Layer layer : layers) {
            layer.passing.forEach(Tensor::close);
            for (Tensor tensor : new Tensor[] {layer.keys, layer.values, layer.state, layer.mark, layer.next}) {
                if (tensor != null) {
                    tensor.close();
                }
            }
        }
    }
}
