package org.dualform;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.lang.ref.Cleaner;
import java.util.concurrent.atomic.AtomicBoolean;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The lifetime of one native object: calls in flight are counted, {@link #close()} takes effect when the last of them returns, and
 * an object whose owner was lost is freed by the {@link Cleaner}. It never refers to its owner. Nothing is freed when the JVM ends:
 * threads may still be in native code then.
 */
abstract class NativeHandle implements Runnable {
    /** "paranoid" remembers where each object was made and logs every leak; anything else logs the first leak only. */
    static final String LEAK_DETECTION = "dualform.leakDetection";

    private static final Logger LOG = LoggerFactory.getLogger(NativeHandle.class);
    private static final Cleaner CLEANER = Cleaner.create();
    private static final boolean PARANOID = "paranoid".equals(System.getProperty(LEAK_DETECTION));
    private static final AtomicBoolean LEAK_LOGGED = new AtomicBoolean();
    private static final int CLOSED = 1 << 31;
    private static final VarHandle STATE;

    static {
        try {
            STATE = MethodHandles.lookup().findVarHandle(NativeHandle.class, "state", int.class);
        } catch (ReflectiveOperationException e) {
            throw new ExceptionInInitializerError(e);
        }
    }

    private final String kind;
    private final Throwable allocation;
    private volatile int state; // calls in flight, and CLOSED
    private Cleaner.Cleanable cleanable;

    NativeHandle(String kind) {
        this.kind = kind;
        this.allocation = PARANOID ? new Throwable("allocated here") : null;
    }

    /** Frees the native object; called once. */
    abstract void destroy();

    /** Frees the native object if owner becomes unreachable without having been closed. */
    final void watch(Object owner) {
        cleanable = CLEANER.register(owner, this);
    }

    final boolean isClosed() {
        return state < 0;
    }

    /** Begins a call; false when closed. */
    final boolean acquire() {
        int before;
        do {
            before = state;
            if (before < 0) {
                return false;
            }
        } while (!STATE.compareAndSet(this, before, before + 1));
        return true;
    }

    /** Begins a call, or throws a sentence that names the argument. */
    final void acquire(String argument) {
        if (!acquire()) {
            throw new IllegalStateException(argument + ": this " + kind + " is closed");
        }
    }

    /** Ends a call. */
    final void release() {
        if ((int) STATE.getAndAdd(this, -1) - 1 == CLOSED) {
            finish();
        }
    }

    void close() {
        if (markClosed() == 0) {
            finish();
        }
    }

    /** The state before: 0 when idle, negative when closed already. */
    final int markClosed() {
        return (int) STATE.getAndBitwiseOr(this, CLOSED);
    }

    private void finish() {
        destroy();
        if (cleanable != null) {
            cleanable.clean(); // forgets the owner: run() finds the handle closed
        }
    }

    /** What the Cleaner does when the owner is gone. */
    @Override
    public final void run() {
        int before = markClosed();
        if (before < 0) {
            return;
        }
        if (PARANOID || LEAK_LOGGED.compareAndSet(false, true)) {
            if (allocation == null) {
                LOG.warn("a {} was not closed and is freed now; -D{}=paranoid shows where each was made", kind, LEAK_DETECTION);
            } else {
                LOG.warn("a {} was not closed and is freed now", kind, allocation);
            }
        }
        if (before == 0) {
            destroy();
        }
    }
}
