package org.dualform.lab.report;

import java.util.List;
import org.dualform.InvalidArgumentException;

/**
 * Several charts side by side over the same axes, with one legend: one panel per metric, model or task. The axes are those of the first
 * chart, with a range that holds the data of all.
 *
 * <p>Threading: immutable.
 */
public final class Panels extends Figure {
    final String title;
    final String note;
    final int columns;
    final List<Chart> charts;

    /**
     * A grid of charts.
     *
     * @param title over all
     * @param note in smaller type under the title, or an empty text
     * @param columns at most this many side by side; fewer where there is no room
     * @param charts from left to right, row by row
     * @throws InvalidArgumentException when there is no chart, or no column
     */
    public Panels(String title, String note, int columns, List<Chart> charts) {
        if (charts.isEmpty() || columns < 1) {
            throw new InvalidArgumentException(charts.size() + " charts in " + columns + " columns, expected at least one of each");
        }
        this.title = title;
        this.note = note;
        this.columns = columns;
        this.charts = List.copyOf(charts);
    }

    @Override
    String render(String id, int width, boolean standalone) {
        return new Painter(id, width, standalone).paint(this);
    }
}
