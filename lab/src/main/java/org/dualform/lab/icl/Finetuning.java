package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.metrics.DemonstrationRecord;
import org.dualform.nn.Gpt;
import org.dualform.nn.Probe;
import org.dualform.optim.Sgd;

/**
 * The finetuning that in-context learning is compared with (Dai et al. 2022, arXiv:2212.10559): only key and value projections, weights and
 * biases of all layers, by one pass of plain gradient descent over the demonstrations in prompt order, one at a time, at a constant
 * learning rate without momentum, decay or clipping. The loss is the mean over the tokens that follow the beginning.
 *
 * <p>It works on a copy; the model it was made for never changes.
 *
 * <p>Threading: one thread at a time.
 */
public final class Finetuning implements AutoCloseable {
    private final Gpt base;
    private final Gpt tuned;
    private final TokenTask task;

    /**
     * How to finetune.
     *
     * <p>Threading: immutable.
     *
     * @param learningRate of every step, positive
     * @param labelOnly whether only the answer's tokens count in the loss; as published all tokens do
     * @param layerCausal whether each layer learns only from what is known up to it (Deutch et al. 2023, arXiv:2311.07772)
     */
    public record Options(double learningRate, boolean labelOnly, boolean layerCausal) {
        /**
         * Checks the learning rate.
         *
         * @param learningRate of every step, positive
         * @param labelOnly whether only the answer's tokens count in the loss
         * @param layerCausal whether each layer learns only from what is known up to it
         * @throws InvalidArgumentException if it is not positive or not finite
         */
        public Options {
            if (!(learningRate > 0 && learningRate < Double.POSITIVE_INFINITY)) {
                throw new InvalidArgumentException("learning rate: " + learningRate + ", expected a number above 0");
            }
        }

        /**
         * As published.
         *
         * @param learningRate of every step, positive
         * @return loss over all tokens, through all layers
         * @throws InvalidArgumentException if it is not positive or not finite
         */
        public static Options published(double learningRate) {
            return new Options(learningRate, false, false);
        }

        /**
         * The same at another learning rate.
         *
         * @param other positive
         * @return the new options
         * @throws InvalidArgumentException if it is not positive or not finite
         */
        public Options withLearningRate(double other) {
            return new Options(other, labelOnly, layerCausal);
        }

        /**
         * The same with layer-causal gradient descent, or without.
         *
         * @param causal whether each layer learns only from what is known up to it
         * @return the new options
         */
        public Options withLayerCausal(boolean causal) {
            return new Options(learningRate, labelOnly, causal);
        }
    }

    /**
     * What the steps were like.
     *
     * <p>Threading: immutable.
     *
     * @param losses of each demonstration before its step, up to the first that is not a number
     * @param finite whether all losses were, and all weights are in the end
     */
    public record Course(List<Double> losses, boolean finite) {}

    /**
     * Makes a copy of a model.
     *
     * @param base the model; stays the caller's
     * @param task whose beginning and answers
     */
    public Finetuning(Gpt base, TokenTask task) {
        this.base = base;
        this.task = task;
        tuned = Gpt.create(base.device(), base.config(), base.parameters().dtype(), 0);
        tuned.parameters().freeze(name -> !name.contains("k_proj") && !name.contains("v_proj"));
    }

    /**
     * The copy: after {@link #run} the finetuned model.
     *
     * @return the same object always; closed with this
     */
    public Gpt model() {
        return tuned;
    }

    /**
     * Starts again from the base model and takes one step per demonstration.
     *
     * @param demonstrations in training order
     * @param options how
     * @param records takes the queries of each demonstration at the weights before its step; null if nobody wants them
     * @return losses; where they are not finite, the model is of no use
     * @throws InvalidArgumentException if a demonstration is longer than the model's context
     */
    public Course run(List<TokenTask.Example> demonstrations, Options options, Consumer<DemonstrationRecord> records) {
        tuned.parameters().copyFrom(base.parameters());
        List<Double> losses = new ArrayList<>();
        try (Sgd sgd = new Sgd(tuned.parameters(), 0, 0)) {
            for (TokenTask.Example demonstration : demonstrations) {
                int[] sequence = Episode.sequence(task, demonstration);
                int first = options.labelOnly ? 1 + demonstration.input().length : 1;
                tuned.parameters().clearGradients();
                double loss = backward(sequence, first, options.layerCausal);
                losses.add(loss);
                if (!Double.isFinite(loss)) {
                    return new Course(losses, false);
                }
                if (records != null) {
                    records.accept(queries(sequence));
                }
                sgd.step(options.learningRate, null);
            }
        }
        return new Course(losses, hasFiniteWeights());
    }

    /** The last token predicts nothing, but is read: its query is recorded like that of the others. */
    private double backward(int[] sequence, int first, boolean layerCausal) {
        int[] targets = new int[sequence.length];
        for (int i = 0; i < targets.length; i++) {
            targets[i] = i + 1 >= first && i + 1 < sequence.length ? sequence[i + 1] : Gpt.IGNORE;
        }
        try (Tensor ids = Tensor.of(tuned.device(), sequence, 1, sequence.length);
                Tensor next = Tensor.of(tuned.device(), targets, 1, targets.length);
                Tape tape = new Tape(tuned.device())) {
            tuned.declare(tape);
            Tensor loss = layerCausal ? tuned.layerCausalLoss(tape, ids, next) : tuned.loss(tape, ids, next);
            double value = loss.item();
            if (Double.isFinite(value)) {
                tape.backward(loss);
            }
            return value;
        }
    }

    private DemonstrationRecord queries(int[] sequence) {
        Probe probe = Probe.ofQueries();
        try (Tensor ids = Tensor.of(tuned.device(), sequence, 1, sequence.length); Tape tape = new Tape(tuned.device())) {
            tuned.hidden(tape, ids, null, probe);
        }
        double[][][] queries = new double[probe.layers()][probe.tokens()][];
        for (int layer = 0; layer < queries.length; layer++) {
            for (int token = 0; token < queries[layer].length; token++) {
                queries[layer][token] = Observation.doubles(probe.query(layer, token));
            }
        }
        return new DemonstrationRecord(queries);
    }

    private boolean hasFiniteWeights() {
        return tuned.parameters().all().stream().filter(parameter -> !parameter.isFrozen()).allMatch(parameter -> {
            for (double value : parameter.value().toDoubles()) {
                if (!Double.isFinite(value)) {
                    return false;
                }
            }
            return true;
        });
    }

    @Override
    public void close() {
        tuned.close();
    }
}
