package org.dualform.lab.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class Mt19937Test {
    /** What {@code numpy.random.RandomState(seed)} of NumPy 2.4.6 gave, in the order of the test; {@code np.random.seed} begins alike. */
    private enum Golden {
        ZERO(0L,
                new double[] {0x1.18fe1565f12a8p-1, 0x1.6e2d4cf608733p-1, 0x1.349d66b6e894bp-1, 0x1.16faedb6395f5p-1,
                        0x1.b1d2904fd0ef6p-2},
                new long[] {22, 37, 24, 7, 25, 25, 13, 2, 39, 40, 24, 47},
                new long[] {-3356485363537441967L, 3239186156944441881L, -3301302021933524920L, -7616120191584397420L,
                        -8850408401117310000L, 3576074995L, 4110950085L, 602801999L, 2034131043L},
                new int[] {2, 12, 7, 4, 5, 11, 0, 6, 9, 10, 3, 1, 8},
                new int[] {1, 3, 1, 4, 1, 1, 3, 1, 1, 3, 5, 3, 4, 5, 0, 5, 4, 1, 3, 4},
                new int[] {3, 4, 1, 2, 4, 3, 4, 4},
                new double[] {0x1.ed59a5cb175f0p+1, 0x1.d584e57319998p+1, 0x1.dcd7600edc710p+2},
                new int[] {107, 105, 101, 102, 103, 108, 106, 100, 104},
                0x1.22e629632885dp-1),
        WORLD(1111L,
                new double[] {0x1.875e98dc2b820p-4, 0x1.d99a15d0596b5p-1, 0x1.5fd1b621cc914p-2, 0x1.3dedaaddf8e84p-2,
                        0x1.076f09b400c00p-9},
                new long[] {12, 15, 9, 39, 13, 47, 23, 9, 42, 43, 13, 31},
                new long[] {-237370477360941876L, 3415583963993621069L, -116739925419944951L, -2142775498664494633L,
                        6242261841326425856L, 2813996964L, 2251869448L, 3672138720L, 4281581538L},
                new int[] {2, 10, 1, 6, 3, 5, 4, 12, 11, 9, 7, 0, 8},
                new int[] {4, 5, 1, 4, 4, 0, 1, 3, 3, 1, 3, 3, 4, 4, 0, 5, 3, 4, 0, 1},
                new int[] {4, 2, 0, 3, 0, 2, 1, 1},
                new double[] {0x1.b69073fd6015ep+2, 0x1.40d5705facc5cp+0, 0x1.948b30a3b1a0ep+1},
                new int[] {100, 104, 103, 107, 101, 102, 106, 108, 105},
                0x1.73a3d29e7da9cp-2),
        PROMPTS(1114L,
                new double[] {0x1.35a73587e3760p-3, 0x1.f709dca2c77b0p-4, 0x1.893e57f5b83d3p-1, 0x1.561c5dc073c4cp-3,
                        0x1.e64a7e930cb27p-1},
                new long[] {27, 46, 19, 6, 5, 4, 46, 42, 41, 48, 24, 47},
                new long[] {463321657916489390L, -880261201601896620L, -3748723249108106114L, -5968274601703007796L,
                        -7402316882931620165L, 1117740994L, 2702602637L, 414021350L, 2044019715L},
                new int[] {5, 3, 1, 9, 7, 11, 8, 2, 0, 6, 10, 12, 4},
                new int[] {3, 3, 3, 3, 5, 0, 3, 3, 5, 4, 5, 0, 3, 1, 4, 1, 3, 4, 4, 3},
                new int[] {0, 3, 2, 2, 2, 0, 3, 4},
                new double[] {-0x1.7be0cc5504123p+1, 0x1.1c6312fb104e7p+2, 0x1.304842dd92965p+2},
                new int[] {101, 104, 100, 106, 108, 102, 105, 107, 103},
                0x1.7290b49598e27p-1),
        GREATEST(4294967295L,
                new double[] {0x1.8fe69a3924820p-4, 0x1.d323d824032b1p-1, 0x1.93fc6f61af3f9p-1, 0x1.8f5ca1b151c07p-1,
                        0x1.25ec7244bbf80p-6},
                new long[] {44, 12, 11, 28, 14, 24, 23, 15, 38, 10, 10, 26},
                new long[] {618734968356213092L, 2458386438491327991L, 4425136935239604950L, 7484052468971153268L,
                        -3327761499236337894L, 2664757849L, 4240026027L, 1061213571L, 3774452015L},
                new int[] {3, 4, 10, 7, 9, 12, 11, 5, 6, 8, 0, 1, 2},
                new int[] {3, 4, 3, 1, 0, 3, 5, 4, 1, 3, 4, 4, 1, 4, 3, 5, 4, 1, 4, 4},
                new int[] {2, 2, 3, 3, 1, 2, 0, 0},
                new double[] {-0x1.2128058478585p+1, 0x1.aa2e41bee6cecp+0, 0x1.db9ac0b3f0518p+1},
                new int[] {103, 102, 108, 107, 101, 106, 105, 104, 100},
                0x1.994a0217743e6p-1);

        final long seed;
        final double[] rand;
        final long[] randint;
        final long[] wide;
        final int[] permutation;
        final int[] choice;
        final int[] list;
        final double[] uniform;
        final int[] shuffle;
        final double later;

        Golden(long seed, double[] rand, long[] randint, long[] wide, int[] permutation, int[] choice, int[] list, double[] uniform,
                int[] shuffle, double later) {
            this.seed = seed;
            this.rand = rand;
            this.randint = randint;
            this.wide = wide;
            this.permutation = permutation;
            this.choice = choice;
            this.list = list;
            this.uniform = uniform;
            this.shuffle = shuffle;
            this.later = later;
        }
    }

    @ParameterizedTest
    @EnumSource(Golden.class)
    void drawsWhatNumpyDraws(Golden golden) {
        Mt19937 random = new Mt19937(golden.seed);
        assertArrayEquals(golden.rand, random.rand(5));
        assertArrayEquals(golden.randint, LongStream.generate(() -> random.randint(1, 50)).limit(12).toArray());
        assertEquals(3, random.randint(3, 4), "one possibility takes no bits");
        long[] wide = new long[9];
        for (int i = 0; i < wide.length; i++) {
            wide[i] = i < 3 ? random.randint(-(1L << 62), 1L << 62)
                    : i < 5 ? random.randint(Long.MIN_VALUE, Long.MAX_VALUE) : random.randint(0, (1L << 32) + (i < 7 ? 0 : 1));
        }
        assertArrayEquals(golden.wide, wide);
        assertArrayEquals(golden.permutation, random.permutation(13));
        double[] probabilities = {0.1, 0.2, 0, 0.3, 0.25, 0.15};
        assertArrayEquals(golden.choice, IntStream.generate(() -> random.choice(probabilities)).limit(20).toArray());
        assertArrayEquals(golden.list, IntStream.generate(() -> (int) random.randint(0, 5)).limit(8).toArray(), "choice of a list");
        assertArrayEquals(golden.uniform, new double[] {random.uniform(-3, 7.5), random.uniform(-3, 7.5), random.uniform(-3, 7.5)});
        int[] values = IntStream.range(100, 109).toArray();
        random.shuffle(values);
        assertArrayEquals(golden.shuffle, values);
        random.rand(2000);
        assertEquals(golden.later, new Mt19937(random).rand(), "a copy goes on from there");
        assertEquals(golden.later, random.rand(), "and leaves the original alone");
    }

    @Test
    void seedsOutOfRangeAndEmptyRangesAreRefused() {
        assertThrows(InvalidArgumentException.class, () -> new Mt19937(-1));
        assertThrows(InvalidArgumentException.class, () -> new Mt19937(1L << 32));
        assertThrows(InvalidArgumentException.class, () -> new Mt19937(1).randint(4, 4));
    }

    /** As argmax of (cumulative sum > number) where rounding leaves the last sum below the number. */
    @Test
    void nothingAboveTheNumberIsTheFirst() {
        assertEquals(0, new Mt19937(1).chooseFrom(0.1, 0.2));
        assertEquals(1, new Mt19937(1).chooseFrom(0.1, 0.5));
    }
}
