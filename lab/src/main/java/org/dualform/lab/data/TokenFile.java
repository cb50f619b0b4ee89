package org.dualform.lab.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.Map;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;

/**
 * Tokens on the disk, so that a large text is encoded once: a safetensors file with one I32 tensor {@code ids} of one dimension, and in its
 * metadata under {@code tokenizer} the content of {@code tokenizer.json}, for example {@code {"kind":"gpt2"}}.
 *
 * <p>Threading: safe for concurrent use.
 */
public final class TokenFile {
    /** How the name of a token file ends. */
    public static final String SUFFIX = ".safetensors";

    private static final String IDS = "ids";
    private static final String TOKENIZER = "tokenizer";

    private TokenFile() {}

    /**
     * Whether a file is a token file, by its name.
     *
     * @param file any
     * @return whether it ends in {@link #SUFFIX}
     */
    public static boolean isTokenFile(Path file) {
        return file.toString().toLowerCase(Locale.ROOT).endsWith(SUFFIX);
    }

    /**
     * Writes tokens atomically.
     *
     * @param file the name should end in {@link #SUFFIX}
     * @param corpus what to write
     * @throws InvalidArgumentException if there are no tokens, or the tokenizer is not of this package
     * @throws IOException if the file cannot be written
     */
    public static void write(Path file, Corpus corpus) throws IOException {
        if (corpus.tokens().length == 0) {
            throw new InvalidArgumentException("tokens: none, expected at least one");
        }
        try (Device device = Device.cpu(1); Tensor ids = Tensor.of(device, corpus.tokens(), corpus.tokens().length)) {
            Safetensors.write(file, Map.of(IDS, ids), Map.of(TOKENIZER, Tokenizers.toJson(corpus.tokenizer())));
        }
    }

    /**
     * Reads tokens.
     *
     * @param file a token file
     * @return its tokens and their tokenizer
     * @throws DataException if the file is not there, or its tensor, tokenizer or a token is not as described
     * @throws org.dualform.io.SafetensorsException if it is not a safetensors file
     * @throws IOException if it cannot be read
     */
    public static Corpus read(Path file) throws IOException {
        if (!Files.exists(file)) {
            throw new DataException(file + ": there is no such file");
        }
        try (Safetensors tensors = Safetensors.open(file)) {
            if (!tensors.names().contains(IDS)) {
                throw new DataException(file + ": no tensor \"ids\", expected a file of tokens");
            }
            if (!tensors.dtypeName(IDS).equals(DType.I32.name()) || tensors.shape(IDS).length != 1 || tensors.shape(IDS)[0] < 1
                    || tensors.shape(IDS)[0] > Integer.MAX_VALUE - 8) {
                throw new DataException(file + ": tensor \"ids\": " + tensors.dtypeName(IDS) + " of shape "
                        + Arrays.toString(tensors.shape(IDS)) + ", expected I32 of one dimension");
            }
            String json = tensors.metadata().get(TOKENIZER);
            if (json == null) {
                throw new DataException(file + ": no \"tokenizer\" in its metadata, expected the content of " + Tokenizers.FILE_NAME);
            }
            Tokenizer tokenizer = Tokenizers.fromJson(json, file + ": tokenizer");
            int[] ids;
            try (Device device = Device.cpu(1); Tensor tensor = tensors.load(IDS, device)) {
                ids = tensor.toInts();
            }
            for (int i = 0; i < ids.length; i++) {
                if (ids[i] < 0 || ids[i] >= tokenizer.vocabularySize()) {
                    throw new DataException(file + ": token " + i + " is " + ids[i] + ", expected 0 to "
                            + (tokenizer.vocabularySize() - 1));
                }
            }
            return new Corpus(tokenizer, ids);
        }
    }
}
