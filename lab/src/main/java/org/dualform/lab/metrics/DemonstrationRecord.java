package org.dualform.lab.metrics;

import org.dualform.InvalidArgumentException;

/**
 * What one step of finetuning leaves behind: the queries during the demonstration's own forward pass, at the weights before its update.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param attnQ scaled queries of all heads, [layers][tokens][hidden], the beginning token first
 */
public record DemonstrationRecord(double[][][] attnQ) {
    /**
     * Checks that the layers fit.
     *
     * @param attnQ [layers][tokens][hidden]
     * @throws InvalidArgumentException when a layer differs in its shape, no token follows the beginning or a number is not finite
     */
    public DemonstrationRecord {
        ExampleRecord.check(attnQ.length > 0, "attn_q has no layers");
        ExampleRecord.check(attnQ[0].length > 1,
                "attn_q[0] has " + attnQ[0].length + " tokens, expected the beginning and at least one more");
        ExampleRecord.check(attnQ[0][0].length > 0, "attn_q[0][0] is empty");
        for (int l = 0; l < attnQ.length; l++) {
            String name = "attn_q[" + l + "]";
            ExampleRecord.check(attnQ[l].length == attnQ[0].length,
                    name + " has " + attnQ[l].length + " tokens, expected " + attnQ[0].length + " as in attn_q[0]");
            ExampleRecord.check(attnQ[l][0].length == attnQ[0][0].length,
                    name + "[0] has " + attnQ[l][0].length + " numbers, expected " + attnQ[0][0].length + " as in attn_q[0][0]");
            ExampleRecord.rectangle(name, attnQ[l]);
        }
    }

    /**
     * Length of the demonstration.
     *
     * @return its tokens without the beginning, at least 1
     */
    public int tokens() {
        return attnQ[0].length - 1;
    }

    /** Why the finetuned model's queries cannot be compared with these, or null. */
    String misfit(int layers, int hidden, String of) {
        if (attnQ.length != layers) {
            return "attn_q has " + attnQ.length + " layers, expected " + layers + " as in " + of;
        }
        if (attnQ[0][0].length != hidden) {
            return "attn_q[0][0] has " + attnQ[0][0].length + " numbers, expected " + hidden + " as attn_q in " + of;
        }
        return null;
    }
}
