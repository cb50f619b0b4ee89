package org.dualform.lab.report;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/**
 * Writes a text file whole or not at all: readers see the old one or the new one.
 *
 * <p>Threading: safe to use from several threads, for different files.
 */
public final class TextFile {
    private TextFile() {
    }

    /**
     * Writes it in UTF-8.
     *
     * @param file replaced if it is there; folders above it are made
     * @param text its content
     * @throws IOException if it cannot be written
     */
    public static void write(Path file, String text) throws IOException {
        Path target = file.toAbsolutePath();
        Files.createDirectories(target.getParent());
        // Not createTempFile, whose files only their owner may read.
        Path temporary = target.resolveSibling("." + target.getFileName() + "." + ProcessHandle.current().pid() + ".part");
        try {
            Files.writeString(temporary, text);
            Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        } finally {
            Files.deleteIfExists(temporary);
        }
    }
}
