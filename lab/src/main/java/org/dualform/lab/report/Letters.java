package org.dualform.lab.report;

import java.util.ArrayList;
import java.util.List;

/** Room that text takes in a picture, estimated, so that it is the same on every machine. */
final class Letters {
    private Letters() {
    }

    /** The text in lines that fit, broken at spaces. */
    static List<String> wrapped(String text, double room, double size, boolean bold) {
        List<String> lines = new ArrayList<>();
        StringBuilder line = new StringBuilder();
        for (String word : text.split(" ")) {
            if (line.length() > 0 && width(line + " " + word, size, bold) > room) {
                lines.add(line.toString());
                line.setLength(0);
            }
            line.append(line.length() > 0 ? " " : "").append(word);
        }
        lines.add(line.toString());
        return lines;
    }

    /** The text, or as much of its start as there is room for. */
    static String fitted(String text, double room, double size, boolean bold) {
        int[] letters = text.codePoints().toArray();
        String shown = text;
        for (int kept = letters.length - 1; kept > 0 && width(shown, size, bold) > room; kept--) {
            shown = new String(letters, 0, kept).stripTrailing() + "\u2026";
        }
        return shown;
    }

    /** An upper estimate over the usual fonts, of which DejaVu Sans is the widest: what is too narrow by this is never cut off. */
    static double width(String text, double size, boolean bold) {
        double em = text.codePoints().mapToDouble(c -> {
            if (c > 0x2E80) {
                return 1;
            }
            if ("ijlI.,:;|!'".indexOf(c) >= 0) {
                return 0.31;
            }
            if ("frt()[]-/ \u00A0\u2013".indexOf(c) >= 0) {
                return 0.4;
            }
            if ("mwMW@%\u2026\u2212+=<>\u00B1\u00D7~".indexOf(c) >= 0) {
                return 0.96;
            }
            return c >= 'A' && c <= 'Z' ? 0.75 : 0.64;
        }).sum();
        return em * size * (bold ? 1.12 : 1);
    }
}
