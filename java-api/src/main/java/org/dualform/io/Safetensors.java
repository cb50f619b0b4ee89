package org.dualform.io;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.ClosedByInterruptException;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.nio.channels.WritableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;

/**
 * A file in the safetensors format: names, dtypes, shapes and metadata first, then the data of each tensor asked for. Nothing in a file is
 * trusted: the header is at most 100 MB, names are unique and at most 1024 bytes, ranks at most 8, the tensors fill the data without
 * holes or overlap, and all sizes are checked for overflow. Data is copied once from the file into the tensor's memory, through a bounded
 * buffer and never through a mapping, so a file truncated underneath is an exception.
 *
 * <p>Threading: safe to use from several threads. After {@link #close()} loading throws {@link IllegalStateException}.
 */
public final class Safetensors implements AutoCloseable {
    private static final int TRANSFER_BYTES = 1 << 22;
    private static final int LENGTH_BYTES = 8;

    private final Path path;
    private final FileChannel channel;
    private final SafetensorsHeader header;
    private final long dataStart;

    private Safetensors(Path path, FileChannel channel) throws IOException {
        this.path = path;
        this.channel = channel;
        long fileBytes = channel.size();
        if (fileBytes < LENGTH_BYTES) {
            throw new SafetensorsException("file: " + fileBytes + " bytes, expected at least " + LENGTH_BYTES);
        }
        ByteBuffer length = ByteBuffer.allocate(LENGTH_BYTES).order(ByteOrder.LITTLE_ENDIAN);
        readFully(length, 0);
        long headerBytes = length.getLong(0);
        long limit = Math.min(SafetensorsHeader.MAX_BYTES, fileBytes - LENGTH_BYTES);
        if (headerBytes < 0 || headerBytes > limit) {
            throw new SafetensorsException("header: " + Long.toUnsignedString(headerBytes) + " bytes, expected at most " + limit);
        }
        ByteBuffer text = ByteBuffer.allocate((int) headerBytes);
        readFully(text, LENGTH_BYTES);
        dataStart = LENGTH_BYTES + headerBytes;
        header = new SafetensorsHeader(text.flip(), fileBytes - dataStart);
    }

    /**
     * Opens a file and checks its header; no tensor is read yet.
     *
     * @param path a regular file
     * @return the file, to be closed by the caller
     * @throws SafetensorsException if the file is malformed or truncated
     * @throws IOException if it cannot be read
     */
    public static Safetensors open(Path path) throws IOException {
        if (!Files.exists(notNull(path, "path"))) {
            throw new NoSuchFileException(path.toString());
        }
        if (!Files.isRegularFile(path)) {
            throw new SafetensorsException(path + ": not a regular file");
        }
        FileChannel channel = FileChannel.open(path, StandardOpenOption.READ);
        try {
            return new Safetensors(path, channel);
        } catch (SafetensorsException e) {
            channel.close();
            throw new SafetensorsException(path + ": " + e.getMessage());
        } catch (IOException | RuntimeException | Error e) {
            channel.close();
            throw e;
        }
    }

    /**
     * The names of the tensors, in the order of the header.
     *
     * @return an unmodifiable set
     */
    public Set<String> names() {
        return Collections.unmodifiableSet(header.tensors.keySet());
    }

    /**
     * The dtype as the file names it, supported or not.
     *
     * @param name of a tensor
     * @return for example "F32" or "I64"
     * @throws InvalidArgumentException if there is no such tensor
     */
    public String dtypeName(String name) {
        return entry(name).dtype();
    }

    /**
     * The dtype of a tensor.
     *
     * @param name of a tensor
     * @return its dtype
     * @throws InvalidArgumentException if there is no such tensor
     * @throws UnsupportedOperationException if dualform does not have the dtype; the message names it
     */
    public DType dtype(String name) {
        String dtype = entry(name).dtype();
        for (DType supported : DType.values()) {
            if (supported.name().equals(dtype)) {
                return supported;
            }
        }
        throw new UnsupportedOperationException("tensor \"" + name + "\": dtype " + dtype + ", expected one of "
                + Arrays.toString(DType.values()));
    }

    /**
     * The dimensions of a tensor.
     *
     * @param name of a tensor
     * @return a copy; a dimension may be 0
     * @throws InvalidArgumentException if there is no such tensor
     */
    public long[] shape(String name) {
        return entry(name).shape().clone();
    }

    /**
     * The strings kept beside the tensors.
     *
     * @return an unmodifiable map
     */
    public Map<String, String> metadata() {
        return Collections.unmodifiableMap(header.metadata);
    }

    private SafetensorsHeader.Entry entry(String name) {
        SafetensorsHeader.Entry entry = header.tensors.get(notNull(name, "name"));
        if (entry == null) {
            throw new InvalidArgumentException("name: no tensor \"" + name + "\" in " + path);
        }
        return entry;
    }

    /**
     * Reads one tensor.
     *
     * @param name of a tensor
     * @param device where to
     * @return a new tensor, to be closed by the caller
     * @throws InvalidArgumentException if there is no such tensor, or the device does not have its dtype
     * @throws SafetensorsException if dualform does not have the dtype (named in the message), a dimension is 0, or the file was truncated
     * @throws IOException if the file cannot be read
     * @throws org.dualform.DeviceOutOfMemoryException if the device has not that much memory
     * @throws IllegalStateException if the file or the device is closed
     */
    public Tensor load(String name, Device device) throws IOException {
        SafetensorsHeader.Entry entry = entry(name);
        notNull(device, "device");
        if (!channel.isOpen()) {
            throw new IllegalStateException("this file is closed: " + path);
        }
        DType dtype;
        try {
            dtype = dtype(name);
        } catch (UnsupportedOperationException e) {
            throw new SafetensorsException(path + ": " + e.getMessage());
        }
        if (entry.begin() == entry.end()) {
            throw new SafetensorsException(path + ": tensor \"" + name + "\": shape " + Arrays.toString(entry.shape())
                    + ", expected every dimension to be at least 1");
        }
        Tensor tensor = Tensor.empty(device, dtype, entry.shape());
        try {
            readData(tensor, dataStart + entry.begin());
            return tensor;
        } catch (IOException | RuntimeException | Error e) {
            tensor.close();
            throw e;
        }
    }

    private void readData(Tensor tensor, long position) throws IOException {
        ByteBuffer buffer = transferBuffer(tensor);
        long step = TRANSFER_BYTES / tensor.dtype().bytes();
        try (Tensor flat = tensor.reshape(tensor.numel())) {
            for (long first = 0; first < flat.numel(); first += step) {
                try (Tensor part = flat.slice(0, first, Math.min(flat.numel(), first + step))) {
                    buffer.clear().limit((int) part.byteSize());
                    readFully(buffer, position + first * tensor.dtype().bytes());
                    part.write(buffer.flip());
                }
            }
        } catch (ClosedByInterruptException e) {
            throw e;
        } catch (ClosedChannelException e) {
            throw new IllegalStateException("this file is closed: " + path, e);
        }
    }

    private void readFully(ByteBuffer buffer, long position) throws IOException {
        long at = position;
        while (buffer.hasRemaining()) {
            int read = channel.read(buffer, at);
            if (read < 0) {
                throw new SafetensorsException(path + ": ends at byte " + at + ", expected " + buffer.remaining() + " more bytes there");
            }
            at += read;
        }
    }

    private static ByteBuffer transferBuffer(Tensor tensor) {
        return ByteBuffer.allocateDirect((int) Math.min(TRANSFER_BYTES, tensor.byteSize()));
    }

    /**
     * Closes the file; closing it again does nothing. Loaded tensors stay.
     *
     * @throws IOException if the system says so
     */
    @Override
    public void close() throws IOException {
        channel.close();
    }

    /**
     * Reads all tensors of a file.
     *
     * @param path a regular file
     * @param device where to
     * @return name to tensor, in the order of the header; the tensors are to be closed by the caller
     * @throws SafetensorsException if the file is malformed, truncated or has a dtype dualform does not have
     * @throws IOException if it cannot be read; no tensor is left open then
     */
    public static Map<String, Tensor> read(Path path, Device device) throws IOException {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        try (Safetensors file = open(path)) {
            for (String name : file.names()) {
                tensors.put(name, file.load(name, device));
            }
            return tensors;
        } catch (IOException | RuntimeException | Error e) {
            tensors.values().forEach(Tensor::close);
            throw e;
        }
    }

    /**
     * Writes a file atomically: under another name in the same directory first, forced to the disk, then renamed. A reader sees the old
     * file or the new one; after a failure nothing is left behind. A symbolic link is replaced, not written through.
     *
     * @param path the file, replaced if it exists
     * @param tensors name to tensor, with any strides
     * @param metadata strings to keep beside the tensors; null for none
     * @throws InvalidArgumentException if a name is longer than 1024 bytes, is {@code __metadata__} or is not valid text
     * @throws IllegalStateException if a tensor is closed
     * @throws IOException if the file cannot be written
     */
    public static void write(Path path, Map<String, Tensor> tensors, Map<String, String> metadata) throws IOException {
        notNull(path, "path");
        List<Map.Entry<String, Tensor>> inOrder = inOrder(notNull(tensors, "tensors"));
        byte[] header = headerOf(inOrder, metadata == null ? Map.of() : metadata);
        Path target = path.toAbsolutePath();
        Path directory = target.getParent();
        if (directory == null) {
            throw new InvalidArgumentException("path: " + path + ", expected a file in a directory");
        }
        // Not longer than the file's own name may be: a name of 255 bytes must stay writable.
        Path unfinished = directory.resolve(".dualform-" + Long.toHexString(ThreadLocalRandom.current().nextLong()) + ".tmp");
        boolean done = false;
        FileChannel out = FileChannel.open(unfinished, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
        try {
            try (out) {
                writeAll(out, header, inOrder);
                out.force(true);
            }
            Files.move(unfinished, target, StandardCopyOption.ATOMIC_MOVE);
            done = true;
        } finally {
            if (!done) {
                Files.deleteIfExists(unfinished);
            }
        }
        try (FileChannel entries = FileChannel.open(directory, StandardOpenOption.READ)) {
            entries.force(true);
        } catch (IOException e) {
            // Some file systems cannot force a directory. The file is whole and in its place; only a power cut could still undo the rename.
            return;
        }
    }

    /**
     * Writes the content of a file to a channel, for callers that have their own way of putting a file in its place. The same tensors and
     * metadata give the same bytes, if the metadata has an order.
     *
     * @param out receives everything; stays open
     * @param tensors name to tensor, with any strides
     * @param metadata strings to keep beside the tensors; null for none
     * @throws InvalidArgumentException if a name is longer than 1024 bytes, is {@code __metadata__} or is not valid text
     * @throws IllegalStateException if a tensor is closed
     * @throws IOException if the channel throws it
     */
    public static void write(WritableByteChannel out, Map<String, Tensor> tensors, Map<String, String> metadata) throws IOException {
        notNull(out, "out");
        List<Map.Entry<String, Tensor>> inOrder = inOrder(notNull(tensors, "tensors"));
        writeAll(out, headerOf(inOrder, metadata == null ? Map.of() : metadata), inOrder);
    }

    private static void writeAll(WritableByteChannel out, byte[] header, List<Map.Entry<String, Tensor>> inOrder) throws IOException {
        ByteBuffer start = ByteBuffer.allocate(LENGTH_BYTES + header.length).order(ByteOrder.LITTLE_ENDIAN);
        writeFully(out, start.putLong(header.length).put(header).flip());
        for (Map.Entry<String, Tensor> tensor : inOrder) {
            writeData(out, tensor.getValue());
        }
    }

    /** Wide dtypes first, so that every tensor is aligned; then by name. */
    private static List<Map.Entry<String, Tensor>> inOrder(Map<String, Tensor> tensors) {
        List<Map.Entry<String, Tensor>> inOrder = new ArrayList<>();
        for (Map.Entry<String, Tensor> tensor : tensors.entrySet()) {
            String name = notNull(tensor.getKey(), "name of a tensor");
            if (notNull(tensor.getValue(), "tensor \"" + name + "\"").isClosed()) {
                throw new IllegalStateException("tensor \"" + name + "\": this tensor is closed");
            }
            if (name.equals(SafetensorsHeader.METADATA)) {
                throw new InvalidArgumentException("name of a tensor: " + name + " is reserved by the format");
            }
            try {
                SafetensorsHeader.checkedName(name);
            } catch (SafetensorsException e) {
                throw new InvalidArgumentException(e.getMessage());
            }
            inOrder.add(Map.entry(name, tensor.getValue()));
        }
        inOrder.sort(Comparator.comparing((Map.Entry<String, Tensor> tensor) -> -tensor.getValue().dtype().bytes())
                .thenComparing(Map.Entry::getKey));
        return inOrder;
    }

    private static byte[] headerOf(List<Map.Entry<String, Tensor>> tensors, Map<String, String> metadata) {
        StringBuilder json = new StringBuilder("{");
        if (!metadata.isEmpty()) {
            quote(json, SafetensorsHeader.METADATA).append(":{");
            for (Map.Entry<String, String> entry : metadata.entrySet()) {
                quote(json, notNull(entry.getKey(), "metadata key")).append(':');
                quote(json, notNull(entry.getValue(), "metadata \"" + entry.getKey() + "\"")).append(',');
            }
            json.setCharAt(json.length() - 1, '}');
            json.append(',');
        }
        long at = 0;
        for (Map.Entry<String, Tensor> entry : tensors) {
            Tensor tensor = entry.getValue();
            long end = Math.addExact(at, tensor.byteSize());
            quote(json, entry.getKey()).append(":{\"dtype\":\"").append(tensor.dtype()).append("\",\"shape\":")
                    .append(Arrays.toString(tensor.shape()).replace(" ", "")).append(",\"data_offsets\":[").append(at).append(',')
                    .append(end).append("]},");
            at = end;
        }
        if (json.charAt(json.length() - 1) == ',') {
            json.setLength(json.length() - 1);
        }
        byte[] bytes = json.append('}').toString().getBytes(StandardCharsets.UTF_8);
        int padded = (bytes.length + 7) / 8 * 8;
        if (padded > SafetensorsHeader.MAX_BYTES) {
            throw new InvalidArgumentException("tensors: a header of " + padded + " bytes, expected at most "
                    + SafetensorsHeader.MAX_BYTES);
        }
        byte[] header = Arrays.copyOf(bytes, padded);
        Arrays.fill(header, bytes.length, padded, (byte) ' ');
        return header;
    }

    private static StringBuilder quote(StringBuilder json, String text) {
        if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
            throw new InvalidArgumentException("name or metadata: half of a surrogate pair, expected valid text");
        }
        json.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '"' || c == '\\') {
                json.append('\\').append(c);
            } else if (c < ' ') {
                json.append(String.format("\\u%04x", (int) c));
            } else {
                json.append(c);
            }
        }
        return json.append('"');
    }

    private static void writeData(WritableByteChannel out, Tensor tensor) throws IOException {
        ByteBuffer buffer = transferBuffer(tensor);
        long step = TRANSFER_BYTES / tensor.dtype().bytes();
        try (Tensor contiguous = tensor.isContiguous() ? tensor.reshape(tensor.shape()) : tensor.copy();
                Tensor flat = contiguous.reshape(contiguous.numel())) {
            for (long first = 0; first < flat.numel(); first += step) {
                try (Tensor part = flat.slice(0, first, Math.min(flat.numel(), first + step))) {
                    buffer.clear().limit((int) part.byteSize());
                    part.read(buffer);
                    writeFully(out, buffer.flip());
                }
            }
        }
    }

    private static void writeFully(WritableByteChannel out, ByteBuffer buffer) throws IOException {
        while (buffer.hasRemaining()) {
            out.write(buffer);
        }
    }

    private static <T> T notNull(T value, String argument) {
        if (value == null) {
            throw new NullPointerException(argument + " is null");
        }
        return value;
    }
}
