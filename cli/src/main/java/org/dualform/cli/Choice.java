package org.dualform.cli;

import java.util.Map;

/** An option that takes one of some words. */
final class Choice {
    private Choice() {}

    /** What the word stands for. */
    static <T> T of(String option, String word, Map<String, T> choices) {
        T choice = choices.get(word);
        if (choice == null) {
            throw new UsageException(option + " " + word + ": expected one of "
                    + String.join(", ", choices.keySet().stream().sorted().toList()));
        }
        return choice;
    }
}
