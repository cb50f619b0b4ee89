package org.dualform.lab.data;

import java.io.BufferedInputStream;
import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.zip.GZIPInputStream;
import org.tukaani.xz.XZInputStream;

/**
 * The lines of a UTF-8 file, plain or compressed with gzip or xz (told by the first bytes, not by the name). Malformed bytes are an
 * error, never replaced. A byte-order mark at the beginning is left out.
 *
 * <p>Threading: one thread at a time.
 */
final class Utf8Lines implements Closeable {
    /** Most bytes of text in a file, after decompression: two texts of that size still fit in Java's arrays. */
    static final long LARGEST_TEXT = 1L << 30;
    private static final int XZ_MEMORY_KIB = 256 << 10;
    private static final int BUFFER = 1 << 16;

    private final Path file;
    private final int longestLine;
    private final InputStream in;
    private final byte[] buffer = new byte[BUFFER];
    private String compression = "";
    private int at;
    private int filled;
    private byte[] line = new byte[1 << 10];
    private long number;
    private long bytes;

    Utf8Lines(Path file, int longestLine) throws IOException {
        this.file = file;
        this.longestLine = longestLine;
        if (!Files.exists(file)) {
            throw new DataException(file + ": there is no such file");
        }
        if (Files.isDirectory(file)) {
            throw new DataException(file + ": a folder, expected a file");
        }
        InputStream plain;
        try {
            plain = new BufferedInputStream(Files.newInputStream(file), BUFFER);
        } catch (AccessDeniedException e) {
            throw new DataException(file + ": no permission to read it");
        }
        try {
            in = decompressed(plain);
        } catch (IOException e) {
            plain.close();
            throw unreadable(e);
        }
    }

    private InputStream decompressed(InputStream plain) throws IOException {
        plain.mark(BUFFER);
        byte[] first = plain.readNBytes(6);
        plain.reset();
        if (first.length >= 2 && first[0] == 0x1f && first[1] == (byte) 0x8b) {
            compression = "gzip";
            return new GZIPInputStream(plain, BUFFER);
        }
        if (Arrays.equals(first, new byte[] {(byte) 0xfd, '7', 'z', 'X', 'Z', 0})) {
            compression = "xz";
            return new XZInputStream(plain, XZ_MEMORY_KIB);
        }
        return plain;
    }

    /**
     * The next line.
     *
     * @return with its line end, which the last one may lack; null after the last
     * @throws DataException if it is not UTF-8, is too long, or the compressed data is damaged
     */
    String next() throws IOException {
        number++;
        int length = 0;
        boolean ended = false;
        while (!ended && (at < filled || fill())) {
            int end = at;
            while (end < filled && buffer[end] != '\n') {
                end++;
            }
            ended = end < filled;
            int part = end - at + (ended ? 1 : 0);
            if (part > longestLine - length) {
                throw error("a line of more than " + longestLine + " bytes");
            }
            if (length + part > line.length) {
                line = Arrays.copyOf(line, (int) Math.min(longestLine, Math.max(length + part, 2L * line.length)));
            }
            System.arraycopy(buffer, at, line, length, part);
            length += part;
            at += part;
        }
        if (length == 0) {
            number--;
            return null;
        }
        String text = new String(line, 0, length, StandardCharsets.UTF_8);
        if (text.indexOf('\uFFFD') >= 0) {
            rejectMalformed(length);
        }
        return number == 1 && text.charAt(0) == '\uFEFF' ? text.substring(1) : text;
    }

    private boolean fill() throws IOException {
        try {
            filled = Math.max(0, in.read(buffer, 0, buffer.length));
        } catch (IOException e) {
            throw unreadable(e);
        }
        at = 0;
        bytes += filled;
        if (bytes > LARGEST_TEXT) {
            throw new DataException(file + ": more than " + LARGEST_TEXT + " bytes of text, expected several smaller files");
        }
        return filled > 0;
    }

    /** The replacement character may also stand in the file. */
    private void rejectMalformed(int length) throws DataException {
        CharsetDecoder decoder = StandardCharsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT);
        ByteBuffer from = ByteBuffer.wrap(line, 0, length);
        CharBuffer to = CharBuffer.allocate(1 << 12);
        while (true) {
            var result = decoder.decode(from, to.clear(), true);
            if (result.isError()) {
                throw error(String.format(Locale.ROOT, "byte 0x%02X is not UTF-8", line[from.position()]));
            }
            if (result.isUnderflow()) {
                return;
            }
        }
    }

    /** Number of the line that {@link #next} gave last, from 1. */
    long number() {
        return number;
    }

    /** An error in the line that {@link #next} gave last. */
    DataException error(String sentence) {
        return new DataException(file + ":" + number + ": " + sentence);
    }

    private DataException unreadable(IOException e) {
        if (e instanceof DataException known) {
            return known;
        }
        String reason = e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
        return new DataException(file + ": " + (compression.isEmpty() ? "cannot be read" : "damaged " + compression + " data") + " ("
                + reason + ")");
    }

    @Override
    public void close() throws IOException {
        in.close();
    }
}
