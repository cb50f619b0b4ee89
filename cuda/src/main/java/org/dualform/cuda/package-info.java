/**
 * The CUDA backend's place on the class path, and interop with JavaCPP Presets for CUDA.
 *
 * <p>{@link org.dualform.cuda.CudaBackend} is found by the core and needs nothing else. Only {@link org.dualform.cuda.CudaInterop} refers
 * to classes of the presets.
 */
package org.dualform.cuda;
