package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.dualform.lab.data.Tokenizer;

/** A tokenizer of tests: every word is a token, with the space before it if there is one; 0 ends a text. */
final class Words implements Tokenizer {
    private final List<String> known = new ArrayList<>(List.of("<end>"));

    @Override
    public String name() {
        return "words";
    }

    @Override
    public int vocabularySize() {
        return known.size();
    }

    @Override
    public int endOfText() {
        return 0;
    }

    @Override
    public int[] encode(String text) {
        return Arrays.stream(text.split("(?= )")).mapToInt(word -> {
            if (!known.contains(word)) {
                known.add(word);
            }
            return known.indexOf(word);
        }).toArray();
    }

    @Override
    public String decode(int... ids) {
        StringBuilder text = new StringBuilder();
        for (int id : ids) {
            text.append(known.get(id));
        }
        return text.toString();
    }
}
