package org.dualform.lab.train;

import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.BooleanSupplier;
import org.dualform.Binary;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.data.Batches;
import org.dualform.nn.Gpt;
import org.dualform.nn.Parameter;
import org.dualform.nn.Parameters;
import org.dualform.optim.AdamW;
import org.dualform.optim.GradientNorm;
import org.dualform.optim.Optimizer;

/**
 * The training loop: schedule, evaluate, checkpoint, accumulate, step, log.
 *
 * <p>Step number s, from 0, averages the gradients of the batches {@code s a} to {@code s a + a - 1}, with a the accumulation. A step whose
 * loss or gradient is not finite is skipped: weights and optimizer keep every bit, the batch is not seen again. With a {@link RunFolder}
 * the state is saved there, and a run that stopped in any way goes on as if it had not: losses and weights repeat those of an unbroken run
 * bit for bit on the same device, on the CPU with any number of threads.
 *
 * <p>Threading: one thread at a time.
 */
public final class Trainer implements AutoCloseable {
    /**
     * How a run ended.
     *
     * <p>Threading: immutable.
     */
    public enum Outcome {
        /** All steps are done. */
        COMPLETED,
        /** It was asked to stop, and did so between two steps. */
        STOPPED
    }

    /** 4 MiB of float32. */
    private static final int MOST_RATES = 1 << 20;

    private final Gpt gpt;
    private final Parameters parameters;
    private final Device device;
    private final Batches batches;
    private final TrainingOptions options;
    private final TrainingListener listener;
    private final RunFolder folder;
    private final Optimizer optimizer;
    private final GradientNorm gradientNorm;
    private final int[] idValues;
    private final int[] targetValues;
    private final Tensor ids;
    private final Tensor targets;
    private final Tensor meanLoss;
    private final Tensor squares;
    private CapturedSteps captured; // null: steps run as they are

    private long step;
    private int skippedInARow;
    private List<Long> skipped = new ArrayList<>();
    private long evaluatedAt = -1;
    private Progress saved;
    private long started;
    private long startedAt;

    /**
     * A trainer that keeps everything in memory.
     *
     * @param gpt the model, trained in place; frozen parameters stay as they are
     * @param batches to train on
     * @param options how
     * @param listener is told what happens
     * @throws InvalidArgumentException if the sequences are longer than the model's context
     */
    public Trainer(Gpt gpt, Batches batches, TrainingOptions options, TrainingListener listener) {
        this(gpt, batches, options, listener, null);
    }

    /**
     * A trainer that saves checkpoints and logs.
     *
     * @param gpt the model, trained in place; frozen parameters stay as they are
     * @param batches to train on
     * @param options how
     * @param listener is told what happens
     * @param folder where to; stays the caller's; null for none
     * @throws InvalidArgumentException if the sequences are longer than the model's context
     */
    public Trainer(Gpt gpt, Batches batches, TrainingOptions options, TrainingListener listener, RunFolder folder) {
        if (batches.length() > gpt.config().context()) {
            throw new InvalidArgumentException("batches: sequences of " + batches.length() + " tokens, expected at most the context of "
                    + gpt.config().context());
        }
        this.gpt = gpt;
        this.batches = batches;
        this.options = options;
        this.listener = listener;
        this.folder = folder;
        parameters = gpt.parameters();
        device = gpt.device();
        optimizer = options.newOptimizer(parameters);
        gradientNorm = new GradientNorm(parameters);
        int rows = batches.rows();
        int length = batches.length();
        idValues = new int[Math.multiplyExact(rows, length)];
        targetValues = new int[rows * length];
        ids = Tensor.zeros(device, DType.I32, rows, length);
        targets = Tensor.zeros(device, DType.I32, rows, length);
        meanLoss = Tensor.zeros(device, parameters.dtype().accumulation());
        squares = Tensor.zeros(device, parameters.dtype().accumulation());
    }

    /**
     * Lets steps run as {@link Device#capture graphs}, all of it from the third step on: on CUDA one launch a batch and one for the update
     * instead of hundreds, on the CPU call by call as before. The learning rates of the run are on the device, those of its first 1048576
     * steps at most, so that nothing is written and nobody waits between gradients and update. Losses and weights are the same, but that
     * the learning rate is rounded to the accumulation dtype on CUDA. The graphs keep the memory of a step for themselves, beside what
     * evaluations take.
     *
     * @return this
     * @throws IllegalStateException if the optimizer is SGD, whose numbers are the host's
     */
    public Trainer withGraphs() {
        return withGraphs(MOST_RATES);
    }

    /** With at most so many learning rates on the device. */
    Trainer withGraphs(int mostRates) {
        if (!(optimizer instanceof AdamW adamw)) {
            throw new IllegalStateException("this trainer steps by SGD, expected AdamW or Adam for steps as graphs");
        }
        if (captured == null) {
            captured = new CapturedSteps(parameters, adamw, options.clipNorm(), this::rate,
                    (int) Math.max(1, Math.min(options.steps(), mostRates)), gradientNorm, meanLoss, this::addGradients);
            captured.restore();
        }
        return this;
    }

    /**
     * Goes back to the newest whole checkpoint of the folder and cuts the logs to it. Without any checkpoint the run starts at its
     * beginning, with empty logs.
     *
     * @return steps done
     * @throws IOException if the checkpoint is of a run with other options, none is whole, or a file cannot be read
     * @throws IllegalStateException if there is no folder
     */
    public long resume() throws IOException {
        if (folder == null) {
            throw new IllegalStateException("this trainer has no folder");
        }
        Optional<Checkpoints.Saved> newest = folder.resume(options);
        if (newest.isEmpty()) {
            folder.cut(Map.of());
            return step;
        }
        Progress progress = newest.get().progress();
        newest.get().restore(state(), device);
        folder.cut(progress.logs());
        optimizer.restoreSteps(progress.optimizerSteps());
        if (captured != null) {
            captured.restore();
        }
        step = progress.step();
        skippedInARow = progress.skippedInARow();
        skipped = new ArrayList<>(progress.skipped());
        evaluatedAt = progress.evaluatedAt();
        saved = progress;
        return step;
    }

    /**
     * Steps done so far.
     *
     * @return their number, skipped ones included
     */
    public long step() {
        return step;
    }

    /**
     * Numbers, from 1, of the steps that were skipped because their loss or gradient was not finite.
     *
     * @return an unmodifiable list
     */
    public List<Long> skipped() {
        return List.copyOf(skipped);
    }

    /**
     * Trains to the end.
     *
     * @return {@link Outcome#COMPLETED}
     * @throws NonFiniteException if too many steps in a row were skipped
     */
    public Outcome run() {
        return run(() -> false);
    }

    /**
     * Trains to the end, or until asked to stop.
     *
     * @param stop is asked between steps; the state is saved before the run ends
     * @return how it ended
     * @throws NonFiniteException if too many steps in a row were skipped
     */
    public Outcome run(BooleanSupplier stop) {
        started = System.nanoTime();
        startedAt = step;
        while (true) {
            if (isEvaluationDue() && !stop.getAsBoolean() && listener.evaluate(step)) {
                evaluatedAt = step;
            }
            boolean done = step >= options.steps();
            boolean stopping = stop.getAsBoolean();
            if (done || stopping || isCheckpointDue()) {
                checkpoint();
            }
            if (done || stopping) {
                return done ? Outcome.COMPLETED : Outcome.STOPPED;
            }
            takeStep();
        }
    }

    private boolean isEvaluationDue() {
        return options.evaluateEvery() > 0 && evaluatedAt != step
                && (step % options.evaluateEvery() == 0 || step == options.steps());
    }

    private boolean isCheckpointDue() {
        return options.checkpointEvery() > 0 && step > 0 && step % options.checkpointEvery() == 0;
    }

    /** The learning rate of a step, from 0. */
    private double rate(long number) {
        return options.learningRate() * options.schedule().factor(number, options.steps());
    }

    private void takeStep() {
        double rate = rate(step);
        accumulate();
        if (captured != null) {
            captured.update(step);
        }
        double norm = captured != null ? gradientNorm.summed() : gradientNorm.measure();
        double loss = meanLoss.item(); // no second wait: the norm came after it
        boolean finite = Double.isFinite(loss) && Double.isFinite(norm);
        if (finite && captured != null) {
            captured.taken();
        } else if (finite) {
            optimizer.step(rate, options.clipNorm() == Double.POSITIVE_INFINITY ? null : gradientNorm.clip(options.clipNorm()));
        }
        step++;
        skippedInARow = finite ? 0 : skippedInARow + 1;
        if (!finite) {
            skipped.add(step);
        }
        log(new TrainingListener.Step(step, loss, rate, norm, step * tokensPerStep(), !finite));
        if (skippedInARow >= options.maxSkipped()) {
            throw new NonFiniteException("step " + step + ": loss " + loss + ", gradient norm " + norm + "; " + skippedInARow
                    + " steps in a row were not finite, training stops; a smaller learning rate or a longer warm-up may help");
        }
    }

    /** Leaves the mean gradient in the parameters and the mean loss in its tensor. */
    private void accumulate() {
        int count = options.accumulation();
        parameters.clearGradients();
        Ops.fill(meanLoss, 0);
        for (int i = 0; i < count; i++) {
            batches.fill(step * count + i, idValues, targetValues);
            ids.write(idValues);
            targets.write(targetValues);
            if (captured != null) {
                captured.addGradients();
            } else {
                addGradients();
            }
        }
    }

    /** Adds the share of one batch. */
    private void addGradients() {
        int count = options.accumulation();
        try (Tape tape = new Tape(device)) {
            gpt.declare(tape);
            Tensor loss = gpt.loss(tape, ids, targets);
            Tensor part = count == 1 ? loss : tape.affine(loss, 1.0 / count, 0);
            tape.backward(part);
            Ops.binaryForward(meanLoss, meanLoss, part, Binary.ADD);
        }
    }

    private long tokensPerStep() {
        return (long) options.accumulation() * batches.rows() * batches.length();
    }

    private void log(TrainingListener.Step record) {
        if (folder != null) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("step", record.step());
            line.put("loss", finiteOrNull(record.loss()));
            line.put("learning_rate", record.learningRate());
            line.put("gradient_norm", finiteOrNull(record.gradientNorm()));
            line.put("tokens", record.tokens());
            line.put("skipped", record.skipped());
            folder.append(RunFolder.STEPS, line);
            double seconds = (System.nanoTime() - started) / 1e9;
            Map<String, Object> time = new LinkedHashMap<>();
            time.put("step", record.step());
            time.put("seconds", seconds);
            time.put("tokens_per_second", (record.step() - startedAt) * tokensPerStep() / seconds);
            folder.append(RunFolder.TIMING, time);
        }
        listener.stepped(record);
    }

    private static Double finiteOrNull(double value) {
        return Double.isFinite(value) ? value : null;
    }

    private void checkpoint() {
        if (folder == null || saved != null && saved.step() == step && saved.evaluatedAt() == evaluatedAt) {
            return;
        }
        Map<String, Tensor> state = state();
        for (Map.Entry<String, Tensor> tensor : state.entrySet()) {
            Ops.squaredNorm(squares, tensor.getValue(), false);
            if (!Double.isFinite(squares.item())) {
                listener.warned("checkpoint at step " + step + " not saved: " + tensor.getKey() + " is not finite");
                return;
            }
        }
        Progress progress = new Progress(step, optimizer.steps(), skippedInARow, skipped(), evaluatedAt, folder.lengths(),
                folder.fixed(options), options.adjustable());
        if (folder.checkpoints().save(state, progress)) {
            saved = progress;
            listener.saved(step, folder.path());
        }
    }

    /** Everything that a step changes. */
    Map<String, Tensor> state() {
        Map<String, Tensor> state = new LinkedHashMap<>();
        for (Parameter parameter : parameters.all()) {
            state.put(parameter.name(), parameter.value());
        }
        if (parameters.master() != null) {
            state.put("master", parameters.master());
        }
        optimizer.state().forEach((name, tensor) -> state.put("optimizer." + name, tensor));
        return state;
    }

    @Override
    public void close() {
        if (captured != null) {
            captured.close();
        }
        squares.close();
        meanLoss.close();
        targets.close();
        ids.close();
        gradientNorm.close();
        optimizer.close();
    }
}
