package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.dualform.lab.metrics.RecordFiles.Setting;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class IclMetricsCommandTest {
    @TempDir
    private Path folder;

    /** One layer, one head, two examples, two demonstrations; small enough for every number to be known. */
    private void writeRecords() throws IOException {
        write(Setting.ZERO_SHOT, example("[1, 0]", "[1, 0]", "[]", 1, 0), example("[1, 0]", "[1, 0]", "[]", 1, 0));
        write(Setting.IN_CONTEXT, example("[1, 2]", "[1, 1]", "[[9, 1, 2, 9, 3, 9]]", 1, 1),
                example("[1, 2]", "[1, 1]", "[[9, 1, 2, 9, 3, 9]]", 1, 0));
        write(Setting.FINETUNED, example("[1, 3]", "[0, 1]", "[]", 1, 1), example("[1, -3]", "[0, 1]", "[]", 1, 1));
        write(Setting.FINETUNING, "{\"attn_q\": [[[7, 7], [1, 0], [2, 0]]]}", "{\"attn_q\": [[[7, 7], [1.5, 0]]]}");
    }

    private static String example(String output, String map, String context, int gold, int predicted) {
        return "{\"self_attn_out_hiddens\": [" + output + "], \"attn_map\": [[" + map + "]], \"attn_map_ctx\": " + context
                + ", \"attn_q\": [[1, 0]], \"gold_label\": " + gold + ", \"pred_label\": " + predicted + "}";
    }

    private void write(Setting setting, String... lines) throws IOException {
        Files.createDirectories(setting.file(folder).getParent());
        Files.write(setting.file(folder), List.of(lines));
    }

    @Test
    void printsOneJsonObjectWithNumbersInFull() throws IOException {
        writeRecords();
        Run run = Run.of("icl", "metrics", "--records", folder.toString(), "--json");
        assertEquals("", run.err());
        assertEquals(ExitCode.OK, run.code());
        Map<?, ?> found = (Map<?, ?>) Json.read(run.out());
        assertEquals(50.0, found.get("rec2ftp"));
        assertEquals(0.0, only(found, "sim_aou_raw"), 1e-15);
        assertEquals(1 / Math.sqrt(2), only(found, "sim_am"), 1e-15);
        assertEquals(1 / Math.sqrt(2), only(found, "sim_am_before"), 1e-15);
        assertEquals(1 / Math.sqrt(2), only(found, "sim_am_delta"), 1e-15);
        double floor = 0.5 * Math.sqrt((1 - 1 / Math.sqrt(5)) * (1 - 1 / Math.sqrt(10)));
        assertEquals(floor, only(found, "sim_aou_floor"), 1e-15);
        assertEquals(1 / 3.0, only(found, "kendall_token"), 1e-15); // 1 2 3 against 1 2 1.5
        assertEquals(-1.0, only(found, "kendall_example"), 1e-15); // e + e^2 < e^3, but e + e^2 > e^1.5
        assertTrue(found.containsKey("sim_aou"));
    }

    private static double only(Map<?, ?> found, String key) {
        List<?> layers = (List<?>) found.get(key);
        assertEquals(1, layers.size(), key);
        return (Double) layers.get(0);
    }

    @Test
    void printsEachSimilarityBesideItsFloor() throws IOException {
        writeRecords();
        Run run = Run.of("icl", "metrics", "--records", folder.toString());
        assertEquals(ExitCode.OK, run.code(), run.err());
        for (String words : List.of("SimAOU    floor  norm-matched", "delta floor", "Rec2FTP      50.0 %", "2 examples, 1 layers")) {
            assertTrue(run.out().contains(words), run.out());
        }
    }

    @Test
    void whatIsUndefinedIsNull() throws IOException {
        writeRecords();
        write(Setting.FINETUNED, example("[1, 3]", "[0, 1]", "[]", 1, 0), example("[1, -3]", "[0, 1]", "[]", 1, 0));
        write(Setting.FINETUNING, "{\"attn_q\": [[[7, 7], [1, 0], [1, 0]]]}", "{\"attn_q\": [[[7, 7], [1, 0]]]}");
        Run run = Run.of("icl", "metrics", "--records", folder.toString(), "--json");
        Map<?, ?> found = (Map<?, ?>) Json.read(run.out());
        assertNull(found.get("rec2ftp"));
        assertNull(((List<?>) found.get("kendall_token")).get(0));
        assertEquals(2L, found.get("kendall_token_undefined"));
    }

    @Test
    void unusableRecordsAreOneSentence() throws IOException {
        writeRecords();
        write(Setting.IN_CONTEXT, example("[1, 2]", "[1, 1]", "[[9, 1, 2, 9, 3, 9]]", 1, 1), "{\"attn_map\": ");
        Run run = Run.of("icl", "metrics", "--records", folder.toString(), "--json");
        assertEquals(ExitCode.USAGE, run.code());
        assertEquals("", run.out());
        assertTrue(run.err().startsWith("dualform: " + Setting.IN_CONTEXT.file(folder) + ":2: is not JSON"), run.err());
        assertEquals(1, run.err().lines().count());
        assertEquals(ExitCode.USAGE, Run.of("icl", "metrics", "--records", folder.resolve("nowhere").toString()).code());
        assertEquals(ExitCode.USAGE, Run.of("icl", "metrics").code());
    }

    @Test
    void differentGoldLabelsAreAWarning() throws IOException {
        writeRecords();
        write(Setting.ZERO_SHOT, example("[1, 0]", "[1, 0]", "[]", 2, 0), example("[1, 0]", "[1, 0]", "[]", 1, 0));
        Run run = Run.of("icl", "metrics", "--records", folder.toString(), "--json");
        assertEquals(ExitCode.OK, run.code());
        assertTrue(run.err().contains("1 examples have different gold labels"), run.err());
        assertEquals(1L, ((Map<?, ?>) Json.read(run.out())).get("gold_label_mismatches"));
    }

    /** As NumPy and pandas write records. */
    @Test
    void nullContextsAndLabelsThatAreWholeFloatsAreRead() throws IOException {
        writeRecords();
        Run plain = Run.of("icl", "metrics", "--records", folder.toString(), "--json");
        assertEquals(ExitCode.OK, plain.code(), plain.err());
        for (Setting setting : List.of(Setting.ZERO_SHOT, Setting.FINETUNED)) {
            write(setting, Files.readString(setting.file(folder)).replace("\"attn_map_ctx\": []", "\"attn_map_ctx\": null")
                    .replaceAll("_label\": (\\d)", "_label\": $1.0").strip().split("\n"));
        }
        assertTrue(Files.readString(Setting.ZERO_SHOT.file(folder)).contains("null") && Files.readString(Setting.ZERO_SHOT.file(folder))
                .contains("\"gold_label\": 1.0"));
        Run floats = Run.of("icl", "metrics", "--records", folder.toString(), "--json");
        assertEquals("", floats.err());
        assertEquals(plain.out(), floats.out());
        for (String label : List.of("1.5", "NaN", "1e300", "null", "true")) {
            write(Setting.ZERO_SHOT, example("[1, 0]", "[1, 0]", "[]", 1, 0).replace("\"gold_label\": 1", "\"gold_label\": " + label));
            Run run = Run.of("icl", "metrics", "--records", folder.toString());
            assertEquals(ExitCode.USAGE, run.code());
            assertTrue(run.err().endsWith(":1: gold_label is " + label + ", expected an integer or a string\n"), run.err());
        }
    }
}
