/**
 * Devices, tensors and ops: attention, momentum attention and the fused dual form of a gradient step, on the CPU or CUDA.
 *
 * <p>A null argument that is not marked optional throws {@link java.lang.NullPointerException} with the argument's name; a closed
 * tensor or device throws {@link java.lang.IllegalStateException}; a wrong shape, dtype, device or range throws
 * {@link org.dualform.InvalidArgumentException}; memory that is not there throws
 * {@link org.dualform.DeviceOutOfMemoryException}; an op a backend does not have throws
 * {@link java.lang.UnsupportedOperationException}. A failed call changes no tensor unless its documentation says otherwise.
 */
package org.dualform;
