package org.dualform.lab.report;

import org.dualform.InvalidArgumentException;

/**
 * Words for a {@link Page}, some of them emphasised. Nothing in them is read as markup: what is code or emphasis is said by the method.
 *
 * <p>Threading: immutable.
 */
public final class Text {
    private static final Text EMPTY = new Text("");

    private final String html;

    private Text(String html) {
        this.html = html;
    }

    /**
     * Plain words.
     *
     * @param words as they are to be read
     * @return the text
     */
    public static Text of(String words) {
        return EMPTY.plain(words);
    }

    /**
     * With more plain words.
     *
     * @param words as they are to be read, with any space before them
     * @return a longer text
     */
    public Text plain(String words) {
        return new Text(html + Markup.escape(words));
    }

    /**
     * With words that stand out.
     *
     * @param words as they are to be read
     * @return a longer text
     */
    public Text strong(String words) {
        return new Text(html + "<strong>" + Markup.escape(words) + "</strong>");
    }

    /**
     * With words in italics, such as a term where it is explained.
     *
     * @param words as they are to be read
     * @return a longer text
     */
    public Text emphasis(String words) {
        return new Text(html + "<em>" + Markup.escape(words) + "</em>");
    }

    /**
     * With a name or command in a typewriter's type.
     *
     * @param words as they are to be typed
     * @return a longer text
     */
    public Text code(String words) {
        return new Text(html + "<code>" + Markup.escape(words) + "</code>");
    }

    /**
     * With a link.
     *
     * @param words to be read
     * @param address of a web page (https), or of a file relative to the page
     * @return a longer text
     * @throws InvalidArgumentException when the address has another scheme
     */
    public Text link(String words, String address) {
        if (!address.startsWith("https://") && !address.matches("[A-Za-z0-9._/#-]+")) {
            throw new InvalidArgumentException("address: " + address + ", expected https or a file beside the page");
        }
        return new Text(html + "<a href=\"" + Markup.escape(address) + "\">" + Markup.escape(words) + "</a>");
    }

    String html() {
        return html;
    }
}
