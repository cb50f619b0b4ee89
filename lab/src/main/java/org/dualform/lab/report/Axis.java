package org.dualform.lab.report;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** One axis: where along it a number lies (0 to 1), and its labelled ticks. */
final class Axis {
    record Tick(double value, String label) {
    }

    private final Scale scale;
    private final double low;
    private final double high;
    private final double[] slots;
    private final List<Tick> ticks;

    private Axis(Scale scale, double low, double high, double[] slots, List<Tick> ticks) {
        this.scale = scale;
        this.low = low;
        this.high = high;
        this.slots = slots;
        this.ticks = ticks;
    }

    /** Equal slots for named places; {@code values} are what the data call them. */
    static Axis ordinal(double[] values, List<String> labels) {
        List<Tick> ticks = new ArrayList<>();
        for (int i = 0; i < values.length; i++) {
            ticks.add(new Tick(values[i], labels.get(i)));
        }
        return new Axis(Scale.LINEAR, 0, values.length, values, ticks);
    }

    /** A linear horizontal axis, which ends where the data do. */
    static Axis horizontal(double low, double high, int most) {
        return new Axis(Scale.LINEAR, low, high, null, labelled(Ticks.inside(low, high, most), false));
    }

    /** A linear vertical axis; an end that is not fixed moves outwards to a tick. */
    static Axis vertical(double from, boolean fixedLow, double to, boolean fixedHigh, boolean percent, int most) {
        double[] covering = Ticks.covering(from, to, most);
        double low = fixedLow ? from : Math.min(from, covering[0]);
        double high = fixedHigh ? to : Math.max(to, covering[covering.length - 1]);
        double slack = 1e-9 * (high - low);
        double[] within = Arrays.stream(covering).filter(v -> v >= low - slack && v <= high + slack).toArray();
        return new Axis(Scale.LINEAR, low, high, null, labelled(within, percent));
    }

    private static List<Tick> labelled(double[] values, boolean percent) {
        double step = values.length > 1 ? values[1] - values[0] : 1;
        double largest = 0;
        for (double value : values) {
            largest = Math.max(largest, Math.abs(value));
        }
        double unit = percent ? 100 : 1;
        boolean powers = largest * unit >= 1e7 || step * unit < 1e-4;
        // As many as tell one tick from the next.
        int digits = largest == 0 ? 1
            : 1 + (int) (StrictMath.floor(StrictMath.log10(largest)) - StrictMath.floor(StrictMath.log10(step) + 1e-9));
        List<Tick> ticks = new ArrayList<>();
        for (double value : values) {
            String number = powers ? Numbers.significant(value * unit, Math.max(1, digits))
                : Numbers.fixed(value * unit, Numbers.decimals(step * unit));
            ticks.add(new Tick(value, percent ? number + Numbers.PERCENT : number));
        }
        return ticks;
    }

    /** Either axis, in powers of the scale's base. */
    static Axis logarithmic(Scale scale, double low, double high, int most) {
        double base = scale == Scale.LOG2 ? 2 : 10;
        int first = (int) StrictMath.ceil(StrictMath.log(low) / StrictMath.log(base) - 1e-9);
        int last = (int) StrictMath.floor(StrictMath.log(high) / StrictMath.log(base) + 1e-9);
        List<Tick> ticks = new ArrayList<>();
        if (scale == Scale.LOG10 && last - first < 2) {
            for (int exponent = first - 1; exponent <= last + 1; exponent++) {
                for (int digit : high / low < 8 ? new int[] {1, 2, 3, 4, 5, 6, 8} : new int[] {1, 2, 5}) {
                    double value = Double.parseDouble(digit + "e" + exponent);
                    if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) {
                        ticks.add(new Tick(value, Numbers.significant(value, 3)));
                    }
                }
            }
        } else {
            int stride = Math.max(1, (last - first + most) / most);
            for (int exponent = first; exponent <= last; exponent += stride) {
                double value = scale == Scale.LOG2 ? StrictMath.scalb(1.0, exponent) : Double.parseDouble("1e" + exponent);
                ticks.add(new Tick(value, Numbers.significant(value, 7)));
            }
        }
        if (ticks.size() < 2) {
            ticks.clear();
            ticks.add(new Tick(low, Numbers.significant(low, 3)));
            ticks.add(new Tick(high, Numbers.significant(high, 3)));
        }
        return new Axis(scale, scale.forward(low), scale.forward(high), null, ticks);
    }

    boolean isOrdinal() {
        return slots != null;
    }

    int slotCount() {
        return slots.length;
    }

    List<Tick> ticks() {
        return ticks;
    }

    /** 0 at the start, 1 at the end, beyond them outside; NaN for a gap. */
    double fraction(double value) {
        if (slots != null) {
            for (int i = 0; i < slots.length; i++) {
                if (slots[i] == value) {
                    return (i + 0.5) / slots.length;
                }
            }
            return Double.NaN;
        }
        double at = scale.forward(value);
        return Double.isFinite(at) ? (at - low) / (high - low) : Double.NaN;
    }

    /** The label of a slot, or the number itself. */
    String name(double value) {
        if (slots != null) {
            for (Tick tick : ticks) {
                if (tick.value() == value) {
                    return tick.label();
                }
            }
        }
        return Numbers.significant(value, 6);
    }
}
