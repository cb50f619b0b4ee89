package org.dualform.lab.report;

/** Text that is safe inside XML and HTML, in elements and in attributes. */
final class Markup {
    private Markup() {
    }

    static String escape(String text) {
        StringBuilder out = new StringBuilder(text.length() + 16);
        text.codePoints().forEach(c -> {
            switch (c) {
                case '&' -> out.append("&amp;");
                case '<' -> out.append("&lt;");
                case '>' -> out.append("&gt;");
                case '"' -> out.append("&quot;");
                case '\'' -> out.append("&#39;");
                default -> out.appendCodePoint(allowed(c) ? c : 0xFFFD);
            }
        });
        return out.toString();
    }

    /** XML 1.0 has no way to write the others, not even as a reference; codePoints() hands on lone surrogates as themselves. */
    private static boolean allowed(int c) {
        return c == '\t' || c == '\n' || c >= 0x20 && c < 0xD800 && !(c >= 0x7F && c < 0xA0) || c >= 0xE000 && c < 0xFFFE || c >= 0x10000;
    }
}
