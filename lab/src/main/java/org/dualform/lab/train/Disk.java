package org.dualform.lab.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;

/**
 * The operations by which a checkpoint gets onto the disk, each of which can fail: full disk, I/O error, power cut between two of them.
 *
 * <p>Threading: an implementation is used by one thread at a time.
 */
public interface Disk {
    /**
     * A new file being written.
     *
     * <p>Threading: one thread at a time.
     */
    interface Output extends WritableByteChannel {
        /**
         * Waits until what was written is on the disk.
         *
         * @throws IOException if the system cannot say so; nothing is known about the content then
         */
        void force() throws IOException;
    }

    /**
     * Creates a file, empty if it was there.
     *
     * @param file where
     * @return to write to and close
     * @throws IOException if it cannot be made
     */
    Output create(Path file) throws IOException;

    /**
     * Gives a file another name in the same folder, at once: a reader sees the one or the other. A file of that name is replaced.
     *
     * @param from the file
     * @param to its new name
     * @throws IOException if that cannot be done
     */
    void rename(Path from, Path to) throws IOException;

    /**
     * Waits until the names of a folder are on the disk.
     *
     * @param folder which
     * @throws IOException if the system cannot say so
     */
    void force(Path folder) throws IOException;

    /**
     * Removes a file; does nothing when it is not there.
     *
     * @param file which
     * @throws IOException if it cannot be removed
     */
    void delete(Path file) throws IOException;

    /**
     * The file system of this machine.
     *
     * @return the real thing
     */
    static Disk real() {
        return new Disk() {
            @Override
            public Output create(Path file) throws IOException {
                FileChannel channel = FileChannel.open(file, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING,
                        StandardOpenOption.WRITE);
                return new Output() {
                    @Override
                    public int write(ByteBuffer bytes) throws IOException {
                        return channel.write(bytes);
                    }

                    @Override
                    public void force() throws IOException {
                        channel.force(true);
                    }

                    @Override
                    public boolean isOpen() {
                        return channel.isOpen();
                    }

                    @Override
                    public void close() throws IOException {
                        channel.close();
                    }
                };
            }

            @Override
            public void rename(Path from, Path to) throws IOException {
                Files.move(from, to, StandardCopyOption.ATOMIC_MOVE);
            }

            @Override
            public void force(Path folder) throws IOException {
                try (FileChannel names = FileChannel.open(folder, StandardOpenOption.READ)) {
                    names.force(true);
                }
            }

            @Override
            public void delete(Path file) throws IOException {
                Files.deleteIfExists(file);
            }
        };
    }
}
