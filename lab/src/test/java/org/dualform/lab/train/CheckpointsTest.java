package org.dualform.lab.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.lab.data.DataException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CheckpointsTest {
    @TempDir
    Path folder;

    private final List<String> warnings = new ArrayList<>();
    private Device device;
    private Map<String, Tensor> tensors;

    @BeforeEach
    void open() {
        device = Device.cpu(1);
        tensors = new LinkedHashMap<>();
        tensors.put("weight", Tensor.zeros(device, org.dualform.DType.F32, 5, 3));
        tensors.put("optimizer.m", Tensor.zeros(device, org.dualform.DType.F32, 300));
    }

    @AfterEach
    void close() {
        tensors.values().forEach(Tensor::close);
        device.close();
    }

    /** The state of a step, so that its content says which one it is. */
    private void become(long step) {
        for (Tensor tensor : tensors.values()) {
            float[] values = new float[(int) tensor.numel()];
            for (int i = 0; i < values.length; i++) {
                values[i] = step + i / 1024f;
            }
            tensor.write(values);
        }
    }

    private static Progress progress(long step) {
        return new Progress(step, step - 1, 1, List.of(3L), 2, Map.of("steps.jsonl", 17L), Map.of("model", "tiny \"x\""), Map.of());
    }

    private Checkpoints checkpoints(int keep, Disk disk) throws IOException {
        return new Checkpoints(folder, keep, disk, warnings::add);
    }

    private boolean save(Checkpoints checkpoints, long step) {
        become(step);
        return checkpoints.save(tensors, progress(step));
    }

    /** Restores and checks every number. */
    private void assertHolds(Checkpoints.Saved saved, long step) throws IOException {
        assertEquals(progress(step), saved.progress());
        become(step);
        Map<String, List<Long>> expected = TinyRun.bits(tensors);
        become(-1);
        saved.restore(tensors, device);
        assertEquals(expected, TinyRun.bits(tensors));
    }

    @Test
    void savedStateComesBackWhole() throws IOException {
        Checkpoints checkpoints = checkpoints(3, Disk.real());
        assertTrue(checkpoints.newest().isEmpty());
        assertTrue(save(checkpoints, 1000));
        assertHolds(checkpoints.newest().orElseThrow(), 1000);
        assertEquals(List.of(), warnings);
    }

    @Test
    void nameHoldsTheBeginningOfTheSha256() throws Exception {
        assertTrue(save(checkpoints(3, Disk.real()), 7));
        Path file = TinyRun.files(folder).get(0);
        String sha = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(file)));
        assertEquals("step-00000007-" + sha.substring(0, 16) + ".safetensors", file.getFileName().toString());
    }

    @Test
    void theLastFewAreKept() throws IOException {
        Checkpoints checkpoints = checkpoints(2, Disk.real());
        for (long step = 1; step <= 5; step++) {
            save(checkpoints, step);
        }
        assertEquals(List.of("step-00000004", "step-00000005"), TinyRun.names(folder).stream().map(n -> n.substring(0, 13)).toList());
        assertThrows(InvalidArgumentException.class, () -> checkpoints(0, Disk.real()));
    }

    @Test
    void unfinishedFilesAreRemovedAtTheStartAndOthersAreLeftAlone() throws IOException {
        Files.writeString(folder.resolve("step-00000009.tmp"), "part");
        Files.writeString(folder.resolve("notes.tmp"), "mine");
        checkpoints(2, Disk.real());
        assertEquals(List.of("notes.tmp"), TinyRun.names(folder));
    }

    @Test
    void savingAStepAgainLeavesOneFile() throws IOException {
        Checkpoints checkpoints = checkpoints(3, Disk.real());
        save(checkpoints, 4);
        become(5);
        assertTrue(checkpoints.save(tensors, progress(4)));
        assertEquals(1, TinyRun.files(folder).size());
        checkpoints.newest().orElseThrow();
    }

    @Test
    void anyFlippedBitAndAnyTruncationIsFoundAndThePreviousOneTaken() throws IOException {
        Checkpoints checkpoints = checkpoints(3, Disk.real());
        save(checkpoints, 1);
        save(checkpoints, 2);
        Path newest = TinyRun.files(folder).get(1);
        byte[] whole = Files.readAllBytes(newest);
        int header = 8 + (int) ByteBuffer.wrap(whole).order(ByteOrder.LITTLE_ENDIAN).getLong();
        Random random = new Random(12);
        List<byte[]> damaged = new ArrayList<>();
        for (int i = 0; i < header; i++) {
            damaged.add(flipped(whole, i, random.nextInt(8)));
        }
        for (int i = 0; i < 1000; i++) {
            damaged.add(flipped(whole, header + random.nextInt(whole.length - header), random.nextInt(8)));
        }
        for (int length = 0; length < whole.length; length += length < header ? 31 : 97) {
            damaged.add(Arrays.copyOf(whole, length));
        }
        damaged.add(Arrays.copyOf(whole, whole.length + 1));
        for (byte[] content : damaged) {
            Files.write(newest, content);
            warnings.clear();
            assertEquals(1, checkpoints.newest().orElseThrow().progress().step());
            assertEquals(1, warnings.size());
            assertTrue(warnings.get(0).contains(newest.toString()), warnings.get(0));
        }
        Files.write(newest, whole);
        assertEquals(2, checkpoints.newest().orElseThrow().progress().step());
    }

    private static byte[] flipped(byte[] whole, int at, int bit) {
        byte[] flipped = whole.clone();
        flipped[at] ^= (byte) (1 << bit);
        return flipped;
    }

    @Test
    void aFolderWithoutAnyWholeCheckpointIsRefused() throws IOException {
        Checkpoints checkpoints = checkpoints(3, Disk.real());
        save(checkpoints, 1);
        Files.write(TinyRun.files(folder).get(0), new byte[10]);
        assertTrue(assertThrows(DataException.class, checkpoints::newest).getMessage().contains("none of the 1 checkpoints is whole"));
    }

    @Test
    void damagedOnesGoWhenANewOneIsSafe() throws IOException {
        Checkpoints checkpoints = checkpoints(2, Disk.real());
        save(checkpoints, 1);
        save(checkpoints, 2);
        Files.write(TinyRun.files(folder).get(1), new byte[10]);
        checkpoints.newest();
        assertEquals(2, TinyRun.files(folder).size());
        save(checkpoints, 3);
        assertEquals(List.of("step-00000001", "step-00000003"), TinyRun.names(folder).stream().map(n -> n.substring(0, 13)).toList());
    }

    @Test
    void tensorsOfAnotherShapeAreRefusedBeforeAnythingChanges() throws IOException {
        Checkpoints checkpoints = checkpoints(3, Disk.real());
        save(checkpoints, 1);
        Checkpoints.Saved saved = checkpoints.newest().orElseThrow();
        become(8);
        try (Tensor other = Tensor.zeros(device, org.dualform.DType.F32, 3, 5)) {
            Map<String, Tensor> changed = new LinkedHashMap<>(tensors);
            changed.put("weight", other);
            assertThrows(DataException.class, () -> saved.restore(changed, device));
            changed.remove("weight");
            assertThrows(DataException.class, () -> saved.restore(changed, device));
        }
        float[] now = tensors.get("optimizer.m").toFloats();
        become(8);
        assertArrayEquals(tensors.get("optimizer.m").toFloats(), now);
    }

    // ---- disks that fail ----

    @Test
    void whenAnyOperationFailsThePreviousCheckpointStaysAndTheNextIsWhole() throws IOException {
        save(checkpoints(1, Disk.real()), 1);
        FailingDisk counting = new FailingDisk(Integer.MAX_VALUE, Failure.ONCE);
        save(checkpoints(1, counting), 2);
        assertEquals(9, counting.operation, "create, three writes, force, close, rename, force the names, delete the old one");
        for (Failure failure : Failure.values()) {
            for (int n = 0; n < counting.operation; n++) {
                assertSurvives(new FailingDisk(n, failure));
            }
        }
    }

    private void assertSurvives(FailingDisk disk) throws IOException {
        for (Path file : TinyRun.files(folder)) {
            Files.delete(file);
        }
        assertTrue(save(checkpoints(1, Disk.real()), 1));
        warnings.clear();
        Checkpoints checkpoints = checkpoints(1, disk);
        boolean saved = save(checkpoints, 2);
        String what = disk.failure + ": " + disk.failed;
        assertFalse(warnings.isEmpty(), what);
        boolean inPlace = disk.failed.startsWith("force names") || disk.failed.startsWith("delete");
        assertEquals(disk.failed.startsWith("delete"), saved, what);
        if (!saved) {
            assertTrue(TinyRun.names(folder).stream().anyMatch(name -> name.startsWith("step-00000001-")), what);
            assertFalse(TinyRun.names(folder).stream().anyMatch(name -> name.endsWith(".tmp")), what + " leaves debris");
        }
        assertHolds(checkpoints(1, Disk.real()).newest().orElseThrow(), inPlace ? 2 : 1);
        disk.heal();
        warnings.clear();
        assertTrue(save(checkpoints, 3), what);
        assertEquals(1, TinyRun.files(folder).size(), what);
        assertHolds(checkpoints.newest().orElseThrow(), 3);
        assertEquals(List.of(), warnings, what);
    }

    private enum Failure { ONCE, ONCE_AFTER_A_PART, FROM_THEN_ON }

    /** Fails the n-th operation, from 0, perhaps after half a write; or all but the deletions from there on, as a full disk does. */
    private static final class FailingDisk implements Disk {
        private final Disk real = Disk.real();
        private final Failure failure;
        private int n;
        private int operation;
        private String failed;

        FailingDisk(int n, Failure failure) {
            this.n = n;
            this.failure = failure;
        }

        void heal() {
            n = Integer.MAX_VALUE;
        }

        private void count(String what) throws IOException {
            int now = operation++;
            if (now == n || now > n && failure == Failure.FROM_THEN_ON && !what.startsWith("delete")) {
                failed = failed == null ? what : failed;
                throw new IOException("No space left on device");
            }
        }

        @Override
        public Output create(Path file) throws IOException {
            count("create " + file);
            Output out = real.create(file);
            return new Output() {
                @Override
                public int write(ByteBuffer bytes) throws IOException {
                    if (operation == n && failure == Failure.ONCE_AFTER_A_PART) {
                        out.write(bytes.duplicate().limit(bytes.position() + bytes.remaining() / 2));
                    }
                    count("write");
                    return out.write(bytes);
                }

                @Override
                public void force() throws IOException {
                    count("force");
                    out.force();
                }

                @Override
                public boolean isOpen() {
                    return out.isOpen();
                }

                @Override
                public void close() throws IOException {
                    out.close();
                    count("close");
                }
            };
        }

        @Override
        public void rename(Path from, Path to) throws IOException {
            count("rename " + from);
            real.rename(from, to);
        }

        @Override
        public void force(Path folder) throws IOException {
            count("force names of " + folder);
            real.force(folder);
        }

        @Override
        public void delete(Path file) throws IOException {
            count("delete " + file);
            real.delete(file);
        }
    }

    // ---- power cuts ----

    @Test
    void afterAPowerCutBetweenAnyTwoOperationsTheOldOrTheNewCheckpointIsThere() throws IOException {
        assertEquals(0, lossesAfterPowerCuts(new MemoryDisk(true)));
    }

    @Test
    void aDiskThatForgetsToForceIsCaughtByTheSameCuts() throws IOException {
        assertTrue(lossesAfterPowerCuts(new MemoryDisk(false)) > 0);
    }

    /** Three saves, a cut after every operation, what was not forced lost in many ways: how often neither old nor new state is there. */
    private int lossesAfterPowerCuts(MemoryDisk disk) throws IOException {
        Path images = Files.createDirectories(folder.resolve("images"));
        Checkpoints checkpoints = new Checkpoints(images, 1, disk, warnings::add);
        List<Integer> ends = new ArrayList<>();
        for (long step = 1; step <= 3; step++) {
            become(step);
            assertTrue(checkpoints.save(tensors, progress(step)));
            disk.publish(images);
            ends.add(disk.operations.size());
        }
        int losses = 0;
        Random random = new Random(3);
        java.util.Set<String> seen = new java.util.HashSet<>();
        for (int cut = 0; cut <= disk.operations.size(); cut++) {
            final int at = cut;
            long done = ends.stream().filter(end -> end <= at).count();
            for (Map<String, byte[]> image : disk.images(cut, random)) {
                if (!seen.add(done + " " + imageKey(image))) {
                    continue;
                }
                for (Path file : TinyRun.files(images)) {
                    Files.delete(file);
                }
                for (Map.Entry<String, byte[]> file : image.entrySet()) {
                    Files.write(images.resolve(file.getKey()), file.getValue());
                }
                losses += isOldOrNew(images, done) ? 0 : 1;
            }
        }
        assertTrue(seen.size() > 30, "different images: " + seen.size());
        return losses;
    }

    private static String imageKey(Map<String, byte[]> image) {
        StringBuilder key = new StringBuilder();
        image.forEach((name, content) -> key.append(name).append(':').append(content.length).append(':')
                .append(Arrays.hashCode(content)).append(' '));
        return key.toString();
    }

    private boolean isOldOrNew(Path images, long done) throws IOException {
        try {
            long step = new Checkpoints(images, 1, Disk.real(), sentence -> {}).newest().map(saved -> saved.progress().step()).orElse(0L);
            return step == done || step == done + 1;
        } catch (DataException e) {
            return false;
        }
    }

    /** Remembers every operation, and what a disk may hold when the power fails: forced things surely, others perhaps, writes in part. */
    private static final class MemoryDisk implements Disk {
        private record Operation(String kind, String name, String to, Content content, byte[] bytes) {}

        private static final class Content {}

        private final List<Operation> operations = new ArrayList<>();
        private final Map<String, Content> names = new LinkedHashMap<>();
        private final boolean honest;

        MemoryDisk(boolean honest) {
            this.honest = honest;
        }

        private static String name(Path file) {
            return file.getFileName().toString();
        }

        @Override
        public Output create(Path file) {
            Content content = new Content();
            names.put(name(file), content);
            operations.add(new Operation("create", name(file), null, content, null));
            return new Output() {
                @Override
                public int write(ByteBuffer bytes) {
                    byte[] copy = new byte[bytes.remaining()];
                    bytes.get(copy);
                    operations.add(new Operation("write", null, null, content, copy));
                    return copy.length;
                }

                @Override
                public void force() {
                    if (honest) {
                        operations.add(new Operation("force", null, null, content, null));
                    }
                }

                @Override
                public boolean isOpen() {
                    return true;
                }

                @Override
                public void close() {}
            };
        }

        @Override
        public void rename(Path from, Path to) {
            Content content = names.remove(name(from));
            names.put(name(to), content);
            operations.add(new Operation("rename", name(from), name(to), content, null));
        }

        @Override
        public void force(Path folder) {
            if (honest) {
                operations.add(new Operation("force names", null, null, null, null));
            }
        }

        @Override
        public void delete(Path file) {
            names.remove(name(file));
            operations.add(new Operation("delete", name(file), null, null, null));
        }

        /** What is there now, for {@link Checkpoints} to list. */
        void publish(Path folder) throws IOException {
            for (Path file : TinyRun.files(folder)) {
                Files.delete(file);
            }
            for (String name : names.keySet()) {
                Files.writeString(folder.resolve(name), "");
            }
        }

        /** All subsets of what was not forced where they are at most 2^10, else 200 drawn ones. */
        List<Map<String, byte[]>> images(int cut, Random random) {
            List<Integer> unsure = new ArrayList<>();
            for (int i = 0; i < cut; i++) {
                if (!isForced(i, cut)) {
                    unsure.add(i);
                }
            }
            List<Map<String, byte[]>> images = new ArrayList<>();
            boolean all = unsure.size() <= 10;
            for (int k = 0; k < (all ? 1 << unsure.size() : 200); k++) {
                java.util.Set<Integer> lost = new java.util.HashSet<>();
                for (int j = 0; j < unsure.size(); j++) {
                    if (all ? (k >> j & 1) == 1 : random.nextBoolean()) {
                        lost.add(unsure.get(j));
                    }
                }
                images.add(image(cut, lost, k % 2 == 1 ? random : null));
            }
            return images;
        }

        private boolean isForced(int i, int cut) {
            Operation operation = operations.get(i);
            boolean content = operation.kind.equals("write");
            for (int j = i + 1; j < cut; j++) {
                Operation later = operations.get(j);
                if (content ? later.kind.equals("force") && later.content == operation.content : later.kind.equals("force names")) {
                    return true;
                }
            }
            return operation.kind.startsWith("force");
        }

        private Map<String, byte[]> image(int cut, java.util.Set<Integer> lost, Random torn) {
            Map<String, Content> directory = new java.util.TreeMap<>();
            Map<Content, byte[]> contents = new java.util.IdentityHashMap<>();
            for (int i = 0; i < cut; i++) {
                Operation operation = operations.get(i);
                boolean isLost = lost.contains(i);
                switch (operation.kind) {
                    case "write" -> contents.merge(operation.content, written(operation.bytes, isLost, torn), MemoryDisk::joined);
                    case "create" -> {
                        if (!isLost) {
                            directory.put(operation.name, operation.content);
                        }
                    }
                    case "rename" -> {
                        if (!isLost) {
                            directory.remove(operation.name);
                            directory.put(operation.to, operation.content);
                        }
                    }
                    case "delete" -> {
                        if (!isLost) {
                            directory.remove(operation.name);
                        }
                    }
                    default -> { }
                }
            }
            Map<String, byte[]> image = new LinkedHashMap<>();
            directory.forEach((name, content) -> image.put(name, contents.getOrDefault(content, new byte[0])));
            return image;
        }

        /** A lost write leaves zeros, a torn one its beginning and zeros. */
        private static byte[] written(byte[] bytes, boolean isLost, Random torn) {
            return !isLost ? bytes : Arrays.copyOf(Arrays.copyOf(bytes, torn == null ? 0 : torn.nextInt(bytes.length)), bytes.length);
        }

        private static byte[] joined(byte[] a, byte[] b) {
            byte[] joined = Arrays.copyOf(a, a.length + b.length);
            System.arraycopy(b, 0, joined, a.length, b.length);
            return joined;
        }
    }
}
