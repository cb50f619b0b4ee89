package org.dualform.cli;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Ops;
import org.dualform.Tensor;

/** The tensors of one work: inputs that are drawn, or copied from another run of the same work, and room for results. */
final class BenchTensors implements AutoCloseable {
    private static final long SEED = 20221220;

    private final Device device;
    private final DType dtype;
    private final BenchTensors source;
    private final Map<String, Tensor> inputs = new LinkedHashMap<>();
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();

    /** With a source, inputs have its values; without one they are drawn. */
    BenchTensors(Device device, DType dtype, BenchTensors source) {
        this.device = device;
        this.dtype = dtype;
        this.source = source;
    }

    Device device() {
        return device;
    }

    DType dtype() {
        return dtype;
    }

    /** Normal draws with mean 0. */
    Tensor normal(String name, double deviation, long... shape) {
        return input(name, make(dtype, shape), x -> Ops.randomNormal(x, SEED, stream(), 0, deviation));
    }

    /** Uniform draws, in the accumulation dtype. */
    Tensor uniform(String name, double from, double to, long... shape) {
        return input(name, make(dtype.accumulation(), shape), x -> Ops.randomUniform(x, SEED, stream(), from, to));
    }

    /** A constant, in the accumulation dtype. */
    Tensor constant(String name, double value, long... shape) {
        return input(name, make(dtype.accumulation(), shape), x -> Ops.fill(x, value));
    }

    /** Whole numbers from 0 to less than a bound. */
    Tensor integers(String name, int bound, long... shape) {
        Tensor numbers = make(DType.I32, shape);
        numbers.write(source == null ? draw(bound, Math.toIntExact(numbers.numel())) : source.inputs.get(name).toInts());
        inputs.put(name, numbers);
        return numbers;
    }

    int[] draw(int bound, int count) {
        return new Random(SEED + inputs.size()).ints(count, 0, bound).toArray();
    }

    /** Makes a tensor of something else an input. */
    void share(String name, Tensor tensor) {
        input(name, tensor, x -> {});
    }

    Tensor make(DType type, long... shape) {
        return own(Tensor.empty(device, type, shape));
    }

    Tensor like(Tensor tensor) {
        return make(tensor.dtype(), tensor.shape());
    }

    <T extends AutoCloseable> T own(T resource) {
        owned.push(resource);
        return resource;
    }

    @Override
    public void close() {
        while (!owned.isEmpty()) {
            try {
                owned.pop().close();
            } catch (RuntimeException e) {
                throw e;
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }
    }

    private interface Filling {
        void fill(Tensor tensor);
    }

    private Tensor input(String name, Tensor tensor, Filling filling) {
        if (source == null) {
            filling.fill(tensor);
        } else {
            tensor.write(source.inputs.get(name).toDoubles());
        }
        inputs.put(name, tensor);
        return tensor;
    }

    /** Every input has draws of its own. */
    private long stream() {
        return (long) inputs.size() << 40;
    }
}
