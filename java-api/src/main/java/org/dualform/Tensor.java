package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import java.nio.ByteBuffer;
import org.bytedeco.javacpp.Pointer;
import org.dualform.internal.df_tensor;

/**
 * A row-major view of device memory: shape, strides with a contiguous last dimension, dtype. Views share their memory, which lives
 * until the last of them is closed. Every tensor, views included, is closed by whoever made it.
 *
 * <p>Threading: safe to use from several threads. {@link #close()} is idempotent and may race with use: it takes effect when the last
 * call in flight returns, and later calls throw {@link IllegalStateException}. Contents are not synchronised: two threads that write
 * the same elements, or write what another reads, need an order of their own. Shape, strides, dtype and device may be asked of a
 * closed tensor.
 */
public final class Tensor implements AutoCloseable {
    private static final int TRANSFER_BYTES = 1 << 22;

    final TensorHandle handle;
    private final Device device;
    private final DType dtype;
    private final long[] shape;
    private final long[] strides;
    private final long numel;

    Tensor(Device device, df_tensor pointer, DType dtype, long[] shape, long[] strides) {
        this.device = device;
        this.dtype = dtype;
        this.shape = shape;
        this.strides = strides;
        this.numel = Arguments.numel(shape, "shape");
        this.handle = new TensorHandle(pointer, device.handle);
        this.handle.watch(this);
    }

    // ---- making ----

    /**
     * A new contiguous tensor with undefined contents.
     *
     * @param device where
     * @param dtype element type
     * @param shape dimensions, each at least 1, at most 8 of them; none makes a scalar
     * @return the tensor
     * @throws InvalidArgumentException if the shape is not valid or not countable, or dtype is F64 and device is CUDA
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor empty(Device device, DType dtype, long... shape) {
        Arguments.notNull(device, "device");
        Arguments.notNull(dtype, "dtype");
        Arguments.bytes(shape, dtype, "shape");
        long[] dimensions = shape.clone();
        return device.create(dimensions, dtype, out ->
                df_tensor_create(device.handle.pointer, dtype.code(), dimensions.length, dimensions, out));
    }

    /**
     * A new tensor of zeros.
     *
     * @param device where
     * @param dtype element type
     * @param shape dimensions
     * @return the tensor
     * @throws InvalidArgumentException as {@link #empty}
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor zeros(Device device, DType dtype, long... shape) {
        return full(device, dtype, 0, shape);
    }

    /**
     * A new tensor with one value in every element.
     *
     * @param device where
     * @param dtype element type
     * @param value the value, rounded to dtype
     * @param shape dimensions
     * @return the tensor
     * @throws InvalidArgumentException as {@link #empty}, or if dtype is I32 and the value is not one
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor full(Device device, DType dtype, double value, long... shape) {
        return initialised(empty(device, dtype, shape), tensor -> Ops.fill(tensor, value));
    }

    /**
     * A new tensor of shape ().
     *
     * @param device where
     * @param dtype element type
     * @param value the value, rounded to dtype
     * @return the tensor
     * @throws InvalidArgumentException if dtype is I32 and the value is not one
     * @throws DeviceOutOfMemoryException if the device has no memory left
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor scalar(Device device, DType dtype, double value) {
        return full(device, dtype, value);
    }

    /**
     * A new F32 tensor with the given values.
     *
     * @param device where
     * @param values row-major
     * @param shape dimensions; as many elements as values
     * @return the tensor
     * @throws InvalidArgumentException if the shape does not have that many elements
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor of(Device device, float[] values, long... shape) {
        checkCount(Arguments.notNull(values, "values").length, Arguments.numel(shape, "shape"), shape);
        return initialised(empty(device, DType.F32, shape), tensor -> tensor.write(values));
    }

    /**
     * A new F64 tensor with the given values.
     *
     * @param device where
     * @param values row-major
     * @param shape dimensions; as many elements as values
     * @return the tensor
     * @throws InvalidArgumentException if the shape does not have that many elements, or device is CUDA
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor of(Device device, double[] values, long... shape) {
        return of(device, DType.F64, values, shape);
    }

    /**
     * A new I32 tensor with the given values.
     *
     * @param device where
     * @param values row-major
     * @param shape dimensions; as many elements as values
     * @return the tensor
     * @throws InvalidArgumentException if the shape does not have that many elements
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor of(Device device, int[] values, long... shape) {
        checkCount(Arguments.notNull(values, "values").length, Arguments.numel(shape, "shape"), shape);
        return initialised(empty(device, DType.I32, shape), tensor -> tensor.write(values));
    }

    /**
     * A new tensor of a floating dtype with the given values, rounded to it.
     *
     * @param device where
     * @param dtype F32, BF16 or F64
     * @param values row-major
     * @param shape dimensions; as many elements as values
     * @return the tensor
     * @throws InvalidArgumentException if the shape does not have that many elements, or dtype is I32
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor of(Device device, DType dtype, double[] values, long... shape) {
        checkCount(Arguments.notNull(values, "values").length, Arguments.numel(shape, "shape"), shape);
        return initialised(empty(device, dtype, shape), tensor -> tensor.write(values));
    }

    private interface Initialisation {
        void run(Tensor tensor);
    }

    private static Tensor initialised(Tensor tensor, Initialisation initialisation) {
        try {
            initialisation.run(tensor);
            return tensor;
        } catch (RuntimeException | Error e) {
            tensor.close();
            throw e;
        }
    }

    private static void checkCount(long values, long numel, long[] shape) {
        if (values != numel) {
            throw new InvalidArgumentException("values: " + values + " elements, expected " + numel + " for shape "
                    + Arguments.describe(shape));
        }
    }

    // ---- what it is ----

    /**
     * Where it lives.
     *
     * @return the device
     */
    public Device device() {
        return device;
    }

    /**
     * Its element type.
     *
     * @return the dtype
     */
    public DType dtype() {
        return dtype;
    }

    /**
     * The number of dimensions.
     *
     * @return 0 to 8
     */
    public int rank() {
        return shape.length;
    }

    /**
     * The dimensions.
     *
     * @return a copy, one value of at least 1 per axis
     */
    public long[] shape() {
        return shape.clone();
    }

    /**
     * One dimension.
     *
     * @param axis from 0 to rank - 1
     * @return the size along it
     * @throws InvalidArgumentException if there is no such axis
     */
    public long size(int axis) {
        return shape[Arguments.axis(axis, shape.length, "axis")];
    }

    /**
     * The distance between neighbours along each axis.
     *
     * @return a copy, in elements; the last is 1 unless its dimension is 1
     */
    public long[] strides() {
        return strides.clone();
    }

    /**
     * The number of elements.
     *
     * @return the product of the dimensions
     */
    public long numel() {
        return numel;
    }

    /**
     * The size of the elements together.
     *
     * @return {@code numel() * dtype().bytes()}
     */
    public long byteSize() {
        return numel * dtype.bytes();
    }

    /**
     * Whether the elements lie row-major without gaps.
     *
     * @return true for every tensor that is not a view with other strides
     */
    public boolean isContiguous() {
        long expected = 1;
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            if (shape[axis] != 1 && strides[axis] != expected) {
                return false;
            }
            expected *= shape[axis];
        }
        return true;
    }

    /**
     * The address of the first element, for interop; valid while the tensor is open.
     *
     * @return a host address on the CPU, a device address on CUDA
     * @throws IllegalStateException if the tensor is closed
     */
    public long address() {
        try (Call call = Call.begin()) {
            return df_tensor_data(call.use(this, "tensor")).address();
        }
    }

    // ---- views ----

    /**
     * A view of the same memory.
     *
     * @param shape dimensions of the view
     * @param strides in elements, positive, one per dimension; the last is 1 unless its dimension is 1
     * @param offset of the view's first element from this tensor's, in elements, at least 0
     * @return the view
     * @throws InvalidArgumentException if it would leave the memory, or reach an element twice
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor view(long[] shape, long[] strides, long offset) {
        Arguments.numel(shape, "shape");
        if (Arguments.notNull(strides, "strides").length != shape.length) {
            throw new InvalidArgumentException("strides: " + strides.length + " of them, expected one for each of " + shape.length
                    + " dimensions");
        }
        if (offset < 0) {
            throw new InvalidArgumentException("offset: " + offset + ", expected at least 0");
        }
        checkReach(shape, strides, offset);
        return viewOf(shape.clone(), strides.clone(), offset);
    }

    /** The last element's place must be countable; whether it lies inside the memory is checked natively. */
    private static void checkReach(long[] shape, long[] strides, long offset) {
        try {
            long last = offset;
            for (int axis = 0; axis < shape.length; axis++) {
                if (strides[axis] < 1) {
                    throw new InvalidArgumentException("strides: " + Arguments.describe(strides)
                            + ", expected every stride to be at least 1");
                }
                last = Math.addExact(last, Math.multiplyExact(shape[axis] - 1, strides[axis]));
            }
        } catch (ArithmeticException e) {
            throw new InvalidArgumentException("view: shape " + Arguments.describe(shape) + " with strides " + Arguments.describe(strides)
                    + " and offset " + offset + " reaches beyond 2^63 - 1 elements");
        }
    }

    private Tensor viewOf(long[] shape, long[] strides, long offset) {
        try (Call call = Call.begin()) {
            df_tensor out = new df_tensor();
            call.check(df_tensor_view(call.use(this, "tensor"), shape.length, shape, strides, offset, out));
            return new Tensor(device, out, dtype, shape, strides);
        }
    }

    /**
     * The same elements in another shape, without a copy.
     *
     * @param shape as many elements as this tensor
     * @return the view
     * @throws InvalidArgumentException if the number of elements differs, or these strides do not allow it ({@link #copy()} first)
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor reshape(long... shape) {
        long count = Arguments.numel(shape, "shape");
        if (count != numel) {
            throw new InvalidArgumentException("shape: " + Arguments.describe(shape) + " has " + count + " elements, expected " + numel
                    + " as in " + Arguments.describe(this.shape));
        }
        long[] dimensions = shape.clone();
        return viewOf(dimensions, reshapedStrides(dimensions), 0);
    }

    /** Strides that give the same elements in the same order, group of axes by group of axes. */
    private long[] reshapedStrides(long[] to) {
        long[] result = new long[to.length];
        int from = 0;
        int done = 0;
        while (done < to.length) {
            long fromSize = 1;
            long toSize = 1;
            int fromEnd = from;
            int toEnd = done;
            do {
                if (toEnd < to.length && (toSize < fromSize || toEnd == done)) {
                    toSize *= to[toEnd++];
                } else if (fromEnd < shape.length) {
                    fromSize *= shape[fromEnd++];
                }
            } while (toSize != fromSize);
            long stride = groupStride(from, fromEnd, to);
            for (int axis = toEnd - 1; axis >= done; axis--) {
                result[axis] = stride;
                stride *= to[axis];
            }
            from = fromEnd;
            done = toEnd;
        }
        return result;
    }

    /** The stride of the innermost element of axes that lie in memory as one; throws when they do not. */
    private long groupStride(int from, int end, long[] to) {
        long innermost = 1;
        long expected = -1;
        for (int axis = end - 1; axis >= from; axis--) {
            if (shape[axis] == 1) {
                continue;
            }
            if (expected < 0) {
                innermost = strides[axis];
            } else if (strides[axis] != expected) {
                throw new InvalidArgumentException("shape: " + Arguments.describe(to) + " is no view of shape " + Arguments.describe(shape)
                        + " with strides " + Arguments.describe(strides) + "; copy() first");
            }
            expected = strides[axis] * shape[axis];
        }
        return innermost;
    }

    /**
     * Part of an axis, as a view.
     *
     * @param axis which
     * @param from first index
     * @param to one past the last index
     * @return the view, with {@code to - from} along the axis
     * @throws InvalidArgumentException unless {@code 0 <= from < to <= size(axis)}
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor slice(int axis, long from, long to) {
        long size = size(axis);
        if (from < 0 || to <= from || to > size) {
            throw new InvalidArgumentException("slice: " + from + " to " + to + " of axis " + axis + ", expected a part of 0 to " + size);
        }
        long[] dimensions = shape.clone();
        dimensions[axis] = to - from;
        return viewOf(dimensions, strides.clone(), from * strides[axis]);
    }

    /**
     * One index of an axis, as a view without that axis. Of the last axis it is possible only where the axis before it is contiguous
     * or there is none.
     *
     * @param axis which
     * @param index from 0 to size(axis) - 1
     * @return the view
     * @throws InvalidArgumentException if there is no such index, or the view's last dimension would not be contiguous
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor select(int axis, long index) {
        long size = size(axis);
        if (index < 0 || index >= size) {
            throw new InvalidArgumentException("index: " + index + " of axis " + axis + ", expected 0 to " + (size - 1));
        }
        return viewOf(without(shape, axis), without(strides, axis), index * strides[axis]);
    }

    private static long[] without(long[] values, int axis) {
        long[] result = new long[values.length - 1];
        System.arraycopy(values, 0, result, 0, axis);
        System.arraycopy(values, axis + 1, result, axis, result.length - axis);
        return result;
    }

    /**
     * Two axes exchanged, as a view. The last axis stays where it is unless one of the two dimensions allows it.
     *
     * @param a one axis
     * @param b the other
     * @return the view
     * @throws InvalidArgumentException if there is no such axis, or the last dimension would not be contiguous
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor transpose(int a, int b) {
        Arguments.axis(a, shape.length, "a");
        Arguments.axis(b, shape.length, "b");
        return viewOf(exchanged(shape, a, b), exchanged(strides, a, b), 0);
    }

    private static long[] exchanged(long[] values, int a, int b) {
        long[] result = values.clone();
        result[a] = values[b];
        result[b] = values[a];
        return result;
    }

    static long[] contiguousStrides(long[] shape) {
        long[] strides = new long[shape.length];
        long stride = 1;
        for (int axis = shape.length - 1; axis >= 0; axis--) {
            strides[axis] = stride;
            stride *= shape[axis];
        }
        return strides;
    }

    // ---- copies ----

    /**
     * A contiguous copy on the same device.
     *
     * @return a new tensor
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor copy() {
        return cast(dtype);
    }

    /**
     * A contiguous copy in another dtype, rounded to nearest even.
     *
     * @param dtype a floating dtype for a floating tensor, I32 for I32
     * @return a new tensor
     * @throws InvalidArgumentException for a change between floating and I32
     * @throws DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the tensor is closed
     */
    public Tensor cast(DType dtype) {
        return initialised(empty(device, dtype, shape), tensor -> Ops.copy(tensor, this));
    }

    /**
     * A contiguous copy on a device, through host memory in pieces. Waits for both devices.
     *
     * @param device where to
     * @return a new tensor
     * @throws InvalidArgumentException if the device does not have this dtype
     * @throws DeviceOutOfMemoryException if a device has not that much memory
     * @throws IllegalStateException if the tensor or the device is closed
     */
    public Tensor to(Device device) {
        return initialised(empty(device, dtype, shape), this::transfer);
    }

    private void transfer(Tensor target) {
        ByteBuffer buffer = ByteBuffer.allocateDirect((int) Math.min(TRANSFER_BYTES, byteSize()));
        try (Tensor contiguous = isContiguous() ? reshape(shape) : copy();
                Tensor from = contiguous.reshape(numel);
                Tensor to = target.reshape(numel)) {
            long step = TRANSFER_BYTES / dtype.bytes();
            for (long first = 0; first < numel; first += step) {
                long end = Math.min(numel, first + step);
                try (Tensor source = from.slice(0, first, end); Tensor destination = to.slice(0, first, end)) {
                    buffer.clear().limit((int) source.byteSize());
                    source.read(buffer);
                    destination.write(buffer.flip());
                }
            }
        }
    }

    // ---- host data ----

    /**
     * All elements, row-major, as floats. Waits for the device.
     *
     * @return a new array
     * @throws InvalidArgumentException if the dtype is I32, or there are more elements than an array can hold
     * @throws IllegalStateException if the tensor is closed
     */
    public float[] toFloats() {
        float[] values = new float[arrayLength()];
        read(values);
        return values;
    }

    /**
     * All elements, row-major, as doubles. Waits for the device.
     *
     * @return a new array
     * @throws InvalidArgumentException if the dtype is I32, or there are more elements than an array can hold
     * @throws IllegalStateException if the tensor is closed
     */
    public double[] toDoubles() {
        double[] values = new double[arrayLength()];
        read(values);
        return values;
    }

    /**
     * All elements of an I32 tensor, row-major. Waits for the device.
     *
     * @return a new array
     * @throws InvalidArgumentException if the dtype is not I32, or there are more elements than an array can hold
     * @throws IllegalStateException if the tensor is closed
     */
    public int[] toInts() {
        int[] values = new int[arrayLength()];
        read(values);
        return values;
    }

    private int arrayLength() {
        if (numel > Integer.MAX_VALUE - 8) {
            throw new InvalidArgumentException("tensor: " + numel + " elements, expected no more than a Java array holds");
        }
        return (int) numel;
    }

    /**
     * The element of a tensor that has one. Waits for the device.
     *
     * @return its value
     * @throws InvalidArgumentException if there is more than one element
     * @throws IllegalStateException if the tensor is closed
     */
    public double item() {
        if (numel != 1) {
            throw new InvalidArgumentException("tensor: shape " + Arguments.describe(shape) + ", expected one element");
        }
        return dtype == DType.I32 ? toInts()[0] : toDoubles()[0];
    }

    /**
     * Copies all elements, row-major, into an array. Waits for the device.
     *
     * @param values as long as the tensor has elements
     * @throws InvalidArgumentException if it is not, or the dtype is I32
     * @throws IllegalStateException if the tensor is closed
     */
    public void read(float[] values) {
        checkCount(Arguments.notNull(values, "values").length, numel, shape);
        try (Call call = Call.begin()) {
            call.check(df_tensor_read_f32(call.use(this, "tensor"), values, values.length));
        }
    }

    /**
     * Copies all elements, row-major, into an array. Waits for the device.
     *
     * @param values as long as the tensor has elements
     * @throws InvalidArgumentException if it is not, or the dtype is I32
     * @throws IllegalStateException if the tensor is closed
     */
    public void read(double[] values) {
        checkCount(Arguments.notNull(values, "values").length, numel, shape);
        try (Call call = Call.begin()) {
            call.check(df_tensor_read_f64(call.use(this, "tensor"), values, values.length));
        }
    }

    /**
     * Copies all elements of an I32 tensor, row-major, into an array. Waits for the device.
     *
     * @param values as long as the tensor has elements
     * @throws InvalidArgumentException if it is not, or the dtype is not I32
     * @throws IllegalStateException if the tensor is closed
     */
    public void read(int[] values) {
        checkCount(Arguments.notNull(values, "values").length, numel, shape);
        try (Call call = Call.begin()) {
            call.check(df_tensor_read_i32(call.use(this, "tensor"), values, values.length));
        }
    }

    /**
     * Copies all elements, row-major, little endian in the tensor's own dtype, to a buffer's position, and advances it. Waits for the
     * device.
     *
     * @param bytes exactly {@link #byteSize()} remaining; a direct buffer saves a copy
     * @throws InvalidArgumentException if another number of bytes remains, or the buffer is read-only
     * @throws IllegalStateException if the tensor is closed
     */
    public void read(ByteBuffer bytes) {
        checkRemaining(bytes);
        if (bytes.isReadOnly()) {
            throw new InvalidArgumentException("bytes: a read-only buffer, expected one that can be written");
        }
        ByteBuffer direct = bytes.isDirect() ? bytes.slice() : ByteBuffer.allocateDirect(bytes.remaining());
        try (Call call = Call.begin()) {
            call.check(df_tensor_read_bytes(call.use(this, "tensor"), new Pointer(direct), byteSize()));
        }
        if (bytes.isDirect()) {
            bytes.position(bytes.limit());
        } else {
            bytes.put(direct);
        }
    }

    /**
     * Sets all elements, row-major, rounding to the dtype.
     *
     * @param values as many as the tensor has elements
     * @throws InvalidArgumentException if there are not, or the dtype is I32
     * @throws IllegalStateException if the tensor is closed
     */
    public void write(float[] values) {
        checkCount(Arguments.notNull(values, "values").length, numel, shape);
        try (Call call = Call.begin()) {
            call.check(df_tensor_write_f32(call.use(this, "tensor"), values, values.length));
        }
    }

    /**
     * Sets all elements, row-major, rounding to the dtype.
     *
     * @param values as many as the tensor has elements
     * @throws InvalidArgumentException if there are not, or the dtype is I32
     * @throws IllegalStateException if the tensor is closed
     */
    public void write(double[] values) {
        checkCount(Arguments.notNull(values, "values").length, numel, shape);
        try (Call call = Call.begin()) {
            call.check(df_tensor_write_f64(call.use(this, "tensor"), values, values.length));
        }
    }

    /**
     * Sets all elements of an I32 tensor, row-major.
     *
     * @param values as many as the tensor has elements
     * @throws InvalidArgumentException if there are not, or the dtype is not I32
     * @throws IllegalStateException if the tensor is closed
     */
    public void write(int[] values) {
        checkCount(Arguments.notNull(values, "values").length, numel, shape);
        try (Call call = Call.begin()) {
            call.check(df_tensor_write_i32(call.use(this, "tensor"), values, values.length));
        }
    }

    /**
     * Sets all elements from a buffer's position on, row-major, little endian in the tensor's own dtype, and advances it.
     *
     * @param bytes exactly {@link #byteSize()} remaining; a direct buffer saves a copy
     * @throws InvalidArgumentException if another number of bytes remains
     * @throws IllegalStateException if the tensor is closed
     */
    public void write(ByteBuffer bytes) {
        checkRemaining(bytes);
        ByteBuffer direct = bytes.isDirect()
                ? bytes.slice()
                : ByteBuffer.allocateDirect(bytes.remaining()).put(bytes.duplicate()).flip();
        try (Call call = Call.begin()) {
            call.check(df_tensor_write_bytes(call.use(this, "tensor"), new Pointer(direct), byteSize()));
        }
        bytes.position(bytes.limit());
    }

    private void checkRemaining(ByteBuffer bytes) {
        if (Arguments.notNull(bytes, "bytes").remaining() != byteSize()) {
            throw new InvalidArgumentException("bytes: " + bytes.remaining() + " remaining, expected " + byteSize());
        }
    }

    // ---- the end ----

    /**
     * Whether the tensor is closed.
     *
     * @return true after {@link #close()}
     */
    public boolean isClosed() {
        return handle.isClosed();
    }

    /** Closes the tensor; its memory goes back to the device's pool with the last view of it. Closing it again does nothing. */
    @Override
    public void close() {
        handle.close();
    }

    /**
     * Dtype, shape and backend, not the contents.
     *
     * @return for logs
     */
    @Override
    public String toString() {
        return "Tensor " + dtype + " " + Arguments.describe(shape) + " on " + device.backend().id() + (isClosed() ? " (closed)" : "");
    }
}
