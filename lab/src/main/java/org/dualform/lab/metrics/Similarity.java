package org.dualform.lab.metrics;

import org.dualform.InvalidArgumentException;

/**
 * Similarities of one pair of vectors, in double.
 *
 * <p>Cosine, SimAOU and SimAM follow what Dai et al. 2022 (arXiv:2212.10559) published as code: a constant of 1e-20 in each denominator, so
 * that a vector of zeros has similarity 0. Raw SimAOU and SimAM-delta are from Deutch et al. 2023 (arXiv:2311.07772).
 *
 * <p>Threading: only pure functions.
 */
public final class Similarity {
    private static final double TINY = 1e-20;

    private Similarity() {}

    /**
     * Cosine of the angle between two vectors.
     *
     * @param a a vector
     * @param b a vector of the same length
     * @return {@code a.b / (|a| |b| + 1e-20)}
     * @throws InvalidArgumentException when the lengths differ
     */
    public static double cosine(double[] a, double[] b) {
        same(a, b);
        double dot = 0;
        double aa = 0;
        double bb = 0;
        for (int i = 0; i < a.length; i++) {
            dot += a[i] * b[i];
            aa += a[i] * a[i];
            bb += b[i] * b[i];
        }
        return dot / (Math.sqrt(aa) * Math.sqrt(bb) + TINY);
    }

    /**
     * SimAOU as published: the updates are differences of attention outputs which were each scaled to length 1.
     *
     * @param zeroShot attention output for the bare query
     * @param inContext with demonstrations before the query
     * @param finetuned of the finetuned model for the bare query
     * @return {@code cos(icl^ - zs^, ft^ - zs^)} with {@code h^ = h / (|h| + 1e-20)}
     * @throws InvalidArgumentException when the lengths differ
     */
    public static double attentionOutputUpdate(double[] zeroShot, double[] inContext, double[] finetuned) {
        return rawAttentionOutputUpdate(unit(zeroShot), unit(inContext), unit(finetuned));
    }

    /**
     * Raw SimAOU, without scaling; beside it stands {@link #rawFloor}. Of attention logits the same formula is SimAM-delta.
     *
     * @param zeroShot vector for the bare query
     * @param inContext with demonstrations before the query
     * @param finetuned of the finetuned model for the bare query
     * @return {@code cos(icl - zs, ft - zs)}
     * @throws InvalidArgumentException when the lengths differ
     */
    public static double rawAttentionOutputUpdate(double[] zeroShot, double[] inContext, double[] finetuned) {
        return cosine(minus(inContext, zeroShot), minus(finetuned, zeroShot));
    }

    /**
     * What normalised SimAOU is when both updates are nothing but noise: orthogonal to each other and to the zero-shot output.
     *
     * @param zeroShot attention output for the bare query
     * @param inContext with demonstrations before the query
     * @param finetuned of the finetuned model for the bare query
     * @return {@code 1/2 sqrt((1 - cos(zs, icl)) (1 - cos(zs, ft)))}
     * @throws InvalidArgumentException when the lengths differ
     */
    public static double noiseFloor(double[] zeroShot, double[] inContext, double[] finetuned) {
        same(zeroShot, inContext);
        same(zeroShot, finetuned);
        return 0.5 * Math.sqrt(oneMinusCosine(zeroShot, inContext) * oneMinusCosine(zeroShot, finetuned));
    }

    /**
     * What an unscaled update similarity owes to the zero-shot vector alone, which both differences contain: both updates' cosines with it,
     * multiplied. It is all of the similarity when what is left of both updates beside that vector is orthogonal. For vectors of
     * length 1 it is {@link #noiseFloor}; for three independent vectors of equal length it is 1/2.
     *
     * @param zeroShot vector for the bare query
     * @param inContext with demonstrations before the query
     * @param finetuned of the finetuned model for the bare query
     * @return {@code cos(icl - zs, zs) cos(ft - zs, zs)}
     * @throws InvalidArgumentException when the lengths differ
     */
    public static double rawFloor(double[] zeroShot, double[] inContext, double[] finetuned) {
        return cosine(minus(inContext, zeroShot), zeroShot) * cosine(minus(finetuned, zeroShot), zeroShot);
    }

    /** Half the squared distance of unit vectors, which keeps its digits where the cosine is next to 1, as after a small learning rate. */
    private static double oneMinusCosine(double[] a, double[] b) {
        double aa = norm(a);
        double bb = norm(b);
        if (aa == 0 || bb == 0) {
            return 1;
        }
        double distance = 0;
        for (int i = 0; i < a.length; i++) {
            double d = a[i] / aa - b[i] / bb;
            distance += d * d;
        }
        return distance / 2;
    }

    /**
     * Length 1, the direction kept.
     *
     * @param a a vector
     * @return {@code a / (|a| + 1e-20)}
     */
    public static double[] unit(double[] a) {
        double scale = norm(a) + TINY;
        double[] out = new double[a.length];
        for (int i = 0; i < a.length; i++) {
            out[i] = a[i] / scale;
        }
        return out;
    }

    static double norm(double[] a) {
        double sum = 0;
        for (double v : a) {
            sum += v * v;
        }
        return Math.sqrt(sum);
    }

    static double[] minus(double[] a, double[] b) {
        same(a, b);
        double[] out = new double[a.length];
        for (int i = 0; i < a.length; i++) {
            out[i] = a[i] - b[i];
        }
        return out;
    }

    static double dot(double[] a, double[] b) {
        same(a, b);
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += a[i] * b[i];
        }
        return sum;
    }

    private static void same(double[] a, double[] b) {
        if (a.length != b.length) {
            throw new InvalidArgumentException("b: " + b.length + " values, expected " + a.length);
        }
    }
}
