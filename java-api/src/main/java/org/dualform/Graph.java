package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import org.dualform.internal.df_graph;

/**
 * A step that was recorded once by {@link Device#capture} and runs again by {@link #replay}, without any of the step's Java code: on CUDA
 * as one launch of a CUDA graph, on the CPU op by op. It keeps all memory that the step's ops use, so that a replay finds every tensor
 * where it was, those that the step made and closed too; what the step reads from outside is changed between replays by writing into the
 * same tensors.
 *
 * <p>Threading: safe to use from several threads; replays run one after another. {@link #close()} is idempotent and takes effect when the
 * last call in flight returns; a later replay throws {@link IllegalStateException}.
 */
public final class Graph implements AutoCloseable {
    private final GraphHandle handle;

    Graph(df_graph pointer, DeviceHandle device) {
        handle = new GraphHandle(pointer, device);
        handle.watch(this);
    }

    /**
     * Queues the step once more (CUDA), or runs it (CPU), after the device's other work so far.
     *
     * @throws IllegalStateException if the graph is closed, or a graph is being captured on its device
     * @throws InvalidArgumentException on the CPU if the step reads ids out of range; on CUDA they make the loss NaN
     * @throws DeviceOutOfMemoryException on the CPU if scratch memory is out
     * @throws DeviceLostException if the GPU failed
     */
    public void replay() {
        handle.acquire("graph");
        try {
            NativeStatus.check(df_graph_replay(handle.pointer));
        } finally {
            handle.release();
        }
    }

    /**
     * Whether the graph is closed.
     *
     * @return true after {@link #close()}
     */
    public boolean isClosed() {
        return handle.isClosed();
    }

    /** Closes the graph; the memory it kept goes back to the device's pool. Closing it again does nothing. */
    @Override
    public void close() {
        handle.close();
    }

    /** A native graph. The native device outlives it. */
    private static final class GraphHandle extends NativeHandle {
        final df_graph pointer;
        private final DeviceHandle device;

        GraphHandle(df_graph pointer, DeviceHandle device) {
            super("graph");
            this.pointer = pointer;
            this.device = device;
        }

        @Override
        void destroy() {
            df_graph_destroy(pointer);
            pointer.setNull();
            device.partDestroyed();
        }
    }
}
