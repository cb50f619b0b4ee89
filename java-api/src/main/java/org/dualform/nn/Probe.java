package org.dualform.nn;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.dualform.DType;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;

/**
 * Records what passes through the attention blocks in one forward pass of one sequence, for chosen tokens: the block's output after the
 * output projection and before the residual, the queries, and the raw logits, before the softmax, of every head. Queries and logits carry
 * the factor {@code 1/sqrt(HS)}, as in the published records of Dai et al. 2022 (arXiv:2212.10559).
 *
 * <p>Threading: one thread at a time.
 */
public final class Probe {
    /**
     * What a probe records beside queries.
     *
     * <p>Threading: immutable.
     */
    public enum Detail {
        /** Queries only. */
        QUERIES,
        /** Queries, outputs and logits. */
        ALL
    }

    private final Detail detail;
    private final int[] tokens;
    private final List<float[][]> outputs = new ArrayList<>();
    private final List<float[][]> queries = new ArrayList<>();
    private final List<float[][][]> logits = new ArrayList<>();

    private Probe(Detail detail, int... tokens) {
        this.detail = detail;
        this.tokens = tokens;
    }

    /**
     * Records everything for some tokens.
     *
     * @param tokens indices among the tokens of the call, negative ones from the end; none for every token
     * @return a probe for one forward pass
     */
    public static Probe of(int... tokens) {
        return new Probe(Detail.ALL, tokens.clone());
    }

    /**
     * Records the queries of every token.
     *
     * @return a probe for one forward pass
     */
    public static Probe ofQueries() {
        return new Probe(Detail.QUERIES);
    }

    private int[] chosen(int count) {
        int[] chosen = new int[tokens.length == 0 ? count : tokens.length];
        for (int i = 0; i < chosen.length; i++) {
            chosen[i] = tokens.length == 0 ? i : tokens[i] < 0 ? count + tokens[i] : tokens[i];
            if (chosen[i] < 0 || chosen[i] >= count) {
                throw new InvalidArgumentException("probe: token " + tokens[i] + " of " + count);
            }
        }
        return chosen;
    }

    /** Before anything is computed. */
    void requireFits(Tensor ids) {
        if (ids.size(0) != 1) {
            throw new InvalidArgumentException("probe: " + ids.size(0) + " rows, expected one sequence");
        }
        if (!queries.isEmpty()) {
            throw new IllegalStateException("a probe serves one forward pass");
        }
        chosen((int) ids.size(1));
    }

    void record(Tensor q, Tensor k, double scale, Tensor out) {
        int t = (int) q.size(1);
        int heads = (int) q.size(2);
        int size = (int) q.size(3);
        int[] chosen = chosen(t);
        float[] allQueries = floats(q);
        float[][] scaled = new float[chosen.length][heads * size];
        for (int i = 0; i < chosen.length; i++) {
            for (int c = 0; c < heads * size; c++) {
                scaled[i][c] = (float) (allQueries[chosen[i] * heads * size + c] * scale);
            }
        }
        queries.add(scaled);
        if (detail == Detail.QUERIES) {
            return;
        }
        float[] all = floats(out);
        float[][] rows = new float[chosen.length][];
        for (int i = 0; i < chosen.length; i++) {
            rows[i] = Arrays.copyOfRange(all, chosen[i] * heads * size, (chosen[i] + 1) * heads * size);
        }
        outputs.add(rows);
        logits.add(products(scaled, floats(k), heads, size));
    }

    private static float[][][] products(float[][] queries, float[] keys, int heads, int size) {
        int s = keys.length / (heads * size);
        float[][][] products = new float[queries.length][heads][s];
        for (int i = 0; i < queries.length; i++) {
            for (int h = 0; h < heads; h++) {
                for (int j = 0; j < s; j++) {
                    double sum = 0;
                    for (int c = 0; c < size; c++) {
                        sum += (double) queries[i][h * size + c] * keys[(j * heads + h) * size + c];
                    }
                    products[i][h][j] = (float) sum;
                }
            }
        }
        return products;
    }

    private static float[] floats(Tensor x) {
        if (x.dtype() == DType.F32) {
            return x.toFloats();
        }
        try (Tensor converted = x.cast(DType.F32)) {
            return converted.toFloats();
        }
    }

    /**
     * Layers recorded.
     *
     * @return their number
     */
    public int layers() {
        return queries.size();
    }

    /**
     * The attention block's output.
     *
     * @param layer from 0
     * @param i index among the chosen tokens
     * @return (C)
     */
    public float[] output(int layer, int i) {
        return outputs.get(layer)[i];
    }

    /**
     * The query, scaled.
     *
     * @param layer from 0
     * @param i index among the chosen tokens
     * @return (C), heads one after the other
     */
    public float[] query(int layer, int i) {
        return queries.get(layer)[i];
    }

    /**
     * How many tokens were recorded.
     *
     * @return chosen tokens
     */
    public int tokens() {
        return queries.isEmpty() ? 0 : queries.get(0).length;
    }

    /**
     * Raw logits over all keys, those of later tokens included; a caller takes what the token may see.
     *
     * @param layer from 0
     * @param i index among the chosen tokens
     * @return (NH,S)
     */
    public float[][] logits(int layer, int i) {
        return logits.get(layer)[i];
    }
}
