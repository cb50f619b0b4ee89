package org.dualform.lab.icl;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.dualform.lab.data.LabelMapping;
import org.dualform.lab.icl.TokenTask.Example;
import org.dualform.lab.metrics.Estimate;
import org.junit.jupiter.api.Test;

class ShotCurveTest {
    private static final int QUERIES = 3000;

    /** Queries of four labels, each marked with its label; demonstrations of one token. */
    private static final class Marked implements Episodes {
        private final TokenTask task = new TokenTask("marked", 90, 91,
                List.of(new int[] {80}, new int[] {81}, new int[] {82}, new int[] {83}), List.of("a", "b", "c", "d"));
        private final List<Example> queries = new ArrayList<>();
        private final List<Example> pool = new ArrayList<>();

        Marked() {
            SplittableRandom random = new SplittableRandom(5);
            for (int i = 0; i < QUERIES; i++) {
                int label = i % 10 < 4 ? 2 : random.nextInt(4);
                queries.add(new Example(new int[] {label, 10 + i % 7}, label));
                pool.add(new Example(new int[] {label}, label));
            }
        }

        @Override
        public TokenTask task() {
            return task;
        }

        @Override
        public List<Episode> episodes(int shots, long seed) {
            return List.of(comparison(shots, seed));
        }

        @Override
        public Episode comparison(int shots, long seed) {
            return Episode.draw(pool, shots, seed, queries);
        }

        @Override
        public List<Example> selection(int shots, long seed, int count) {
            return List.of();
        }

        @Override
        public int majority() {
            return 2;
        }
    }

    private static ShotCurve measure(Scorer scorer, List<Integer> shots, int modelContext) {
        return ShotCurve.measure(scorer, new Marked(), shots, List.of(1L, 2L, 3L), modelContext, run -> {});
    }

    @Test
    void uniformGuessingLandsOnChance() {
        SplittableRandom random = new SplittableRandom(9);
        int[] asked = new int[1];
        ShotCurve curve = measure((context, answers) -> {
            asked[0]++;
            return random.doubles(answers.size()).map(Math::log).toArray();
        }, List.of(4, 8, 16), 100);
        assertEquals(9 * QUERIES, asked[0]);
        double deviation = Math.sqrt(0.25 * 0.75 / QUERIES);
        double mean = 0;
        for (ShotCurve.Run run : curve.runs()) {
            assertEquals(0.25, run.accuracy().mean(), 4 * deviation);
            mean += run.accuracy().mean() / 9;
        }
        assertEquals(0.25, mean, 4 * deviation / 3); // 4 sigma: wrong once in 15,000
        assertEquals(0.25, curve.chance());
        int covering = 0;
        for (int shots : curve.shots()) {
            Estimate accuracy = curve.accuracy(shots);
            covering += accuracy.low() <= 0.25 && 0.25 <= accuracy.high() ? 1 : 0;
        }
        assertTrue(covering >= 2, "95 % intervals without chance in them: " + (3 - covering));
    }

    @Test
    void anOracleIsAlwaysRight() {
        Scorer oracle = (context, answers) -> {
            double[] scores = {-5, -5, -5, -5};
            scores[context[context.length - 2]] = -1;
            return scores;
        };
        ShotCurve curve = measure(oracle, List.of(0, 4), 100);
        for (ShotCurve.Run run : curve.runs()) {
            assertEquals(QUERIES, run.correct());
        }
        assertEquals(1.0, curve.accuracy(4).mean());
        assertEquals(1.0, curve.accuracy(4).high());
        assertTrue(curve.accuracy(4).low() > 0.998);
    }

    @Test
    void whoAlwaysGivesTheMajorityIsTheBaseline() {
        ShotCurve curve = measure((context, answers) -> new double[] {-3, -3, -1, -3}, List.of(0), 100);
        assertEquals(curve.majority().mean(), curve.accuracy(0).mean());
        assertEquals(0.55, curve.majority().mean(), 0.03); // 40 % + a quarter of the rest
    }

    @Test
    void equalScoresGiveTheFirstLabelAndNaNNone() {
        assertEquals(0, Predictions.likeliest(new double[] {-1, -1}));
        assertEquals(1, Predictions.likeliest(new double[] {-2, -1, -1}));
        assertEquals(Predictions.NONE, Predictions.likeliest(new double[] {-1, Double.NaN}));
        ShotCurve curve = measure((context, answers) -> new double[] {Double.NaN, 0, 0, 0}, List.of(0), 100);
        assertEquals(QUERIES, curve.runs().get(0).undefined());
        assertEquals(0, curve.runs().get(0).correct());
    }

    @Test
    void promptsCutToTheSameLengthAreAskedOnce() {
        int[] asked = new int[1];
        Scorer counting = (context, answers) -> {
            asked[0]++;
            return new double[4];
        };
        ShotCurve curve = measure(counting, List.of(0, 2, 16, 32), 20); // a demonstration takes 3 tokens, the query 2: five fit
        assertEquals("5", curve.effective(16));
        assertEquals("5", curve.effective(32));
        assertEquals((1 + 3 + 3) * QUERIES, asked[0]);
        assertEquals(12, curve.runs().size());
        assertEquals(List.of(0, 2, 16, 32), curve.shots());
        assertEquals(32, curve.runs(32).get(2).shots());
        assertEquals(3, curve.runs(32).get(2).seed());
        assertEquals(curve.csv().text(), measure(counting, List.of(0, 2, 16, 32), 20).csv().text());
    }

    @Test
    void theIntervalIsTheWiderOfSeedsAndQueries() {
        List<ShotCurve.Run> runs = List.of(new ShotCurve.Run(4, 1, 4, 4, 50, 0, 100), new ShotCurve.Run(4, 2, 4, 4, 90, 0, 100));
        Estimate spread = new ShotCurve("t", 2, Estimate.ofShare(1, 2), runs).accuracy(4);
        assertEquals(0.7, spread.mean(), 1e-15);
        assertEquals(0, spread.low());
        assertEquals(1, spread.high());
        List<ShotCurve.Run> same = List.of(new ShotCurve.Run(0, 1, 0, 0, 50, 0, 100), new ShotCurve.Run(0, 2, 0, 0, 50, 0, 100));
        Estimate wilson = new ShotCurve("t", 2, Estimate.ofShare(1, 2), same).accuracy(0);
        assertEquals(Estimate.ofShare(50, 100).low(), wilson.low());
        assertEquals(Estimate.ofShare(50, 100).high(), wilson.high());
        assertEquals(100, wilson.count());
    }

    /** The exact predictor, asked through the evaluator, is as good as when asked directly. */
    @Test
    void theBayesPredictorOfTheMappingCorpusScoresAsItShould() {
        LabelMapping corpus = LabelMapping.standard();
        int documents = 300;
        LabelMappingEpisodes episodes = new LabelMappingEpisodes(corpus, documents, 10);
        int length = corpus.exampleLength();
        Scorer bayes = (context, answers) -> {
            List<LabelMapping.Example> before = new ArrayList<>();
            for (int from = 1; from + length <= context.length; from += length) {
                int[] words = java.util.Arrays.copyOfRange(context, from, from + length - 2);
                before.add(new LabelMapping.Example(words, -1, context[from + length - 2] - corpus.labelToken(0)));
            }
            int[] query = java.util.Arrays.copyOfRange(context, context.length - 4, context.length);
            return java.util.Arrays.stream(corpus.posterior(before, query)).map(Math::log).toArray();
        };
        ShotCurve curve = ShotCurve.measure(bayes, episodes, List.of(0, 8), List.of(1L), 128, run -> {});
        for (int shots : List.of(0, 8)) {
            int right = 0;
            for (int i = 0; i < documents; i++) {
                List<LabelMapping.Example> examples = corpus.document(1, i, shots + 1).examples();
                double[] posterior = corpus.posterior(examples.subList(0, shots), examples.get(shots).words());
                right += Predictions.likeliest(posterior) == examples.get(shots).label() ? 1 : 0;
            }
            assertEquals(right, curve.runs(shots).get(0).correct(), "shots " + shots);
        }
        assertTrue(curve.accuracy(8).mean() > 0.9);
    }
}
