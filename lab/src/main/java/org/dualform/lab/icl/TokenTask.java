package org.dualform.lab.icl;

import java.util.List;

/**
 * A classification task in tokens: {@code bos in1 ans1 sep in2 ans2 sep ... query}, as Dai et al. 2022 (arXiv:2212.10559) prompt.
 *
 * <p>Threading: immutable, if nobody changes the arrays.
 *
 * @param name for reports
 * @param beginning token before the first demonstration and before a bare query
 * @param separator token that closes each demonstration
 * @param answers tokens of each label, in label order; at least one token each
 * @param answerNames how reports call the labels
 */
public record TokenTask(String name, int beginning, int separator, List<int[]> answers, List<String> answerNames) {
    /**
     * One labelled input.
     *
     * <p>Threading: immutable, if nobody changes the array.
     *
     * @param input its tokens, template included
     * @param label index into the answers
     */
    public record Example(int[] input, int label) {}
}
