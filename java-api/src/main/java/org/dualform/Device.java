package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import org.bytedeco.javacpp.Pointer;
import org.dualform.internal.df_device;
import org.dualform.internal.df_graph;
import org.dualform.internal.df_tensor;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A place where tensors live and ops run: the CPU, or one CUDA device. It owns a memory pool; closing it gives everything back.
 *
 * <p>Threading: safe to use from several threads; ops on one device from several threads run to completion each on its own.
 * {@link #close()} is idempotent and refuses while tensors or graphs of the device live. After it every method but {@link #isClosed()},
 * {@link #backend()} and {@link #toString()} throws {@link IllegalStateException}.
 */
public final class Device implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(Device.class);
    private static final Set<String> LOGGED = ConcurrentHashMap.newKeySet();
    private static final AtomicBoolean WARNED = new AtomicBoolean();

    final DeviceHandle handle;
    private final Backend backend;

    private Device(df_device pointer, Backend backend) {
        this.backend = backend;
        handle = new DeviceHandle(pointer);
        handle.watch(this);
    }

    /**
     * Opens the device that the system property {@code dualform.backend} names, or the environment variable
     * {@code DUALFORM_BACKEND}, or else CUDA device 0 if there is one and the CPU if not.
     *
     * @return the device, to be closed by the caller
     * @throws BackendUnavailableException if the backend was demanded and cannot serve
     * @throws InvalidArgumentException if a property has a value that is not understood
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Device open() {
        NativeLibrary.require();
        return open(Backends.choose(), 0, Backends.threads());
    }

    /**
     * Opens device 0 of a backend, whatever the properties say but for {@code dualform.threads} and those of the
     * backend's kernels: {@code dualform.cpu}; {@code dualform.kernels}, {@code dualform.precision}, {@code dualform.deterministic}.
     *
     * @param backend AUTO, CPU or CUDA
     * @return the device, to be closed by the caller
     * @throws BackendUnavailableException if the backend cannot serve
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Device open(Backend backend) {
        return open(backend, 0, Backends.threads());
    }

    /**
     * Opens a device.
     *
     * @param backend AUTO, CPU or CUDA
     * @param index which device of that backend, from 0; the CPU has only device 0
     * @param threads CPU threads an op may use; 0 for all this process may use; ignored by CUDA
     * @return the device, to be closed by the caller
     * @throws BackendUnavailableException if the backend cannot serve
     * @throws InvalidArgumentException if there is no such device, or threads is negative
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Device open(Backend backend, int index, int threads) {
        Arguments.notNull(backend, "backend");
        NativeLibrary.require();
        Backends.Choice choice = backend == Backend.AUTO
                ? Backends.automatic("auto demanded in code")
                : new Backends.Choice(backend, true, "demanded in code");
        return open(choice, index, threads);
    }

    /**
     * Opens the CPU with as many threads as {@code dualform.threads} says, all by default.
     *
     * @return the device, to be closed by the caller
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Device cpu() {
        return open(Backend.CPU);
    }

    /**
     * Opens the CPU.
     *
     * @param threads threads an op may use; 0 for all this process may use
     * @return the device, to be closed by the caller
     * @throws InvalidArgumentException if threads is negative
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Device cpu(int threads) {
        return open(Backend.CPU, 0, threads);
    }

    /**
     * Opens a CUDA device.
     *
     * @param index which, from 0
     * @return the device, to be closed by the caller
     * @throws BackendUnavailableException if CUDA cannot serve, with the full reason
     * @throws InvalidArgumentException if there is no such device
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Device cuda(int index) {
        return open(Backend.CUDA, index, 0);
    }

    private static Device open(Backends.Choice choice, int index, int threads) {
        if (threads < 0) {
            throw new InvalidArgumentException("threads: " + threads + ", expected at least 0");
        }
        Backend backend = choice.backend();
        if (backend == Backend.CUDA) {
            Backends.Status status = Backends.status(Backend.CUDA);
            if (!status.available()) {
                throw unavailable(choice, status.reason());
            }
        } else if (!choice.demanded() && Backends.cudaPresent() && WARNED.compareAndSet(false, true)) {
            LOG.warn("the CUDA plug-in is on the class path but the CPU serves: {}", Backends.status(Backend.CUDA).reason());
        }
        if (backend == Backend.CPU) {
            Backends.passOptions(backend);
        }
        df_device pointer = new df_device();
        int status = df_device_open(backend.id(), index, threads, pointer);
        if (status == DF_UNAVAILABLE) {
            throw unavailable(choice, NativeStatus.lastError());
        }
        NativeStatus.check(status);
        Device device = new Device(pointer, backend);
        String description = device.description();
        if (LOGGED.add(backend.id() + index + description)) {
            LOG.info("dualform {} (build {}) on {}: {}; {}", Dualform.version(), Dualform.buildId(), backend.id(), description,
                    choice.reason());
        }
        return device;
    }

    private static BackendUnavailableException unavailable(Backends.Choice choice, String reason) {
        String remedy = choice.backend() == Backend.CUDA ? "; -D" + Backends.PROPERTY + "=cpu forces the CPU" : "";
        return new BackendUnavailableException("the " + choice.backend().id() + " backend (" + choice.reason() + ") is unavailable: "
                + reason + remedy);
    }

    /**
     * The backend.
     *
     * @return CPU or CUDA, never AUTO
     */
    public Backend backend() {
        return backend;
    }

    /**
     * One line for a log: the device's name, features and threads.
     *
     * @return the line
     * @throws IllegalStateException if the device is closed
     */
    public String description() {
        handle.acquire("device");
        try {
            return NativeStatus.text((text, n) -> df_device_describe(handle.pointer, text, n));
        } finally {
            handle.release();
        }
    }

    /**
     * Threads an op may use.
     *
     * @return CPU threads; 1 on CUDA
     * @throws IllegalStateException if the device is closed
     */
    public int threads() {
        return (int) stat(DF_STAT_THREADS);
    }

    /**
     * What the device's threads can do at most: multiply-adds in registers, by the instruction that products of the dtype are formed with
     * (BF16: AMX, AVX512_BF16 or float32, by the level). Measured anew by each call, in some 30 ms during which nothing else should run.
     *
     * @param dtype F32, BF16 or F64
     * @return 1e9 floating-point operations a second, a multiply-add being two
     * @throws InvalidArgumentException if the dtype is I32
     * @throws UnsupportedOperationException on CUDA
     * @throws IllegalStateException if the device is closed
     */
    public double peakGflops(DType dtype) {
        if (!Arguments.notNull(dtype, "dtype").isFloating()) {
            throw new InvalidArgumentException("dtype: " + dtype + ", expected F32, BF16 or F64");
        }
        double[] gflops = {0};
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_peak_gflops(handle.pointer, dtype.code(), gflops));
        } finally {
            handle.release();
        }
        return gflops[0];
    }

    /**
     * Starts the device's stopwatch, of which it has one: the time of the work that is queued until {@link #stopTimer()}.
     *
     * @throws IllegalStateException if a graph is being captured, or the device is closed
     */
    public void startTimer() {
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_start_timer(handle.pointer));
        } finally {
            handle.release();
        }
    }

    /**
     * Stops the stopwatch and waits for the work: on CUDA the time between two events on its stream, in which the host's own does not count
     * while the queue is full; on the CPU that of the clock.
     *
     * @return seconds since {@link #startTimer()}
     * @throws IllegalStateException if it was not started, a graph is being captured, or the device is closed
     */
    public double stopTimer() {
        double[] seconds = {0};
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_stop_timer(handle.pointer, seconds));
        } finally {
            handle.release();
        }
        return seconds[0];
    }

    /**
     * Waits until everything queued on the device is done; on the CPU ops are done when they return.
     *
     * @throws IllegalStateException if the device is closed
     * @throws DeviceLostException if queued work failed and took the device with it
     */
    public void synchronize() {
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_synchronize(handle.pointer));
        } finally {
            handle.release();
        }
    }

    /**
     * What the memory pool holds now.
     *
     * @return counts and bytes
     * @throws IllegalStateException if the device is closed
     */
    public MemoryStats memory() {
        handle.acquire("device");
        try {
            df_device device = handle.pointer;
            return new MemoryStats(
                    df_device_stat(device, DF_STAT_LIVE_TENSORS),
                    df_device_stat(device, DF_STAT_BYTES_IN_USE),
                    df_device_stat(device, DF_STAT_BYTES_RESERVED),
                    df_device_stat(device, DF_STAT_PEAK_BYTES),
                    df_device_stat(device, DF_STAT_SYSTEM_ALLOCS));
        } finally {
            handle.release();
        }
    }

    private long stat(int which) {
        handle.acquire("device");
        try {
            return df_device_stat(handle.pointer, which);
        } finally {
            handle.release();
        }
    }

    /**
     * Lets {@link MemoryStats#peakBytes()} start again from the bytes in use now.
     *
     * @throws IllegalStateException if the device is closed
     */
    public void resetPeak() {
        handle.acquire("device");
        try {
            df_device_reset_peak(handle.pointer);
        } finally {
            handle.release();
        }
    }

    /**
     * Gives pooled memory that nothing uses back to the system.
     *
     * @throws IllegalStateException if the device is closed
     */
    public void trim() {
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_trim(handle.pointer));
        } finally {
            handle.release();
        }
    }

    /**
     * Queues all later work on a stream of the caller, who keeps it alive.
     *
     * @param stream a CUstream as a number; 0 restores the device's own stream
     * @throws UnsupportedOperationException on the CPU
     * @throws IllegalStateException if the device is closed
     */
    public void useStream(long stream) {
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_set_stream(handle.pointer, new RawAddress(stream)));
        } finally {
            handle.release();
        }
    }

    /**
     * Records a step as a graph, to be replayed without its Java code: on CUDA one launch instead of hundreds. The step runs once here, but
     * its ops are only recorded: what they compute is there after the first {@link Graph#replay()}. Numbers that change from step to step
     * belong on the device: {@link org.dualform.optim.StepControl} counts steps, holds the learning rates, clips and skips;
     * {@link Ops#randomNormalNext} draws anew at each replay.
     *
     * <p>The same rules hold on every backend, so a step that can be captured on the CPU can be on CUDA. Memory comes from the pool alone:
     * run the step once uncaptured, and close or keep what it made, before it is captured; once more after other graphs were captured, for
     * they keep theirs. Nothing passes between host and device and
     * nothing waits: no read, no write, no {@code item()}. No other thread uses the device meanwhile. Tensors from
     * {@link #wrap} are the caller's to keep as long as the graph lives.
     *
     * @param step what is recorded, on this thread; tensors it makes may be closed in it or later
     * @return the graph, to be closed by the caller before the device
     * @throws IllegalStateException if the step breaks one of the rules, with a sentence that says which; a graph is being captured already;
     *     or the device is closed. Nothing is captured then, and the device is as usable as before
     */
    public Graph capture(Runnable step) {
        Arguments.notNull(step, "step");
        handle.acquire("device");
        try {
            NativeStatus.check(df_device_capture_begin(handle.pointer));
            boolean recorded = false;
            try {
                step.run();
                recorded = true;
            } finally {
                if (!recorded) {
                    df_device_capture_abandon(handle.pointer); // what the step threw says why
                }
            }
            df_graph out = new df_graph();
            NativeStatus.check(df_device_capture_end(handle.pointer, out));
            return new Graph(out, handle);
        } finally {
            handle.release();
        }
    }

    /**
     * A tensor over memory of the caller, who keeps it alive until the tensor is closed and the device is synchronised. dualform
     * cannot check that the memory exists: a wrong address crashes the process.
     *
     * @param address first byte (a device address on CUDA), aligned to the element size
     * @param bytes how much memory there is
     * @param dtype element type
     * @param shape dimensions, row-major and contiguous
     * @return the tensor; closing it does not free the memory
     * @throws InvalidArgumentException if the shape needs more than {@code bytes}, or address is 0
     * @throws IllegalStateException if the device is closed
     */
    public Tensor wrap(long address, long bytes, DType dtype, long... shape) {
        Arguments.notNull(dtype, "dtype");
        long needed = Arguments.bytes(shape, dtype, "shape");
        if (address == 0) {
            throw new InvalidArgumentException("address: 0, expected memory of the caller");
        }
        if (bytes < needed) {
            throw new InvalidArgumentException("bytes: " + bytes + ", expected at least " + needed + " for " + dtype + " "
                    + Arguments.describe(shape));
        }
        long[] dimensions = shape.clone();
        return create(dimensions, dtype, out ->
                df_tensor_wrap(handle.pointer, dtype.code(), dimensions.length, dimensions, new RawAddress(address), bytes, out));
    }

    /** A native call that makes a tensor. */
    interface Creation {
        int create(df_tensor out);
    }

    /** A contiguous tensor made by a native call while this device is held open. */
    Tensor create(long[] shape, DType dtype, Creation creation) {
        handle.acquire("device");
        try {
            df_tensor out = new df_tensor();
            NativeStatus.check(creation.create(out));
            return new Tensor(this, out, dtype, shape, Tensor.contiguousStrides(shape));
        } finally {
            handle.release();
        }
    }

    /**
     * Whether the device is closed.
     *
     * @return true after {@link #close()}
     */
    public boolean isClosed() {
        return handle.isClosed();
    }

    /**
     * Closes the device and gives its memory back. Closing a closed device does nothing. Calls in flight on other threads end first.
     *
     * @throws IllegalStateException if tensors or graphs of the device live; nothing changes then
     */
    @Override
    public void close() {
        handle.close();
    }

    /**
     * The backend, and whether the device is closed.
     *
     * @return for logs
     */
    @Override
    public String toString() {
        return "Device " + backend.id() + (isClosed() ? " (closed)" : "");
    }

    /** An address of the caller's, as JavaCPP takes it; owns nothing. */
    private static final class RawAddress extends Pointer {
        RawAddress(long address) {
            super((Pointer) null);
            this.address = address;
        }
    }
}
