package org.dualform.autograd;

import org.dualform.Tensor;

/**
 * What {@link Tape#residualLayernorm} gives.
 *
 * <p>Threading: immutable; the tensors belong to the tape.
 *
 * @param sum {@code x + residual}, or x itself when there is no residual
 * @param out the normalised sum, scaled and shifted
 */
public record ResidualLayernorm(Tensor sum, Tensor out) {}
