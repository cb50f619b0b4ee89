package org.dualform.lab.report;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Draws charts of one width: title, note and legend above, then one plot or a grid of them. */
final class Painter {
    /** More points than this and a line has no marks on it. */
    private static final int MARKED_POINTS = 40;
    private static final String[] DASHES = {"7 4", "13 4", "3 3", "9 3 2 3"};
    private static final String[] REFERENCE_DASHES = {"1.5 3.5", "8 3 1.5 3", "4 2.5"};

    private enum Swatch { LINE, MARKED_LINE, BAND, POINT, BAR, DASHES, REFERENCE, FLOOR }

    private record Entry(Swatch swatch, int colour, String dashes, String label) {
    }

    /** Where a plot's inner rectangle lies. */
    private record Box(double x, double y, double w, double h) {
        double across(double fraction) {
            return x + fraction * w;
        }

        double up(double fraction) {
            return y + h - fraction * h;
        }
    }

    private final String id;
    private final int width;
    private final boolean standalone;
    private final double pad;
    private final double font;
    private final StringBuilder out = new StringBuilder();
    private int clips;
    /** How far down the picture has been drawn. */
    private double y;

    Painter(String id, int width, boolean standalone) {
        this.id = id;
        this.width = width;
        this.standalone = standalone;
        pad = standalone ? 16 : 2;
        font = width < 480 ? 12 : 13;
        y = pad;
    }

    private boolean isNarrow() {
        return width < 480;
    }

    String paint(Chart chart) {
        List<Chart> one = List.of(chart);
        double h = isNarrow() ? 210 : 290;
        Axis vertical = Chart.yAxis(one, isNarrow() ? 6 : 8);
        double left = pad + labelWidth(vertical) + 8;
        double gutter = referenceGutter(chart);
        heading(chart.title, chart.note, one, gutter == 0);
        axisLabel(chart.yLabel);
        double right = Math.max(pad + 6, gutter);
        Axis horizontal = horizontal(one, width - left - right);
        right = Math.max(right, pad + overhang(horizontal, width - left - right));
        Box box = new Box(left, y + 6, width - left - right, h);
        plot(chart, box, horizontal, vertical, true);
        if (gutter > 0) {
            referenceLabels(chart, box, vertical);
        }
        y = box.y + h + font + 10;
        below(chart.xLabel, box.x, box.w);
        return finish(chart.title, chart.spoken(horizontal));
    }

    String paint(Panels panels) {
        List<Chart> charts = panels.charts;
        Chart first = charts.get(0);
        heading(panels.title, panels.note, charts, true);
        axisLabel(first.yLabel);
        int widest = Math.min(panels.columns, Math.max(1, width / 170));
        int rows = (charts.size() + widest - 1) / widest;
        // Rows of one length: four panels stand two by two rather than three and one.
        int columns = (charts.size() + rows - 1) / rows;
        double h = columns == 1 ? 170 : 150;
        Axis vertical = Chart.yAxis(charts, 7);
        double left = pad + labelWidth(vertical) + 8;
        double gap = 16;
        double cell = (width - left - pad - 6 - gap * (columns - 1)) / columns;
        Axis horizontal = horizontal(charts, cell);
        double top = y + 4;
        StringBuilder spoken = new StringBuilder();
        for (int i = 0; i < charts.size(); i++) {
            Chart chart = charts.get(i);
            int column = i % columns;
            double x = left + column * (cell + gap);
            double titled = top + (i / columns) * (h + font * 2 + 34);
            text(x, titled + font, "start", "ink", font, true, Letters.fitted(chart.title, cell, font, true));
            Box box = new Box(x, titled + font + 10, cell, h);
            plot(chart, box, horizontal, vertical, column == 0);
            y = box.y + h + font + 10;
            spoken.append(i == 0 ? "" : " ").append(chart.title).append(": ").append(chart.spoken(horizontal));
        }
        y = top + rows * (h + font * 2 + 34) - 14;
        below(first.xLabel, left, width - left - pad - 6);
        return finish(panels.title, spoken.toString());
    }

    // ---- around the plots

    private void heading(String title, String note, List<Chart> charts, boolean referencesInLegend) {
        double inner = width - 2 * pad;
        double size = isNarrow() ? 15 : 16;
        for (String line : Letters.wrapped(title, inner, size, true)) {
            y += size + 2;
            text(pad, y, "start", "ink", size, true, line);
            y += 3;
        }
        if (!note.isEmpty()) {
            for (String line : Letters.wrapped(note, inner, font - 1, false)) {
                y += font + 2;
                text(pad, y, "start", "muted", font - 1, false, line);
            }
            y += 3;
        }
        legend(charts, inner, referencesInLegend);
    }

    private void legend(List<Chart> charts, double inner, boolean withReferences) {
        Map<String, Entry> entries = new LinkedHashMap<>();
        for (Chart chart : charts) {
            int dashed = 0;
            for (int i = 0; i < chart.series.size(); i++) {
                Series s = chart.series.get(i);
                Swatch swatch = switch (s.style) {
                    case POINTS -> Swatch.POINT;
                    case BARS -> Swatch.BAR;
                    case DASHED -> Swatch.DASHES;
                    default -> s.band ? Swatch.BAND : isMarked(s) ? Swatch.MARKED_LINE : Swatch.LINE;
                };
                String dashes = s.style == Series.Style.DASHED ? DASHES[dashed++ % DASHES.length] : "";
                put(entries, new Entry(swatch, chart.colours[i], dashes, s.name));
            }
        }
        for (Chart chart : charts) {
            for (Series s : chart.series) {
                if (s.floor != null) {
                    put(entries, new Entry(Swatch.FLOOR, Theme.GREY, "", s.floorName));
                }
            }
            for (int i = 0; withReferences && i < chart.references.size(); i++) {
                put(entries, new Entry(Swatch.REFERENCE, Theme.GREY, referenceDashes(i), chart.references.get(i).label()));
            }
        }
        // One series needs no legend: the title and the axis name it.
        if (entries.size() < 2) {
            y += 2;
            return;
        }
        double x = pad;
        double row = y + font + 8;
        for (Entry entry : entries.values()) {
            String label = Letters.fitted(entry.label, inner - 30, font, false);
            double wide = 30 + Letters.width(label, font, false);
            if (x > pad && x + wide > pad + inner) {
                x = pad;
                row += font + 7;
            }
            swatch(entry, x, row - font * 0.34);
            text(x + 30, row, "start", "ink", font, false, label);
            x += wide + 20;
        }
        y = row + 4;
    }

    private static void put(Map<String, Entry> entries, Entry entry) {
        entries.putIfAbsent(entry.swatch + " " + entry.colour + " " + entry.dashes + " " + entry.label, entry);
    }

    private void swatch(Entry entry, double x, double middle) {
        switch (entry.swatch) {
            case BAR -> rect(x + 5, middle - 5, 14, 10, Theme.fill(entry.colour));
            case POINT -> mark(x + 12, middle, entry.colour, 1, null);
            case FLOOR -> segment(x + 4, middle, x + 20, middle, Theme.stroke(entry.colour) + " stroke-width=\"2.5\"");
            case DASHES, REFERENCE -> segment(x, middle, x + 24, middle,
                Theme.stroke(entry.colour) + " stroke-width=\"" + (entry.swatch == Swatch.DASHES ? "2" : "1.5") + "\" stroke-dasharray=\""
                + entry.dashes + "\"");
            default -> {
                if (entry.swatch == Swatch.BAND) {
                    rect(x, middle - 6, 24, 12, Theme.fill(entry.colour) + " opacity=\".18\"");
                }
                segment(x, middle, x + 24, middle, Theme.stroke(entry.colour) + " stroke-width=\"2.25\"");
                if (entry.swatch != Swatch.LINE) {
                    mark(x + 12, middle, entry.colour, 1, null);
                }
            }
        }
    }

    private void axisLabel(String label) {
        if (label.isEmpty()) {
            y += 6;
            return;
        }
        y += 6;
        for (String line : Letters.wrapped(label, width - 2 * pad, font - 1, false)) {
            y += font;
            text(pad, y, "start", "muted", font - 1, false, line);
            y += 1;
        }
        y += 8;
    }

    private void below(String label, double x, double w) {
        for (String line : Letters.wrapped(label, w, font - 1, false)) {
            if (!line.isEmpty()) {
                y += font;
                text(x + w / 2, y, "middle", "muted", font - 1, false, line);
                y += 1;
            }
        }
    }

    /** Room that the labels of the references need at the right, or 0 when there is none and they go to the legend. */
    private double referenceGutter(Chart chart) {
        double widest = 0;
        for (Chart.Reference reference : chart.references) {
            widest = Math.max(widest, Letters.width(reference.label(), font - 1, false));
        }
        return isNarrow() || widest == 0 || widest > width * 0.28 ? 0 : widest + 8 + pad;
    }

    private void referenceLabels(Chart chart, Box box, Axis vertical) {
        record Label(String text, double at) {
        }
        List<Label> labels = new ArrayList<>();
        for (Chart.Reference reference : chart.references) {
            double fraction = vertical.fraction(reference.y());
            if (fraction >= 0 && fraction <= 1) {
                labels.add(new Label(reference.label(), box.up(fraction)));
            }
        }
        labels.sort((a, b) -> Double.compare(b.at, a.at));
        // From the bottom up, each label at its line or just above the label below it.
        double limit = box.y + box.h + font / 2;
        for (Label label : labels) {
            double at = Math.min(label.at, limit);
            text(box.x + box.w + 6, at + font * 0.33, "start", "muted", font - 1, false, label.text);
            limit = at - font - 2;
        }
    }

    // ---- one plot

    private void plot(Chart chart, Box box, Axis horizontal, Axis vertical, boolean yLabels) {
        String clip = id + "-k" + clips++;
        out.append("<clipPath id=\"").append(clip).append("\"><rect x=\"").append(tenths(box.x - 2)).append("\" y=\"")
            .append(tenths(box.y - 3)).append("\" width=\"").append(tenths(box.w + 4)).append("\" height=\"").append(tenths(box.h + 6))
            .append("\"/></clipPath>\n");
        for (Axis.Tick tick : vertical.ticks()) {
            double at = box.up(vertical.fraction(tick.value()));
            boolean zero = tick.value() == 0;
            segment(box.x, at, box.x + box.w, at, line(zero ? "axis" : "grid", zero ? Theme.AXIS : Theme.GRID));
            if (yLabels) {
                text(box.x - 8, at + font * 0.34, "end", "muted", font - 1, false, tick.label());
            }
        }
        horizontalTicks(box, horizontal, vertical.fraction(0));
        for (int i = 0; i < chart.references.size(); i++) {
            double fraction = vertical.fraction(chart.references.get(i).y());
            if (fraction >= 0 && fraction <= 1) {
                segment(box.x, box.up(fraction), box.x + box.w, box.up(fraction),
                    Theme.stroke(Theme.GREY) + " stroke-width=\"1.5\" stroke-dasharray=\"" + referenceDashes(i) + "\"");
            }
        }
        out.append("<g clip-path=\"url(#").append(clip).append(")\" fill=\"none\" stroke-linejoin=\"round\" stroke-linecap=\"round\">\n");
        for (int i = 0; i < chart.series.size(); i++) {
            band(chart.series.get(i), chart.colours[i], box, horizontal, vertical);
        }
        for (int i = 0; i < chart.series.size(); i++) {
            Series s = chart.series.get(i);
            if (s.smoothing != Series.Smoothing.NONE) {
                course(s, s.y, Theme.stroke(chart.colours[i]) + " stroke-width=\"1\" opacity=\".28\"", box, horizontal, vertical);
            }
        }
        int dashed = 0;
        for (int i = 0; i < chart.series.size(); i++) {
            Series s = chart.series.get(i);
            String dashes = s.style == Series.Style.DASHED
                ? " stroke-linecap=\"butt\" stroke-dasharray=\"" + DASHES[dashed++ % DASHES.length] + "\"" : "";
            if (s.isLine()) {
                String pen = " stroke-width=\"" + (dashes.isEmpty() ? "2.25" : "2") + "\"" + dashes;
                course(s, s.course(), Theme.stroke(chart.colours[i]) + pen, box, horizontal, vertical);
            }
        }
        out.append("</g>\n");
        places(chart, box, horizontal, vertical);
        for (int i = 0; i < chart.series.size(); i++) {
            Series s = chart.series.get(i);
            if (s.isLine()) {
                marks(chart, s, chart.colours[i], 0, 7, box, horizontal, vertical);
            }
        }
    }

    private void horizontalTicks(Box box, Axis axis, double zero) {
        double base = box.y + box.h;
        // Where zero lies inside, its line is the axis.
        boolean edge = !(zero > 1e-9 && zero <= 1);
        segment(box.x, base, box.x + box.w, base, line(edge ? "axis" : "grid", edge ? Theme.AXIS : Theme.GRID));
        int stride = 1;
        if (axis.isOrdinal()) {
            stride = (int) Math.max(1, StrictMath.ceil((labelWidth(axis) + 8) / (box.w / axis.slotCount()) - 1e-9));
        }
        for (int i = 0; i < axis.ticks().size(); i += stride) {
            Axis.Tick tick = axis.ticks().get(i);
            double at = box.across(axis.fraction(tick.value()));
            if (!axis.isOrdinal()) {
                segment(at, base, at, base + 4, line("axis", Theme.AXIS));
            }
            text(at, base + font + 6, "middle", "muted", font - 1, false, tick.label());
        }
    }

    /** Bars and points: side by side over named places, at their own x otherwise. */
    private void places(Chart chart, Box box, Axis horizontal, Axis vertical) {
        int sharing = 0;
        for (Series s : chart.series) {
            sharing += s.isLine() ? 0 : 1;
        }
        double slot = horizontal.isOrdinal() ? box.w / horizontal.slotCount() : 0;
        int place = 0;
        for (int i = 0; i < chart.series.size(); i++) {
            Series s = chart.series.get(i);
            if (s.isLine()) {
                continue;
            }
            double apart = Math.min((s.style == Series.Style.BARS ? 0.76 : 0.6) * slot / sharing, s.style == Series.Style.BARS ? 40 : 22);
            double shift = (place++ - (sharing - 1) / 2.0) * apart;
            if (s.style == Series.Style.BARS) {
                bars(chart, s, chart.colours[i], shift, apart, box, horizontal, vertical);
            }
            marks(chart, s, chart.colours[i], shift, apart == 0 ? 7 : apart * 0.4, box, horizontal, vertical);
        }
    }

    private void bars(Chart chart, Series s, int colour, double shift, double apart, Box box, Axis horizontal, Axis vertical) {
        double wide = Math.max(1.5, apart - Math.min(3, apart * 0.15));
        double zero = box.up(clamp(vertical.fraction(0)));
        for (int i = 0; i < s.x.length; i++) {
            double fraction = vertical.fraction(s.y[i]);
            if (Double.isNaN(fraction)) {
                continue;
            }
            double end = box.up(clamp(fraction));
            double x = box.across(horizontal.fraction(s.x[i])) + shift - wide / 2;
            out.append("<rect x=\"").append(tenths(x)).append("\" y=\"").append(tenths(Math.min(zero, end))).append("\" width=\"")
                .append(tenths(wide)).append("\" height=\"").append(tenths(Math.abs(end - zero))).append("\" ").append(Theme.fill(colour))
                .append('>').append(tip(chart, s, i, horizontal)).append("</rect>\n");
        }
    }

    /** Floors, error bars and marks of a series. */
    private void marks(Chart chart, Series s, int colour, double shift, double reach, Box box, Axis horizontal, Axis vertical) {
        boolean shown = s.style == Series.Style.POINTS || s.isLine() && isMarked(s);
        double[] course = s.course();
        for (int i = 0; i < s.x.length; i++) {
            double across = horizontal.fraction(s.x[i]);
            if (!(across >= 0 && across <= 1)) {
                continue;
            }
            double x = box.across(across) + shift;
            double fraction = vertical.fraction(course[i]);
            if (s.floor != null && inside(vertical.fraction(s.floor[i]))) {
                double floor = box.up(vertical.fraction(s.floor[i]));
                if (!Double.isNaN(fraction) && s.style != Series.Style.BARS) {
                    segment(x, floor, x, box.up(clamp(fraction)), Theme.stroke(colour) + " stroke-width=\"1.5\" opacity=\".45\"");
                }
                double half = Math.max(3, Math.min(reach, 9));
                String edge = s.style == Series.Style.BARS ? "class=\"edge\" stroke=\"" + Theme.PAPER + "\" stroke-width=\"5\"" : "";
                if (!edge.isEmpty()) {
                    segment(x - half, floor, x + half, floor, edge);
                }
                segment(x - half, floor, x + half, floor, Theme.stroke(Theme.GREY) + " stroke-width=\"2.5\"");
            }
            if (s.low != null && !s.band) {
                errorBar(s, i, colour, x, box, vertical);
            }
            if (shown && inside(fraction)) {
                mark(x, box.up(fraction), colour, Math.max(0.5, Math.min(1, reach / 5)), tip(chart, s, i, horizontal));
            }
        }
    }

    private void errorBar(Series s, int i, int colour, double x, Box box, Axis vertical) {
        double low = vertical.fraction(s.low[i]);
        double high = vertical.fraction(s.high[i]);
        if (Double.isNaN(low) || Double.isNaN(high)) {
            return;
        }
        double from = box.up(clamp(low));
        double to = box.up(clamp(high));
        boolean onBar = s.style == Series.Style.BARS;
        out.append("<path d=\"M").append(tenths(x)).append(' ').append(tenths(from)).append('V').append(tenths(to));
        // A mark in the middle says enough; on a bar, caps show where the interval ends.
        for (double end : onBar ? new double[] {from, to} : new double[0]) {
            out.append('M').append(tenths(x - 3)).append(' ').append(tenths(end)).append("h6");
        }
        out.append("\" fill=\"none\" ").append(onBar ? line("pen", Theme.INK) : Theme.stroke(colour))
            .append(" stroke-width=\"1.75\"/>\n");
    }

    private static boolean isMarked(Series s) {
        return s.style != Series.Style.DASHED && s.smoothing == Series.Smoothing.NONE && s.x.length <= MARKED_POINTS;
    }

    private static boolean inside(double fraction) {
        return fraction >= -1e-9 && fraction <= 1 + 1e-9;
    }

    private static double clamp(double fraction) {
        return Math.max(0, Math.min(1, fraction));
    }

    private String tip(Chart chart, Series s, int i, Axis horizontal) {
        StringBuilder tip = new StringBuilder(s.name).append(", ").append(horizontal.name(s.x[i])).append(": ").append(chart.value(s.y[i]));
        if (s.low != null && !Double.isNaN(s.low[i]) && !Double.isNaN(s.high[i])) {
            tip.append(" (").append(chart.value(s.low[i])).append(" to ").append(chart.value(s.high[i])).append(')');
        }
        if (s.floor != null && !Double.isNaN(s.floor[i])) {
            tip.append(", ").append(s.floorName).append(' ').append(chart.value(s.floor[i]));
        }
        return "<title>" + Markup.escape(tip.toString()) + "</title>";
    }

    // ---- lines

    private void course(Series s, double[] values, String attributes, Box box, Axis horizontal, Axis vertical) {
        Trace trace = new Trace(s.style == Series.Style.STEP);
        for (int i = 0; i < values.length; i++) {
            trace.add(box.across(horizontal.fraction(s.x[i])), box.up(far(vertical.fraction(values[i]))));
        }
        String path = trace.path(box.w);
        if (!path.isEmpty()) {
            out.append("<path d=\"").append(path).append("\" ").append(attributes).append("/>\n");
        }
    }

    private void band(Series s, int colour, Box box, Axis horizontal, Axis vertical) {
        if (s.low == null || !s.band) {
            return;
        }
        StringBuilder path = new StringBuilder();
        int i = 0;
        while (i < s.x.length) {
            StringBuilder back = new StringBuilder();
            int start = path.length();
            double column = Double.NaN;
            double top = 0;
            double bottom = 0;
            for (; i < s.x.length; i++) {
                double x = box.across(horizontal.fraction(s.x[i]));
                double low = box.up(far(vertical.fraction(s.low[i])));
                double high = box.up(far(vertical.fraction(s.high[i])));
                if (Double.isNaN(x + low + high)) {
                    break;
                }
                // Points that fall on one column of a long series become one, as wide as the widest of them.
                if (Math.abs(x - column) < 1) {
                    top = Math.min(top, high);
                    bottom = Math.max(bottom, low);
                } else {
                    edge(path, back, start, column, top, bottom);
                    column = x;
                    top = high;
                    bottom = low;
                }
            }
            edge(path, back, start, column, top, bottom);
            if (path.length() > start) {
                path.append(back).append('Z');
            }
            i++;
        }
        if (!path.isEmpty()) {
            out.append("<path d=\"").append(path).append("\" ").append(Theme.fill(colour)).append(" opacity=\".18\"/>\n");
        }
    }

    private static void edge(StringBuilder path, StringBuilder back, int start, double x, double top, double bottom) {
        if (!Double.isNaN(x)) {
            path.append(path.length() == start ? 'M' : 'L').append(tenths(x)).append(' ').append(tenths(top));
            back.insert(0, "L" + tenths(x) + " " + tenths(bottom));
        }
    }

    /** Values far beyond the plot, which renderers would not draw well. */
    private static double far(double fraction) {
        return Math.max(-20, Math.min(20, fraction));
    }

    // ---- shapes

    /** Each colour has a shape of its own, so that colour is not the only thing that tells series apart. */
    private void mark(double x, double at, int colour, double size, String tip) {
        String name = "path";
        String shape;
        switch (colour % 4) {
            case 0 -> {
                name = "circle";
                shape = "cx=\"" + tenths(x) + "\" cy=\"" + tenths(at) + "\" r=\"" + tenths(4.4 * size) + "\"";
            }
            case 1 -> {
                double half = 3.9 * size;
                name = "rect";
                shape = "x=\"" + tenths(x - half) + "\" y=\"" + tenths(at - half) + "\" width=\"" + tenths(2 * half) + "\" height=\""
                    + tenths(2 * half) + "\"";
            }
            case 2 -> shape = "d=\"M" + tenths(x) + " " + tenths(at - 5.2 * size) + "l" + tenths(4.9 * size) + " " + tenths(8.7 * size)
                + "h" + tenths(-9.8 * size) + "z\"";
            default -> {
                String half = tenths(5.4 * size);
                shape = "d=\"M" + tenths(x) + " " + tenths(at - 5.4 * size) + "l" + half + " " + half + "l-" + half + " " + half
                    + "l-" + half + " -" + half + "z\"";
            }
        }
        out.append('<').append(name).append(' ').append(shape).append(' ').append(Theme.mark(colour));
        out.append(tip == null ? "/>\n" : ">" + tip + "</" + name + ">\n");
    }

    private static String line(String name, String colour) {
        return "class=\"" + name + "\" stroke=\"" + colour + "\"";
    }

    private void segment(double x1, double y1, double x2, double y2, String attributes) {
        out.append("<line x1=\"").append(tenths(x1)).append("\" y1=\"").append(tenths(y1)).append("\" x2=\"").append(tenths(x2))
            .append("\" y2=\"").append(tenths(y2)).append("\" ").append(attributes).append("/>\n");
    }

    private void rect(double x, double top, double w, double h, String attributes) {
        out.append("<rect x=\"").append(tenths(x)).append("\" y=\"").append(tenths(top)).append("\" width=\"").append(tenths(w))
            .append("\" height=\"").append(tenths(h)).append("\" ").append(attributes).append("/>\n");
    }

    private void text(double x, double base, String anchor, String name, double size, boolean bold, String content) {
        out.append("<text x=\"").append(tenths(x)).append("\" y=\"").append(tenths(base)).append("\" class=\"").append(name)
            .append("\" fill=\"").append(name.equals("ink") ? Theme.INK : Theme.MUTED).append("\" font-size=\"").append(tenths(size))
            .append('"');
        if (!anchor.equals("start")) {
            out.append(" text-anchor=\"").append(anchor).append('"');
        }
        if (bold) {
            out.append(" font-weight=\"600\"");
        }
        out.append('>').append(Markup.escape(content)).append("</text>\n");
    }

    private String finish(String title, String spoken) {
        int height = (int) StrictMath.ceil(y + pad + 2);
        StringBuilder svg = new StringBuilder();
        svg.append("<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 ").append(width).append(' ').append(height)
            .append("\" role=\"img\" aria-labelledby=\"").append(id).append("-t ").append(id).append("-d\" font-family=\"")
            .append(Theme.FONT).append('"');
        if (standalone) {
            svg.append(" width=\"").append(width).append("\" height=\"").append(height).append('"');
        }
        svg.append(">\n<title id=\"").append(id).append("-t\">").append(Markup.escape(title)).append("</title>\n<desc id=\"").append(id)
            .append("-d\">").append(Markup.escape(spoken)).append("</desc>\n");
        if (standalone) {
            svg.append("<style>svg.chart{max-width:100%;height:auto}").append(Theme.dark()).append("</style>\n")
                .append("<rect class=\"paper\" width=\"").append(width).append("\" height=\"").append(height)
                .append("\" fill=\"").append(Theme.PAPER).append("\"/>\n");
        }
        return svg.append(out).append("</svg>").toString();
    }

    private static String referenceDashes(int i) {
        return REFERENCE_DASHES[i % REFERENCE_DASHES.length];
    }

    // ---- room for text

    /** As many ticks as have room for their labels. */
    private Axis horizontal(List<Chart> charts, double w) {
        for (int most = 8; ; most--) {
            Axis axis = Chart.xAxis(charts, most);
            if (most == 2 || axis.isOrdinal() || (labelWidth(axis) + 18) * axis.ticks().size() <= w) {
                return axis;
            }
        }
    }

    private double labelWidth(Axis axis) {
        double widest = 0;
        for (Axis.Tick tick : axis.ticks()) {
            widest = Math.max(widest, Letters.width(tick.label(), font - 1, false));
        }
        return widest;
    }

    /** How far the last label sticks out to the right of the axis. */
    private double overhang(Axis axis, double w) {
        if (axis.ticks().isEmpty()) {
            return 0;
        }
        Axis.Tick last = axis.ticks().get(axis.ticks().size() - 1);
        return Letters.width(last.label(), font - 1, false) / 2 - (1 - axis.fraction(last.value())) * w;
    }

    /** A coordinate with at most one decimal. */
    private static String tenths(double value) {
        return Trace.tenths(Math.round(value * 10));
    }
}
