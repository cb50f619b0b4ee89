package org.dualform;

import static org.dualform.internal.global.DualformNative.df_tensor_destroy;

import org.dualform.internal.df_tensor;

/** A native tensor. The native device outlives it. */
final class TensorHandle extends NativeHandle {
    final df_tensor pointer;
    private final DeviceHandle device;

    TensorHandle(df_tensor pointer, DeviceHandle device) {
        super("tensor");
        this.pointer = pointer;
        this.device = device;
    }

    @Override
    void destroy() {
        df_tensor_destroy(pointer);
        pointer.setNull();
        device.partDestroyed();
    }
}
