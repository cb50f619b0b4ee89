package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Ops;
import org.dualform.Precision;
import org.dualform.Tensor;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

class BenchCommandTest {
    private static final List<String> KEYS = List.of("op", "shape", "dtype", "pass", "threads", "median_ms", "min_ms", "gflops",
            "gbytes_per_s", "relative_error", "peak_gflops");
    private static final Map<String, String> SHAPES = Arrays.stream(BenchWork.values()).collect(Collectors.toMap(BenchWork::id,
            BenchCommandTest::shape));
    private static final BenchSettings USUAL = BenchSettings.USUAL;

    /** Small sizes in one of the work's layouts: odd, and heads that divide. */
    private static String shape(BenchWork work) {
        return switch (work) {
            case ATTENTION, LINEAR_ATTENTION -> "2,9,2,8";
            case MOMENTUM_ATTENTION -> "1,9,12,4,2,8";
            case LINEAR_ATTENTION_STEP -> "2,3,8";
            case DUAL_FORM -> "2,7,5,6,8";
            case GPT_STEP -> "2,8,1,16,2";
            case EMBEDDING -> "2,5,11,8";
            default -> switch (work.layouts().get(0).split(",").length) {
                case 1 -> "100";
                case 2 -> "9,33";
                default -> "33,17,9";
            };
        };
    }

    @AfterEach
    void clearProperty() {
        System.clearProperty(Backends.CPU);
    }

    private static Run bench(String name, String shape, String... more) {
        List<String> words = new ArrayList<>(List.of("bench", name, "--shape", shape, "--device", "cpu", "--seconds", "0.001"));
        words.addAll(List.of(more));
        return Run.of(words.toArray(String[]::new));
    }

    private static Map<?, ?> report(Run run) {
        assertEquals("", run.err());
        assertEquals(ExitCode.OK, run.code());
        assertEquals(1, run.out().lines().count(), run.out());
        Map<?, ?> report = (Map<?, ?>) Json.read(run.out());
        assertEquals(KEYS, List.copyOf(report.keySet()));
        return report;
    }

    @TestFactory
    Stream<DynamicTest> everyWorkIsTimedAndComparedInEveryPass() {
        return SHAPES.keySet().stream().sorted().flatMap(name -> passes(name).flatMap(pass -> Stream.of("f32", "bf16").map(dtype ->
                DynamicTest.dynamicTest(name + " " + dtype + " " + pass, () -> check(name, dtype, pass)))));
    }

    private static Stream<String> passes(String name) {
        return BenchWork.parse(name).isDifferentiable() ? Stream.of("forward", "backward", "both") : Stream.of("forward");
    }

    private static void check(String name, String dtype, String pass) {
        Map<?, ?> report = report(bench(name, SHAPES.get(name), "--dtype", dtype, "--pass", pass, "--threads", "1", "--json"));
        assertEquals(name, report.get("op"));
        assertEquals(SHAPES.get(name), report.get("shape").toString().replaceAll("[\\[\\] ]", ""));
        assertEquals(dtype, report.get("dtype"));
        assertEquals(pass, report.get("pass"));
        assertEquals(1L, report.get("threads"));
        assertTrue((double) report.get("min_ms") > 0);
        assertTrue((double) report.get("median_ms") >= (double) report.get("min_ms"));
        assertTrue((double) report.get("gbytes_per_s") > 0);
        assertTrue((double) report.get("peak_gflops") > 0);
        if (name.matches(".*(attention|dual-form|delta|matmul|gpt).*")) {
            assertTrue((double) report.get("gflops") > 0);
        } else {
            assertNull(report.get("gflops"));
        }
        double error = (double) report.get("relative_error");
        assertTrue(error >= 0 && error < (dtype.equals("f32") ? 2e-5 : 3e-2), report.toString());
        assertTrue(error > 0 || dtype.equals("f32") || name.matches("neg|abs|relu|max|min|copy|fill|argmax|bias-backward|reduce-(max|min|sum)"),
                "bfloat16 rounds: " + report);
    }

    @Test
    void itSpeaksToPeopleToo() {
        Run run = bench("matmul", "8,8,8", "--threads", "1");
        assertEquals(ExitCode.OK, run.code(), run.err());
        assertEquals(1, run.out().lines().count());
        for (String part : List.of("matmul 8,8,8 f32 forward", "median", "GFLOP/s", "GB/s", "error")) {
            assertTrue(run.out().contains(part), run.out());
        }
    }

    @Test
    void forwardIsTheUsualPassAndAStepIsWhole() {
        assertEquals("forward", report(bench("matmul", "8,8,8", "--threads", "1", "--json")).get("pass"));
        assertEquals("both", report(bench("gpt-step", "1,4,1,8,1", "--threads", "1", "--json")).get("pass"));
    }

    /** Of the documented formulas. */
    @Test
    void flopsAreThoseOfTheFormulas() {
        double attention = 4.0 * 2 * 3 * 16 * 16 * 8 / 2;
        long[] square = BenchWork.ATTENTION.normalized(new long[] {2, 16, 3, 8});
        assertEquals(attention, BenchWork.ATTENTION.flops(square, Pass.FORWARD, USUAL));
        assertEquals(2.5 * attention, BenchWork.ATTENTION.flops(square, Pass.BACKWARD, USUAL));
        assertEquals(3.5 * attention, BenchWork.MOMENTUM_ATTENTION.flops(square, Pass.BOTH, USUAL));
        assertEquals(4.0 * 4 * 8 * (4 * (9 - 2)), BenchWork.ATTENTION.flops(new long[] {1, 4, 9, 4, 2, 8}, Pass.FORWARD, USUAL));
        assertEquals(2.0 * 5 * 6 * 7, BenchWork.MATMUL.flops(new long[] {5, 6, 7}, Pass.FORWARD, USUAL));
        assertEquals(6.0 * 5 * 6 * 7, BenchWork.MATMUL.flops(new long[] {5, 6, 7}, Pass.BOTH, USUAL));
        assertEquals(3 * 2.0 * 8 * 8 * 200, BenchWork.DUAL_FORM.flops(new long[] {3, 100, 100, 8, 8}, Pass.FORWARD, USUAL));
        assertEquals(2.0 * (64 * 64 + 3 * 64 + 3 * 64), BenchWork.DUAL_FORM.flops(new long[] {1, 3, 1, 64, 64}, Pass.FORWARD, USUAL));
        BenchSettings full = new BenchSettings(false, 0, 1, 1000, false, false);
        assertEquals(2 * attention, BenchWork.ATTENTION.flops(square, Pass.FORWARD, full));
        double step = BenchWork.GPT_STEP.flops(new long[] {2, 8, 3, 16, 4}, Pass.FORWARD, full);
        assertEquals(2.0 * 2 * 8 * 16 * (12 * 16 * 3 + 1000) + 2.0 * 2 * 8 * 8 * 16 * 3, step);
        assertEquals(4.0 * 2 * 16 * 3 * 64 * 3.5, BenchWork.LINEAR_ATTENTION.flops(new long[] {2, 16, 3, 8}, Pass.BOTH, USUAL));
    }

    @Test
    void largeShapesAreComparedAtSmallerOnes() {
        long[] small = {2, 64, 64, 4, 4, 32};
        assertEquals(List.of(2L, 64L, 64L, 4L, 4L, 32L), boxed(BenchWork.ATTENTION.compared(small, Pass.BOTH, USUAL)));
        long[] large = BenchWork.ATTENTION.compared(new long[] {8, 8192, 8192, 12, 12, 64}, Pass.BOTH, USUAL);
        assertEquals(1, large[0]);
        assertEquals(large[1], large[2]);
        assertTrue(BenchWork.ATTENTION.flops(large, Pass.BOTH, USUAL) <= 2e10);
        for (BenchWork work : BenchWork.values()) {
            long[] shape = work.normalized(work.shape(SHAPES.get(work.id())));
            for (int i = 0; i < shape.length; i++) {
                shape[i] *= 1000;
            }
            long[] compared = work.compared(shape, Pass.FORWARD, USUAL);
            assertTrue(work.flops(compared, Pass.FORWARD, USUAL) <= 2e10 || compared[0] == 1, work.id() + boxed(compared));
        }
    }

    private static List<Long> boxed(long[] values) {
        return Arrays.stream(values).boxed().toList();
    }

    /** GPT-2 of 124 million parameters: the comparison takes the same model with fewer tokens. */
    @Test
    void aModelIsComparedOnASmallBatch() {
        BenchSettings gpt2 = new BenchSettings(true, 0.9, 1, 50257, true, false);
        long[] compared = BenchWork.GPT_STEP.compared(new long[] {64, 1024, 12, 768, 12}, Pass.BOTH, gpt2);
        assertEquals(1, compared[0]);
        assertTrue(compared[1] >= 8 && compared[1] * 50257 <= 1 << 24, boxed(compared).toString());
        assertEquals(List.of(12L, 768L, 12L), boxed(compared).subList(2, 5));
    }

    @Test
    void settingsReachTheWork() {
        assertTrue((double) report(bench("attention", "1,5,9,4,2,8", "--causal", "false", "--pass", "both", "--json")).get("gflops") > 0);
        report(bench("momentum-attention", "1,9,2,8", "--eta", "0.5", "--pass", "both", "--json"));
        for (String decay : List.of("0", "0.9")) {
            report(bench("linear-attention", "1,9,2,8", "--decay", decay, "--pass", "both", "--json"));
            report(bench("linear-attention-step", "1,2,8", "--decay", decay, "--json"));
        }
        report(bench("gpt-step", "2,8,1,16,2", "--vocabulary", "11", "--json"));
        report(bench("copy", "1000", "--rotate", "0.1", "--json"));
        for (String dtype : List.of("f32", "bf16")) {
            report(bench("gpt-step", "2,8,2,16,2", "--graphs", "true", "--dtype", dtype, "--json"));
        }
    }

    /** A work whose float64 is another: no time, one sentence. */
    @Test
    void aWrongAnswerIsASentenceAndExitCode1() {
        try (Device device = Device.cpu(1)) {
            Accuracy.Maker wrong = tensors -> OpWorks.mapping(tensors, new long[] {7}, Pass.FORWARD,
                    (out, x) -> Ops.affine(out, x, tensors.dtype() == DType.F64 ? 2 : 2.001, 0));
            Accuracy.WrongAnswerException e = assertThrows(Accuracy.WrongAnswerException.class,
                    () -> Accuracy.check("affine 7 f32 forward", device, DType.F32, 1e-4, wrong));
            assertEquals(ExitCode.INTERNAL, ExitCode.of(e));
            assertTrue(ExitCode.sentence(e).startsWith("wrong answer: affine 7 f32 forward: result 1 of 1 is off by 0.0005"), e.getMessage());
            assertTrue(ExitCode.sentence(e).endsWith("at most 0.0001 was expected"), e.getMessage());
            assertEquals(5e-4, Accuracy.check("affine", device, DType.F32, 1e-3, wrong), 1e-6);
            assertThrows(Accuracy.WrongAnswerException.class, () -> Accuracy.check("affine", device, DType.F32, 1, tensors -> {
                Workload whole = OpWorks.mapping(tensors, new long[] {7}, Pass.FORWARD, (out, x) -> {
                    try (Tensor most = out.slice(0, 0, 6); Tensor from = x.slice(0, 0, 6)) {
                        Ops.copy(tensors.dtype() == DType.F64 ? out : most, tensors.dtype() == DType.F64 ? x : from);
                    }
                });
                return whole;
            }), "an element that nobody wrote");
        }
        for (DType dtype : List.of(DType.F32, DType.BF16)) {
            assertTrue(Accuracy.bound(BenchWork.MATMUL, Backend.CUDA, dtype) < 0.1);
        }
        assertEquals(1e-4, Accuracy.bound(BenchWork.MATMUL, Backend.CPU, DType.F32));
        assertEquals(1e-3, Accuracy.bound(BenchWork.GPT_STEP, Backend.CPU, DType.F32));
        try {
            Backends.setPrecision(Precision.TF32);
            assertEquals(1e-2, Accuracy.bound(BenchWork.MATMUL, Backend.CUDA, DType.F32));
            assertEquals(1e-4, Accuracy.bound(BenchWork.MATMUL, Backend.CPU, DType.F32));
        } finally {
            Backends.clearChoices();
        }
    }

    @Test
    void theCpuLevelIsAProperty() {
        System.setProperty(Backends.CPU, "base");
        assertTrue((double) report(bench("matmul", "8,8,8", "--threads", "1", "--json")).get("relative_error") < 1e-5);
        assertTrue(Run.of("doctor").out().contains("cpu (base,"));
        System.setProperty(Backends.CPU, "mmx");
        for (Run run : List.of(bench("matmul", "8,8,8"), Run.of("doctor"), Run.of("doctor", "--json"))) {
            assertRefused(run, ExitCode.USAGE,
                    "-Ddualform.cpu: mmx, expected one of base, avx2, avx512, avx512bf16, amx; this machine has base");
        }
    }

    // ---- wrong words ----

    private record Bad(String what, String expected, String... words) {}

    @TestFactory
    Stream<DynamicTest> badWordsAreOneSentence() {
        return Stream.of(
                        new Bad("no work", "NAME", "--shape", "1,1,1,1"),
                        new Bad("unknown work", "bench softmax: no such work, expected one of attention, ", "softmax", "--shape", "1,1"),
                        new Bad("no shape", "--shape", "attention"),
                        new Bad("empty shape", "--shape : expected B,T,NH,HS", "attention", "--shape", ""),
                        new Bad("too few sizes", "--shape 1,2,3: expected B,T,NH,HS or B,T,S,NH,NKV,HS", "attention", "--shape", "1,2,3"),
                        new Bad("five sizes", "expected B,T,NH,HS or B,T,S,NH,NKV,HS", "attention", "--shape", "1,2,3,4,5"),
                        new Bad("too many sizes", "expected M,N,K", "matmul", "--shape", "1,2,3,4"),
                        new Bad("zero", "--shape 1,0,1,1: expected", "attention", "--shape", "1,0,1,1"),
                        new Bad("negative", "--shape 1,-4,1,1: expected", "attention", "--shape", "1,-4,1,1"),
                        new Bad("a fraction", "expected M,N,K", "matmul", "--shape", "1.5,2,3"),
                        new Bad("a word", "expected M,N,K", "matmul", "--shape", "a,2,3"),
                        new Bad("crosses", "expected M,N,K", "matmul", "--shape", "2x2x3"),
                        new Bad("a blank", "expected M,N,K", "matmul", "--shape", "2, 2,3"),
                        new Bad("a comma at the end", "expected M,N,K", "matmul", "--shape", "2,2,"),
                        new Bad("more than an int", "999999999", "matmul", "--shape", "99999999999,1,1"),
                        new Bad("heads that do not divide", "k: 2 key heads, expected a divisor of q's 3 heads", "attention",
                                "--shape", "1,4,4,3,2,8"),
                        new Bad("a head too large", "q: head size 257, expected 1..256", "attention", "--shape", "1,4,1,257"),
                        new Bad("width and heads", "width: 10, expected a multiple of the 3 heads", "gpt-step", "--shape", "1,4,1,10,3"),
                        new Bad("float64", "--dtype f64: expected one of bf16, f32", "matmul", "--shape", "1,1,1", "--dtype", "f64"),
                        new Bad("unknown pass", "--pass all: expected one of backward, both, forward", "matmul", "--shape", "1,1,1",
                                "--pass", "all"),
                        new Bad("adamw backward", "--pass both: adamw has no backward pass", "adamw", "--shape", "1", "--pass", "both"),
                        new Bad("sgd backward", "--pass backward: sgd has no backward pass", "sgd", "--shape", "1", "--pass", "backward"),
                        new Bad("eta 1", "--eta 1.0: expected 0 to less than 1", "momentum-attention", "--shape", "1,4,1,8", "--eta", "1"),
                        new Bad("no eta", "--eta: matmul has none, expected momentum-attention", "matmul", "--shape", "1,1,1", "--eta", "0"),
                        new Bad("decay 2", "--decay 2.0: expected 0 to 1", "linear-attention", "--shape", "1,4,1,8", "--decay", "2"),
                        new Bad("causal no", "--causal no: expected one of false, true", "attention", "--shape", "1,4,1,8", "--causal", "no"),
                        new Bad("momentum that looks ahead", "--causal: momentum-attention has none, expected attention",
                                "momentum-attention", "--shape", "1,4,1,8", "--causal", "false"),
                        new Bad("no words", "--vocabulary 0: expected at least 1", "gpt-step", "--shape", "1,4,1,8,1", "--vocabulary", "0"),
                        new Bad("half a graph", "--graphs true: a pass alone is no step", "gpt-step", "--shape", "1,4,1,8,1", "--graphs",
                                "true", "--pass", "forward"),
                        new Bad("turns of a model", "--rotate: gpt-step has none", "gpt-step", "--shape", "1,4,1,8,1", "--rotate", "1"),
                        new Bad("negative turns", "--rotate -1.0: expected 0 to", "copy", "--shape", "1", "--rotate", "-1"),
                        new Bad("negative threads", "--threads -1: expected at least 0", "matmul", "--shape", "1,1,1", "--threads", "-1"),
                        new Bad("too many threads", "threads: 5000, expected 0..1024", "matmul", "--shape", "1,1,1", "--threads", "5000"),
                        new Bad("threads in words", "--threads", "matmul", "--shape", "1,1,1", "--threads", "two"),
                        new Bad("unknown device", "--device abacus: expected auto, cpu or cuda", "matmul", "--shape", "1,1,1",
                                "--device", "abacus"),
                        new Bad("no time", "--seconds NaN: expected 0 to 3600", "matmul", "--shape", "1,1,1", "--seconds", "NaN"),
                        new Bad("unknown option", "--frobnicate", "matmul", "--shape", "1,1,1", "--frobnicate"),
                        new Bad("a second work", "layernorm", "matmul", "layernorm", "--shape", "1,1,1"))
                .map(bad -> DynamicTest.dynamicTest(bad.what, () -> {
                    List<String> words = new ArrayList<>(List.of("bench"));
                    words.addAll(List.of(bad.words));
                    assertRefused(Run.of(words.toArray(String[]::new)), ExitCode.USAGE, bad.expected);
                }));
    }

    private static void assertRefused(Run run, int code, String expected) {
        assertEquals(code, run.code(), run.err());
        assertEquals("", run.out());
        assertEquals(1, run.err().lines().count(), run.err());
        assertTrue(run.err().startsWith("dualform: "), run.err());
        assertTrue(run.err().contains(expected), "'" + run.err() + "' does not say '" + expected + "'");
        assertFalse(run.err().contains("Exception") || run.err().contains("Usage:"), run.err());
    }

    @Test
    void aLineOfJsonIsReadBack() {
        String text = "{\"a\": [1, 2.5, null], \"b\": {\"c\": \"x\"}, \"d\": {}}";
        assertEquals(text, Json.line(Json.read(text)));
        assertThrows(IllegalArgumentException.class, () -> Json.read(text + "}"));
    }
}
