package org.dualform.lab.metrics;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.dualform.InvalidArgumentException;
import org.dualform.lab.data.DataException;
import org.dualform.lab.metrics.RecordFiles.Setting;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class RecordsTest {
    private static final int LAYERS = 3;
    private static final int HEADS = 2;
    private static final int HIDDEN = 8;
    private static final int[] LENGTHS = {4, 2, 5};
    private static final int CONTEXT = 1 + 5 + 3 + 6;

    @TempDir
    private Path folder;

    /** A set of records with floats in them, as an evaluator makes them. */
    private record Records(
            List<ExampleRecord> zeroShot, List<ExampleRecord> inContext, List<ExampleRecord> finetuned,
            List<DemonstrationRecord> demonstrations) {
        static Records random(long seed, int examples) {
            Random random = new Random(seed);
            Records records = new Records(new ArrayList<>(), new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
            for (int i = 0; i < examples; i++) {
                int query = 1 + random.nextInt(6);
                int gold = random.nextInt(3);
                records.zeroShot.add(example(random, query, 1, gold));
                records.inContext.add(example(random, query, CONTEXT, gold));
                records.finetuned.add(example(random, query, 0, gold));
            }
            for (int length : LENGTHS) {
                records.demonstrations.add(new DemonstrationRecord(floats(random, LAYERS, length + 1, HIDDEN)));
            }
            return records;
        }

        private static ExampleRecord example(Random random, int query, int context, int gold) {
            double[][] contextMap = context == 0 ? new double[0][] : floats(random, 1, LAYERS, context)[0];
            return new ExampleRecord(floats(random, 1, LAYERS, HIDDEN)[0], floats(random, LAYERS, HEADS, query), contextMap,
                    floats(random, 1, LAYERS, HIDDEN)[0], gold, random.nextInt(3));
        }

        private static double[][][] floats(Random random, int a, int b, int c) {
            double[][][] out = new double[a][b][c];
            for (double[][] rows : out) {
                for (double[] row : rows) {
                    for (int i = 0; i < c; i++) {
                        row[i] = (float) random.nextGaussian();
                    }
                }
            }
            return out;
        }

        void write(Path folder) throws IOException {
            write(Setting.ZERO_SHOT.file(folder), zeroShot);
            write(Setting.IN_CONTEXT.file(folder), inContext);
            write(Setting.FINETUNED.file(folder), finetuned);
            try (RecordWriter out = new RecordWriter(Setting.FINETUNING.file(folder))) {
                for (DemonstrationRecord record : demonstrations) {
                    out.write(record);
                }
                out.finish();
            }
        }

        private static void write(Path file, List<ExampleRecord> records) throws IOException {
            try (RecordWriter out = new RecordWriter(file)) {
                for (ExampleRecord record : records) {
                    out.write(record);
                }
                out.finish();
            }
        }

        Similarities compare(long seed) {
            return Comparison.of(zeroShot, inContext, finetuned, demonstrations, seed);
        }
    }

    @Test
    void whatIsWrittenReadsBackBitForBit() throws IOException {
        Records records = Records.random(1, 3);
        double[][] odd = {{0, -0.0, Float.MIN_VALUE}, {Float.MAX_VALUE, 0.1f, 1e-300}, {1.0 / 3, -7, 16777217}};
        ExampleRecord example = new ExampleRecord(odd, records.zeroShot.get(0).attnMap(), new double[0][], odd, "yes", "-3");
        try (RecordWriter out = new RecordWriter(folder.resolve("a/b.jsonl"))) {
            out.write(example);
            out.write(records.inContext.get(1));
            out.finish();
        }
        try (RecordReader in = new RecordReader(folder.resolve("a/b.jsonl"))) {
            ExampleRecord first = in.example();
            assertArrayEquals(odd, first.attnOut());
            assertArrayEquals(example.attnMap(), first.attnMap());
            assertEquals(0, first.attnMapContext().length);
            assertEquals("yes", first.gold());
            assertEquals("-3", first.predicted());
            assertArrayEquals(records.inContext.get(1).attnMapContext(), in.example().attnMapContext());
            assertNull(in.example());
        }
        String text = Files.readString(folder.resolve("a/b.jsonl"));
        assertEquals(2, text.lines().count());
        assertTrue(text.startsWith("{\"self_attn_out_hiddens\":[[0.0,-0.0,"), text);
        assertTrue(text.contains("\"gold_label\":\"yes\",\"pred_label\":-3}\n"), text);
        assertTrue(text.contains(",0.10000000149011612,"), text); // the float's own value, not its shortest digits
    }

    @Test
    void filesAndMemoryGiveTheSameNumbers() throws IOException {
        Records records = Records.random(2, 104);
        records.write(folder);
        assertEquals(records.compare(5).fields(), RecordFiles.compare(folder, 5).fields());
        try (Stream<Path> files = Files.walk(folder)) {
            assertEquals(4, files.filter(Files::isRegularFile).count(), "temporary files left");
        }
    }

    @Test
    void anUnfinishedFileLeavesNothing() throws IOException {
        Path file = folder.resolve("x.jsonl");
        Files.writeString(file, "old");
        try (RecordWriter out = new RecordWriter(file)) {
            out.write(Records.random(3, 1).zeroShot.get(0));
        }
        assertEquals("old", Files.readString(file));
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(1, files.count());
        }
    }

    /** Straight from the definitions, with no code of this package but the cosine's formula written again. */
    @Test
    void everyMetricAgreesWithTheDefinition() {
        Records records = Records.random(4, 103);
        Similarities found = records.compare(0);
        int n = records.zeroShot.size();
        for (int l = 0; l < LAYERS; l++) {
            double before = 0;
            double after = 0;
            double delta = 0;
            double token = 0;
            double example = 0;
            for (int i = 0; i < n; i++) {
                for (int h = 0; h < HEADS; h++) {
                    double[] zs = records.zeroShot.get(i).attnMap()[l][h];
                    double[] icl = records.inContext.get(i).attnMap()[l][h];
                    double[] ft = records.finetuned.get(i).attnMap()[l][h];
                    before += cos(icl, zs, new double[zs.length]) / HEADS / n;
                    after += cos(icl, ft, new double[zs.length]) / HEADS / n;
                    delta += cos(icl, ft, zs) / HEADS / n;
                }
                if (i < 100) {
                    double[] context = new double[11];
                    double[] trained = new double[11];
                    double[][] mass = new double[2][3];
                    int at = 1;
                    int to = 0;
                    for (int d = 0; d < 3; d++) {
                        for (int t = 1; t <= LENGTHS[d]; t++) {
                            context[to] = records.inContext.get(i).attnMapContext()[l][at++];
                            for (int c = 0; c < HIDDEN; c++) {
                                trained[to] += records.demonstrations.get(d).attnQ()[l][t][c] * records.finetuned.get(i).attnQ()[l][c];
                            }
                            mass[0][d] += Math.exp(context[to]); // the softmax's denominator does not change the order
                            mass[1][d] += Math.exp(trained[to]);
                            to++;
                        }
                        at++;
                    }
                    token += KendallTest.bruteForce(context, trained) / 100;
                    example += KendallTest.bruteForce(mass[0], mass[1]) / 100;
                }
            }
            assertEquals(before, found.layers("sim_am_before")[l], 1e-12);
            assertEquals(after, found.layers("sim_am")[l], 1e-12);
            assertEquals(delta, found.layers("sim_am_delta")[l], 1e-12);
            assertEquals(token, found.layers("kendall_token")[l], 1e-12);
            assertEquals(example, found.layers("kendall_example")[l], 1e-12);
        }
        assertEquals(100, found.ranked());
        assertEquals(11, found.tokens());
    }

    /** Cosine of a - z and b - z. */
    private static double cos(double[] a, double[] b, double[] z) {
        double ab = 0;
        double aa = 0;
        double bb = 0;
        for (int i = 0; i < a.length; i++) {
            ab += (a[i] - z[i]) * (b[i] - z[i]);
            aa += (a[i] - z[i]) * (a[i] - z[i]);
            bb += (b[i] - z[i]) * (b[i] - z[i]);
        }
        return ab / Math.sqrt(aa * bb);
    }

    @Test
    void theSeedMovesOnlyTheRandomBaselines() {
        Records records = Records.random(5, 20);
        Similarities one = records.compare(1);
        Similarities other = records.compare(2);
        assertEquals(one.fields(), records.compare(1).fields());
        one.layers().forEach((key, values) -> {
            boolean random = key.contains("gaussian") || key.contains("matched") || key.contains("uniform")
                    || key.startsWith("kendall") && key.endsWith("random");
            assertEquals(random, !Arrays.equals(values, other.layers(key)), key);
        });
    }

    /** Finetuning that moves every output as the demonstrations do, but halfway. */
    @Test
    void baselinesStayLowWhereSimilarityIsHigh() {
        Random random = new Random(6);
        List<ExampleRecord> zs = new ArrayList<>();
        List<ExampleRecord> icl = new ArrayList<>();
        List<ExampleRecord> ft = new ArrayList<>();
        for (int i = 0; i < 60; i++) {
            double[] base = SimilarityTest.gaussian(random, 300, 1);
            double[] update = SimilarityTest.gaussian(random, 300, 0.2);
            double[][] outs = {base.clone(), base.clone(), base.clone()};
            for (int c = 0; c < 300; c++) {
                outs[1][c] += update[c];
                outs[2][c] += update[c] / 2;
            }
            List<List<ExampleRecord>> all = List.of(zs, icl, ft);
            for (int s = 0; s < 3; s++) {
                all.get(s).add(new ExampleRecord(new double[][] {outs[s]}, new double[][][] {{outs[s]}}, new double[][] {{0, 1, 0}},
                        new double[][] {{1}}, 0, 0));
            }
        }
        List<DemonstrationRecord> one = List.of(new DemonstrationRecord(new double[][][] {{{0}, {1}}}));
        Similarities found = Comparison.of(zs, icl, ft, one, 1);
        for (String key : List.of("sim_aou", "sim_aou_raw", "sim_am_delta")) {
            assertTrue(found.mean(key) > 0.99, key + found.mean(key));
        }
        for (String key : List.of("sim_aou_floor", "sim_aou_norm_matched", "sim_aou_gaussian", "sim_aou_uniform", "sim_aou_raw_floor",
                "sim_aou_raw_gaussian", "sim_am_delta_floor", "sim_am_delta_gaussian")) {
            assertEquals(0, found.mean(key), 0.03, key);
        }
        assertTrue(Double.isNaN(found.mean("kendall_token"))); // one token has no order
        assertEquals(60, found.undefined().get("kendall_token"));
        assertNull(((List<?>) found.fields().get("kendall_example")).get(0));
        assertNull(found.fields().get("rec2ftp"));
        assertEquals(1, found.mean("recall_token"));
    }

    @Test
    void recordsThatDoNotFitAreRefused() {
        Records records = Records.random(7, 2);
        Comparison empty = new Comparison(0);
        assertThrows(InvalidArgumentException.class, () -> empty.add(records.demonstrations.get(0)));
        assertThrows(InvalidArgumentException.class, empty::result);
        Comparison comparison = new Comparison(0);
        comparison.add(records.zeroShot.get(0), records.inContext.get(0), records.finetuned.get(0));
        ExampleRecord noContext = records.finetuned.get(0);
        assertThrows(InvalidArgumentException.class, () -> comparison.add(records.zeroShot.get(0), noContext, noContext));
        comparison.add(records.demonstrations.get(0));
        assertThrows(InvalidArgumentException.class, comparison::result);
        assertThrows(InvalidArgumentException.class,
                () -> comparison.add(records.zeroShot.get(1), records.inContext.get(1), records.finetuned.get(1)));
        assertThrows(InvalidArgumentException.class, () -> new DemonstrationRecord(new double[][][] {{{1}}}));
        assertThrows(InvalidArgumentException.class, () -> records.compare(0).layers("sim_aon"));
    }

    @Test
    void unusableFilesAreNamedWithTheirLine() throws IOException {
        Map<String, Consumer<Map<Setting, List<String>>>> table = new LinkedHashMap<>();
        table.put("zs:2: is not JSON", files -> files.get(Setting.ZERO_SHOT).set(1, "{\"attn_map\": [[["));
        table.put("zs:1: is not a JSON object", files -> files.get(Setting.ZERO_SHOT).set(0, "17"));
        table.put("zs:1: has something after", files -> files.get(Setting.ZERO_SHOT).replaceAll(line -> line + " {}"));
        table.put("icl:2: self_attn_out_hiddens[0][0] is NaN",
                files -> files.get(Setting.IN_CONTEXT).set(1, files.get(Setting.IN_CONTEXT).get(1).replaceFirst("\\[\\[[^,]*", "[[NaN")));
        table.put("icl:2: self_attn_out_hiddens[0][0] is a string",
                files -> files.get(Setting.IN_CONTEXT).set(1, files.get(Setting.IN_CONTEXT).get(1).replaceFirst("\\[\\[[^,]*", "[[\"1\"")));
        table.put("icl:1: self_attn_out_hiddens[0] has 9 numbers, expected 8",
                files -> files.get(Setting.IN_CONTEXT).replaceAll(line -> {
                    int end = line.indexOf("]]");
                    return line.substring(0, end).replace("],[", "],[1,").replace("[[", "[[1,") + line.substring(end);
                }));
        table.put("zs:1: self_attn_out_hiddens[0][0] is a list",
                files -> files.get(Setting.ZERO_SHOT).replaceAll(line -> line.replaceFirst("hiddens\":\\[", "hiddens\":[[[1]],")));
        table.put("ftzs:2: gold_label is missing", files -> files.get(Setting.FINETUNED).set(1,
                files.get(Setting.FINETUNED).get(1).replace("gold_label", "silver_label")));
        table.put("ftzs:1: attn_q is missing", files -> files.get(Setting.FINETUNED).set(0,
                files.get(Setting.FINETUNED).get(0).replace("attn_q", "attn_k")));
        table.put("icl:1: attn_map_ctx is missing", files -> files.get(Setting.IN_CONTEXT).set(0,
                files.get(Setting.IN_CONTEXT).get(0).replace("attn_map_ctx", "ctx")));
        table.put("zs:3: ends after 3 examples, expected the same number", files -> {
            files.get(Setting.ZERO_SHOT).remove(3);
            files.get(Setting.FINETUNED).remove(3);
        });
        table.put("zs: has no examples", files -> List.of(Setting.ZERO_SHOT, Setting.IN_CONTEXT, Setting.FINETUNED)
                .forEach(setting -> files.get(setting).clear()));
        table.put("ft: has no demonstrations", files -> files.get(Setting.FINETUNING).clear());
        table.put("icl:1: attn_map_ctx[0] has 15 context tokens, expected 9", files -> files.get(Setting.FINETUNING).remove(2));
        table.put("ft:3: attn_q is missing", files -> files.get(Setting.FINETUNING).set(2, "{}"));
        table.put("ft:2: attn_q has 1 layers, expected 3", files -> files.get(Setting.FINETUNING).set(1, "{\"attn_q\":[[[1],[2]]]}"));
        table.put("ft:1: attn_q[0] has 1 tokens", files -> files.get(Setting.FINETUNING).set(0, "{\"attn_q\":[[[1]],[[1]],[[1]]]}"));
        table.put("zs: no such file", files -> files.remove(Setting.ZERO_SHOT));

        Records.random(8, 4).write(folder.resolve("good"));
        for (Map.Entry<String, Consumer<Map<Setting, List<String>>>> entry : table.entrySet()) {
            Path bad = folder.resolve("bad");
            Map<Setting, List<String>> files = new LinkedHashMap<>();
            for (Setting setting : Setting.values()) {
                files.put(setting, new ArrayList<>(Files.readAllLines(setting.file(folder.resolve("good")))));
                Files.createDirectories(setting.file(bad).getParent());
                Files.deleteIfExists(setting.file(bad));
            }
            entry.getValue().accept(files);
            for (Map.Entry<Setting, List<String>> file : files.entrySet()) {
                Files.write(file.getKey().file(bad), file.getValue(), StandardCharsets.UTF_8);
            }
            DataException refused = assertThrows(DataException.class, () -> RecordFiles.compare(bad, 0), entry.getKey());
            String sentence = refused.getMessage().replace(bad + "/", "").replace("/record_info.jsonl", "");
            assertTrue(sentence.startsWith(entry.getKey()), entry.getKey() + " <> " + sentence);
        }
        assertThrows(DataException.class, () -> RecordFiles.compare(folder.resolve("nowhere"), 0));
    }

    @Test
    void blankLinesForeignLineEndsAndUnknownKeysAreRead() throws IOException {
        Records records = Records.random(9, 3);
        records.write(folder);
        Similarities plain = RecordFiles.compare(folder, 0);
        Path file = Setting.ZERO_SHOT.file(folder);
        String text = Files.readString(file);
        String foreign = text.replace("\n", "\r\n").replace("{\"self", "{\"more\": {\"a\": [1, null]}, \"self");
        Files.writeString(file, "\n  \r\n" + foreign + "\n\n");
        assertEquals(plain.fields(), RecordFiles.compare(folder, 0).fields());
        Files.writeString(file, text.stripTrailing());
        assertEquals(plain.fields(), RecordFiles.compare(folder, 0).fields());
        assertEquals(0, plain.goldMismatches());
        Files.writeString(file, text.replaceAll("gold_label\":\\d", "gold_label\":7"));
        assertEquals(3, RecordFiles.compare(folder, 0).goldMismatches());
    }
}
