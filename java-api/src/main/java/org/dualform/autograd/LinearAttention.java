package org.dualform.autograd;

import org.dualform.Tensor;

/**
 * What {@link Tape#linearAttention} gives.
 *
 * <p>Threading: immutable; the tensors belong to the tape.
 *
 * @param out the result (B,T,NH,HS)
 * @param state the state after the last token (B,NH,HS,HS), value index before key index, in the accumulation dtype
 */
public record LinearAttention(Tensor out, Tensor state) {}
