package org.dualform.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.Deque;
import java.util.List;
import java.util.stream.Collectors;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;

/**
 * The tensors of one run of {@code op}: those read from the input file, checked against what the operation expects as far as its header
 * tells, and those made for the results. Closing it closes them all.
 */
final class Inputs implements AutoCloseable {
    private final Safetensors file;
    private final Device device;
    private final DType dtype;
    private final Deque<Tensor> owned = new ArrayDeque<>();

    Inputs(Safetensors file, Device device, DType dtype) {
        this.file = file;
        this.device = device;
        this.dtype = dtype;
    }

    static Safetensors open(Path path) throws IOException {
        if (!Files.exists(path)) {
            throw new UsageException("--in: there is no file " + path);
        }
        if (!Files.isRegularFile(path) || !Files.isReadable(path)) {
            throw new UsageException("--in: " + path + " is not a file that can be read");
        }
        return Safetensors.open(path);
    }

    /** The dtype of the tensors that every run needs, which all share it. */
    static DType dtype(Safetensors file, List<String> main) {
        main.forEach(name -> require(file, name));
        DType dtype = floating(file, main.get(0));
        main.forEach(name -> expect(file, name, dtype));
        return dtype;
    }

    DType dtype() {
        return dtype;
    }

    boolean has(String name) {
        return file.names().contains(name);
    }

    /** The tensor, whose axes are named in layout, such as (B,T,NH,HS). */
    Tensor load(String name, String layout) throws IOException {
        return load(name, layout, dtype, dtype);
    }

    /** The same in either of two dtypes; null when the file lacks it. */
    Tensor loadIfPresent(String name, String layout, DType one, DType other) throws IOException {
        return has(name) ? load(name, layout, one, other) : null;
    }

    private Tensor load(String name, String layout, DType one, DType other) throws IOException {
        require(file, name);
        expect(file, name, one, other);
        long[] shape = file.shape(name);
        if (shape.length != layout.split(",").length || Arrays.stream(shape).anyMatch(size -> size < 1)) {
            throw new UsageException(name + ": shape " + text(shape) + ", expected " + layout
                    + (shape.length == 0 ? "" : " with every size at least 1"));
        }
        return own(file.load(name, device));
    }

    /** Each value must lie in the interval; NaN never does. */
    static void checkRange(String name, Tensor tensor, double from, double to, boolean closed) {
        double[] values = tensor.dtype() == DType.I32 ? Arrays.stream(tensor.toInts()).asDoubleStream().toArray() : tensor.toDoubles();
        for (int i = 0; i < values.length; i++) {
            checkRange(values.length == 1 ? name : name + "[" + i + "]", values[i], from, to, closed);
        }
    }

    static void checkRange(String name, double value, double from, double to, boolean closed) {
        if (!(value >= from && (closed ? value <= to : value < to))) {
            throw new UsageException(name + ": " + plain(value) + ", expected at least " + plain(from) + " and "
                    + (closed ? "at most " : "below ") + plain(to));
        }
    }

    Tensor make(DType type, long... shape) {
        return own(Tensor.empty(device, type, shape));
    }

    Tensor like(Tensor tensor) {
        return make(tensor.dtype(), tensor.shape());
    }

    Tensor full(DType type, double value, long... shape) {
        return own(Tensor.full(device, type, value, shape));
    }

    /** The tensor in the inputs' dtype. */
    Tensor rounded(Tensor tensor) {
        return tensor.dtype() == dtype ? tensor : own(tensor.cast(dtype));
    }

    @Override
    public void close() {
        while (!owned.isEmpty()) {
            owned.pop().close();
        }
    }

    private Tensor own(Tensor tensor) {
        owned.push(tensor);
        return tensor;
    }

    private static void require(Safetensors file, String name) {
        if (!file.names().contains(name)) {
            throw new UsageException(name + ": missing in the input file, which has "
                    + (file.names().isEmpty() ? "no tensors" : String.join(", ", file.names().stream().sorted().limit(12).toList())));
        }
    }

    private static DType floating(Safetensors file, String name) {
        for (DType type : List.of(DType.F32, DType.BF16, DType.F64)) {
            if (file.dtypeName(name).equals(type.name())) {
                return type;
            }
        }
        throw new UsageException(name + ": dtype " + file.dtypeName(name) + ", expected F32, BF16 or F64");
    }

    private static void expect(Safetensors file, String name, DType... allowed) {
        if (Arrays.stream(allowed).noneMatch(type -> type.name().equals(file.dtypeName(name)))) {
            String expected = Arrays.stream(allowed).map(DType::name).distinct().collect(Collectors.joining(" or "));
            throw new UsageException(name + ": dtype " + file.dtypeName(name) + ", expected " + expected
                    + (allowed[0].isFloating() ? ", as the inputs" : ""));
        }
    }

    private static String text(long[] shape) {
        return Arrays.stream(shape).mapToObj(Long::toString).collect(Collectors.joining(",", "(", ")"));
    }

    private static String plain(double value) {
        return value == Math.rint(value) && Math.abs(value) < 1e15 ? Long.toString((long) value) : Double.toString(value);
    }
}
