package org.dualform.lab.report;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * One HTML file with words, figures and tables that needs nothing beside it: no script, no font, no network. It follows the reader's
 * light or dark setting, fits phones, prints, and is well-formed XML.
 *
 * <p>Threading: immutable; a builder is for one thread.
 */
public final class Page {
    /**
     * What a callout says of what is around it.
     *
     * <p>Threading: immutable.
     */
    public enum Tone {
        /** Good to know. */
        NOTE,
        /** A claim that the numbers support. */
        FINDING,
        /** A limit: within noise, not converged, cut short. */
        CAUTION
    }

    private final String html;

    private Page(String html) {
        this.html = html;
    }

    /**
     * Starts a page.
     *
     * @param title of the page and its first heading
     * @return a builder
     */
    public static Builder titled(String title) {
        return new Builder(title);
    }

    /**
     * The file's content.
     *
     * @return the document, the same for the same content on every machine
     */
    public String html() {
        return html;
    }

    /**
     * Writes the file, whole or not at all.
     *
     * @param file where to; its folder is created when it is not there
     * @throws IOException when the file cannot be written
     */
    public void save(Path file) throws IOException {
        TextFile.write(file, html);
    }

    /**
     * Collects what a {@link Page} shows, from top to bottom.
     *
     * <p>Threading: one thread at a time.
     */
    public static final class Builder {
        private final String title;
        private final StringBuilder facts = new StringBuilder();
        private final List<String> sections = new ArrayList<>();
        private final StringBuilder body = new StringBuilder();
        private String lead = "";
        private int figures;

        private Builder(String title) {
            this.title = title;
        }

        /**
         * The paragraph under the title, in larger type.
         *
         * @param text what came out, in a sentence or two
         * @return this
         */
        public Builder lead(Text text) {
            lead = text.html();
            return this;
        }

        /**
         * Adds to the line of facts under the lead.
         *
         * @param name such as {@code seed}
         * @param value such as {@code 1}
         * @return this
         */
        public Builder fact(String name, String value) {
            facts.append("<div><dt>").append(Markup.escape(name)).append("</dt><dd>").append(Markup.escape(value)).append("</dd></div>\n");
            return this;
        }

        /**
         * Starts a section.
         *
         * @param heading of it
         * @return this
         */
        public Builder section(String heading) {
            sections.add(heading);
            body.append("<h2 id=\"section-").append(sections.size()).append("\">").append(Markup.escape(heading)).append("</h2>\n");
            return this;
        }

        /**
         * Adds a paragraph.
         *
         * @param words as they are to be read
         * @return this
         */
        public Builder paragraph(String words) {
            return paragraph(Text.of(words));
        }

        /**
         * Adds a paragraph.
         *
         * @param text of it
         * @return this
         */
        public Builder paragraph(Text text) {
            body.append("<p>").append(text.html()).append("</p>\n");
            return this;
        }

        /**
         * Adds a list.
         *
         * @param points each a line or more
         * @return this
         */
        public Builder points(List<Text> points) {
            body.append("<ul>\n");
            points.forEach(point -> body.append("<li>").append(point.html()).append("</li>\n"));
            body.append("</ul>\n");
            return this;
        }

        /**
         * Adds commands or output, line by line.
         *
         * @param lines as they are to be typed or were printed
         * @return this
         */
        public Builder code(String lines) {
            body.append("<pre><code>").append(Markup.escape(lines)).append("</code></pre>\n");
            return this;
        }

        /**
         * Adds words set apart.
         *
         * @param tone what they say of the rest
         * @param text of it
         * @return this
         */
        public Builder callout(Tone tone, Text text) {
            body.append("<p class=\"callout ").append(tone == Tone.FINDING ? "finding" : tone == Tone.CAUTION ? "caution" : "note")
                .append("\">").append(text.html()).append("</p>\n");
            return this;
        }

        /**
         * Adds a figure, drawn for wide and for narrow screens.
         *
         * @param figure to draw
         * @param caption what to see in it, and how it was measured
         * @return this
         */
        public Builder figure(Figure figure, Text caption) {
            figures++;
            body.append("<figure id=\"figure-").append(figures).append("\">\n<div class=\"wide\">")
                .append(figure.render("w" + figures, Figure.WIDE, false)).append("</div>\n<div class=\"narrow\">")
                .append(figure.render("n" + figures, Figure.NARROW, false)).append("</div>\n<figcaption>").append(caption.html())
                .append("</figcaption>\n</figure>\n");
            return this;
        }

        /**
         * Adds a table; on a narrow screen it scrolls by itself.
         *
         * @param table to show
         * @return this
         */
        public Builder table(Table table) {
            body.append("<div class=\"scroll\">").append(table.html()).append("</div>\n");
            return this;
        }

        /**
         * Adds a table that shows when its summary is opened, for numbers few will read.
         *
         * @param summary to click on
         * @param table to show
         * @return this
         */
        public Builder folded(String summary, Table table) {
            body.append("<details><summary>").append(Markup.escape(summary)).append("</summary>\n");
            table(table);
            body.append("</details>\n");
            return this;
        }

        /**
         * The page.
         *
         * @return it
         */
        public Page build() {
            StringBuilder out = new StringBuilder();
            out.append("<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n")
                .append("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n")
                .append("<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>").append(Markup.escape(title)).append("</title>\n")
                .append("<style>\n").append(STYLE).append(Theme.dark()).append("\n</style>\n</head>\n<body>\n<main>\n<h1>")
                .append(Markup.escape(title)).append("</h1>\n");
            if (!lead.isEmpty()) {
                out.append("<p class=\"lead\">").append(lead).append("</p>\n");
            }
            if (!facts.isEmpty()) {
                out.append("<dl>\n").append(facts).append("</dl>\n");
            }
            if (sections.size() > 3) {
                out.append("<nav aria-label=\"Sections\"><ol>\n");
                for (int i = 0; i < sections.size(); i++) {
                    out.append("<li><a href=\"#section-").append(i + 1).append("\">").append(Markup.escape(sections.get(i)))
                        .append("</a></li>\n");
                }
                out.append("</ol></nav>\n");
            }
            return new Page(out.append(body).append("</main>\n</body>\n</html>\n").toString());
        }
    }

    private static final String STYLE = """
        :root{--paper:%s;--ink:%s;--muted:%s;--line:%s;--soft:#f5f6f8;--link:#0063a0;--good:#009e73;--care:#d55e00;color-scheme:light}
        @media screen and (prefers-color-scheme:dark){
        :root{--paper:%s;--ink:%s;--muted:%s;--line:%s;--soft:#1c2026;--link:#6bb8ea;--good:#2cc295;--care:#f58a4b;color-scheme:dark}
        }
        *{box-sizing:border-box}
        body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.6 %s;overflow-wrap:break-word;-webkit-text-size-adjust:100%%}
        main{max-width:48rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
        h1{font-size:1.9rem;line-height:1.2;margin:0 0 .75rem;letter-spacing:-.01em}
        h2{font-size:1.3rem;line-height:1.3;margin:2.75rem 0 .5rem}
        p,ul{margin:.75rem 0}
        a{color:var(--link)}
        .lead{font-size:1.15rem;line-height:1.55}
        dl{display:flex;flex-wrap:wrap;gap:.35rem 1.5rem;margin:1.25rem 0;padding:.75rem 0;border-top:1px solid var(--line);\
        border-bottom:1px solid var(--line);font-size:.875rem}
        dl div{display:flex;gap:.4rem}
        dt{color:var(--muted)}
        dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
        nav{font-size:.9rem}
        nav ol{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:1rem 0;padding:0}
        figure{margin:1.75rem 0;break-inside:avoid}
        figure svg{display:block;width:100%%;height:auto}
        figcaption{margin-top:.5rem;font-size:.9rem;line-height:1.5;color:var(--muted)}
        .narrow{display:none}
        .scroll{overflow-x:auto;margin:1.5rem 0}
        table{border-collapse:collapse;min-width:100%%;font-size:.9rem;line-height:1.4;font-variant-numeric:tabular-nums}
        caption{text-align:left;font-weight:600;padding-bottom:.5rem}
        th,td{text-align:left;padding:.4rem .75rem;border-bottom:1px solid var(--line);vertical-align:baseline}
        th:first-child,td:first-child{padding-left:0}
        th:last-child,td:last-child{padding-right:0}
        thead th{color:var(--muted);font-weight:600;border-bottom:2px solid var(--line);vertical-align:bottom}
        tbody th{font-weight:400}
        .number{text-align:right;white-space:nowrap}
        tr{break-inside:avoid}
        code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.9em}
        code{background:var(--soft);padding:.1em .3em;border-radius:.25em}
        pre{background:var(--soft);padding:.9rem 1rem;border-radius:.5rem;overflow-x:auto;line-height:1.45}
        pre code{padding:0;background:none;font-size:1em}
        .callout{background:var(--soft);border-left:4px solid var(--link);border-radius:0 .4rem .4rem 0;padding:.75rem 1rem;\
        margin:1.25rem 0;break-inside:avoid}
        .finding{border-left-color:var(--good)}
        .caution{border-left-color:var(--care)}
        summary{cursor:pointer;color:var(--link)}
        @media screen and (max-width:37.5rem){
        main{padding:1.5rem 1rem 3rem}
        h1{font-size:1.5rem}
        .lead{font-size:1.05rem}
        .wide{display:none}
        .narrow{display:block}
        }
        @media print{
        main{max-width:none;padding:0}
        nav{display:none}
        html{font-size:10.5pt}
        h2{break-after:avoid}
        .callout,pre,code{print-color-adjust:exact}
        }
        """.formatted(Theme.PAPER, Theme.INK, Theme.MUTED, Theme.GRID, Theme.PAPER_DARK, Theme.INK_DARK, Theme.MUTED_DARK, Theme.GRID_DARK,
        Theme.FONT);
}
