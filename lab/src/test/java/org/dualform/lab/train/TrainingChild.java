package org.dualform.lab.train;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.locks.LockSupport;
import java.util.zip.CRC32;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.nn.Gpt;

/** A process that trains a tiny model, to be killed: {@code FOLDER STEPS atomic|in-place}. */
final class TrainingChild {
    private TrainingChild() {}

    public static void main(String[] arguments) throws IOException {
        Path folder = Path.of(arguments[0]);
        TrainingOptions options = TrainingOptions.of(Long.parseLong(arguments[1]), 0.02).withSchedule(Schedule.cosine(10, 0.1))
                .withIntervals(0, 3);
        Disk disk = arguments[2].equals("atomic") ? Disk.real() : new InPlace();
        try (StopSignal stop = new StopSignal();
                Device device = Device.cpu(1);
                Gpt gpt = TinyRun.model(device, DType.F32);
                RunFolder run = new RunFolder(folder, 2, TinyRun.IDENTITY, warning -> System.out.println("warning: " + warning), disk);
                Trainer trainer = new Trainer(gpt, TinyRun.counting(), options, new TrainingListener() {}, run)) {
            System.out.println("from " + trainer.resume());
            if (trainer.run(stop) == Trainer.Outcome.COMPLETED) {
                CRC32 sum = new CRC32();
                for (long number : TinyRun.bits(trainer.state()).values().stream().flatMap(bits -> bits.stream()).toList()) {
                    sum.update(ByteBuffer.allocate(8).putLong(number).flip());
                }
                run.write("final.txt", sum.getValue() + "\n");
            }
        }
        System.out.println("done");
    }

    /** What many programs do: the file is written where it belongs, piece by piece. */
    private static final class InPlace implements Disk {
        private final Disk real = Disk.real();

        @Override
        public Output create(Path file) throws IOException {
            return real.create(file);
        }

        @Override
        public void rename(Path from, Path to) throws IOException {
            byte[] content = Files.readAllBytes(from);
            try (FileChannel out = FileChannel.open(to, StandardOpenOption.CREATE, StandardOpenOption.WRITE)) {
                for (int at = 0; at < content.length; at += 512) {
                    out.write(ByteBuffer.wrap(content, at, Math.min(512, content.length - at)));
                    LockSupport.parkNanos(1_000_000);
                }
            }
            real.delete(from);
        }

        @Override
        public void force(Path folder) throws IOException {
            real.force(folder);
        }

        @Override
        public void delete(Path file) throws IOException {
            real.delete(file);
        }
    }
}
