package org.dualform.nn;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;

/**
 * All parameters of a model, in one tensor of values and one of gradients, so that one call clears, measures or updates them all.
 *
 * <p>Parameters with weight decay come first. A fused weight, such as that of queries, keys and values, is one tensor for the forward pass
 * and several parameters, its row blocks, for everybody else: each can be frozen alone.
 *
 * <p>Threading: one thread at a time.
 */
public final class Parameters implements AutoCloseable {
    /** Elements between the starts of two slots: 64 bytes of float32. */
    private static final long ALIGNMENT = 16;

    private final Device device;
    private final Tensor values;
    private final Tensor gradients;
    private final Tensor master;
    private final List<Slot> slots;
    private final Map<String, Parameter> byName = new LinkedHashMap<>();
    /** The storage and all views but those of ranges. */
    private final List<Tensor> owned = new ArrayList<>();
    private final List<Tensor> rangeViews = new ArrayList<>();
    private List<Range> trainable;

    /**
     * A contiguous run of parameters that are all trained, with or without decay.
     *
     * <p>Threading: as its parameters.
     *
     * @param value a view (n)
     * @param master the float32 copy of which value is the rounding (n); null where value is in its accumulation dtype
     * @param gradient a view (n)
     * @param decayed whether weight decay applies
     * @param from index of the first element in the storage
     * @param to one past the last
     */
    public record Range(Tensor value, Tensor master, Tensor gradient, boolean decayed, long from, long to) {}

    /** A tensor of the forward pass, and the names of the row blocks it consists of. */
    static final class Slot {
        final String name;
        final long[] shape;
        final boolean decayed;
        final List<String> blocks;
        long from;
        Tensor value;
        Tensor gradient;
        List<Parameter> parameters;

        Slot(String name, boolean decayed, List<String> blocks, long... shape) {
            this.name = name;
            this.decayed = decayed;
            this.blocks = blocks;
            this.shape = shape;
        }

        long numel() {
            return Arrays.stream(shape).reduce(1, Math::multiplyExact);
        }
    }

    Parameters(Device device, DType dtype, List<Slot> declared) {
        this.device = device;
        this.slots = new ArrayList<>(declared);
        slots.sort((a, b) -> Boolean.compare(b.decayed, a.decayed)); // stable
        long total = 0;
        for (Slot slot : slots) {
            total += (slot.numel() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        }
        DType accumulation = dtype.accumulation();
        try {
            values = own(Tensor.zeros(device, dtype, total));
            gradients = own(Tensor.zeros(device, accumulation, total));
            master = dtype == accumulation ? null : own(Tensor.zeros(device, accumulation, total));
            long from = 0;
            for (Slot slot : slots) {
                place(slot, from);
                from += (slot.numel() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            }
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    private Tensor own(Tensor tensor) {
        owned.add(tensor);
        return tensor;
    }

    private void place(Slot slot, long from) {
        slot.from = from;
        slot.value = part(owned, values, from, slot.shape);
        slot.gradient = part(owned, gradients, from, slot.shape);
        slot.parameters = new ArrayList<>();
        int blocks = slot.blocks.size();
        long[] shape = slot.shape.clone();
        shape[0] /= blocks;
        long size = slot.numel() / blocks;
        for (int i = 0; i < blocks; i++) {
            Parameter parameter = new Parameter(slot.blocks.get(i), part(owned, values, from + i * size, shape),
                    part(owned, gradients, from + i * size, shape), slot.decayed, from + i * size);
            slot.parameters.add(parameter);
            byName.put(parameter.name(), parameter);
        }
    }

    private static Tensor part(List<Tensor> owner, Tensor storage, long from, long... shape) {
        long numel = Arrays.stream(shape).reduce(1, Math::multiplyExact);
        try (Tensor flat = storage.slice(0, from, from + numel)) {
            Tensor part = flat.reshape(shape);
            owner.add(part);
            return part;
        }
    }

    Slot slot(String name) {
        return slots.stream().filter(slot -> slot.name.equals(name)).findFirst().orElseThrow();
    }

    List<Slot> slots() {
        return slots;
    }

    /** Sets a slot, its master copy with it, without a rounding in between. */
    void set(Slot slot, Tensor source) {
        Ops.copy(slot.value, source);
        if (master != null) {
            try (Tensor copy = masterOf(slot)) {
                Ops.copy(copy, source);
            }
        }
    }

    /** A view, the caller's, of the most exact values there are. */
    Tensor exact(Slot slot) {
        return master == null ? slot.value.reshape(slot.shape) : masterOf(slot);
    }

    private Tensor masterOf(Slot slot) {
        try (Tensor flat = master.slice(0, slot.from, slot.from + slot.numel())) {
            return flat.reshape(slot.shape);
        }
    }

    /**
     * All parameters, in the order of the storage.
     *
     * @return an unmodifiable list
     */
    public List<Parameter> all() {
        return List.copyOf(byName.values());
    }

    /**
     * The parameter of a name.
     *
     * @param name such as {@code h.0.attn.k_proj.weight}
     * @return the parameter
     * @throws InvalidArgumentException if there is none
     */
    public Parameter get(String name) {
        Parameter parameter = byName.get(name);
        if (parameter == null) {
            throw new InvalidArgumentException("name: there is no parameter " + name);
        }
        return parameter;
    }

    /**
     * How many numbers are parameters.
     *
     * @return their count, without padding
     */
    public long count() {
        return byName.values().stream().mapToLong(parameter -> parameter.value().numel()).sum();
    }

    /**
     * The dtype of the values.
     *
     * @return the dtype the model computes in
     */
    public DType dtype() {
        return values.dtype();
    }

    /**
     * Where they live.
     *
     * @return the device
     */
    public Device device() {
        return device;
    }

    /**
     * Elements of the storage, with padding: the size of an optimizer's state.
     *
     * @return their number
     */
    public long storageSize() {
        return values.numel();
    }

    /**
     * Freezes the parameters a predicate holds for and unfreezes all others. No gradient is computed for a weight of which every part is
     * frozen. What {@link #trainable} gave before is closed.
     *
     * @param frozen of a name, such as {@code name -> !name.contains("k_proj") && !name.contains("v_proj")}
     */
    public void freeze(Predicate<String> frozen) {
        byName.values().forEach(parameter -> parameter.setFrozen(frozen.test(parameter.name())));
        trainable = null;
        closeAll(rangeViews);
    }

    /** Makes every parameter trainable. */
    public void unfreeze() {
        freeze(name -> false);
    }

    /**
     * What optimizers update: the trained parameters in as few contiguous runs as possible. Close nothing of it; the views are the model's.
     *
     * @return runs in the order of the storage, valid until {@link #freeze} or {@link #close}
     */
    public List<Range> trainable() {
        if (trainable == null) {
            trainable = Collections.unmodifiableList(ranges());
        }
        return trainable;
    }

    private List<Range> ranges() {
        List<Range> ranges = new ArrayList<>();
        long from = -1;
        long to = -1;
        boolean decayed = false;
        for (Parameter parameter : byName.values()) {
            if (parameter.isFrozen()) {
                continue;
            }
            boolean continues = from >= 0 && decayed == parameter.isDecayed() && nothingBetween(to, parameter.from);
            if (!continues) {
                addRange(ranges, from, to, decayed);
                from = parameter.from;
                decayed = parameter.isDecayed();
            }
            to = parameter.to;
        }
        addRange(ranges, from, to, decayed);
        return ranges;
    }

    /** Padding is zero and stays zero under every optimizer, so a run may cross it. */
    private boolean nothingBetween(long to, long from) {
        return from - to < ALIGNMENT && byName.values().stream().noneMatch(other -> other.from >= to && other.from < from);
    }

    private void addRange(List<Range> ranges, long from, long to, boolean decayed) {
        if (from >= 0) {
            ranges.add(new Range(part(rangeViews, values, from, to - from),
                    master == null ? null : part(rangeViews, master, from, to - from), part(rangeViews, gradients, from, to - from),
                    decayed, from, to));
        }
    }

    /** Sets all gradients to zero. */
    public void clearGradients() {
        Ops.fill(gradients, 0);
    }

    /** Copies the values into the float32 master copy, after they were set from outside. Without one does nothing. */
    public void valuesChanged() {
        if (master != null) {
            Ops.copy(master, values);
        }
    }

    /**
     * The float32 copy of which the values are the rounding, shaped like the values.
     *
     * @return the whole storage; null where the values are in their accumulation dtype
     */
    public Tensor master() {
        return master;
    }

    /**
     * The whole storage of the values.
     *
     * @return the model's
     */
    public Tensor values() {
        return values;
    }

    /**
     * The whole storage of the gradients, laid out as the values.
     *
     * @return the model's
     */
    public Tensor gradients() {
        return gradients;
    }

    /**
     * Copies all values, and the master copy where both have one, from a model of the same shape.
     *
     * @param other of a model of the same configuration; dtype and device may differ
     * @throws InvalidArgumentException if the shapes differ
     */
    public void copyFrom(Parameters other) {
        if (!shapes().equals(other.shapes())) {
            throw new InvalidArgumentException("other: the parameters of a model of another shape");
        }
        if (device == other.device) {
            Ops.copy(values, other.values);
        } else {
            try (Tensor there = other.values.to(device)) {
                Ops.copy(values, there);
            }
        }
        if (master != null && other.master != null && device == other.device) {
            Ops.copy(master, other.master);
        } else {
            valuesChanged();
        }
    }

    private List<String> shapes() {
        return byName.values().stream().map(parameter -> parameter.name() + Arrays.toString(parameter.value().shape())).toList();
    }

    /** Makes leaves of what is trained; gradients are added to {@link Parameter#gradient}. */
    void declare(Tape tape) {
        for (Slot slot : slots) {
            if (slot.parameters.stream().anyMatch(parameter -> !parameter.isFrozen())) {
                tape.parameter(slot.value, slot.gradient);
            }
        }
    }

    @Override
    public void close() {
        closeAll(rangeViews);
        closeAll(owned);
    }

    private static void closeAll(List<Tensor> tensors) {
        tensors.forEach(Tensor::close);
        tensors.clear();
    }
}
