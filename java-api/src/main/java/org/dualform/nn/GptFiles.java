package org.dualform.nn;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;
import org.dualform.nn.Parameters.Slot;

/**
 * Models in folders: {@code config.json} and {@code model.safetensors}, as Hugging Face's GPT-2 classes write and read them.
 *
 * <p>With softmax attention the folder is a GPT-2 for them ({@code model_type: gpt2}), sinusoidal positions included, whose table is
 * stored as {@code wpe}. With another attention, which they would not compute, {@code model_type} is {@code dualform_gpt}, the config has
 * the keys {@code attention}, {@code eta}, {@code eta_learned}, {@code decay} and {@code positions}, and learned momenta are tensors named
 * {@code transformer.h.i.attn.eta_logit}.
 *
 * <p>Weights of linear layers are stored as (inputs, outputs), queries, keys and values as one {@code c_attn}. A model with a float32
 * master copy is stored in float32: nothing is rounded in the file.
 *
 * <p>Threading: safe to use from several threads, for different models and folders.
 */
public final class GptFiles {
    private static final String CONFIG = "config.json";
    private static final String TENSORS = "model.safetensors";
    private static final String PREFIX = "transformer.";

    private GptFiles() {}

    /** A slot in the file: its name there without prefix, and whether it lies there transposed. */
    private record Stored(String name, boolean transposed, long[] shape) {
        static Stored of(Slot slot) {
            boolean transposed = slot.shape.length == 2 && slot.name.startsWith("h.");
            long[] shape = transposed ? new long[] {slot.shape[1], slot.shape[0]} : slot.shape;
            return new Stored(slot.name.replace("attn.qkv", "attn.c_attn"), transposed, shape);
        }
    }

    /**
     * Writes a model. Both files are written under temporary names first and then renamed, one after the other: a reader never sees half
     * a file.
     *
     * @param gpt the model
     * @param folder made if it is not there; files of the two names are replaced
     * @throws IOException if a file cannot be written
     */
    public static void save(Gpt gpt, Path folder) throws IOException {
        Files.createDirectories(folder);
        Path tensors = folder.resolve("." + TENSORS + ".tmp");
        Path config = folder.resolve("." + CONFIG + ".tmp");
        try {
            writeTensors(gpt, tensors);
            writeForced(config, ConfigFile.of(gpt.config()));
            Files.move(tensors, folder.resolve(TENSORS), StandardCopyOption.ATOMIC_MOVE);
            Files.move(config, folder.resolve(CONFIG), StandardCopyOption.ATOMIC_MOVE);
        } finally {
            Files.deleteIfExists(tensors);
            Files.deleteIfExists(config);
        }
    }

    private static void writeForced(Path path, String text) throws IOException {
        try (FileChannel file = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING,
                StandardOpenOption.WRITE)) {
            ByteBuffer bytes = ByteBuffer.wrap(text.getBytes(StandardCharsets.UTF_8));
            while (bytes.hasRemaining()) {
                file.write(bytes);
            }
            file.force(true);
        }
    }

    private static void writeTensors(Gpt gpt, Path path) throws IOException {
        Parameters parameters = gpt.parameters();
        List<Tensor> views = new ArrayList<>();
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        try {
            for (Slot slot : parameters.slots()) {
                Stored stored = Stored.of(slot);
                Tensor exact = own(views, parameters.exact(slot));
                tensors.put(PREFIX + stored.name, stored.transposed ? own(views, transposed(exact)) : exact);
            }
            GptConfig config = gpt.config();
            if (config.positions() == Positions.SINUSOIDAL) {
                tensors.put(PREFIX + "wpe.weight", own(views, Tensor.of(gpt.device(), parameters.dtype().accumulation(),
                        Gpt.sinusoids(config), config.context(), config.width())));
            }
            Safetensors.write(path, tensors, Map.of("format", "pt"));
        } finally {
            views.forEach(Tensor::close);
        }
    }

    /** A copy (I,O) of (O,I): with a last axis of 1, since the elements of a row must be neighbours. */
    private static Tensor transposed(Tensor x) {
        try (Tensor columns = x.reshape(x.size(0), x.size(1), 1); Tensor rows = columns.transpose(0, 1); Tensor copy = rows.copy()) {
            return copy.reshape(x.size(1), x.size(0));
        }
    }

    private static Tensor own(List<Tensor> owned, Tensor tensor) {
        owned.add(tensor);
        return tensor;
    }

    /**
     * Reads a model written by {@link #save}, or a GPT-2 written by Hugging Face's classes, with or without their prefix
     * {@code transformer.} and their attention masks. Nothing in the files is trusted; no memory is taken before every shape is checked.
     *
     * @param folder with the two files
     * @param device where the model will live
     * @param dtype it will compute in, whatever that of the file; BF16 keeps a float32 master copy of what is in the file
     * @return the model; the caller closes it
     * @throws NoSuchFileException if a file is missing
     * @throws ModelFileException if the config or a tensor is not that of a model dualform has
     * @throws org.dualform.io.SafetensorsException if the tensor file is malformed
     * @throws IOException if a file cannot be read
     * @throws org.dualform.InvalidArgumentException if dtype is I32
     */
    public static Gpt load(Path folder, Device device, DType dtype) throws IOException {
        Gpt.requireFloating(dtype);
        GptConfig config = ConfigFile.read(existing(folder, CONFIG));
        Path path = existing(folder, TENSORS);
        try (Safetensors file = Safetensors.open(path)) {
            String prefix = file.names().contains(PREFIX + "wte.weight") ? PREFIX : "";
            checkShapes(path, file, prefix, config);
            Gpt gpt = new Gpt(device, config, dtype);
            try {
                for (Slot slot : gpt.parameters().slots()) {
                    read(file, prefix, gpt.parameters(), slot);
                }
                return gpt;
            } catch (IOException | RuntimeException | Error e) {
                gpt.close();
                throw e;
            }
        }
    }

    private static Path existing(Path folder, String name) throws NoSuchFileException {
        Path path = folder.resolve(name);
        if (!Files.exists(path)) {
            throw new NoSuchFileException(path.toString(), null, "no such file, expected a model folder with " + CONFIG + " and "
                    + TENSORS);
        }
        return path;
    }

    /** Layer by layer, so that the work is bounded by the file, whatever number of layers the config has. */
    private static void checkShapes(Path path, Safetensors file, String prefix, GptConfig config) throws ModelFileException {
        for (Slot slot : Gpt.outerSlots(config)) {
            checkShape(path, file, prefix, Stored.of(slot));
        }
        if (config.positions() == Positions.SINUSOIDAL) {
            checkShape(path, file, prefix, new Stored("wpe.weight", false, new long[] {config.context(), config.width()}));
        }
        for (int layer = 0; layer < config.layers(); layer++) {
            for (Slot slot : Gpt.layerSlots(config, layer)) {
                checkShape(path, file, prefix, Stored.of(slot));
            }
        }
        if (file.names().contains(prefix + "h." + config.layers() + ".ln_1.weight")) {
            throw new ModelFileException(path + ": tensor \"" + prefix + "h." + config.layers() + ".ln_1.weight\" is there, expected the "
                    + config.layers() + " layers of the config");
        }
    }

    private static void checkShape(Path path, Safetensors file, String prefix, Stored stored) throws ModelFileException {
        String name = prefix + stored.name;
        if (!file.names().contains(name)) {
            throw new ModelFileException(path + ": tensor \"" + name + "\" is missing");
        }
        long[] shape = file.shape(name);
        if (!Arrays.equals(shape, stored.shape)) {
            throw new ModelFileException(path + ": tensor \"" + name + "\": shape " + Arrays.toString(shape) + ", expected "
                    + Arrays.toString(stored.shape));
        }
        String dtype = file.dtypeName(name);
        if (Arrays.stream(DType.values()).noneMatch(known -> known.isFloating() && known.name().equals(dtype))) {
            throw new ModelFileException(path + ": tensor \"" + name + "\": " + dtype + ", expected F32, F64 or BF16");
        }
    }

    private static void read(Safetensors file, String prefix, Parameters parameters, Slot slot) throws IOException {
        Stored stored = Stored.of(slot);
        try (Tensor loaded = file.load(prefix + stored.name, parameters.device());
                Tensor source = stored.transposed ? transposed(loaded) : loaded.reshape(slot.shape)) {
            parameters.set(slot, source);
        }
    }
}
