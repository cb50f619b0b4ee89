package org.dualform.nn;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;

/** Small models of every kind, and rows of tokens for them. */
final class Models {
    static final int VOCABULARY = 11;
    static final int CONTEXT = 12;

    private Models() {}

    static GptConfig plain() {
        return GptConfig.of(VOCABULARY, CONTEXT, 2, 8, 2);
    }

    /** Every kind of attention and of positions, by a readable name. */
    static Map<String, GptConfig> kinds() {
        Map<String, GptConfig> kinds = new LinkedHashMap<>();
        kinds.put("softmax", plain());
        kinds.put("softmax-sinusoidal", plain().withPositions(Positions.SINUSOIDAL));
        kinds.put("momentum", plain().withMomentumAttention(0.7));
        kinds.put("momentum-learned", plain().withLearnedMomentum(0.4));
        kinds.put("linear", plain().withLinearAttention(Double.NaN));
        kinds.put("linear-no-decay-sinusoidal", plain().withLinearAttention(1).withPositions(Positions.SINUSOIDAL));
        return kinds;
    }

    static Stream<String> names() {
        return kinds().keySet().stream();
    }

    /** A model with weights large enough for every gradient to count. */
    static Gpt rough(Device device, GptConfig config, long seed) {
        Gpt gpt = Gpt.create(device, config, DType.F64, seed);
        roughen(gpt, seed);
        return gpt;
    }

    static void roughen(Gpt gpt, long seed) {
        Random random = new Random(seed);
        for (Parameter parameter : gpt.parameters().all()) {
            double[] values = parameter.value().toDoubles();
            for (int i = 0; i < values.length; i++) {
                values[i] += 0.3 * random.nextGaussian();
            }
            parameter.value().write(values);
        }
    }

    static Tensor ids(Device device, int rows, int tokens, long seed) {
        return Tensor.of(device, new Random(seed).ints((long) rows * tokens, 0, VOCABULARY).toArray(), rows, tokens);
    }

    /** Next tokens, some of which do not count. */
    static Tensor targets(Device device, int rows, int tokens, long seed) {
        int[] targets = new Random(seed).ints((long) rows * tokens, 0, VOCABULARY).toArray();
        for (int i = 0; i < targets.length; i += 5) {
            targets[i] = Gpt.IGNORE;
        }
        return Tensor.of(device, targets, rows, tokens);
    }

    static double largest(double[] values) {
        return Arrays.stream(values).map(Math::abs).max().orElse(0);
    }

    static double largestDifference(double[] a, double[] b) {
        if (a.length != b.length) {
            throw new AssertionError(a.length + " and " + b.length + " values");
        }
        double largest = 0;
        for (int i = 0; i < a.length; i++) {
            double difference = Math.abs(a[i] - b[i]);
            largest = difference <= largest ? largest : difference;
        }
        return largest;
    }

    /** The bits of a tensor of any floating dtype. */
    static long[] bits(Tensor tensor) {
        return Arrays.stream(tensor.toDoubles()).mapToLong(Double::doubleToRawLongBits).toArray();
    }
}
