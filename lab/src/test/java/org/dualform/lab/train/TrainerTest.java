package org.dualform.lab.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.function.UnaryOperator;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.autograd.Tape;
import org.dualform.lab.data.Batches;
import org.dualform.lab.data.DataException;
import org.dualform.nn.Gpt;
import org.dualform.nn.GptConfig;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class TrainerTest {
    @TempDir
    Path folder;

    private final Device device = Device.cpu(1);
    private final List<String> warnings = new ArrayList<>();

    @AfterEach
    void close() {
        device.close();
    }

    private static TrainingOptions options(long steps) {
        return TrainingOptions.of(steps, 0.05).withSchedule(Schedule.cosine(2, 0.1));
    }

    private static TrainingListener quiet() {
        return new TrainingListener() {};
    }

    private RunFolder open(String name) throws IOException {
        return new RunFolder(folder.resolve(name), 3, TinyRun.IDENTITY, warnings::add);
    }

    // ---- one step ----

    @Test
    void lossFallsWithoutAnyFolder() {
        List<TrainingListener.Step> steps = new ArrayList<>();
        try (Gpt gpt = TinyRun.model(device, DType.F32);
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(60), new TrainingListener() {
                    @Override
                    public void stepped(Step step) {
                        steps.add(step);
                    }
                })) {
            assertEquals(Trainer.Outcome.COMPLETED, trainer.run());
            assertEquals(60, trainer.step());
        }
        assertEquals(60, steps.size());
        assertEquals(Math.log(TinyRun.VOCABULARY), steps.get(0).loss(), 0.1);
        assertTrue(steps.get(59).loss() < 0.5, "loss " + steps.get(59).loss());
        assertEquals(0.025, steps.get(0).learningRate(), 0);
        assertEquals(60 * 16, steps.get(59).tokens());
        assertFalse(steps.stream().anyMatch(TrainingListener.Step::skipped));
    }

    /** Of a run in which two steps are skipped; as graphs with at most so many rates on the device, or with 0 as it is. */
    private List<Object> history(DType dtype, int accumulation, int rates) {
        List<Object> history = new ArrayList<>();
        try (Gpt gpt = TinyRun.model(device, dtype);
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), TrainingOptions.of(12, 0.05).withSchedule(Schedule.cosine(2, 0.1))
                        .withAccumulation(accumulation).withMaxSkipped(100), new TrainingListener() {
                            @Override
                            public void stepped(Step step) {
                                history.add(step);
                                if (step.step() == 5) { // a step that is not finite, and then goes on
                                    Ops.affine(gpt.parameters().get("ln_f.bias").value(), gpt.parameters().get("ln_f.bias").value(),
                                            Double.POSITIVE_INFINITY, 0);
                                } else if (step.step() == 7) {
                                    Ops.fill(gpt.parameters().get("ln_f.bias").value(), 0);
                                }
                            }
                        })) {
            if (rates > 0) {
                trainer.withGraphs(rates);
            }
            trainer.run();
            gpt.parameters().all().forEach(parameter -> history.add(java.util.Arrays.toString(parameter.value().toDoubles())));
            history.add(trainer.skipped());
        }
        return history;
    }

    @ParameterizedTest
    @EnumSource(value = DType.class, names = {"F32", "BF16", "F64"})
    void stepsAsGraphsAreTheStepsBitForBit(DType dtype) {
        for (int accumulation : new int[] {1, 3}) {
            List<Object> plain = history(dtype, accumulation, 0);
            for (int rates : new int[] {1, 4, 1000}) {
                assertEquals(plain, history(dtype, accumulation, rates), rates + " rates");
            }
            assertEquals(List.of(6L, 7L), plain.get(plain.size() - 1));
        }
    }

    @Test
    void sgdDoesNotRunAsGraphs() {
        try (Gpt gpt = TinyRun.model(device, DType.F32);
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(1).withSgd(0, 0), quiet())) {
            assertThrows(IllegalStateException.class, trainer::withGraphs);
        }
    }

    @Test
    void accumulationAveragesTheGradientsOfItsBatches() {
        AtomicReference<TrainingListener.Step> first = new AtomicReference<>();
        double[] losses = new double[3];
        double[] squares = new double[1];
        try (Gpt gpt = TinyRun.model(device, DType.F64)) {
            int[] ids = new int[16];
            int[] targets = new int[16];
            double[] sum = null;
            for (int i = 0; i < 3; i++) {
                TinyRun.counting().fill(i, ids, targets);
                gpt.parameters().clearGradients();
                try (Tape tape = new Tape(device); Tensor x = Tensor.of(device, ids, 2, 8); Tensor y = Tensor.of(device, targets, 2, 8)) {
                    gpt.declare(tape);
                    Tensor loss = gpt.loss(tape, x, y);
                    losses[i] = loss.item();
                    tape.backward(loss);
                }
                double[] gradient = gpt.parameters().all().stream().flatMapToDouble(p -> java.util.Arrays.stream(
                        p.gradient().toDoubles())).toArray();
                sum = sum == null ? new double[gradient.length] : sum;
                for (int j = 0; j < sum.length; j++) {
                    sum[j] += gradient[j] / 3;
                }
            }
            for (double g : sum) {
                squares[0] += g * g;
            }
            try (Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(1).withAccumulation(3), new TrainingListener() {
                @Override
                public void stepped(Step step) {
                    first.set(step);
                }
            })) {
                trainer.run();
            }
        }
        assertEquals((losses[0] + losses[1] + losses[2]) / 3, first.get().loss(), 1e-14);
        assertEquals(Math.sqrt(squares[0]), first.get().gradientNorm(), 1e-14);
        assertEquals(48, first.get().tokens());
    }

    @Test
    void frozenParametersKeepEveryBit() {
        try (Gpt gpt = TinyRun.model(device, DType.F32)) {
            gpt.parameters().freeze(name -> !name.contains("k_proj"));
            Map<String, List<Long>> before = parameters(gpt);
            try (Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(3), quiet())) {
                trainer.run();
            }
            Map<String, List<Long>> after = parameters(gpt);
            assertNotEquals(before.remove("h.0.attn.k_proj.weight"), after.remove("h.0.attn.k_proj.weight"));
            before.remove("h.0.attn.k_proj.bias");
            after.remove("h.0.attn.k_proj.bias");
            assertEquals(before, after);
        }
    }

    private static Map<String, List<Long>> parameters(Gpt gpt) {
        Map<String, Tensor> tensors = new java.util.LinkedHashMap<>();
        gpt.parameters().all().forEach(parameter -> tensors.put(parameter.name(), parameter.value()));
        return TinyRun.bits(tensors);
    }

    @Test
    void evaluationsAreDueBeforeTheFirstStepAtIntervalsAndAfterTheLast() {
        List<Long> due = new ArrayList<>();
        try (Gpt gpt = TinyRun.model(device, DType.F32);
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(7).withIntervals(3, 0), new TrainingListener() {
                    @Override
                    public boolean evaluate(long step) {
                        return due.add(step);
                    }
                })) {
            trainer.run();
        }
        assertEquals(List.of(0L, 3L, 6L, 7L), due);
    }

    @Test
    void sequencesLongerThanTheContextAreRefused() {
        Batches counting = TinyRun.counting();
        Batches longer = new Batches() {
            @Override
            public int rows() {
                return 1;
            }

            @Override
            public int length() {
                return 9;
            }

            @Override
            public void fill(long index, int[] ids, int[] targets) {
                counting.fill(index, ids, targets);
            }
        };
        try (Gpt gpt = TinyRun.model(device, DType.F32)) {
            assertThrows(InvalidArgumentException.class, () -> new Trainer(gpt, longer, options(1), quiet()));
        }
    }

    @Test
    void momentumZeroTrainsLikePlainAttentionInEveryBit() {
        List<Map<String, List<Long>>> states = new ArrayList<>();
        GptConfig plain = TinyRun.CONFIG;
        for (GptConfig config : List.of(plain, plain.withMomentumAttention(0), plain.withMomentumAttention(0.5))) {
            try (Gpt gpt = Gpt.create(device, config, DType.F32, 5);
                    Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(40), quiet())) {
                trainer.run();
                states.add(TinyRun.bits(trainer.state()));
            }
        }
        assertEquals(states.get(0), states.get(1));
        assertNotEquals(states.get(0), states.get(2));
    }

    // ---- going on ----

    enum Kind {
        ADAMW(o -> o, DType.F32), ACCUMULATED(o -> o.withAccumulation(3), DType.F32), SGD_MOMENTUM(o -> o.withSgd(0.9, 0.01), DType.F32),
        SGD(o -> o.withSgd(0, 0), DType.F32), ADAM_BF16(o -> o.withAdam(0.9, 0.999, 1e-8).withAccumulation(2), DType.BF16);

        private final UnaryOperator<TrainingOptions> change;
        private final DType dtype;

        Kind(UnaryOperator<TrainingOptions> change, DType dtype) {
            this.change = change;
            this.dtype = dtype;
        }
    }

    /** Final state and steps.jsonl of a run in a folder, stopped after some steps. */
    private record Ended(Map<String, List<Long>> state, String steps, long step) {}

    private Ended run(String name, Kind kind, long stopAfter, Device on, boolean poisoned) throws IOException {
        try (Gpt gpt = TinyRun.model(on, kind.dtype);
                RunFolder run = open(name);
                Trainer trainer = new Trainer(gpt, poisoned ? badGradients(gpt, index -> index == 5) : TinyRun.counting(),
                        kind.change.apply(options(9)).withIntervals(4, 0), quiet(), run)) {
            trainer.resume();
            long from = trainer.step();
            trainer.run(() -> trainer.step() >= stopAfter);
            assertTrue(trainer.step() == Math.min(9, stopAfter) || from > stopAfter, "stopped at " + trainer.step());
            return new Ended(TinyRun.bits(trainer.state()), Files.readString(folder.resolve(name).resolve(RunFolder.STEPS)),
                    trainer.step());
        }
    }

    @ParameterizedTest
    @EnumSource
    void aRunStoppedAtAnyStepGoesOnBitForBit(Kind kind) throws IOException {
        Ended unbroken = run("unbroken", kind, 100, device, false);
        assertEquals(9, unbroken.steps().lines().count());
        try (Device two = Device.cpu(2)) {
            for (long stop = 1; stop <= 8; stop++) {
                String name = "stopped" + stop;
                assertEquals(stop, run(name, kind, stop, device, false).step());
                Ended resumed = run(name, kind, 100, stop % 2 == 0 ? two : device, false);
                assertEquals(unbroken.steps(), resumed.steps(), "after " + stop);
                assertEquals(unbroken.state(), resumed.state(), "after " + stop);
            }
        }
        assertEquals(List.of(), warnings);
    }

    @Test
    void aRunGoesOnBitForBitAroundASkippedStep() throws IOException {
        Ended unbroken = run("unbroken", Kind.ADAMW, 100, device, true);
        assertEquals(1, unbroken.steps().lines().filter(line -> line.contains("\"skipped\":true")).count());
        for (long stop = 5; stop <= 7; stop++) {
            run("stopped" + stop, Kind.ADAMW, stop, device, true);
            Ended resumed = run("stopped" + stop, Kind.ADAMW, 100, device, true);
            assertEquals(unbroken.steps(), resumed.steps());
            assertEquals(unbroken.state(), resumed.state());
        }
    }

    @Test
    void linesWrittenAfterTheLastCheckpointAreCutAway() throws IOException {
        Ended unbroken = run("unbroken", Kind.ADAMW, 100, device, false);
        run("killed", Kind.ADAMW, 4, device, false);
        Files.writeString(folder.resolve("killed").resolve(RunFolder.STEPS), "{\"step\":5,\"lo", java.nio.file.StandardOpenOption.APPEND);
        assertEquals(unbroken.steps(), run("killed", Kind.ADAMW, 100, device, false).steps());
    }

    @Test
    void aFinishedRunGoesOnToDoNothing() throws IOException {
        Ended first = run("run", Kind.ADAMW, 100, device, false);
        assertEquals(first, run("run", Kind.ADAMW, 100, device, false));
    }

    @Test
    void anEvaluationThatWasNotCompleteIsRepeated() throws IOException {
        List<Long> evaluated = new ArrayList<>();
        for (boolean complete : new boolean[] {false, true, true}) {
            boolean[] stop = new boolean[1];
            try (Gpt gpt = TinyRun.model(device, DType.F32);
                    RunFolder run = open("run");
                    Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(4).withIntervals(2, 0), new TrainingListener() {
                        @Override
                        public boolean evaluate(long step) {
                            evaluated.add(step);
                            stop[0] = step == 2;
                            return complete || step == 0;
                        }
                    }, run)) {
                trainer.resume();
                trainer.run(() -> stop[0]);
            }
        }
        assertEquals(List.of(0L, 2L, 2L, 4L), evaluated);
    }

    @Test
    void otherOptionsAreRefusedOrNamed() throws IOException {
        run("run", Kind.ADAMW, 4, device, false);
        try (Gpt gpt = TinyRun.model(device, DType.F32); RunFolder run = open("run")) {
            try (Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(9).withAccumulation(2), quiet(), run)) {
                String sentence = assertThrows(DataException.class, trainer::resume).getMessage();
                assertTrue(sentence.endsWith("cannot go on with other options: accumulation 2 instead of 1"), sentence);
            }
            try (Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(20), quiet(), run)) {
                assertEquals(4, trainer.resume());
                assertEquals(List.of("from step 4 on this is not the run that began: steps 20 instead of 9"), warnings);
            }
        }
        try (Gpt gpt = TinyRun.model(device, DType.F32);
                RunFolder run = new RunFolder(folder.resolve("run"), 3, Map.of("model", "other"), warnings::add);
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(9), quiet(), run)) {
            assertTrue(assertThrows(DataException.class, trainer::resume).getMessage().contains("model other instead of tiny"));
        }
    }

    @Test
    void twoRunsInOneFolderAreRefused() throws IOException {
        try (RunFolder first = open("run")) {
            assertThrows(DataException.class, () -> open("run").close());
            assertTrue(Files.isDirectory(first.path()));
        }
        open("run").close();
    }

    // ---- numbers that are not finite ----

    /** Gradients are cleared before the first batch of a step is asked for, so what is put there then is added to. */
    private static Batches badGradients(Gpt gpt, Predicate<Long> when) {
        return TinyRun.counting(index -> {
            if (when.test(index)) {
                Ops.fill(gpt.parameters().get("h.0.mlp.c_fc.bias").gradient(), Double.NaN);
            }
        });
    }

    private void assertStateSurvives(Consumer<Gpt> poison, Consumer<Gpt> cure, long firstBad, TrainingOptions options) {
        AtomicReference<Map<String, List<Long>>> before = new AtomicReference<>();
        List<TrainingListener.Step> steps = new ArrayList<>();
        try (Gpt gpt = TinyRun.model(device, DType.F32)) {
            AtomicReference<Trainer> running = new AtomicReference<>();
            Batches batches = TinyRun.counting(index -> {
                if (index / options.accumulation() >= firstBad) {
                    if (index % options.accumulation() == 0 && before.get() == null) {
                        before.set(TinyRun.bits(running.get().state()));
                    }
                    poison.accept(gpt);
                }
            });
            try (Trainer trainer = new Trainer(gpt, batches, options, new TrainingListener() {
                @Override
                public void stepped(Step step) {
                    cure.accept(gpt);
                    steps.add(step);
                    if (step.skipped()) {
                        assertEquals(before.get(), TinyRun.bits(running.get().state()), "step " + step.step());
                    }
                }
            })) {
                running.set(trainer);
                NonFiniteException stopped = assertThrows(NonFiniteException.class, trainer::run);
                assertTrue(stopped.getMessage().startsWith("step " + (firstBad + 3) + ": loss "), stopped.getMessage());
                assertEquals(firstBad + 3, trainer.step());
                assertEquals(List.of(firstBad + 1, firstBad + 2, firstBad + 3), trainer.skipped());
            }
        }
        assertEquals(firstBad + 3, steps.size());
        assertEquals(3, steps.stream().filter(TrainingListener.Step::skipped).count());
    }

    @Test
    void gradientsThatAreNotFiniteLeaveWeightsAndOptimizerBitEqual() {
        for (double value : new double[] {Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY}) {
            for (long firstBad : new long[] {0, 4}) {
                for (TrainingOptions options : List.of(options(20), options(20).withSgd(0.9, 0), options(20).withAccumulation(2),
                        options(20).withClipNorm(Double.POSITIVE_INFINITY))) {
                    assertStateSurvives(gpt -> {
                        try (Tensor one = gpt.parameters().get("h.0.mlp.c_fc.bias").gradient().slice(0, 3, 4)) {
                            Ops.fill(one, value);
                        }
                    }, gpt -> {}, firstBad, options);
                }
            }
        }
    }

    @Test
    void lossesThatAreNotFiniteLeaveWeightsAndOptimizerBitEqual() {
        for (double value : new double[] {Double.NaN, Double.POSITIVE_INFINITY}) {
            AtomicReference<Tensor> kept = new AtomicReference<>();
            assertStateSurvives(gpt -> {
                Tensor weight = gpt.parameters().get("ln_f.weight").value();
                kept.set(weight.copy());
                Ops.fill(weight, value);
            }, gpt -> {
                try (Tensor good = kept.getAndSet(null)) {
                    if (good != null) {
                        Ops.copy(gpt.parameters().get("ln_f.weight").value(), good);
                    }
                }
            }, 2, options(20));
        }
    }

    @Test
    void aFiniteStepBetweenStartsTheCountAgain() {
        try (Gpt gpt = TinyRun.model(device, DType.F32);
                Trainer trainer = new Trainer(gpt, badGradients(gpt, index -> index % 3 != 2), options(12), quiet())) {
            assertEquals(Trainer.Outcome.COMPLETED, trainer.run());
            assertEquals(8, trainer.skipped().size());
        }
    }

    @Test
    void theCountOfSkippedStepsSurvivesAStop() throws IOException {
        for (int part = 0; part < 2; part++) {
            boolean last = part == 1;
            try (Gpt gpt = TinyRun.model(device, DType.F32);
                    RunFolder run = open("run");
                    Trainer trainer = new Trainer(gpt, badGradients(gpt, index -> index >= 2), options(20), quiet(), run)) {
                trainer.resume();
                if (last) {
                    assertThrows(NonFiniteException.class, trainer::run);
                    assertEquals(5, trainer.step());
                } else {
                    trainer.run(() -> trainer.step() == 4);
                }
            }
        }
    }

    @Test
    void weightsThatAreNotFiniteAreNeverSaved() throws IOException {
        try (Gpt gpt = TinyRun.model(device, DType.F32); RunFolder run = open("run")) {
            TrainingListener listener = new TrainingListener() {
                @Override
                public void warned(String sentence) {
                    warnings.add(sentence);
                }
            };
            try (Trainer trainer = new Trainer(gpt, TinyRun.counting(index -> {
                if (index == 3) { // the step before was taken, its checkpoint is there
                    Ops.fill(gpt.parameters().get("wte.weight").value(), Double.NaN);
                }
            }), options(20).withIntervals(0, 1), listener, run)) {
                assertThrows(NonFiniteException.class, trainer::run);
                assertEquals(6, trainer.step());
                assertEquals(2, warnings.size());
                assertTrue(warnings.get(0).startsWith("checkpoint at step 4 not saved: wte.weight is not finite"), warnings.get(0));
            }
            assertEquals(3, run.checkpoints().newest().orElseThrow().progress().step());
        }
    }

    // ---- full disks ----

    @Test
    void aDiskThatIsFullStopsNeitherLogsNorTraining() throws IOException {
        Path full = Path.of("/dev/full");
        org.junit.jupiter.api.Assumptions.assumeTrue(Files.exists(full), "/dev/full is Linux's");
        Files.createDirectories(folder.resolve("run"));
        Files.createSymbolicLink(folder.resolve("run").resolve(RunFolder.STEPS), full);
        try (Gpt gpt = TinyRun.model(device, DType.F32);
                RunFolder run = open("run");
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), options(9).withIntervals(0, 3), quiet(), run)) {
            assertEquals(Trainer.Outcome.COMPLETED, trainer.run());
            assertEquals(9, run.checkpoints().newest().orElseThrow().progress().step());
        }
        assertEquals(1, warnings.stream().filter(warning -> warning.contains("steps.jsonl cannot be written")).count(),
                warnings.toString());
    }

    @Test
    void timesStandInTheirOwnFileOnly() throws IOException {
        run("run", Kind.ADAMW, 100, device, false);
        String steps = Files.readString(folder.resolve("run").resolve(RunFolder.STEPS));
        assertTrue(steps.lines().findFirst().orElseThrow().matches(
                "\\{\"step\":1,\"loss\":[0-9.E-]+,\"learning_rate\":0.025,"
                        + "\"gradient_norm\":[0-9.E-]+,\"tokens\":16,\"skipped\":false}"), steps);
        assertFalse(steps.contains("second"));
        assertEquals(9, Files.readString(folder.resolve("run").resolve(RunFolder.TIMING)).lines().count());
        assertNotEquals("", steps);
    }
}
