package org.dualform.nn;

import org.dualform.Tensor;

/**
 * One named parameter of a model: a view of the model's storage.
 *
 * <p>Threading: as its model; one thread at a time.
 */
public final class Parameter {
    private final String name;
    private final Tensor value;
    private final Tensor gradient;
    private final boolean decayed;
    final long from;
    final long to;
    private boolean frozen;

    Parameter(String name, Tensor value, Tensor gradient, boolean decayed, long from) {
        this.name = name;
        this.value = value;
        this.gradient = gradient;
        this.decayed = decayed;
        this.from = from;
        this.to = from + value.numel();
    }

    /**
     * Its name, such as {@code h.0.attn.k_proj.weight}.
     *
     * @return unique within the model
     */
    public String name() {
        return name;
    }

    /**
     * Its values; weights of linear layers are (outputs, inputs).
     *
     * @return a view, the model's
     */
    public Tensor value() {
        return value;
    }

    /**
     * Its gradient, of the value's shape in the accumulation dtype.
     *
     * @return a view, the model's
     */
    public Tensor gradient() {
        return gradient;
    }

    /**
     * Whether weight decay applies: to matrices, not to biases, LayerNorms and momenta.
     *
     * @return whether
     */
    public boolean isDecayed() {
        return decayed;
    }

    /**
     * Whether optimizers leave it alone.
     *
     * @return whether; see {@link Parameters#freeze}
     */
    public boolean isFrozen() {
        return frozen;
    }

    void setFrozen(boolean frozen) {
        this.frozen = frozen;
    }

    @Override
    public String toString() {
        return name + " " + value + (frozen ? " frozen" : "");
    }
}
