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
import java.util.stream.Stream;
import org.dualform.Backends;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

class BenchCommandTest {
    private static final List<String> KEYS = List.of("op", "shape", "dtype", "pass", "threads", "median_ms", "min_ms", "gflops",
            "gbytes_per_s", "relative_error", "peak_gflops");
    private static final Map<String, String> SHAPES = Map.of("attention", "2,9,2,8", "momentum-attention", "1,9,12,4,2,8",
            "linear-attention", "2,9,2,8", "dual-form", "2,7,5,6,8", "matmul", "33,17,9", "gpt-step", "2,8,1,16,2", "layernorm", "9,33",
            "gelu", "9,33", "cross-entropy", "9,33", "adamw", "100");

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
        return name.equals("adamw") ? Stream.of("forward") : Stream.of("forward", "backward", "both");
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
        if (List.of("layernorm", "gelu", "cross-entropy", "adamw").contains(name)) {
            assertNull(report.get("gflops"));
        } else {
            assertTrue((double) report.get("gflops") > 0);
        }
        double error = (double) report.get("relative_error");
        assertTrue(error >= 0 && error < (dtype.equals("f32") ? 2e-5 : 3e-2), report.toString());
        assertTrue(error > 0 || dtype.equals("f32"), "bfloat16 rounds: " + report);
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
        assertEquals(attention, BenchWork.ATTENTION.flops(square, Pass.FORWARD));
        assertEquals(2.5 * attention, BenchWork.ATTENTION.flops(square, Pass.BACKWARD));
        assertEquals(3.5 * attention, BenchWork.MOMENTUM_ATTENTION.flops(square, Pass.BOTH));
        assertEquals(4.0 * 4 * 8 * (4 * (9 - 2)), BenchWork.ATTENTION.flops(new long[] {1, 4, 9, 4, 2, 8}, Pass.FORWARD));
        assertEquals(2.0 * 5 * 6 * 7, BenchWork.MATMUL.flops(new long[] {5, 6, 7}, Pass.FORWARD));
        assertEquals(6.0 * 5 * 6 * 7, BenchWork.MATMUL.flops(new long[] {5, 6, 7}, Pass.BOTH));
        assertEquals(3 * 2.0 * 8 * 8 * 200, BenchWork.DUAL_FORM.flops(new long[] {3, 100, 100, 8, 8}, Pass.FORWARD));
        assertEquals(2.0 * (64 * 64 + 3 * 64 + 3 * 64), BenchWork.DUAL_FORM.flops(new long[] {1, 3, 1, 64, 64}, Pass.FORWARD));
        assertEquals(4.0 * 2 * 16 * 3 * 64 * 3.5, BenchWork.LINEAR_ATTENTION.flops(new long[] {2, 16, 3, 8}, Pass.BOTH));
    }

    @Test
    void largeShapesAreComparedAtSmallerOnes() {
        long[] small = {2, 64, 64, 4, 4, 32};
        assertEquals(List.of(2L, 64L, 64L, 4L, 4L, 32L), boxed(BenchWork.ATTENTION.compared(small, Pass.BOTH)));
        long[] large = BenchWork.ATTENTION.compared(new long[] {8, 8192, 8192, 12, 12, 64}, Pass.BOTH);
        assertEquals(1, large[0]);
        assertEquals(large[1], large[2]);
        assertTrue(BenchWork.ATTENTION.flops(large, Pass.BOTH) <= 2e10);
        for (BenchWork work : BenchWork.values()) {
            long[] shape = work.normalized(work.shape(SHAPES.get(work.id())));
            for (int i = 0; i < shape.length; i++) {
                shape[i] *= 1000;
            }
            long[] compared = work.compared(shape, Pass.FORWARD);
            assertTrue(work.flops(compared, Pass.FORWARD) <= 2e10 || compared[0] == 1, work.id() + boxed(compared));
        }
    }

    private static List<Long> boxed(long[] values) {
        return Arrays.stream(values).boxed().toList();
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
