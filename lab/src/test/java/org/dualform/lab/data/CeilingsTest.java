package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import org.dualform.lab.data.GincPrompt.Family;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIfSystemProperty;

/** Prints the tables of docs/ginc.md and docs/label-mapping.md; minutes, so only when asked for. */
@EnabledIfSystemProperty(named = "dualform.ceilings", matches = "true")
class CeilingsTest {
    @Test
    void labelMapping() {
        LabelMapping.Ceiling ceiling = LabelMapping.standard().ceiling(1, 20_000, 20);
        System.out.printf(Locale.ROOT, "label mapping: %d documents, %d remapped%n", ceiling.documents(), ceiling.remapped());
        for (int n : new int[] {0, 1, 2, 4, 8, 12, 16, 20}) {
            System.out.printf(Locale.ROOT, "%2d demonstrations  %5.2f  remapped %5.2f%n", n, 100 * ceiling.accuracy(n, false),
                    100 * ceiling.accuracy(n, true));
        }
        assertTrue(ceiling.accuracy(20, true) > ceiling.accuracy(4, true));
    }

    @Test
    void ginc() {
        for (GincOptions options : new GincOptions[] {GincOptions.small(), GincOptions.published(50), GincOptions.published(100),
            GincOptions.published(150)}) {
            Ginc ginc = new Ginc(options);
            GincBayes bayes = new GincBayes(ginc);
            Map<Integer, int[]> impossible = new TreeMap<>();
            ginc.prompts().filter(block -> block.get(0).shots() <= 64).forEach(block -> {
                GincPrompt first = block.get(0);
                if (first.family() == Family.OUT_OF_DISTRIBUTION) {
                    int[] counts = impossible.computeIfAbsent(first.length(), length -> new int[2]);
                    counts[0] += (int) block.stream().filter(prompt -> !prompt.possible()).count();
                    counts[1] += block.size();
                } else {
                    GincBayes.Ceiling ceiling = bayes.ceiling(block);
                    System.out.printf(Locale.ROOT, "%s length %2d shots %2d  prompt law %6.2f  document law %6.2f%n", options.name(),
                            first.length(), first.shots(), 100.0 * ceiling.promptLaw() / block.size(),
                            100.0 * ceiling.documentLaw() / block.size());
                    assertTrue(ceiling.promptLaw() > 0.5 * block.size());
                }
            });
            impossible.forEach((length, counts) -> System.out.printf(Locale.ROOT,
                    "%s length %2d: %.1f %% of out-of-distribution questions impossible%n", options.name(), length,
                    100.0 * counts[0] / counts[1]));
        }
    }
}
