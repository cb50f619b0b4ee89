package org.dualform.lab.icl;

import java.util.Arrays;
import org.dualform.lab.metrics.ExampleRecord;
import org.dualform.nn.Probe;

/** One query asked of one model: what it answered, and what its last token did in every layer. */
record Observation(ModelScorer.Reply reply, ExampleRecord record) {
    private static final int LAST = -1;

    /** Asks a query after a context, which the scorer may share. */
    static Observation of(ModelScorer scorer, TokenTask task, int[] context, TokenTask.Example query) {
        Probe probe = Probe.of(LAST);
        ModelScorer.Reply reply = scorer.reply(Episode.joined(context, query.input()), task.answers(), probe);
        int predicted = Predictions.likeliest(reply.scores());
        if (predicted == Predictions.NONE) {
            throw new DivergedException("the model's scores of the answers are not numbers, expected a model with finite weights and,"
                    + " after finetuning, a smaller learning rate");
        }
        int layers = probe.layers();
        double[][] outputs = new double[layers][];
        double[][][] maps = new double[layers][][];
        double[][] contextMaps = new double[layers][];
        double[][] queries = new double[layers][];
        for (int layer = 0; layer < layers; layer++) {
            outputs[layer] = doubles(probe.output(layer, 0));
            queries[layer] = doubles(probe.query(layer, 0));
            float[][] logits = probe.logits(layer, 0);
            maps[layer] = new double[logits.length][];
            contextMaps[layer] = new double[context.length];
            for (int head = 0; head < logits.length; head++) {
                maps[layer][head] = doubles(Arrays.copyOfRange(logits[head], context.length, logits[head].length));
                for (int token = 0; token < context.length; token++) {
                    contextMaps[layer][token] += logits[head][token];
                }
            }
        }
        return new Observation(reply,
                new ExampleRecord(outputs, maps, contextMaps, queries, query.label(), predicted));
    }

    static double[] doubles(float[] floats) {
        double[] doubles = new double[floats.length];
        for (int i = 0; i < floats.length; i++) {
            doubles[i] = floats[i];
        }
        return doubles;
    }
}
