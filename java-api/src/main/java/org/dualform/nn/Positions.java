package org.dualform.nn;

/**
 * Where position embeddings come from.
 *
 * <p>Threading: immutable.
 */
public enum Positions {
    /** A trained table, as in GPT-2. */
    LEARNED,
    /** The fixed sines and cosines of Vaswani et al. 2017 (arXiv:1706.03762), sines in even channels and cosines in odd ones. */
    SINUSOIDAL
}
