package org.dualform.cli;

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
import org.dualform.BackendUnavailableException;
import org.dualform.DeviceOutOfMemoryException;
import org.dualform.NativeLibraryException;
import org.dualform.lab.train.NonFiniteException;

/** Exit codes, and how a failure becomes one of them and one sentence. */
final class ExitCode {
    static final int OK = 0;
    static final int INTERNAL = 1;
    static final int USAGE = 2;
    static final int UNAVAILABLE = 3;
    static final int NON_FINITE = 4;
    /** That of a JVM that SIGTERM ended; after SIGINT the JVM itself makes it 130. */
    static final int TERMINATED = 143;

    private ExitCode() {}

    static int of(Throwable failure) {
        if (failure instanceof BackendUnavailableException || failure instanceof NativeLibraryException) {
            return UNAVAILABLE;
        }
        if (failure instanceof NonFiniteException) {
            return NON_FINITE;
        }
        boolean input = failure instanceof UsageException
                || failure instanceof IllegalArgumentException
                || failure instanceof UnsupportedOperationException
                || failure instanceof IOException
                || failure instanceof UncheckedIOException;
        return input ? USAGE : INTERNAL;
    }

    /** One line: what went wrong, with the kind of failure only where the message alone would not say. */
    static String sentence(Throwable failure) {
        if (failure instanceof UncheckedIOException) {
            return sentence(failure.getCause());
        }
        if (failure instanceof FileSystemException refusal && refusal.getFile() != null) {
            return sentence(refusal);
        }
        String message = failure.getMessage() == null ? "" : failure.getMessage().strip().replaceAll("\\s*\\R\\s*", "; ");
        if (failure instanceof DeviceOutOfMemoryException || failure instanceof OutOfMemoryError) {
            return "out of memory: " + message;
        }
        boolean known = of(failure) != INTERNAL || failure instanceof Accuracy.WrongAnswerException;
        return known && !message.isEmpty() ? message : "internal error: " + failure.getClass().getSimpleName()
                + (message.isEmpty() ? "" : ": " + message);
    }

    /** Of these the message is often no more than the name of the file. */
    private static String sentence(FileSystemException refusal) {
        String file = refusal.getFile();
        if (refusal.getReason() != null) {
            return file + ": " + refusal.getReason().strip().replaceAll("\\s*\\R\\s*", "; ");
        }
        if (refusal instanceof FileAlreadyExistsException) {
            return Files.isRegularFile(Path.of(file)) ? file + " is a file, expected a folder" : file + " exists already";
        }
        if (refusal instanceof AccessDeniedException) {
            return file + ": permission denied";
        }
        if (refusal instanceof NoSuchFileException) {
            return file + ": there is no such file or folder";
        }
        if (refusal instanceof NotDirectoryException) {
            return file + " is not a folder";
        }
        if (refusal instanceof DirectoryNotEmptyException) {
            return file + " is not empty";
        }
        return file + ": the file system refuses (" + refusal.getClass().getSimpleName() + ")";
    }
}
