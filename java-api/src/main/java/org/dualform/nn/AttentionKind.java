package org.dualform.nn;

/**
 * How a model attends.
 *
 * <p>Threading: immutable.
 */
public enum AttentionKind {
    /** Causal softmax attention. */
    SOFTMAX,
    /** Softmax attention plus the momentum term {@code sum_{s<t} eta^(t-s) v_s} (Dai et al. 2022, arXiv:2212.10559, MoAttn). */
    MOMENTUM,
    /** Causal linear attention with decay per head, {@code S = decay S + v k^T, out = S q} (arXiv:2006.16236, arXiv:2307.08621). */
    LINEAR
}
