package org.dualform.lab.metrics;

/**
 * Rec2FTP, the recall to finetuning predictions of Dai et al. 2022 (arXiv:2212.10559): of the examples which finetuning put right, how many
 * did demonstrations put right too?
 *
 * <p>Threading: immutable.
 *
 * @param wrong examples which the bare model has wrong
 * @param inContextRight of those, right with demonstrations
 * @param gained of those, right after finetuning
 * @param recovered of those, right both ways
 */
public record Recovery(int wrong, int inContextRight, int gained, int recovered) {
    /** Nothing counted yet. */
    public static final Recovery NONE = new Recovery(0, 0, 0, 0);

    /**
     * One more example.
     *
     * @param zeroShot whether the bare model is right
     * @param inContext whether it is right with demonstrations
     * @param finetuned whether the finetuned model is right
     * @return the counts with this example
     */
    public Recovery plus(boolean zeroShot, boolean inContext, boolean finetuned) {
        return zeroShot
                ? this
                : new Recovery(
                        wrong + 1,
                        inContextRight + (inContext ? 1 : 0),
                        gained + (finetuned ? 1 : 0),
                        recovered + (inContext && finetuned ? 1 : 0));
    }

    /**
     * The metric.
     *
     * @return {@code 100 recovered / gained} with Wilson's interval, in percent; NaN when nothing was gained by finetuning
     */
    public Estimate percent() {
        return Estimate.ofShare(recovered, gained).times(100);
    }

    /**
     * What the metric would be if demonstrations had nothing to do with finetuning: their rate over everything the bare model has wrong.
     *
     * @return {@code 100 inContextRight / wrong} with Wilson's interval, in percent; NaN when nothing was wrong
     */
    public Estimate baseline() {
        return Estimate.ofShare(inContextRight, wrong).times(100);
    }
}
