package org.dualform.lab.metrics;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.dualform.InvalidArgumentException;

/**
 * How alike in-context learning and finetuning are, every similarity beside what chance gives.
 *
 * <p>The per-layer keys, in the order of {@code layers}; docs/metrics.md has the formulas:
 * <ul>
 * <li>{@code sim_aou}, its analytic noise floor {@code sim_aou_floor}, and in place of finetuning's update:
 *     {@code sim_aou_norm_matched} (zero-shot output plus Gaussian noise as long as the real update), {@code sim_aou_gaussian} (a zero-mean
 *     Gaussian vector as the update), {@code sim_aou_uniform} (the published baseline, uniform on [0, 1));
 * <li>{@code sim_aou_raw}, {@code sim_aou_raw_floor} and {@code sim_aou_raw_gaussian}; the length of an update does not change
 *     this cosine, so that the norm-matched baseline is the same;
 * <li>{@code sim_am_before}, {@code sim_am}, {@code sim_am_norm_matched}, {@code sim_am_delta},
 *     {@code sim_am_delta_floor}, {@code sim_am_delta_gaussian};
 * <li>{@code kendall_token}, {@code kendall_token_random}, {@code kendall_example}, {@code kendall_example_random};
 * <li>{@code recall_token}, {@code recall_example}: top 100 tokens and top 5 demonstrations, or all if there are fewer; with
 *     {@code recall_token_random} and {@code recall_example_random}, the expectation for random indices.
 * </ul>
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param examples evaluated examples
 * @param demonstrations finetuning steps, which are the demonstrations of the context
 * @param tokens tokens of all demonstrations, without beginning and separators
 * @param heads attention heads per layer
 * @param ranked examples behind Kendall and recall: the first 100
 * @param goldMismatches examples whose right label differs between the settings, a sign that the files do not belong together
 * @param zeroShot accuracy of the bare model
 * @param inContext accuracy with demonstrations
 * @param finetuned accuracy after finetuning
 * @param recovery Rec2FTP
 * @param layers per key one number per layer, NaN where undefined
 * @param overall per key the mean over layers, with its spread over examples
 * @param undefined per Kendall key how many pairs of example and layer were left out because a vector had all its entries equal
 */
public record Similarities(
        int examples,
        int demonstrations,
        int tokens,
        int heads,
        int ranked,
        int goldMismatches,
        Estimate zeroShot,
        Estimate inContext,
        Estimate finetuned,
        Recovery recovery,
        Map<String, double[]> layers,
        Map<String, Estimate> overall,
        Map<String, Integer> undefined) {
    /**
     * One curve over layers.
     *
     * @param key such as {@code sim_aou}
     * @return one number per layer
     * @throws InvalidArgumentException when there is no such key
     */
    public double[] layers(String key) {
        double[] values = layers.get(key);
        if (values == null) {
            throw new InvalidArgumentException("key: " + key + ", expected one of " + layers.keySet());
        }
        return values;
    }

    /**
     * The mean over layers of one curve, as the published tables print it.
     *
     * @param key such as {@code sim_aou}
     * @return the mean over the layers where it is defined; NaN when it is defined in none
     * @throws InvalidArgumentException when there is no such key
     */
    public double mean(String key) {
        return Arrays.stream(layers(key)).filter(v -> !Double.isNaN(v)).average().orElse(Double.NaN);
    }

    /**
     * For JSON: numbers, lists, maps and null for what is undefined.
     *
     * @return a new map; {@code rec2ftp} and every per-layer key at its top level
     */
    public Map<String, Object> fields() {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("examples", examples);
        fields.put("layers", layers.values().iterator().next().length);
        fields.put("heads", heads);
        fields.put("demonstrations", demonstrations);
        fields.put("demonstration_tokens", tokens);
        fields.put("kendall_examples", ranked);
        fields.put("gold_label_mismatches", goldMismatches);
        fields.put("accuracy_zs", zeroShot.fields());
        fields.put("accuracy_icl", inContext.fields());
        fields.put("accuracy_ftzs", finetuned.fields());
        fields.put("rec2ftp", Estimate.finite(recovery.percent().mean()));
        fields.put("rec2ftp_low", Estimate.finite(recovery.percent().low()));
        fields.put("rec2ftp_high", Estimate.finite(recovery.percent().high()));
        fields.put("rec2ftp_gained", recovery.gained());
        fields.put("rec2ftp_recovered", recovery.recovered());
        fields.put("rec2ftp_baseline", Estimate.finite(recovery.baseline().mean()));
        layers.forEach((key, values) -> {
            List<Double> list = new ArrayList<>();
            for (double value : values) {
                list.add(Estimate.finite(value));
            }
            fields.put(key, list);
        });
        undefined.forEach((key, count) -> fields.put(key + "_undefined", count));
        Map<String, Object> means = new LinkedHashMap<>();
        overall.forEach((key, estimate) -> means.put(key, estimate.fields()));
        fields.put("overall", means);
        return fields;
    }
}
