package org.dualform.cli;

import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;

/**
 * A folder under a temporary name beside the one it becomes when it is finished. Otherwise nothing of it stays: neither when it is closed
 * nor when SIGTERM or SIGINT end the process.
 */
final class UnfinishedFolder implements AutoCloseable {
    private static final int ROUNDS = 100;
    private static final int PAUSE_MILLIS = 20;

    private final Path target;
    private final Path path;
    private final Thread hook = new Thread(this::abandon, "unfinished-folder");
    private boolean abandoned;

    UnfinishedFolder(Path wanted) throws IOException {
        target = wanted.toAbsolutePath().normalize();
        if (target.getParent() == null) {
            throw new UsageException("--out: " + wanted + " cannot be made, expected a folder inside another");
        }
        Files.createDirectories(target.getParent());
        path = target.resolveSibling("." + target.getFileName() + "." + ProcessHandle.current().pid() + ".part");
        Runtime.getRuntime().addShutdownHook(hook);
        try {
            Files.createDirectory(path);
        } catch (IOException e) {
            forgetHook();
            throw e;
        }
    }

    Path path() {
        return path;
    }

    /** Gives it its name. */
    synchronized void finish() throws IOException {
        if (!abandoned) {
            Files.deleteIfExists(target);
            Files.move(path, target);
        }
    }

    @Override
    public synchronized void close() throws IOException {
        forgetHook();
        delete();
    }

    private void forgetHook() {
        try {
            Runtime.getRuntime().removeShutdownHook(hook);
        } catch (IllegalStateException e) {
            abandoned = true; // the end has begun, and the hook does the rest
        }
    }

    /** The work goes on meanwhile and may write once more: looks again until nothing comes back. */
    synchronized void abandon() {
        abandoned = true;
        for (int round = 0, absent = 0; round < ROUNDS && absent < 2; round++) {
            absent = Files.exists(path) ? 0 : absent + 1;
            try {
                delete();
                Thread.sleep(PAUSE_MILLIS);
            } catch (IOException e) {
                absent = 0; // a file came while the folder was being emptied
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    private void delete() throws IOException {
        if (!Files.exists(path)) {
            return;
        }
        Files.walkFileTree(path, new SimpleFileVisitor<>() {
            @Override
            public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
                Files.deleteIfExists(file);
                return FileVisitResult.CONTINUE;
            }

            @Override
            public FileVisitResult visitFileFailed(Path file, IOException failure) {
                return FileVisitResult.CONTINUE; // renamed a moment ago; a folder that is not empty then is tried again
            }

            @Override
            public FileVisitResult postVisitDirectory(Path folder, IOException failure) throws IOException {
                Files.deleteIfExists(folder);
                return FileVisitResult.CONTINUE;
            }
        });
    }
}
