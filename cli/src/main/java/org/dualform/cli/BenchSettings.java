package org.dualform.cli;

/**
 * What a work of {@code bench} has beside its sizes.
 *
 * @param causal whether a query of attention sees no later keys
 * @param eta the momentum of every head
 * @param decay of linear attention's state; 1 for none
 * @param vocabulary of a GPT
 * @param graphs whether a GPT's step is replayed
 * @param compared whether results are wanted instead of times: a step of a GPT then changes no weight, so that the next has its results too
 */
record BenchSettings(boolean causal, double eta, double decay, int vocabulary, boolean graphs, boolean compared) {
    static final BenchSettings USUAL = new BenchSettings(true, 0.9, 1, 256, false, false);

    BenchSettings forResults() {
        return new BenchSettings(causal, eta, decay, vocabulary, graphs, true);
    }
}
