package org.dualform;

import static org.dualform.internal.global.DualformNative.DF_OK;

import org.dualform.internal.df_tensor;

/**
 * One native call: holds its tensors open until it returns. There is one per thread, so that a call allocates nothing; the list of
 * arguments also keeps each tensor reachable.
 */
final class Call implements AutoCloseable {
    private static final ThreadLocal<Call> CURRENT = ThreadLocal.withInitial(Call::new);

    private final Tensor[] tensors = new Tensor[16];
    private int count;

    private Call() {}

    static Call begin() {
        return CURRENT.get();
    }

    df_tensor use(Tensor tensor, String argument) {
        if (tensor == null) {
            throw new NullPointerException(argument + " is null");
        }
        tensor.handle.acquire(argument);
        tensors[count++] = tensor;
        return tensor.handle.pointer;
    }

    df_tensor optional(Tensor tensor, String argument) {
        return tensor == null ? null : use(tensor, argument);
    }

    void check(int status) {
        if (status != DF_OK) {
            NativeStatus.check(status);
        }
    }

    @Override
    public void close() {
        while (count > 0) {
            Tensor tensor = tensors[--count];
            tensors[count] = null;
            tensor.handle.release();
        }
    }
}
