package org.dualform.lab.icl;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.SplittableRandom;

/** Random order from a seed. */
final class Shuffle {
    private Shuffle() {}

    static <T> List<T> of(List<T> items, long seed) {
        List<T> shuffled = new ArrayList<>(items);
        // Mixed once more: seeds that differ by the generator's own increment would give the same draws, one place further.
        SplittableRandom random = new SplittableRandom(new SplittableRandom(seed).nextLong());
        for (int i = shuffled.size() - 1; i > 0; i--) {
            Collections.swap(shuffled, i, random.nextInt(i + 1));
        }
        return shuffled;
    }
}
