package org.dualform.cli;

import java.util.ArrayDeque;
import java.util.Arrays;
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
    private static final long PIECE = 1 << 22; // elements

    private final Device device;
    private final DType dtype;
    private final BenchTensors source;
    private final long seed;
    private final Map<String, Tensor> inputs = new LinkedHashMap<>();
    private final Deque<AutoCloseable> owned = new ArrayDeque<>();
    private double bytes;

    private BenchTensors(Device device, DType dtype, BenchTensors source, long seed) {
        this.device = device;
        this.dtype = dtype;
        this.source = source;
        this.seed = seed;
    }

    /** Inputs are drawn; another index gives other numbers. */
    static BenchTensors drawn(Device device, DType dtype, int index) {
        return new BenchTensors(device, dtype, null, SEED + index);
    }

    /** Inputs have the values of those of the same names in another run of the work. */
    static BenchTensors of(BenchTensors source, Device device, DType dtype) {
        return new BenchTensors(device, dtype, source, source.seed);
    }

    Device device() {
        return device;
    }

    DType dtype() {
        return dtype;
    }

    /** Whether parameters have a copy in the dtype of their sums. */
    boolean hasMaster() {
        return source == null ? dtype == DType.BF16 : source.hasMaster();
    }

    /** Of all tensors made here so far. */
    double bytes() {
        return bytes;
    }

    /** Normal draws with mean 0. */
    Tensor normal(String name, double deviation, long... shape) {
        return input(name, make(dtype, shape), x -> Ops.randomNormal(x, seed, stream(), 0, deviation));
    }

    /** Normal draws with mean 0, in the accumulation dtype. */
    Tensor normalSums(String name, double deviation, long... shape) {
        return input(name, make(dtype.accumulation(), shape), x -> Ops.randomNormal(x, seed, stream(), 0, deviation));
    }

    /** Uniform draws. */
    Tensor uniformHere(String name, double from, double to, long... shape) {
        return input(name, make(dtype, shape), x -> Ops.randomUniform(x, seed, stream(), from, to));
    }

    /** Uniform draws, in the accumulation dtype. */
    Tensor uniform(String name, double from, double to, long... shape) {
        return input(name, make(dtype.accumulation(), shape), x -> Ops.randomUniform(x, seed, stream(), from, to));
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
        return new Random(seed + inputs.size()).ints(count, 0, bound).toArray();
    }

    /** Makes a tensor of something else an input. */
    void share(String name, Tensor tensor) {
        input(name, tensor, x -> {});
    }

    /** Room for a result. One that an op does not write must show. */
    Tensor make(DType type, long... shape) {
        Tensor tensor = own(Tensor.empty(device, type, shape));
        Ops.fill(tensor, type == DType.I32 ? -1 : Double.NaN);
        bytes += tensor.byteSize();
        return tensor;
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

    /** The rows from one to before another. */
    interface Rows {
        void visit(long from, long to);
    }

    /** Goes over the first axis in pieces that the heap has room for. */
    static void pieces(long[] shape, Rows rows) {
        long count = shape.length == 0 ? 1 : shape[0];
        long each = Math.max(1, PIECE / (Arrays.stream(shape).reduce(1, (a, b) -> a * b) / count));
        for (long from = 0; from < count; from += each) {
            rows.visit(from, Math.min(count, from + each));
        }
    }

    /** A view of some rows, to be closed. */
    static Tensor part(Tensor tensor, long from, long to) {
        return tensor.rank() == 0 ? tensor.reshape() : tensor.slice(0, from, to);
    }

    private interface Filling {
        void fill(Tensor tensor);
    }

    private Tensor input(String name, Tensor tensor, Filling filling) {
        if (source == null) {
            filling.fill(tensor);
        } else {
            Tensor values = source.inputs.get(name);
            pieces(tensor.shape(), (from, to) -> {
                try (Tensor there = part(tensor, from, to); Tensor here = part(values, from, to)) {
                    there.write(here.toDoubles());
                }
            });
        }
        inputs.put(name, tensor);
        return tensor;
    }

    /** Every input has draws of its own. */
    private long stream() {
        return (long) inputs.size() << 40;
    }
}
