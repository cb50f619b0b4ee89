package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import org.dualform.internal.df_device;

/** A native device. One that was given up while tensors or graphs live is closed with the last of them. */
final class DeviceHandle extends NativeHandle {
    final df_device pointer;
    private volatile boolean givenUp;

    DeviceHandle(df_device pointer) {
        super("device");
        this.pointer = pointer;
    }

    /** Refuses while tensors or graphs live. */
    @Override
    void close() {
        if (!acquire()) {
            return;
        }
        try {
            long live = df_device_stat(pointer, DF_STAT_LIVE_TENSORS);
            if (live > 0) {
                throw new IllegalStateException("device: " + live + (live == 1 ? " tensor" : " tensors")
                        + " of it not closed, expected none (close tensors and tapes before their device)");
            }
            long graphs = df_device_stat(pointer, DF_STAT_LIVE_GRAPHS);
            if (graphs > 0) {
                throw new IllegalStateException("device: " + graphs + (graphs == 1 ? " graph" : " graphs")
                        + " of it not closed, expected none (close graphs before their device)");
            }
            markClosed();
        } finally {
            release();
        }
    }

    @Override
    void destroy() {
        givenUp = true;
        closeNative();
    }

    void partDestroyed() {
        if (givenUp) {
            closeNative();
        }
    }

    private synchronized void closeNative() {
        if (!pointer.isNull() && df_device_close(pointer) == DF_OK) {
            pointer.setNull();
        }
    }
}
