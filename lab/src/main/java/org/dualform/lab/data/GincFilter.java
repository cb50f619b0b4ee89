package org.dualform.lab.data;

import java.util.stream.IntStream;

/**
 * The forward algorithm of a hidden Markov model whose states each show one symbol: only the states of the last symbol seen can have a
 * probability, so a step costs the product of two small numbers of states.
 *
 * <p>Threading: immutable.
 */
final class GincFilter {
    private final double[][] transition;
    private final int[] shown;
    private final int[][] showing;

    /**
     * A filter.
     *
     * @param transition probability of every next state, a row per state
     * @param shown the symbol of each state
     * @param symbols how many there are
     */
    GincFilter(double[][] transition, int[] shown, int symbols) {
        this.transition = transition;
        this.shown = shown;
        showing = new int[symbols][];
        for (int symbol = 0; symbol < symbols; symbol++) {
            int wanted = symbol;
            showing[symbol] = IntStream.range(0, shown.length).filter(state -> shown[state] == wanted).toArray();
        }
    }

    /**
     * The same HMM, if now and then the next state could be any.
     *
     * @param share of steps to a uniformly random state
     * @return its filter
     */
    GincFilter mixed(double share) {
        double[][] mixed = new double[shown.length][shown.length];
        for (int from = 0; from < shown.length; from++) {
            for (int to = 0; to < shown.length; to++) {
                mixed[from][to] = (1 - share) * transition[from][to] + share / shown.length;
            }
        }
        return new GincFilter(mixed, shown, showing.length);
    }

    /**
     * Begins a sequence.
     *
     * @param start probability of each first state
     * @return nothing seen yet
     */
    Walk walk(double[] start) {
        return new Walk(start);
    }

    /** A sequence as it is seen. */
    final class Walk {
        private final double[] start;
        /** Of the states that show the last symbol; in the order of {@link #showing}. */
        private double[] belief;
        private int last = -1;

        private Walk(double[] start) {
            this.start = start;
        }

        /**
         * Sees a symbol.
         *
         * @param symbol the next
         * @return its probability given those before; after 0 nothing more can be seen
         */
        double see(int symbol) {
            int[] states = showing[symbol];
            double[] joint = new double[states.length];
            double sum = 0;
            for (int i = 0; i < states.length; i++) {
                joint[i] = arriving(states[i]);
                sum += joint[i];
            }
            for (int i = 0; i < states.length && sum > 0; i++) {
                joint[i] /= sum;
            }
            belief = joint;
            last = symbol;
            return sum;
        }

        private double arriving(int state) {
            if (last < 0) {
                return start[state];
            }
            double probability = 0;
            for (int j = 0; j < belief.length; j++) {
                probability += belief[j] * transition[showing[last][j]][state];
            }
            return probability;
        }

        /**
         * What to expect.
         *
         * @return probability of each next symbol
         */
        double[] next() {
            double[] symbols = new double[showing.length];
            for (int state = 0; state < shown.length; state++) {
                symbols[shown[state]] += arriving(state);
            }
            return symbols;
        }
    }
}
