package org.dualform.lab.report;

/**
 * Colours, after Okabe and Ito's palette for all kinds of colour vision. Light colours are presentation attributes, so that a renderer
 * without style sheets shows them; the style sheet only turns them dark.
 */
final class Theme {
    static final int COLOURS = 6;
    /** Of dashed series and floors: not one of the palette. */
    static final int GREY = COLOURS;

    static final String FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif";

    static final String PAPER = "#ffffff";
    static final String INK = "#1b1f24";
    static final String MUTED = "#59636e";
    static final String GRID = "#e3e6ea";
    static final String AXIS = "#8c959f";
    static final String PAPER_DARK = "#14171b";
    static final String INK_DARK = "#e8eaed";
    static final String MUTED_DARK = "#a2abb5";
    static final String GRID_DARK = "#2a2f36";
    static final String AXIS_DARK = "#6b747e";

    private static final String[] LIGHT = {"#0072b2", "#d55e00", "#009e73", "#b8628f", "#e69f00", "#56b4e9", MUTED};
    private static final String[] DARK = {"#4aa8e0", "#f58a4b", "#2cc295", "#df9cc2", "#eebb4d", "#9fd6f7", MUTED_DARK};

    private Theme() {
    }

    static String colour(int slot) {
        return LIGHT[slot];
    }

    /** Of a stroke: the class that turns it dark and the light colour itself. */
    static String stroke(int slot) {
        return "class=\"s" + slot + "\" stroke=\"" + LIGHT[slot] + "\"";
    }

    /** Of a filled shape. */
    static String fill(int slot) {
        return "class=\"f" + slot + "\" fill=\"" + LIGHT[slot] + "\"";
    }

    /** Of a filled shape with an edge in the colour of the paper, so that shapes that overlap stay apart. */
    static String mark(int slot) {
        return "class=\"f" + slot + " edge\" fill=\"" + LIGHT[slot] + "\" stroke=\"" + PAPER + "\"";
    }

    /** Rules for the dark; on paper everything stays light. */
    static String dark() {
        StringBuilder css = new StringBuilder("@media screen and (prefers-color-scheme:dark){");
        rule(css, "paper", "fill", PAPER_DARK);
        rule(css, "edge", "stroke", PAPER_DARK);
        rule(css, "ink", "fill", INK_DARK);
        rule(css, "muted", "fill", MUTED_DARK);
        rule(css, "grid", "stroke", GRID_DARK);
        rule(css, "axis", "stroke", AXIS_DARK);
        rule(css, "pen", "stroke", INK_DARK);
        for (int i = 0; i < DARK.length; i++) {
            rule(css, "s" + i, "stroke", DARK[i]);
            rule(css, "f" + i, "fill", DARK[i]);
        }
        return css.append('}').toString();
    }

    private static void rule(StringBuilder css, String name, String property, String colour) {
        css.append(".chart .").append(name).append('{').append(property).append(':').append(colour).append('}');
    }
}
