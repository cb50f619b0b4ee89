package org.dualform.lab.data;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Text to train on: UTF-8, plain or compressed with gzip or xz, at most 1 GiB of text in a file. A line {@code <|endoftext|>} ends a
 * document; blank documents are left out. Nothing else is changed: line ends stay as they are, and the one before an end-of-text line
 * belongs to its document.
 *
 * <p>Threading: safe for concurrent use.
 */
public final class TextFiles {
    /** The line between two documents. */
    public static final String SEPARATOR = "<|endoftext|>";

    private TextFiles() {}

    /**
     * The documents of a file.
     *
     * @param file plain, gzip or xz
     * @return at least one, none of them blank
     * @throws DataException if the file is not there, is a folder, is blank, is not UTF-8, is too large, or its compressed data is damaged
     * @throws IOException if it cannot be read
     */
    public static List<String> read(Path file) throws IOException {
        List<String> documents = new ArrayList<>();
        try (Utf8Lines lines = new Utf8Lines(file, Integer.MAX_VALUE - 8)) {
            StringBuilder document = new StringBuilder();
            for (String line = lines.next(); line != null; line = lines.next()) {
                if (isSeparator(line)) {
                    addUnlessBlank(documents, document);
                } else {
                    document.append(line);
                }
            }
            addUnlessBlank(documents, document);
        }
        if (documents.isEmpty()) {
            throw new DataException(file + ": no text, expected at least one character that is not white space");
        }
        return documents;
    }

    /**
     * The documents of several files.
     *
     * @param files each as in {@link #read(Path)}
     * @return those of the first file, then those of the next
     * @throws DataException as {@link #read(Path)}
     * @throws IOException if one cannot be read
     */
    public static List<String> read(List<Path> files) throws IOException {
        List<String> documents = new ArrayList<>();
        for (Path file : files) {
            documents.addAll(read(file));
        }
        return documents;
    }

    private static boolean isSeparator(String line) {
        return line.startsWith(SEPARATOR) && line.length() <= SEPARATOR.length() + 2 && line.stripTrailing().equals(SEPARATOR);
    }

    private static void addUnlessBlank(List<String> documents, StringBuilder document) {
        String text = document.toString();
        if (!text.isBlank()) {
            documents.add(text);
        }
        document.setLength(0);
    }
}
