package org.dualform.cli;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.function.Supplier;
import org.dualform.Backend;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.Corpus;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.TextBatches;
import org.dualform.lab.data.TokenFile;
import org.dualform.lab.data.Tokenizers;
import org.dualform.lab.train.Evaluation;
import org.dualform.lab.train.LossCurve;
import org.dualform.lab.train.Perplexity;
import org.dualform.lab.train.RunFolder;
import org.dualform.lab.train.Schedule;
import org.dualform.lab.train.StopSignal;
import org.dualform.lab.train.Trainer;
import org.dualform.lab.train.TrainingListener;
import org.dualform.lab.train.TrainingOptions;
import org.dualform.nn.AttentionKind;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.GptFiles;
import org.dualform.nn.Positions;
import org.dualform.nn.Sampling;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Trains a GPT on text into a folder: model, tokenizer, checkpoints, logs. */
@Command(
        name = "train",
        description = {
            "Trains a GPT with softmax, momentum or linear attention on text (UTF-8, also .gz and .xz) or token files.",
            "The defaults are for characters on a small CPU."
        },
        sortOptions = false,
        showDefaultValues = true,
        mixinStandardHelpOptions = true)
final class TrainCommand implements Callable<Integer> {
    private static final double LEARNED_ETA_START = 0.5;
    private static final String RUN = "run.json";
    /** Tokens of a batch are counted by an int, and copied into one array. */
    private static final int MOST_BATCH_TOKENS = Integer.MAX_VALUE - 8;
    /** Where an option has another name than what it sets. */
    private static final Map<String, String> OPTIONS = Map.of("accumulation", "--accumulate", "learningRate", "--lr", "weightDecay",
            "--weight-decay", "evaluateEvery", "--evaluate-every", "checkpointEvery", "--checkpoint-every", "tokens", "--sample-tokens",
            "topK", "--top-k");

    @Spec
    private CommandSpec spec;

    @Option(names = "--text", required = true, arity = "1..*", paramLabel = "FILE", description = "text or token files to train on")
    private List<Path> texts;

    @Option(names = "--validation", arity = "1..*", paramLabel = "FILE",
            description = "text or token files to validate on; without them the last 10%% of the text")
    private List<Path> validations = List.of();

    @Option(names = "--tokenizer", paramLabel = "gpt2|chars", description = "of text files; without it chars")
    private String tokenizer;

    @Option(names = "--attention", defaultValue = "softmax", paramLabel = "softmax|momentum|linear", description = "how blocks attend")
    private String attention;

    @Option(names = "--eta", paramLabel = "X|learned",
            description = "momentum, at least 0 and less than 1, or learned per head from 0.5 on; without it 0.9")
    private String eta;

    @Option(names = "--decay", paramLabel = "X", description = "of linear attention, in (0, 1]; without it 1 - 2^(-5-h) in head h")
    private Double decay;

    @Option(names = "--positions", defaultValue = "learned", paramLabel = "learned|sinusoidal", description = "position embeddings")
    private String positions;

    @Option(names = "--layers", defaultValue = "6", paramLabel = "N", description = "blocks")
    private int layers;

    @Option(names = "--width", defaultValue = "128", paramLabel = "N", description = "channels")
    private int width;

    @Option(names = "--heads", defaultValue = "4", paramLabel = "N", description = "attention heads")
    private int heads;

    @Option(names = "--context", defaultValue = "128", paramLabel = "N", description = "longest sequence, in tokens")
    private int context;

    @Option(names = "--batch", defaultValue = "16", paramLabel = "N", description = "sequences in a batch")
    private int batch;

    @Option(names = "--accumulate", defaultValue = "1", paramLabel = "N", description = "batches in a step")
    private int accumulation;

    @Option(names = "--steps", defaultValue = "1000", paramLabel = "N", description = "optimizer steps")
    private long steps;

    @Option(names = "--lr", defaultValue = "1e-3", paramLabel = "X", description = "learning rate after the warm-up")
    private double learningRate;

    @Option(names = "--schedule", defaultValue = "cosine", paramLabel = "cosine|linear|polynomial|constant",
            description = "how the learning rate decays")
    private String schedule;

    @Option(names = "--warmup", defaultValue = "100", paramLabel = "N", description = "steps over which it rises")
    private int warmup;

    @Option(names = "--floor", defaultValue = "0.1", paramLabel = "X", description = "part of it at the end")
    private double floor;

    @Option(names = "--power", defaultValue = "2", paramLabel = "X", description = "of the polynomial")
    private double power;

    @Option(names = "--optimizer", defaultValue = "adamw", paramLabel = "adamw|adam|sgd", description = "how steps are taken")
    private String optimizer;

    @Option(names = "--beta1", defaultValue = "0.9", paramLabel = "X", description = "of Adam")
    private double beta1;

    @Option(names = "--beta2", defaultValue = "0.95", paramLabel = "X", description = "of Adam")
    private double beta2;

    @Option(names = "--epsilon", defaultValue = "1e-8", paramLabel = "X", description = "of Adam")
    private double epsilon;

    @Option(names = "--weight-decay", defaultValue = "0.1", paramLabel = "X", description = "of matrices; adam has none")
    private double weightDecay;

    @Option(names = "--momentum", defaultValue = "0", paramLabel = "X", description = "of sgd")
    private double momentum;

    @Option(names = "--clip", defaultValue = "1", paramLabel = "X", description = "largest gradient norm; 0 for no clipping")
    private double clip;

    @Option(names = "--dtype", defaultValue = "f32", paramLabel = "f32|bf16", description = "bf16 keeps float32 master weights")
    private String dtype;

    @Option(names = "--device", paramLabel = "DEVICE", description = "auto, cpu or cuda; without it DUALFORM_BACKEND, else auto")
    private String device;

    @Option(names = "--seed", defaultValue = "1", paramLabel = "N", description = "of weights, order of the text and samples")
    private long seed;

    @Option(names = "--out", required = true, paramLabel = "DIR", description = "folder for everything that is made")
    private Path out;

    @Option(names = "--resume", description = "go on from the newest checkpoint in DIR")
    private boolean resume;

    @Option(names = "--checkpoint-every", defaultValue = "200", paramLabel = "N", description = "steps; 0 for at the end only")
    private long checkpointEvery;

    @Option(names = "--keep", defaultValue = "3", paramLabel = "N", description = "checkpoints that stay")
    private int keep;

    @Option(names = "--evaluate-every", defaultValue = "200", paramLabel = "N", description = "steps; 0 for at the end only")
    private long evaluateEvery;

    @Option(names = "--evaluate-contexts", defaultValue = "256,512,1024", split = ",", paramLabel = "N,...",
            description = "context lengths of the validation loss; the model's own is always among them")
    private List<Integer> evaluateContexts;

    @Option(names = "--evaluate-tokens", defaultValue = "32768", paramLabel = "N", description = "validation tokens used, from the first")
    private int evaluateTokens;

    @Option(names = "--samples", defaultValue = "1", paramLabel = "N", description = "texts written at each evaluation")
    private int samples;

    @Option(names = "--sample-tokens", defaultValue = "200", paramLabel = "N", description = "tokens of a sample")
    private int sampleTokens;

    @Option(names = "--temperature", defaultValue = "0.8", paramLabel = "X", description = "of samples; 0 for the most probable token")
    private double temperature;

    @Option(names = "--top-k", defaultValue = "0", paramLabel = "N", description = "samples draw from so many tokens; 0 for all")
    private int topK;

    @Option(names = "--prompt", defaultValue = "", paramLabel = "TEXT", description = "how samples begin")
    private String prompt;

    private PrintWriter err;

    @Override
    public Integer call() throws IOException {
        err = spec.commandLine().getErr();
        TrainingOptions options = named(this::options);
        DType type = Choice.of("--dtype", dtype, Map.of("f32", DType.F32, "bf16", DType.BF16));
        Backend backend = OpCommand.demanded(device);
        named(() -> config(1)); // what is wrong with the model is said before the text is read
        named(() -> new Sampling(sampleTokens, temperature, topK, seed, -1));
        atLeast("--samples", samples, 0);
        atLeast("--batch", batch, 1);
        atLeast("--evaluate-tokens", evaluateTokens, 1);
        for (int length : evaluateContexts) {
            atLeast("--evaluate-contexts", length, 1);
        }
        if ((long) batch * context > MOST_BATCH_TOKENS) {
            throw new UsageException("--batch: " + batch + " sequences of --context " + context + " tokens, expected at most "
                    + MOST_BATCH_TOKENS + " tokens in a batch");
        }
        atLeast("--keep", keep, 1);
        checkFolder();

        String named = tokenizer != null ? tokenizer : TokenFile.isTokenFile(texts.get(0)) ? null : "chars";
        if (tokenizer != null) {
            Choice.of("--tokenizer", tokenizer, Map.of("gpt2", tokenizer, "chars", tokenizer));
        }
        Corpus corpus = Corpus.read(texts, named, done -> {});
        Corpus.Split split = corpus.split(validations.isEmpty() ? 0.1 : 0);
        int[] heldOut = validations.isEmpty() ? split.validation() : Corpus.read(validations, corpus.tokenizer(), done -> {}).tokens();
        requireValidation(heldOut, corpus.tokens().length);
        TextBatches batches = new TextBatches(split.training(), batch, context, seed);
        Perplexity perplexity = new Perplexity(heldOut, contexts(), evaluateTokens);
        GptConfig config = config(corpus.tokenizer().vocabularySize());
        Map<String, String> identity = identity(config, corpus, split.training());

        try (StopSignal stop = new StopSignal();
                Device opened = Device.open(backend);
                Gpt gpt = Gpt.create(opened, config, type, seed);
                RunFolder folder = folder(gpt, batches, options, identity)) {
            err.println("dualform: " + gpt.parameters().count() + " parameters, " + split.training().length + " training and "
                    + heldOut.length + " validation tokens, " + opened.description());
            sayUnmeasured(perplexity.measured(gpt));
            Evaluation evaluation = new Evaluation(gpt, corpus.tokenizer(), perplexity,
                    new Evaluation.Samples(samples, prompt, Sampling.random(sampleTokens, temperature, topK, seed)), folder);
            return train(gpt, corpus, batches, options, evaluation, perplexity, folder, identity, stop);
        }
    }

    /** Made when there is memory for a trainer, so that none is made in vain. */
    private RunFolder folder(Gpt gpt, TextBatches batches, TrainingOptions options, Map<String, String> identity) throws IOException {
        new Trainer(gpt, batches, options, new TrainingListener() {}).close();
        return new RunFolder(out, keep, identity, this::warn);
    }

    private int train(Gpt gpt, Corpus corpus, TextBatches batches, TrainingOptions options, Evaluation evaluation, Perplexity perplexity,
            RunFolder folder, Map<String, String> identity, StopSignal stop) throws IOException {
        List<Perplexity.Result> last = new ArrayList<>();
        try (TrainingDisplay display = new TrainingDisplay(err, options.steps());
                Trainer trainer = new Trainer(gpt, batches, options, new TrainingListener() {
                    @Override
                    public void stepped(Step step) {
                        display.stepped(step);
                    }

                    @Override
                    public boolean evaluate(long step) {
                        last.clear();
                        evaluation.at(step, stop).ifPresent(last::addAll);
                        display.evaluated(step, last);
                        return !last.isEmpty();
                    }

                    @Override
                    public void warned(String sentence) {
                        display.line("warning: " + sentence);
                    }
                }, folder)) {
            display.started(trainer.resume(), resume);
            folder.write(RUN, json(identity, options));
            Trainer.Outcome outcome = trainer.run(stop);
            display.ended();
            if (outcome == Trainer.Outcome.STOPPED) {
                draw();
                err.println("dualform: asked to stop after step " + trainer.step() + " of " + options.steps()
                        + "; the same command with --resume goes on");
                return ExitCode.TERMINATED;
            }
            Tokenizers.save(corpus.tokenizer(), out);
            GptFiles.save(gpt, out);
            draw();
            if (last.isEmpty()) {
                perplexity.measure(gpt, stop).ifPresent(last::addAll); // of a run that was done before
            }
            report(last, trainer);
            return ExitCode.OK;
        }
    }

    /** The picture is the one thing here that can be made again. */
    private void draw() {
        try {
            LossCurve.save(out);
        } catch (IOException e) {
            warn(LossCurve.FILE_NAME + " not drawn: " + e.getMessage());
        }
    }

    private void report(List<Perplexity.Result> results, Trainer trainer) {
        PrintWriter words = spec.commandLine().getOut();
        for (Perplexity.Result result : results) {
            words.println(String.format(Locale.ROOT, "validation loss %.4f nats, perplexity %.3f, context %d, %d tokens", result.loss(),
                    result.perplexity(), result.context(), result.tokens()));
        }
        if (!trainer.skipped().isEmpty()) {
            words.println("skipped because loss or gradient was not finite: steps " + trainer.skipped());
        }
        words.println("model, tokenizer, logs and " + LossCurve.FILE_NAME + " are in " + out);
        words.flush();
    }

    private void warn(String sentence) {
        err.println("dualform: warning: " + sentence);
    }

    private void sayUnmeasured(List<Integer> measured) {
        List<Integer> unmeasured = contexts();
        unmeasured.removeAll(measured);
        if (!unmeasured.isEmpty()) {
            err.println("dualform: validation at context " + unmeasured.toString().replaceAll("[\\[\\]]", "")
                    + " is skipped: longer than the model's context of " + context + " or than the validation text");
        }
    }

    private List<Integer> contexts() {
        List<Integer> all = new ArrayList<>(evaluateContexts);
        if (!all.contains(context)) {
            all.add(context);
        }
        all.sort(null);
        return all;
    }

    // ---- options ----

    private TrainingOptions options() {
        if (!(clip >= 0)) {
            throw new UsageException("--clip: " + clip + ", expected at least 0");
        }
        Schedule decayed = new Schedule(Choice.of("--schedule", schedule, Map.of("cosine", Schedule.Decay.COSINE, "linear",
                Schedule.Decay.LINEAR, "polynomial", Schedule.Decay.POLYNOMIAL, "constant", Schedule.Decay.CONSTANT)),
                warmup, floor, power);
        TrainingOptions options = TrainingOptions.of(steps, learningRate).withSchedule(decayed).withAccumulation(accumulation)
                .withClipNorm(clip == 0 ? Double.POSITIVE_INFINITY : clip)
                .withIntervals(evaluateEvery == 0 ? Math.max(1, steps) : evaluateEvery, checkpointEvery);
        return switch (Choice.of("--optimizer", optimizer, Map.of("adamw", TrainingOptions.Method.ADAMW, "adam",
                TrainingOptions.Method.ADAM, "sgd", TrainingOptions.Method.SGD))) {
            case ADAMW -> options.withAdamW(beta1, beta2, epsilon, weightDecay);
            case ADAM -> options.withAdam(beta1, beta2, epsilon);
            case SGD -> options.withSgd(momentum, weightDecay);
        };
    }

    private GptConfig config(int vocabulary) {
        GptConfig plain = GptConfig.of(vocabulary, context, layers, width, heads).withPositions(Choice.of("--positions", positions,
                Map.of("learned", Positions.LEARNED, "sinusoidal", Positions.SINUSOIDAL)));
        AttentionKind kind = Choice.of("--attention", attention,
                Map.of("softmax", AttentionKind.SOFTMAX, "momentum", AttentionKind.MOMENTUM, "linear", AttentionKind.LINEAR));
        if (eta != null && kind != AttentionKind.MOMENTUM) {
            throw new UsageException("--eta: is for --attention momentum, not " + attention);
        }
        if (decay != null && kind != AttentionKind.LINEAR) {
            throw new UsageException("--decay: is for --attention linear, not " + attention);
        }
        return switch (kind) {
            case SOFTMAX -> plain;
            case MOMENTUM -> "learned".equals(eta) ? plain.withLearnedMomentum(LEARNED_ETA_START)
                    : plain.withMomentumAttention(etaNumber());
            case LINEAR -> plain.withLinearAttention(decay == null ? Double.NaN : decay);
        };
    }

    private double etaNumber() {
        try {
            return eta == null ? 0.9 : Double.parseDouble(eta);
        } catch (NumberFormatException e) {
            throw new UsageException("--eta: '" + eta + "', expected a number or learned");
        }
    }

    private static void atLeast(String option, int value, int least) {
        if (value < least) {
            throw new UsageException(option + ": " + value + ", expected at least " + least);
        }
    }

    private void checkFolder() throws IOException {
        OutputFolder folder = new OutputFolder(out);
        if (!resume) {
            folder.requireEmpty("; --resume goes on with a run that is there");
            return;
        }
        Set<String> names = folder.names();
        names.remove(".lock"); // all that a run killed at its very start leaves
        if (!names.isEmpty() && !names.contains(RUN) && !names.contains("checkpoints")) {
            throw new UsageException("--resume: " + out + " is not empty and has no run in it, expected " + RUN + " or checkpoints");
        }
    }

    /** What the library says of a number, under the name of the option it came from. */
    private static <T> T named(Supplier<T> made) {
        try {
            return made.get();
        } catch (InvalidArgumentException e) {
            String[] parts = e.getMessage().split(":", 2);
            throw new UsageException(parts.length == 2 && parts[0].matches("\\w+")
                    ? OPTIONS.getOrDefault(parts[0], "--" + parts[0]) + ":" + parts[1] : e.getMessage());
        }
    }

    private void requireValidation(int[] heldOut, int tokens) throws DataException {
        if (heldOut.length >= 2) {
            return;
        }
        String there = " is too short to validate on: " + heldOut.length + " tokens, expected at least 2";
        throw new DataException(validations.isEmpty()
                ? "the last 10 % of " + files(texts) + there + "; with " + tokens
                        + " tokens in all it takes more text, or --validation FILE"
                : files(validations) + there);
    }

    private static String files(List<Path> files) {
        return files.size() > 3 ? files.get(0) + " and " + (files.size() - 1) + " other files"
                : String.join(", ", files.stream().map(Path::toString).toList());
    }

    private Map<String, String> identity(GptConfig config, Corpus corpus, int[] training) {
        Map<String, String> identity = new LinkedHashMap<>();
        identity.put("layers", String.valueOf(config.layers()));
        identity.put("width", String.valueOf(config.width()));
        identity.put("heads", String.valueOf(config.heads()));
        identity.put("context", String.valueOf(config.context()));
        identity.put("attention", config.attention().name().toLowerCase(Locale.ROOT));
        identity.put("eta", config.learnedEta() ? "learned" : String.valueOf(config.eta()));
        identity.put("decay", String.valueOf(config.decay()));
        identity.put("positions", config.positions().name().toLowerCase(Locale.ROOT));
        identity.put("dtype", dtype);
        identity.put("tokenizer", corpus.tokenizer().name());
        identity.put("vocabulary", String.valueOf(config.vocabulary()));
        identity.put("training tokens", fingerprint(training));
        identity.put("batch", String.valueOf(batch));
        identity.put("seed", String.valueOf(seed));
        return identity;
    }

    private static String fingerprint(int[] tokens) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            byte[] piece = new byte[4 << 10];
            for (int from = 0; from < tokens.length; from += piece.length / 4) {
                java.nio.ByteBuffer bytes = java.nio.ByteBuffer.wrap(piece);
                for (int i = from; i < Math.min(tokens.length, from + piece.length / 4); i++) {
                    bytes.putInt(tokens[i]);
                }
                digest.update(piece, 0, bytes.position());
            }
            return tokens.length + " with SHA-256 " + HexFormat.of().formatHex(digest.digest()).substring(0, 16);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java platform has SHA-256", e);
        }
    }

    private static String json(Map<String, String> identity, TrainingOptions options) {
        Map<String, Object> all = new LinkedHashMap<>();
        all.put("model_and_data", identity);
        all.put("training", options.described());
        return Json.write(all) + "\n";
    }
}
