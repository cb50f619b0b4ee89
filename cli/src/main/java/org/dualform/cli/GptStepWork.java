package org.dualform.cli;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.data.Batches;
import org.dualform.lab.train.Trainer;
import org.dualform.lab.train.TrainingListener;
import org.dualform.lab.train.TrainingOptions;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.Parameters;
import org.dualform.optim.GradientNorm;
import org.dualform.optim.Optimizer;

/**
 * A training step of a GPT on random tokens: what {@link Trainer} does, forward, backward, clipping and AdamW. Forward alone is the loss
 * without gradients; backward alone is everything after the loss.
 */
final class GptStepWork implements Workload {
    private static final double RATE = 3e-4;
    private static final double NO_RATE = 1e-30; // no weight but 0 changes by it

    private final BenchTensors tensors;
    private final Pass pass;
    private final boolean graphs;
    private final TrainingOptions options;
    private final Gpt gpt;
    private final Tensor ids;
    private final Tensor targets;
    private final Tensor loss;
    private final Trainer trainer;
    private final Optimizer optimizer;
    private final GradientNorm norm;
    private Tape tape;
    private Tensor recorded;

    /** The shape is B,T,layers,width,heads. */
    GptStepWork(BenchTensors tensors, long[] shape, Pass pass, BenchSettings settings) {
        this.tensors = tensors;
        this.pass = pass;
        graphs = settings.graphs();
        options = TrainingOptions.of(Long.MAX_VALUE, settings.compared() ? NO_RATE : RATE);
        int vocabulary = settings.vocabulary();
        GptConfig config = GptConfig.of(vocabulary, (int) shape[1], (int) shape[2], (int) shape[3], (int) shape[4]);
        gpt = tensors.own(Gpt.create(tensors.device(), config, tensors.dtype(), 1));
        Parameters parameters = gpt.parameters();
        tensors.share("parameters", parameters.values());
        parameters.valuesChanged();
        ids = tensors.integers("ids", vocabulary, shape[0], shape[1]);
        targets = tensors.integers("targets", vocabulary, shape[0], shape[1]);
        loss = tensors.make(tensors.dtype().accumulation());
        trainer = pass == Pass.BOTH ? tensors.own(new Trainer(gpt, new OneBatch(ids, targets), options, new TrainingListener() {
            @Override
            public void stepped(Step step) {
                loss.write(new double[] {step.loss()});
            }
        })) : null;
        if (graphs) {
            trainer.withGraphs();
        }
        optimizer = pass == Pass.BACKWARD ? tensors.own(options.newOptimizer(parameters)) : null;
        norm = pass == Pass.BACKWARD ? tensors.own(new GradientNorm(parameters)) : null;
    }

    /** Floating-point operations of the products with weights and of attention. */
    static double flops(long[] shape, Pass pass, BenchSettings settings) {
        double tokens = (double) shape[0] * shape[1];
        double width = shape[3];
        double products = 2 * tokens * width * (12 * width * shape[2] + settings.vocabulary());
        double attention = 2 * tokens * shape[1] * width * shape[2];
        return (pass.forward() ? products + attention : 0) + (pass.backward() ? 2 * products + 2.5 * attention : 0);
    }

    @Override
    public Runnable preparation() {
        return pass == Pass.BACKWARD ? this::record : null;
    }

    private void record() {
        gpt.parameters().clearGradients();
        tape = new Tape(tensors.device());
        gpt.declare(tape);
        recorded = gpt.loss(tape, ids, targets);
    }

    @Override
    public void run() {
        switch (pass) {
            case FORWARD -> {
                try (Tape unrecorded = new Tape(tensors.device())) {
                    Ops.copy(loss, gpt.loss(unrecorded, ids, targets));
                }
            }
            case BACKWARD -> {
                try (Tape ended = tape) {
                    ended.backward(recorded);
                }
                norm.measure();
                optimizer.step(options.learningRate(), norm.clip(options.clipNorm()));
            }
            default -> {
                AtomicBoolean stop = new AtomicBoolean(); // asked before each step
                trainer.run(() -> stop.getAndSet(true));
            }
        }
    }

    /** The third step is the first that is replayed as a whole. */
    @Override
    public int runsToCompare() {
        return graphs ? 3 : 1;
    }

    /** The loss, and the gradients as the whole vectors that the optimizer goes over: some parts of them are 0 in exact arithmetic. */
    @Override
    public List<Tensor> results() {
        List<Tensor> results = new ArrayList<>();
        if (pass.forward()) {
            results.add(loss);
        }
        if (pass.backward()) {
            gpt.parameters().trainable().forEach(range -> results.add(range.gradient()));
        }
        return results;
    }

    @Override
    public double bytes() {
        Parameters parameters = gpt.parameters();
        double values = parameters.values().byteSize();
        double gradients = parameters.trainable().stream().mapToDouble(range -> range.gradient().byteSize()).sum();
        double moments = 2.0 * parameters.storageSize() * parameters.dtype().accumulation().bytes();
        return (pass.forward() ? values : 0) + (pass.backward() ? 2 * (values + gradients + moments) : 0);
    }

    /** The same batch for ever. */
    private static final class OneBatch implements Batches {
        private final int rows;
        private final int length;
        private final int[] ids;
        private final int[] targets;

        OneBatch(Tensor ids, Tensor targets) {
            rows = (int) ids.size(0);
            length = (int) ids.size(1);
            this.ids = ids.toInts();
            this.targets = targets.toInts();
        }

        @Override
        public int rows() {
            return rows;
        }

        @Override
        public int length() {
            return length;
        }

        @Override
        public void fill(long index, int[] toIds, int[] toTargets) {
            System.arraycopy(ids, 0, toIds, 0, ids.length);
            System.arraycopy(targets, 0, toTargets, 0, targets.length);
        }
    }
}
