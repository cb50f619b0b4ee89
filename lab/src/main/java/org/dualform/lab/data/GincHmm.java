package org.dualform.lab.data;

/**
 * One hidden Markov model of {@link Ginc}. State {@code entity * slots + slot} shows the symbol of its entity and slot, always. From state
 * to state, entity and slot change independently of each other.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param start probability of each first state
 * @param slots transition probabilities between slots, row by row
 * @param entities transition probabilities between entities, row by row; the same in all HMMs of a world
 */
public record GincHmm(double[] start, double[][] slots, double[][] entities) {
    /**
     * The transition matrix: the Kronecker product of entities and slots.
     *
     * @return probability of every next state, a row per state
     */
    public double[][] transition() {
        int width = slots.length;
        double[][] matrix = new double[entities.length * width][entities.length * width];
        for (int from = 0; from < matrix.length; from++) {
            for (int to = 0; to < matrix.length; to++) {
                matrix[from][to] = slots[from % width][to % width] * entities[from / width][to / width];
            }
        }
        return matrix;
    }

    static GincHmm draw(GincOptions options, Mt19937 random) {
        double[] start = softmax(random.rand(options.states()), options.startTemperature());
        double[][] slots = mixture(options.slots(), options.transitionTemperature(), random);
        // One seed for all HMMs of a world: its entities change alike in all of them.
        double[][] entities = mixture(options.entities(), options.transitionTemperature(), new Mt19937(Ginc.ENTITY_SEED));
        for (int i = 0; i < entities.length; i++) {
            for (int j = 0; j < entities.length; j++) {
                entities[i][j] = (1 - options.persistence()) * entities[i][j] + options.persistence() * (i == j ? 1 : 0);
            }
        }
        return new GincHmm(start, slots, entities);
    }

    /** As many random permutation matrices as they have rows, in random proportions. */
    private static double[][] mixture(int size, double temperature, Mt19937 random) {
        double[] weights = softmax(random.rand(size), temperature);
        double[][] matrix = new double[size][size];
        for (double weight : weights) {
            int[] permutation = random.permutation(size);
            for (int row = 0; row < size; row++) {
                matrix[row][permutation[row]] += weight;
            }
        }
        return matrix;
    }

    /** Of numbers less one half, which matters for rounding alone. */
    private static double[] softmax(double[] uniform, double temperature) {
        int size = uniform.length;
        double[] values = new double[size];
        double most = Double.NEGATIVE_INFINITY;
        for (int i = 0; i < size; i++) {
            values[i] = (uniform[i] - 0.5) / temperature;
            most = Math.max(most, values[i]);
        }
        for (int i = 0; i < size; i++) {
            values[i] = StrictMath.exp(values[i] - most);
        }
        double sum = pairwiseSum(values, 0, size);
        for (int i = 0; i < size; i++) {
            values[i] /= sum;
        }
        return values;
    }

    /** In the order in which NumPy adds, so that no rounding differs: eight sums side by side, halves above 128 numbers. */
    private static double pairwiseSum(double[] values, int from, int count) {
        if (count > 128) {
            int half = count / 2 - count / 2 % 8;
            return pairwiseSum(values, from, half) + pairwiseSum(values, from + half, count - half);
        }
        double sum = 0;
        int whole = count - count % 8;
        if (whole > 0) {
            double[] sums = new double[8];
            for (int i = 0; i < whole; i++) {
                sums[i % 8] += values[from + i];
            }
            sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
        }
        for (int i = whole; i < count; i++) {
            sum += values[from + i];
        }
        return sum;
    }
}
