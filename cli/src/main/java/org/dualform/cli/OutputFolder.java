package org.dualform.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;

/** The folder that {@code --out} names, looked at before any work. */
record OutputFolder(Path path) {
    /** The names in it; none when it is not there. A file in its place, or where a folder above it should be, is refused. */
    Set<String> names() throws IOException {
        Set<String> names = new TreeSet<>();
        if (Files.isDirectory(path)) {
            try (Stream<Path> files = Files.list(path)) {
                files.forEach(file -> names.add(file.getFileName().toString()));
            }
            return names;
        }
        Path there = path.toAbsolutePath().normalize();
        while (!Files.exists(there) && there.getParent() != null) {
            there = there.getParent();
        }
        if (!Files.isDirectory(there)) {
            boolean itself = there.equals(path.toAbsolutePath().normalize());
            throw new UsageException("--out: " + (itself ? path : there) + " is a file, expected a folder");
        }
        if (!Files.isWritable(there)) {
            throw new UsageException("--out: the folder " + there + " cannot be written");
        }
        return names;
    }

    /** Refuses a folder with anything in it; the advice ends the sentence. */
    void requireEmpty(String advice) throws IOException {
        if (!names().isEmpty()) {
            throw new UsageException("--out: " + path + " is not empty" + advice);
        }
    }
}
