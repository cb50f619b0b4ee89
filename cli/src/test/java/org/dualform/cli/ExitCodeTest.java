package org.dualform.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ExitCodeTest {
    @TempDir
    Path folder;

    @Test
    void whatAFileSystemRefusesIsASentence() throws IOException {
        String file = Files.writeString(folder.resolve("file"), "").toString();
        Map<Exception, String> sentences = new LinkedHashMap<>();
        sentences.put(new FileAlreadyExistsException(file), file + " is a file, expected a folder");
        sentences.put(new FileAlreadyExistsException(folder.toString()), folder + " exists already");
        sentences.put(new AccessDeniedException("a"), "a: permission denied");
        sentences.put(new NoSuchFileException("a"), "a: there is no such file or folder");
        sentences.put(new NoSuchFileException("a", null, "expected a model folder"), "a: expected a model folder");
        sentences.put(new NotDirectoryException("a"), "a is not a folder");
        sentences.put(new DirectoryNotEmptyException("a"), "a is not empty");
        sentences.put(new FileSystemException("a", null, "No space left on device"), "a: No space left on device");
        sentences.put(new FileSystemException("a", "b", "Invalid cross-device link"), "a: Invalid cross-device link");
        sentences.put(new FileSystemException("a"), "a: the file system refuses (FileSystemException)");
        sentences.put(new UncheckedIOException(new AccessDeniedException("a")), "a: permission denied");
        sentences.put(new IOException("plain words"), "plain words");
        sentences.forEach((failure, sentence) -> {
            assertEquals(sentence, ExitCode.sentence(failure));
            assertEquals(ExitCode.USAGE, ExitCode.of(failure));
        });
    }

    @Test
    void aFileInTheWayOfAFolderIsNamedBeforeAnyWork() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "the cat sat on the mat\n".repeat(50));
        Run icl = Run.of("icl", "--model", "none", "--task", "ginc-50", "--out", file.resolve("a/b").toString());
        assertEquals(ExitCode.USAGE, icl.code(), icl.err());
        assertEquals("dualform: --out: " + file + " is a file, expected a folder\n", icl.err());
        Run run = Run.of("train", "--text", file.toString(), "--out", file.resolve("out").toString(), "--layers", "1", "--width", "16",
                "--heads", "2", "--context", "16", "--batch", "2", "--device", "cpu");
        assertEquals(ExitCode.USAGE, run.code(), run.err());
        assertEquals(icl.err(), run.err());
    }
}
