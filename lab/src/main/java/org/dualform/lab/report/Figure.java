package org.dualform.lab.report;

import java.io.IOException;
import java.nio.file.Path;

/**
 * A picture: one chart, or several that share their axes. It is drawn anew for the width it is shown at, so that its text keeps a readable
 * size on a phone.
 *
 * <p>Threading: immutable.
 */
public abstract sealed class Figure permits Chart, Panels {
    static final int WIDE = 720;
    static final int NARROW = 360;

    Figure() {
    }

    /**
     * The picture as an SVG document of its own, in light or dark as the reader's system asks.
     *
     * @return the document, the same for the same data on every machine
     */
    public final String svg() {
        return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + render("chart", WIDE, true) + "\n";
    }

    /**
     * Writes {@link #svg()} to a file, whole or not at all.
     *
     * @param file where to; its folder is created when it is not there
     * @throws IOException when the file cannot be written
     */
    public final void save(Path file) throws IOException {
        TextFile.write(file, svg());
    }

    /** The svg element: {@code id} starts every identifier in it; {@code standalone} brings its own background and dark colours. */
    abstract String render(String id, int width, boolean standalone);
}
