package org.dualform.lab.metrics;

import org.dualform.InvalidArgumentException;

/**
 * What one evaluation of one example leaves behind, everything seen from the last token. The names are those of the files which the code of
 * Dai et al. 2022 (arXiv:2212.10559) writes.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param attnOut attention block's output after its projection and before the residual sum, [layers][hidden]
 * @param attnMap logits before softmax, queries scaled, over the tokens of the query part, [layers][heads][query tokens]
 * @param attnMapContext the same over what stands before the query, summed over heads, [layers][context tokens]: the beginning, then each
 *     demonstration closed by one separator; may be empty where there are no demonstrations
 * @param attnQ scaled queries of all heads, [layers][hidden]; may be empty where it is not needed, which is everywhere but in the
 *     evaluation
 *     of the finetuned model
 * @param gold the right label
 * @param predicted the model's label
 */
public record ExampleRecord(
        double[][] attnOut, double[][][] attnMap, double[][] attnMapContext, double[][] attnQ, String gold, String predicted) {
    /**
     * Checks that the parts fit.
     *
     * @param attnOut [layers][hidden]
     * @param attnMap [layers][heads][query tokens]
     * @param attnMapContext [layers][context tokens], or empty
     * @param attnQ [layers][hidden], or empty
     * @param gold not empty
     * @param predicted not empty
     * @throws InvalidArgumentException when layers, heads or lengths differ within the record or a number is not finite
     */
    public ExampleRecord {
        int layers = attnOut.length;
        check(layers > 0, "self_attn_out_hiddens has no layers");
        check(attnOut[0].length > 0, "self_attn_out_hiddens[0] is empty");
        rectangle("self_attn_out_hiddens", attnOut);
        check(attnMap.length == layers, "attn_map has " + attnMap.length + " layers, expected " + layers + " as in self_attn_out_hiddens");
        check(attnMap[0].length > 0, "attn_map[0] has no heads");
        check(attnMap[0][0].length > 0, "attn_map[0][0] has no query tokens");
        for (int l = 0; l < layers; l++) {
            String name = "attn_map[" + l + "]";
            check(attnMap[l].length == attnMap[0].length,
                    name + " has " + attnMap[l].length + " heads, expected " + attnMap[0].length + " as in attn_map[0]");
            check(attnMap[l][0].length == attnMap[0][0].length,
                    name + " has " + attnMap[l][0].length + " query tokens, expected " + attnMap[0][0].length + " as in attn_map[0]");
            rectangle(name, attnMap[l]);
        }
        layered("attn_map_ctx", attnMapContext, layers);
        layered("attn_q", attnQ, layers);
        check(gold != null && !gold.isEmpty(), "gold_label is missing");
        check(predicted != null && !predicted.isEmpty(), "pred_label is missing");
    }

    /**
     * With labels by index.
     *
     * @param attnOut [layers][hidden]
     * @param attnMap [layers][heads][query tokens]
     * @param attnMapContext [layers][context tokens], or empty
     * @param attnQ [layers][hidden], or empty
     * @param gold the right label
     * @param predicted the model's label
     * @throws InvalidArgumentException when layers, heads or lengths differ within the record or a number is not finite
     */
    public ExampleRecord(double[][] attnOut, double[][][] attnMap, double[][] attnMapContext, double[][] attnQ, int gold, int predicted) {
        this(attnOut, attnMap, attnMapContext, attnQ, Integer.toString(gold), Integer.toString(predicted));
    }

    /**
     * Number of layers.
     *
     * @return at least 1
     */
    public int layers() {
        return attnOut.length;
    }

    /**
     * Number of heads.
     *
     * @return at least 1
     */
    public int heads() {
        return attnMap[0].length;
    }

    /**
     * Whether the model was right.
     *
     * @return whether the labels are equal
     */
    public boolean right() {
        return gold.equals(predicted);
    }

    /** Why this record cannot stand beside one of another file or line, or null. */
    String misfit(ExampleRecord other, boolean sameExample, String of) {
        if (layers() != other.layers()) {
            return "self_attn_out_hiddens has " + layers() + " layers, expected " + other.layers() + " as in " + of;
        }
        if (attnOut[0].length != other.attnOut[0].length) {
            return "self_attn_out_hiddens[0] has " + attnOut[0].length + " numbers, expected " + other.attnOut[0].length + " as in " + of;
        }
        if (heads() != other.heads()) {
            return "attn_map[0] has " + heads() + " heads, expected " + other.heads() + " as in " + of;
        }
        if (sameExample && attnMap[0][0].length != other.attnMap[0][0].length) {
            return "attn_map[0][0] has " + attnMap[0][0].length + " query tokens, expected " + other.attnMap[0][0].length + " as in " + of;
        }
        return null;
    }

    private static void layered(String name, double[][] values, int layers) {
        if (values.length == 0) {
            return;
        }
        check(values.length == layers, name + " has " + values.length + " layers, expected " + layers + " as in self_attn_out_hiddens");
        rectangle(name, values);
    }

    static void rectangle(String name, double[][] rows) {
        for (int i = 0; i < rows.length; i++) {
            if (rows[i].length != rows[0].length) {
                throw new InvalidArgumentException(
                        name + "[" + i + "] has " + rows[i].length + " numbers, expected " + rows[0].length + " as in " + name + "[0]");
            }
            for (int j = 0; j < rows[i].length; j++) {
                if (!Double.isFinite(rows[i][j])) {
                    throw new InvalidArgumentException(name + "[" + i + "][" + j + "] is " + rows[i][j] + ", expected a finite number");
                }
            }
        }
    }

    static void check(boolean fits, String sentence) {
        if (!fits) {
            throw new InvalidArgumentException(sentence);
        }
    }
}
