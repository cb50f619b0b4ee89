package org.dualform.lab.train;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.WritableByteChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.dualform.Device;
import org.dualform.DualformException;
import org.dualform.InvalidArgumentException;
import org.dualform.Ops;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;
import org.dualform.lab.data.DataException;

/**
 * The checkpoints of a run: safetensors files named {@code step-00001000-0123456789abcdef.safetensors}, with the step and the first 16
 * hexadecimal digits of the SHA-256 of the file, so that {@code sha256sum} can check them too.
 *
 * <p>A file is written under a temporary name, forced to the disk, renamed, and the folder is forced. A kill or a power cut at any moment
 * leaves the previous checkpoints and perhaps the new one, whole. When saving fails, on a full disk for example, nothing is left behind,
 * the previous checkpoints stay, and the run is told by a warning. A file whose digest or content is wrong counts as not there, and is
 * named.
 *
 * <p>Threading: one thread at a time; one process per folder.
 */
public final class Checkpoints {
    private static final String FORMAT = "dualform checkpoint 1";
    private static final String UNFINISHED = ".tmp";
    private static final int DIGITS = 16;
    private static final Pattern NAME = Pattern.compile("step-(\\d{8,18})-([0-9a-f]{" + DIGITS + "})\\.safetensors");

    private final Path folder;
    private final int keep;
    private final Disk disk;
    private final Consumer<String> warn;
    private final Set<Path> damaged = new HashSet<>();

    /**
     * A whole checkpoint.
     *
     * <p>Threading: immutable.
     *
     * @param file where it is
     * @param progress of the run when it was saved
     */
    public record Saved(Path file, Progress progress) {
        /**
         * Reads its tensors into those of a run.
         *
         * @param tensors name to tensor, the same names, dtypes and shapes as were saved; on any device
         * @param device of the tensors
         * @throws DataException if they are others; nothing has been changed then
         * @throws IOException if the file cannot be read
         */
        public void restore(Map<String, Tensor> tensors, Device device) throws IOException {
            try (Safetensors content = Safetensors.open(file)) {
                if (!content.names().equals(tensors.keySet())) {
                    throw new DataException(file + ": the tensors of another model or optimizer");
                }
                for (Map.Entry<String, Tensor> tensor : tensors.entrySet()) {
                    String name = tensor.getKey();
                    if (!Arrays.equals(content.shape(name), tensor.getValue().shape())
                            || !content.dtypeName(name).equals(tensor.getValue().dtype().name())) {
                        throw new DataException(file + ": tensor " + name + " is " + content.dtypeName(name)
                                + Arrays.toString(content.shape(name)) + ", expected " + tensor.getValue());
                    }
                }
                for (Map.Entry<String, Tensor> tensor : tensors.entrySet()) {
                    try (Tensor saved = content.load(tensor.getKey(), device)) {
                        Ops.copy(tensor.getValue(), saved);
                    }
                }
            }
        }
    }

    /** Passes bytes on and digests them. */
    private record Digesting(WritableByteChannel out, MessageDigest digest) implements WritableByteChannel {
        @Override
        public int write(ByteBuffer bytes) throws IOException {
            ByteBuffer same = bytes.duplicate();
            int written = out.write(bytes);
            digest.update(same.limit(same.position() + written));
            return written;
        }

        @Override
        public boolean isOpen() {
            return out.isOpen();
        }

        @Override
        public void close() throws IOException {
            out.close();
        }
    }

    private record Named(Path file, long step, String digest) {}

    /**
     * The checkpoints in a folder. Unfinished ones of a process that was killed are removed.
     *
     * @param folder made if it is not there
     * @param keep how many are kept, at least 1; older ones are removed when a new one is safe
     * @param disk how files are written
     * @param warn is told in a sentence what went wrong where the run goes on
     * @throws InvalidArgumentException if keep is less than 1
     * @throws IOException if the folder cannot be made or read
     */
    public Checkpoints(Path folder, int keep, Disk disk, Consumer<String> warn) throws IOException {
        if (keep < 1) {
            throw new InvalidArgumentException("keep: " + keep + ", expected at least 1");
        }
        this.folder = folder;
        this.keep = keep;
        this.disk = disk;
        this.warn = warn;
        Files.createDirectories(folder);
        removeUnfinished();
    }

    /**
     * Saves a checkpoint, then removes those too many. Never throws for what a disk can do: a failure is a warning.
     *
     * @param tensors name to tensor
     * @param progress of the run
     * @return whether it is on the disk
     */
    public boolean save(Map<String, Tensor> tensors, Progress progress) {
        String stem = String.format(Locale.ROOT, "step-%08d", progress.step());
        Path unfinished = folder.resolve(stem + UNFINISHED);
        Path file;
        try {
            file = folder.resolve(stem + "-" + write(unfinished, tensors, progress) + ".safetensors");
            disk.rename(unfinished, file);
        } catch (IOException e) {
            warn.accept("checkpoint at step " + progress.step() + " not saved (" + reason(e) + "); training goes on");
            remove(unfinished);
            return false;
        }
        try {
            disk.force(folder);
        } catch (IOException e) {
            warn.accept("checkpoint at step " + progress.step() + " may not survive a power cut (" + reason(e)
                    + "); older ones are kept, training goes on");
            return false;
        }
        damaged.remove(file);
        removeOld(file, progress.step());
        return true;
    }

    private String write(Path unfinished, Map<String, Tensor> tensors, Progress progress) throws IOException {
        Map<String, String> metadata = new LinkedHashMap<>();
        metadata.put("format", FORMAT);
        metadata.put("progress", progress.toJson());
        MessageDigest digest = sha256();
        try (Disk.Output out = disk.create(unfinished)) {
            Safetensors.write(new Digesting(out, digest), tensors, metadata);
            out.force();
        }
        return digits(digest);
    }

    /** Keeps the newest up to this one, and none that is damaged or another one of this step. */
    private void removeOld(Path newest, long step) {
        try {
            int kept = 0;
            for (Named named : named()) {
                boolean superfluous = named.step() == step && !named.file().equals(newest);
                if (superfluous || damaged.contains(named.file())) {
                    remove(named.file());
                } else if (named.step() <= step && ++kept > keep) {
                    remove(named.file());
                }
            }
            removeUnfinished();
        } catch (IOException e) {
            warn.accept("old checkpoints not removed (" + reason(e) + "); training goes on");
        }
    }

    private void removeUnfinished() throws IOException {
        for (Path file : files()) {
            String name = file.getFileName().toString();
            if (name.startsWith("step-") && name.endsWith(UNFINISHED)) {
                remove(file);
            }
        }
    }

    private void remove(Path file) {
        try {
            disk.delete(file);
        } catch (IOException e) {
            warn.accept(file + " not removed (" + reason(e) + ")");
        }
    }

    /**
     * The newest checkpoint that is whole; a warning names each newer one that is not.
     *
     * @return what to go on from; empty when no checkpoint was ever finished
     * @throws DataException if there are checkpoints and none is whole
     * @throws IOException if the folder cannot be read
     */
    public Optional<Saved> newest() throws IOException {
        List<Named> all = named();
        for (Named named : all) {
            try {
                return Optional.of(verified(named));
            } catch (IOException | DualformException e) {
                damaged.add(named.file());
                warn.accept(named.file() + " is damaged (" + reason(e) + "); going back to the one before");
            }
        }
        if (!all.isEmpty()) {
            throw new DataException(folder + ": none of the " + all.size() + " checkpoints is whole");
        }
        return Optional.empty();
    }

    private static Saved verified(Named named) throws IOException {
        MessageDigest digest = sha256();
        byte[] buffer = new byte[1 << 20];
        try (InputStream in = Files.newInputStream(named.file())) {
            for (int read = in.read(buffer); read >= 0; read = in.read(buffer)) {
                digest.update(buffer, 0, read);
            }
        }
        if (!digits(digest).equals(named.digest())) {
            throw new DataException("its checksum is " + digits(digest));
        }
        try (Safetensors content = Safetensors.open(named.file())) {
            if (!FORMAT.equals(content.metadata().get("format"))) {
                throw new DataException("its format is " + content.metadata().get("format") + ", expected " + FORMAT);
            }
            Progress progress = Progress.parse(content.metadata().getOrDefault("progress", ""));
            if (progress.step() != named.step()) {
                throw new DataException("it is of step " + progress.step());
            }
            return new Saved(named.file(), progress);
        }
    }

    /** Newest first. */
    private List<Named> named() throws IOException {
        List<Named> named = new ArrayList<>();
        for (Path file : files()) {
            Matcher matcher = NAME.matcher(file.getFileName().toString());
            if (matcher.matches()) {
                named.add(new Named(file, Long.parseLong(matcher.group(1)), matcher.group(2)));
            }
        }
        named.sort(Comparator.comparingLong((Named one) -> -one.step()).thenComparing(Named::digest));
        return named;
    }

    private List<Path> files() throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.sorted().toList();
        }
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java platform has SHA-256", e);
        }
    }

    private static String digits(MessageDigest digest) {
        try {
            return HexFormat.of().formatHex(((MessageDigest) digest.clone()).digest()).substring(0, DIGITS);
        } catch (CloneNotSupportedException e) {
            throw new IllegalStateException("the platform's SHA-256 can be cloned", e);
        }
    }

    private static String reason(Exception e) {
        return e.getMessage() == null ? e.getClass().getSimpleName() : e.getMessage();
    }
}
