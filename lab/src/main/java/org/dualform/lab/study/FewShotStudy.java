package org.dualform.lab.study;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.train.Schedule;
import org.dualform.lab.train.Trainer;
import org.dualform.lab.train.TrainingListener;
import org.dualform.lab.train.TrainingOptions;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.GptFiles;
import org.dualform.nn.Initialization;

/**
 * Trains a plain and a momentum GPT from the same seeds on {@link LabelMapping}, watches when in-context learning appears, and compares
 * what they make of demonstrations with what finetuning on them does, and with the Bayes predictor.
 *
 * <p>Threading: one thread at a time.
 */
public final class FewShotStudy {
    /** Numbers of demonstrations from which a label is known well enough for the onset of in-context learning. */
    public static final int MANY_SHOTS = 8;

    private static final double LEARNING_RATE = 2e-3;
    private static final int WARMUP = 20;
    /** With GPT-2's 0.02, made for wider models, in-context learning takes longer to appear. */
    static final Initialization INITIALIZATION = new Initialization(0.05, 0.05);
    private static final int ROWS = 32;
    private static final int CONTEXT = 128;
    /** Seeds of the corpora, apart from each other and from the small numbers that models are seeded with. */
    private static final long WATCHED = 1_000_001;
    private static final long HELD_OUT = 2_000_003;

    /**
     * What to do.
     *
     * <p>Threading: immutable.
     *
     * @param seed of the first pair of models; the next pair has the next number
     * @param seeds pairs of models, at least 1
     * @param steps of training per model
     * @param eta of the momentum model
     * @param watchEvery steps between looks at in-context learning
     * @param watched documents of each look
     * @param heldOut documents of the final curves
     * @param comparison how in-context learning is compared with finetuning; null for not at all
     * @param folder for the trained models and the comparison's records; null for none
     */
    public record Options(long seed, int seeds, int steps, double eta, int watchEvery, int watched, int heldOut,
            ComparisonOptions comparison, Path folder) {
        /**
         * Checks the numbers.
         *
         * @throws InvalidArgumentException if one is out of range
         */
        public Options {
            positive(seeds, "seeds");
            positive(steps, "steps");
            positive(watchEvery, "watchEvery");
            positive(watched, "watched");
            positive(heldOut, "heldOut");
            if (!(eta >= 0 && eta < 1)) {
                throw new InvalidArgumentException("eta: " + eta + ", expected at least 0 and less than 1");
            }
        }

        private static void positive(int value, String name) {
            if (value <= 0) {
                throw new InvalidArgumentException(name + ": " + value + ", expected at least 1");
            }
        }
    }

    /**
     * The loss of one step.
     *
     * <p>Threading: immutable.
     *
     * @param step from 1
     * @param loss in nats per token
     */
    public record LossPoint(long step, double loss) {}

    /**
     * One look at in-context learning during training.
     *
     * <p>Threading: immutable.
     *
     * @param step steps done
     * @param accuracy after {@link #MANY_SHOTS} demonstrations or more, all documents
     * @param remappedAccuracy the same on documents with permuted labels
     * @param bareAccuracy without demonstrations
     */
    public record Look(long step, double accuracy, double remappedAccuracy, double bareAccuracy) {}

    /**
     * What one model did.
     *
     * <p>Threading: immutable.
     *
     * @param kind {@code plain} or {@code momentum}
     * @param seed of its weights and its corpus
     * @param losses of every step
     * @param looks during training
     * @param shots answers on held-out documents
     * @param onset steps at which in-context learning had appeared; -1 if it did not
     * @param comparison with finetuning; null if there was none, or finetuning diverged
     */
    public record ModelRun(String kind, long seed, List<LossPoint> losses, List<Look> looks, ShotAccuracy shots, long onset,
            ModelComparison comparison) {}

    /**
     * Everything the study found.
     *
     * <p>Threading: immutable.
     *
     * @param options it was run with
     * @param config of the plain model
     * @param parameters numbers in each model
     * @param runs a plain and a momentum model for each seed
     * @param bayes what the Bayes predictor has right on the held-out documents
     */
    public record Result(Options options, GptConfig config, long parameters, List<ModelRun> runs, LabelMapping.Ceiling bayes) {
        /**
         * The runs of one kind of model.
         *
         * @param kind {@code plain} or {@code momentum}
         * @return one per seed
         */
        public List<ModelRun> runs(String kind) {
            return runs.stream().filter(run -> run.kind().equals(kind)).toList();
        }
    }

    /**
     * Is told how far the study is.
     *
     * <p>Threading: called on the study's thread.
     */
    public interface Progress {
        /**
         * A training step is done.
         *
         * @param step what happened, of the model whose training began last
         */
        default void stepped(TrainingListener.Step step) {}

        /** The first training step of a model is next. */
        default void trainingBegins() {}

        /**
         * The next part begins.
         *
         * @param sentence what it is
         */
        default void begins(String sentence) {}

        /**
         * In-context learning was looked at during training.
         *
         * @param look what was seen
         */
        default void looked(Look look) {}
    }

    private final Device device;
    private final Options options;
    private final Progress progress;
    private final LabelMapping corpus = LabelMapping.standard();

    /**
     * A study to run.
     *
     * @param device where models live
     * @param options what to do
     * @param progress is told how far it is
     */
    public FewShotStudy(Device device, Options options, Progress progress) {
        this.device = device;
        this.options = options;
        this.progress = progress;
    }

    /**
     * The shape of the plain model.
     *
     * @return two layers of 128 channels
     */
    public static GptConfig plainConfig() {
        return GptConfig.of(LabelMapping.standard().vocabularySize(), CONTEXT, 2, 128, 4);
    }

    /**
     * Runs the study.
     *
     * @return what it found
     * @throws IOException if records cannot be written
     */
    public Result run() throws IOException {
        List<ModelRun> runs = new ArrayList<>();
        GptConfig plain = plainConfig();
        long parameters = 0;
        for (int i = 0; i < options.seeds(); i++) {
            for (String kind : new String[] {"plain", "momentum"}) {
                GptConfig config = kind.equals("plain") ? plain : plain.withMomentumAttention(options.eta());
                try (Gpt gpt = Gpt.create(device, config, DType.F32, options.seed() + i, INITIALIZATION)) {
                    parameters = gpt.parameters().count();
                    runs.add(train(kind, gpt, options.seed() + i));
                }
            }
        }
        progress.begins("the Bayes predictor on the held-out documents");
        LabelMapping.Ceiling bayes = corpus.ceiling(HELD_OUT, options.heldOut(), corpus.examplesIn(CONTEXT) - 1);
        return new Result(options, plain, parameters, List.copyOf(runs), bayes);
    }

    private ModelRun train(String kind, Gpt gpt, long seed) throws IOException {
        List<LossPoint> losses = new ArrayList<>();
        List<Look> looks = new ArrayList<>();
        TrainingListener listener = new TrainingListener() {
            @Override
            public void stepped(Step step) {
                losses.add(new LossPoint(step.step(), step.loss()));
                progress.stepped(step);
            }

            @Override
            public boolean evaluate(long step) {
                Look look = look(gpt, step);
                looks.add(look);
                progress.looked(look);
                return true;
            }
        };
        TrainingOptions training = TrainingOptions.of(options.steps(), LEARNING_RATE)
                .withAdamW(0.9, 0.99, 1e-8, 0.01)
                .withSchedule(new Schedule(Schedule.Decay.CONSTANT, WARMUP, 1, 1))
                .withIntervals(options.watchEvery(), 0);
        progress.begins("training the " + kind + " model, seed " + seed);
        progress.trainingBegins();
        try (Trainer trainer = new Trainer(gpt, corpus.batches(seed, ROWS, CONTEXT), training, listener)) {
            trainer.run();
        }
        if (options.folder() != null) {
            GptFiles.save(gpt, folder("models", kind, seed));
        }
        ShotAccuracy shots = ShotAccuracy.of(gpt, corpus, HELD_OUT, options.heldOut());
        ModelComparison comparison = null;
        if (options.comparison() != null) {
            progress.begins("comparing in-context learning with finetuning, " + kind + " model, seed " + seed);
            comparison = ModelComparison.of(gpt, corpus, options.comparison(), seed, folder("records", kind, seed));
        }
        return new ModelRun(kind, seed, List.copyOf(losses), List.copyOf(looks), shots, onset(looks), comparison);
    }

    private Path folder(String part, String kind, long seed) {
        return options.folder() == null ? null : options.folder().resolve(part).resolve(kind + "-seed-" + seed);
    }

    private Look look(Gpt gpt, long step) {
        ShotAccuracy now = ShotAccuracy.of(gpt, corpus, WATCHED, options.watched());
        return new Look(step, now.accuracy(MANY_SHOTS, now.shots(), false), now.accuracy(MANY_SHOTS, now.shots(), true),
                now.accuracy(0, 1, false));
    }

    /** The first look from which on the accuracy on permuted labels stays above the middle between chance and 1. */
    private long onset(List<Look> looks) {
        double middle = (1.0 / corpus.clusters() + 1) / 2;
        long onset = -1;
        for (int i = looks.size() - 1; i >= 0 && looks.get(i).remappedAccuracy() >= middle; i--) {
            onset = looks.get(i).step();
        }
        return onset;
    }
}
