package org.dualform.cuda;

import java.util.Objects;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.javacpp.Pointer;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;

/**
 * Hands streams and device memory of JavaCPP Presets for CUDA to dualform and back. A program that uses this class has {@code
 * org.bytedeco:cuda} on its class path already; everything here is also in the core by plain addresses ({@link Device#useStream(long)},
 * {@link Device#wrap(long, long, DType, long...)}, {@link Tensor#address()}), for programs with another CUDA binding.
 *
 * <p>Threading: as the methods of {@link Device} and {@link Tensor} that are called.
 */
public final class CudaInterop {
    private CudaInterop() {}

    /**
     * Queues all later work of a CUDA device on the caller's stream, which must outlive that work.
     *
     * @param device a CUDA device
     * @param stream a stream of the same CUDA device, or null to return to the device's own
     * @throws UnsupportedOperationException if the device is not a CUDA device
     * @throws IllegalStateException if the device is closed
     */
    public static void useStream(Device device, CUstream_st stream) {
        Objects.requireNonNull(device, "device").useStream(stream == null ? 0 : stream.address());
    }

    /**
     * A tensor over device memory of the caller. dualform neither frees nor keeps it: it must stay allocated until the tensor is closed and
     * the work queued with it is done.
     *
     * @param device the CUDA device the memory belongs to
     * @param memory the first element; its limit less its position, where it has one, is the memory there is
     * @param dtype of the elements
     * @param shape of the tensor, row-major and contiguous
     * @return a tensor to close, which leaves the memory alone
     * @throws org.dualform.InvalidArgumentException if the memory is null or smaller than the shape needs
     * @throws IllegalStateException if the device is closed
     */
    public static Tensor wrap(Device device, Pointer memory, DType dtype, long... shape) {
        Objects.requireNonNull(device, "device");
        Objects.requireNonNull(memory, "memory");
        Objects.requireNonNull(dtype, "dtype");
        Objects.requireNonNull(shape, "shape");
        long elements = memory.limit() - memory.position();
        // A pointer from a cast or from cudaMalloc knows no limit; then the shape is all there is to go by.
        long bytes = elements > 0 ? Math.multiplyExact(elements, memory.sizeof()) : Long.MAX_VALUE;
        return device.wrap(memory.address() + memory.position() * memory.sizeof(), bytes, dtype, shape);
    }

    /**
     * The memory of a tensor as a pointer without a deallocator, valid while the tensor is open.
     *
     * @param tensor any contiguous tensor of a CUDA device
     * @return its first element, with the tensor's size in bytes as limit
     * @throws IllegalArgumentException if the tensor is not contiguous
     * @throws IllegalStateException if the tensor is closed
     */
    public static Pointer pointer(Tensor tensor) {
        if (!Objects.requireNonNull(tensor, "tensor").isContiguous()) {
            throw new IllegalArgumentException("tensor: not contiguous, expected contiguous memory");
        }
        long first = tensor.address();
        Pointer pointer = new Pointer() {
            {
                address = first;
            }
        };
        return pointer.capacity(tensor.byteSize());
    }
}
