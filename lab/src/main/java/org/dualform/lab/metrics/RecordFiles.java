package org.dualform.lab.metrics;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.dualform.lab.data.DataException;

/**
 * A folder of records as the code published with Dai et al. 2022 (arXiv:2212.10559) lays it out: {@code record_info.jsonl} in {@code zs/},
 * {@code icl/}, {@code ftzs/} and {@code ft/}.
 *
 * <p>Threading: only functions without shared state.
 */
public final class RecordFiles {
    private RecordFiles() {}

    /**
     * The four kinds of records.
     *
     * <p>Threading: immutable.
     */
    public enum Setting {
        /** The bare query. */
        ZERO_SHOT("zs"),
        /** The query after the demonstrations. */
        IN_CONTEXT("icl"),
        /** The bare query, asked of the finetuned model. */
        FINETUNED("ftzs"),
        /** Finetuning itself, one record per demonstration. */
        FINETUNING("ft");

        private final String folder;

        Setting(String folder) {
            this.folder = folder;
        }

        /**
         * Where its records are.
         *
         * @param records the folder of all four
         * @return the file
         */
        public Path file(Path records) {
            return records.resolve(folder).resolve("record_info.jsonl");
        }
    }

    /**
     * Compares in-context learning with finetuning from files, which are read once and never held whole.
     *
     * @param records the folder of all four settings
     * @param seed of the random baselines
     * @return the similarities
     * @throws IOException when reading fails; a {@link DataException} with file and line when a file is missing or its content is unusable
     */
    public static Similarities compare(Path records, long seed) throws IOException {
        if (!Files.isDirectory(records)) {
            throw new DataException(records + ": no such folder, expected one with zs, icl, ftzs and ft in it");
        }
        Comparison comparison = new Comparison(seed);
        try (RecordReader zeroShot = open(records, Setting.ZERO_SHOT);
                RecordReader inContext = open(records, Setting.IN_CONTEXT);
                RecordReader finetuned = open(records, Setting.FINETUNED);
                RecordReader finetuning = open(records, Setting.FINETUNING)) {
            String[] firsts = examples(comparison, zeroShot, inContext, finetuned);
            demonstrations(comparison, finetuning, firsts);
            String misfit = comparison.lengthsMisfit();
            if (misfit != null) {
                throw new DataException(firsts[1] + ": " + misfit + " (" + Setting.FINETUNING.file(records) + ")");
            }
        }
        return comparison.result();
    }

    private static RecordReader open(Path records, Setting setting) throws IOException {
        return new RecordReader(setting.file(records));
    }

    /** Returns where the first example of each file is. */
    private static String[] examples(Comparison comparison, RecordReader zeroShot, RecordReader inContext, RecordReader finetuned)
            throws IOException {
        ExampleRecord first = null;
        String[] firsts = new String[3];
        for (int n = 0; ; n++) {
            ExampleRecord zs = zeroShot.example();
            ExampleRecord icl = inContext.example();
            ExampleRecord ft = finetuned.example();
            if (zs == null && icl == null && ft == null) {
                if (first == null) {
                    throw zeroShot.wrong("has no examples");
                }
                return firsts;
            }
            paired(n, zs, zeroShot, icl, inContext);
            paired(n, zs, zeroShot, ft, finetuned);
            if (first == null) {
                first = zs;
                firsts = new String[] {zeroShot.where(), inContext.where(), finetuned.where()};
            }
            demand(zeroShot, zs.misfit(first, false, firsts[0]));
            demand(inContext, icl.misfit(zs, true, zeroShot.where()));
            demand(finetuned, ft.misfit(zs, true, zeroShot.where()));
            demand(inContext, comparison.contextMisfit(icl, firsts[1]));
            demand(finetuned, ft.attnQ().length == 0 ? "attn_q is missing" : null);
            int width = n == 0 ? ft.attnQ()[0].length : comparison.queryWidth();
            demand(finetuned, ft.attnQ()[0].length == width ? null : "attn_q[0] has " + ft.attnQ()[0].length + " numbers, expected " + width
                    + " as in " + firsts[2]);
            comparison.add(zs, icl, ft);
        }
    }

    private static void paired(int n, ExampleRecord left, RecordReader leftFile, ExampleRecord right, RecordReader rightFile)
            throws DataException {
        if (left == null && right != null) {
            throw leftFile.wrong("ends after " + n + " examples, expected the same number as in " + rightFile.where());
        }
        if (left != null && right == null) {
            throw rightFile.wrong("ends after " + n + " examples, expected the same number as in " + leftFile.where());
        }
    }

    private static void demonstrations(Comparison comparison, RecordReader file, String[] firsts) throws IOException {
        int n = 0;
        for (DemonstrationRecord next = file.demonstration(); next != null; next = file.demonstration()) {
            demand(file, next.misfit(comparison.layers(), comparison.queryWidth(), firsts[2]));
            comparison.add(next);
            n++;
        }
        if (n == 0) {
            throw file.wrong("has no demonstrations");
        }
    }

    private static void demand(RecordReader file, String misfit) throws DataException {
        if (misfit != null) {
            throw file.wrong(misfit);
        }
    }
}
