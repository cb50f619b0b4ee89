package org.dualform.cli;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.LongStream;
import org.dualform.Backend;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.lab.data.DataException;
import org.dualform.lab.data.Ginc;
import org.dualform.lab.data.GincOptions;
import org.dualform.lab.data.GincPrompt;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.data.LabelledText;
import org.dualform.lab.data.Tokenizer;
import org.dualform.lab.data.Tokenizers;
import org.dualform.lab.icl.Episodes;
import org.dualform.lab.icl.EvaluationReport;
import org.dualform.lab.icl.FinetuningStudy;
import org.dualform.lab.icl.GincEpisodes;
import org.dualform.lab.icl.LabelMappingEpisodes;
import org.dualform.lab.icl.LearningRate;
import org.dualform.lab.icl.ModelScorer;
import org.dualform.lab.icl.ShotCurve;
import org.dualform.lab.icl.Task;
import org.dualform.lab.icl.TextEpisodes;
import org.dualform.lab.report.Page;
import org.dualform.lab.report.Text;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.dualform.nn.GptFiles;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Measures in-context learning of a model, and compares it with finetuning. The folder of results appears whole or not at all. */
@Command(
        name = "icl",
        description = {
            "Measures what a model learns from demonstrations in its prompt, and how alike that is to finetuning on them.",
            "",
            "  dualform icl --model DIR --task sst2 --data train.tsv --evaluation dev.tsv --out RESULTS",
            "",
            "Tasks: sst2, sst5, mr, subj, agnews, agnews-paper, cb with labelled text (TSV, JSONL, CSV); a .json file with name, template,"
                + " answers; label-mapping, ginc-50, ginc-100, ginc-150, ginc-small, which need no data.",
            ""
        },
        sortOptions = false,
        showDefaultValues = true,
        mixinStandardHelpOptions = true,
        subcommands = IclMetricsCommand.class)
final class IclCommand implements Callable<Integer> {
    private static final int MOST_SEEDS = 10_000;
    private static final String MAPPING = "label-mapping";
    private static final Map<String, GincOptions> GINC = Map.of("ginc-50", GincOptions.published(50), "ginc-100",
            GincOptions.published(100), "ginc-150", GincOptions.published(150), "ginc-small", GincOptions.small());

    @Spec
    private CommandSpec spec;

    // Not "required": picocli would demand them for the subcommand too.
    @Option(names = "--model", paramLabel = "DIR", description = "model folder, as train makes it (required)")
    private Path model;

    @Option(names = "--task", paramLabel = "NAME|FILE.json", description = "what is asked (required)")
    private String taskName;

    @Option(names = "--data", paramLabel = "FILE", description = "labelled text; demonstrations are drawn from it")
    private Path data;

    @Option(names = "--evaluation", paramLabel = "FILE",
            description = "labelled text to evaluate on; without it half of the data, which then gives no demonstrations")
    private Path evaluation;

    @Option(names = "--labels", split = ",", paramLabel = "NAME",
            description = "answers that the numbers 0, 1, ... in the files stand for; without it as the task says")
    private List<String> labels;

    @Option(names = "--out", paramLabel = "DIR", description = "folder for results, new or empty (required)")
    private Path out;

    @Option(names = "--shots", defaultValue = "0,4,8,16,32", paramLabel = "N,...", description = "numbers of demonstrations")
    private String shots;

    @Option(names = "--seeds", defaultValue = "5", paramLabel = "N", description = "draws of demonstrations: seeds 1 to N")
    private int seeds;

    @Option(names = "--examples", defaultValue = "2000", paramLabel = "N", description = "queries at most")
    private int examples;

    @Option(names = "--compare-finetuning", description = "finetune on the same demonstrations and compare, at the largest --shots")
    private boolean compare;

    @Option(names = "--lr", defaultValue = "grid", paramLabel = "X|grid|published",
            description = "of finetuning: a number, or chosen from 8 or from the paper's 36 on examples set apart")
    private String learningRate;

    @Option(names = "--selection", defaultValue = "64", paramLabel = "N", description = "examples to choose the learning rate on")
    private int selection;

    @Option(names = "--label-only", description = "finetune on the answer's tokens only; as published on all")
    private boolean labelOnly;

    @Option(names = "--compare-examples", defaultValue = "200", paramLabel = "N", description = "queries that are recorded and compared")
    private int recorded;

    @Option(names = "--orders", defaultValue = "5", paramLabel = "N", description = "orders of the first seed's demonstrations")
    private int orders;

    @Option(names = "--ginc-length", defaultValue = "10", paramLabel = "3|5|8|10", description = "symbols of a GINC example")
    private int gincLength;

    @Option(names = "--ginc-ood", description = "GINC prompts out of distribution")
    private boolean gincOutOfDistribution;

    @Option(names = "--device", paramLabel = "DEVICE", description = "auto, cpu or cuda; without it DUALFORM_BACKEND, else auto")
    private String device;

    @Option(names = "--dtype", defaultValue = "f32", paramLabel = "f32|bf16", description = "what the model computes in")
    private String dtype;

    @Option(names = "--json", description = "print results.json instead of tables")
    private boolean json;

    private PrintWriter err;

    /** What is known before a model computes anything. */
    private record Work(Episodes episodes, Map<String, Object> task) {}

    @Override
    public Integer call() throws IOException {
        err = spec.commandLine().getErr();
        demand(model, "--model DIR");
        demand(taskName, "--task NAME");
        demand(out, "--out DIR");
        List<Integer> counts = counts();
        List<Double> rates = rates();
        for (Map.Entry<String, Integer> number : Map.of("--seeds", seeds, "--examples", examples, "--selection", selection,
                "--compare-examples", recorded, "--orders", orders).entrySet()) {
            if (number.getValue() < 1) {
                throw new UsageException(number.getKey() + ": " + number.getValue() + ", expected at least 1");
            }
        }
        if (seeds > MOST_SEEDS) {
            throw new UsageException("--seeds: " + seeds + ", expected at most " + MOST_SEEDS);
        }
        int most = counts.get(counts.size() - 1);
        if (compare && most == 0) {
            throw new UsageException("--shots: " + shots + ", expected at least one demonstration for --compare-finetuning");
        }
        new OutputFolder(out).requireEmpty("");
        Backend backend = OpCommand.demanded(device);
        Task task = isBuiltOfSymbols() ? null : task();
        DType type = Choice.of("--dtype", dtype, Map.of("f32", DType.F32, "bf16", DType.BF16));
        try (Device opened = Device.open(backend);
                Gpt gpt = GptFiles.load(model, opened, type)) {
            Work work = task == null ? symbols(gpt) : texts(gpt, task);
            List<Long> draws = LongStream.rangeClosed(1, seeds).boxed().toList();
            checkExamples(work.episodes, most, rates.size() > 1);
            FinetuningStudy.Plan plan = compare
                    ? new FinetuningStudy.Plan(most, draws, recorded, rates, selection, labelOnly, orders) : null;
            try (UnfinishedFolder folder = new UnfinishedFolder(out)) {
                evaluate(gpt, work, counts, draws, plan, folder.path());
                folder.finish();
            }
        }
        return ExitCode.OK;
    }

    private void evaluate(Gpt gpt, Work work, List<Integer> counts, List<Long> draws, FinetuningStudy.Plan plan, Path folder)
            throws IOException {
        ShotCurve curve;
        try (ModelScorer scorer = new ModelScorer(gpt)) {
            curve = ShotCurve.measure(scorer, work.episodes, counts, draws, gpt.config().context(), this::say);
        }
        FinetuningStudy study = plan == null ? null
                : FinetuningStudy.measure(gpt, work.episodes, plan, folder.resolve("records"), words -> err.println("dualform: " + words));
        EvaluationReport report = new EvaluationReport(curve, study);
        Map<String, Object> results = new LinkedHashMap<>();
        results.put("summary", report.summary());
        results.put("task", work.task);
        results.put("model", model(gpt));
        results.put("accuracy", curve.fields());
        results.put("finetuning", study == null ? null : study.fields());
        String text = Json.write(results);
        Files.writeString(folder.resolve("results.json"), text + "\n");
        curve.csv().save(folder.resolve("accuracy.csv"));
        if (study != null) {
            study.csv().save(folder.resolve("similarities.csv"));
        }
        page(gpt, report).save(folder.resolve("report.html"));
        PrintWriter words = spec.commandLine().getOut();
        if (json) {
            words.println(text);
            return;
        }
        words.println(report.summary());
        words.println();
        words.print(report.accuracies().text());
        if (study != null) {
            words.println();
            words.print(report.similarities().text());
        }
        words.println();
        words.println("report.html, results.json and the tables are in " + out
                + (study == null ? "" : "; the records of seed 1 are in " + out.resolve("records").resolve("seed-1")));
    }

    private void say(ShotCurve.Run run) {
        String used = run.fewest() == run.most() ? String.valueOf(run.most()) : run.fewest() + "-" + run.most();
        err.println(String.format(Locale.ROOT, "dualform: %d demonstrations%s, seed %d: %.1f %% of %d right%s", run.shots(),
                run.fewest() == run.shots() ? "" : " (" + used + " fit the context)", run.seed(), 100 * run.accuracy().mean(),
                run.examples(), run.undefined() == 0 ? "" : ", " + run.undefined() + " without an answer: scores are not numbers"));
    }

    private static Map<String, Object> model(Gpt gpt) {
        GptConfig config = gpt.config();
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("parameters", gpt.parameters().count());
        fields.put("layers", config.layers());
        fields.put("width", config.width());
        fields.put("heads", config.heads());
        fields.put("context", config.context());
        fields.put("vocabulary", config.vocabulary());
        fields.put("attention", config.attention().name().toLowerCase(Locale.ROOT));
        return fields;
    }

    private static Page page(Gpt gpt, EvaluationReport report) {
        Page.Builder page = Page.titled("In-context learning: " + report.curve().task()).lead(Text.of(report.summary()));
        model(gpt).forEach((name, value) -> page.fact(name, value.toString()));
        report.addTo(page);
        return page.build();
    }

    // ---- options ----

    private static void demand(Object value, String option) {
        if (value == null) {
            throw new UsageException(option + " is missing (dualform icl --help tells more)");
        }
    }

    private List<Integer> counts() {
        try {
            List<Integer> counts = Arrays.stream(shots.split(",", -1)).map(word -> Integer.valueOf(word.strip())).sorted().distinct()
                    .toList();
            if (counts.get(0) >= 0) {
                return counts;
            }
        } catch (NumberFormatException e) {
            throw new UsageException("--shots: '" + shots + "', expected numbers with commas between them, such as 0,4,8");
        }
        throw new UsageException("--shots: " + shots + ", expected at least 0");
    }

    private List<Double> rates() {
        if (learningRate.equals("grid")) {
            return LearningRate.coarseGrid();
        }
        if (learningRate.equals("published")) {
            return LearningRate.publishedGrid();
        }
        double rate = Double.NaN;
        try {
            rate = Double.parseDouble(learningRate);
        } catch (NumberFormatException e) {
            rate = Double.NaN;
        }
        if (!(rate > 0 && rate < Double.POSITIVE_INFINITY)) {
            throw new UsageException("--lr: '" + learningRate + "', expected a number above 0, grid or published");
        }
        return List.of(rate);
    }

    private boolean isBuiltOfSymbols() {
        boolean symbols = taskName.equals(MAPPING) || GINC.containsKey(taskName);
        if (symbols && (data != null || evaluation != null || labels != null)) {
            throw new UsageException("--task " + taskName + ": makes its own examples, expected no --data, --evaluation or --labels");
        }
        return symbols;
    }

    private Task task() throws IOException {
        if (!taskName.endsWith(".json") && !Task.names().contains(taskName)) {
            throw new UsageException("--task " + taskName + ": there is no such task, expected one of " + String.join(", ", Task.names())
                    + ", " + MAPPING + ", " + String.join(", ", GINC.keySet().stream().sorted().toList()) + " or a .json file");
        }
        demand(data, "--data FILE");
        Task task = taskName.endsWith(".json") ? Task.read(Path.of(taskName)) : Task.named(taskName);
        if (evaluation != null && Files.exists(data) && Files.exists(evaluation) && Files.isSameFile(data, evaluation)) {
            throw new UsageException("--evaluation: the same file as --data, expected another one, or none to split that one");
        }
        try {
            return labels == null ? task : task.withLabelOrder(labels);
        } catch (IllegalArgumentException e) {
            throw new UsageException("--labels: " + e.getMessage());
        }
    }

    private Work texts(Gpt gpt, Task task) throws IOException {
        Tokenizer tokenizer = Tokenizers.load(model);
        GptConfig config = gpt.config();
        if (tokenizer.vocabularySize() > config.vocabulary()) {
            throw new DataException(model + ": the tokenizer has " + tokenizer.vocabularySize() + " tokens, expected at most the "
                    + config.vocabulary() + " of the model");
        }
        List<LabelledText> all = task.examples(data);
        if (!task.hasOwnOrder()) {
            err.println("dualform: labels 0, 1, ... in the data are read as " + String.join(", ", task.labelOrder())
                    + "; --labels changes that");
        }
        TextEpisodes episodes = evaluation == null
                ? TextEpisodes.ofOne(task, tokenizer, all, examples, config.context())
                : TextEpisodes.of(task, tokenizer, all, task.examples(evaluation), examples, config.context());
        if (evaluation == null) {
            err.println("dualform: one file: " + episodes.querySize() + " examples of its shuffled first half are evaluated on, "
                    + episodes.poolSize() + " others give demonstrations");
        }
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("name", task.name());
        fields.put("template", task.template());
        fields.put("answers", task.answers());
        fields.put("label_order", task.labelOrder());
        fields.put("data", data.getFileName().toString());
        fields.put("evaluation", evaluation == null ? null : evaluation.getFileName().toString());
        fields.put("demonstration_pool", episodes.poolSize());
        fields.put("queries", episodes.querySize());
        return new Work(episodes, fields);
    }

    private Work symbols(Gpt gpt) {
        Ginc ginc = GINC.containsKey(taskName) ? new Ginc(GINC.get(taskName)) : null;
        int vocabulary = ginc == null ? LabelMapping.standard().vocabularySize() : ginc.vocabularySize();
        if (gpt.config().vocabulary() != vocabulary) {
            throw new UsageException("--task " + taskName + ": the model knows " + gpt.config().vocabulary() + " tokens, expected the "
                    + vocabulary + " of this task");
        }
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("name", taskName);
        if (ginc == null) {
            return new Work(new LabelMappingEpisodes(LabelMapping.standard(), examples, examples), fields);
        }
        fields.put("example_length", gincLength);
        fields.put("out_of_distribution", gincOutOfDistribution);
        return new Work(new GincEpisodes(ginc, gincOutOfDistribution ? GincPrompt.Family.OUT_OF_DISTRIBUTION
                : GincPrompt.Family.IN_DISTRIBUTION, gincLength, examples), fields);
    }

    /** Before any work: too few examples would be found out late. */
    private void checkExamples(Episodes episodes, int most, boolean chosen) {
        episodes.episodes(most, 1);
        if (compare) {
            episodes.comparison(most, 1);
            if (chosen && episodes.selection(most, 1, selection).isEmpty()) {
                throw new UsageException("--lr " + learningRate + ": beside " + most
                        + " demonstrations there is no example left to choose a learning rate on, expected a number");
            }
        }
    }
}
