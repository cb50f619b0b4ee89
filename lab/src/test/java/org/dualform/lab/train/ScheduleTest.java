package org.dualform.lab.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.dualform.InvalidArgumentException;
import org.dualform.lab.train.Schedule.Decay;
import org.junit.jupiter.api.Test;

class ScheduleTest {
    @Test
    void warmupRisesInALineAndReachesTheFullRate() {
        Schedule schedule = Schedule.cosine(4, 0.1);
        for (int i = 0; i < 4; i++) {
            assertEquals((i + 1) / 4.0, schedule.factor(i, 20), 0);
        }
        assertEquals(1, schedule.factor(4, 20), 0);
    }

    @Test
    void decaysFollowTheirFormulasToTheFloor() {
        double half = 4 + (24 - 4) / 2.0;
        assertEquals(0.1 + 0.9 * 0.5, new Schedule(Decay.COSINE, 4, 0.1, 1).factor((long) half, 24), 1e-15);
        assertEquals(0.1 + 0.9 * 0.5, new Schedule(Decay.LINEAR, 4, 0.1, 1).factor((long) half, 24), 1e-15);
        assertEquals(0.1 + 0.9 * 0.125, new Schedule(Decay.POLYNOMIAL, 4, 0.1, 3).factor((long) half, 24), 1e-15);
        // a quarter of the way: (1 + cos(pi / 4)) / 2
        assertEquals((1 + Math.sqrt(0.5)) / 2, new Schedule(Decay.COSINE, 4, 0, 1).factor(9, 24), 1e-15);
        for (Decay decay : new Decay[] {Decay.COSINE, Decay.LINEAR, Decay.POLYNOMIAL}) {
            assertEquals(0.25, new Schedule(decay, 4, 0.25, 2).factor(24, 24), 1e-15, decay.toString());
            assertEquals(0.25, new Schedule(decay, 4, 0.25, 2).factor(1000, 24), 1e-15, decay.toString());
        }
    }

    @Test
    void constantStaysWhereWarmupEnded() {
        for (long step = 0; step < 30; step++) {
            assertEquals(step < 10 ? (step + 1) / 10.0 : 1, new Schedule(Decay.CONSTANT, 10, 0, 1).factor(step, 20), 0);
        }
    }

    @Test
    void warmupLongerThanTheRunNeverDecays() {
        assertEquals(0.05, Schedule.cosine(100, 0).factor(4, 5), 0);
    }

    @Test
    void numbersOutOfRangeAreRefused() {
        assertThrows(InvalidArgumentException.class, () -> Schedule.cosine(-1, 0));
        assertThrows(InvalidArgumentException.class, () -> Schedule.cosine(0, 1.5));
        assertThrows(InvalidArgumentException.class, () -> Schedule.cosine(0, Double.NaN));
        assertThrows(InvalidArgumentException.class, () -> new Schedule(Decay.POLYNOMIAL, 0, 0, 0));
        assertThrows(NullPointerException.class, () -> new Schedule(null, 0, 0, 1));
        assertThrows(InvalidArgumentException.class, () -> TrainingOptions.of(-1, 0.1));
        assertThrows(InvalidArgumentException.class, () -> TrainingOptions.of(1, Double.NaN));
        assertThrows(InvalidArgumentException.class, () -> TrainingOptions.of(1, 0.1).withAccumulation(0));
        assertThrows(InvalidArgumentException.class, () -> TrainingOptions.of(1, 0.1).withClipNorm(Double.NaN));
        assertThrows(InvalidArgumentException.class, () -> TrainingOptions.of(1, 0.1).withMaxSkipped(0));
    }
}
