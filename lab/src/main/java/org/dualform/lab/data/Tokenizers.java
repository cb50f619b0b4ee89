package org.dualform.lab.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.dualform.InvalidArgumentException;

/**
 * The tokenizers by name, and the {@code tokenizer.json} of a model folder: {@code {"kind":"gpt2"}}, or
 * {@code {"kind":"chars","characters":"..."}} with the characters of ids 2, 3, ... in order. At most 16 MiB.
 *
 * <p>Threading: safe for concurrent use.
 */
public final class Tokenizers {
    /** Name of the file in a model folder. */
    public static final String FILE_NAME = "tokenizer.json";

    private static final long LARGEST_FILE = 16 << 20;
    private static final JsonMapper JSON = JsonMapper.builder().build();
    private static final ObjectReader STRICT = JSON.readerFor(JsonNode.class)
            .with(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .with(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);
    private static final Map<String, Set<String>> KEYS =
            Map.of(Gpt2Tokenizer.NAME, Set.of("kind"), CharTokenizer.NAME, Set.of("kind", "characters"));

    private Tokenizers() {}

    /**
     * A tokenizer by its name on the command line.
     *
     * @param name {@code gpt2} or {@code chars}
     * @param texts what it is for; the characters of {@code chars} come from them
     * @return the tokenizer
     * @throws InvalidArgumentException if there is no such tokenizer, or {@code chars} gets no text
     */
    public static Tokenizer named(String name, List<String> texts) {
        return switch (name) {
            case Gpt2Tokenizer.NAME -> new Gpt2Tokenizer();
            case CharTokenizer.NAME -> CharTokenizer.of(texts);
            default -> throw new InvalidArgumentException("tokenizer: \"" + name + "\", expected gpt2 or chars");
        };
    }

    /**
     * Writes {@code tokenizer.json} atomically.
     *
     * @param tokenizer one of this package
     * @param folder where to; made if it is not there
     * @throws InvalidArgumentException if the tokenizer is of another kind
     * @throws IOException if the file cannot be written
     */
    public static void save(Tokenizer tokenizer, Path folder) throws IOException {
        byte[] json = (toJson(tokenizer) + "\n").getBytes(StandardCharsets.UTF_8);
        Files.createDirectories(folder);
        WholeFile.write(folder.resolve(FILE_NAME), json);
    }

    /**
     * Reads {@code tokenizer.json}.
     *
     * @param folder the model folder
     * @return the tokenizer
     * @throws DataException if the file is not there or is not one of ours; the sentence names it
     * @throws IOException if it cannot be read
     */
    public static Tokenizer load(Path folder) throws IOException {
        Path file = folder.resolve(FILE_NAME);
        if (!Files.isRegularFile(file)) {
            throw new DataException(file + ": there is no such file, expected a folder that holds a model with its " + FILE_NAME);
        }
        if (Files.size(file) > LARGEST_FILE) {
            throw new DataException(file + ": " + Files.size(file) + " bytes, expected at most " + LARGEST_FILE);
        }
        ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(file));
        String json;
        try {
            json = StandardCharsets.UTF_8.newDecoder().decode(bytes).toString();
        } catch (CharacterCodingException e) {
            throw new DataException(file + ": not UTF-8 text");
        }
        return fromJson(json, file.toString());
    }

    /**
     * The content of {@code tokenizer.json}.
     *
     * @param tokenizer one of this package
     * @return one line of JSON
     * @throws InvalidArgumentException if the tokenizer is of another kind
     */
    static String toJson(Tokenizer tokenizer) {
        ObjectNode json = JSON.createObjectNode().put("kind", tokenizer.name());
        if (tokenizer instanceof CharTokenizer chars) {
            json.put("characters", chars.characters());
        } else if (!(tokenizer instanceof Gpt2Tokenizer)) {
            throw new InvalidArgumentException("tokenizer: " + tokenizer.name() + ", expected one of " + Tokenizers.class.getPackageName());
        }
        return json.toString();
    }

    /**
     * Reads what {@link #toJson} writes.
     *
     * @param text the JSON
     * @param source where it is from, the beginning of an error
     * @return the tokenizer
     * @throws DataException if it is not one of ours
     */
    static Tokenizer fromJson(String text, String source) throws DataException {
        JsonNode json;
        try {
            json = STRICT.readTree(text);
        } catch (JsonProcessingException e) {
            throw new DataException(source + ": not JSON, expected {\"kind\":\"gpt2\"} or {\"kind\":\"chars\",\"characters\":\"...\"}");
        }
        JsonNode kind = json.path("kind");
        if (!kind.isTextual()) {
            throw new DataException(source + ": no \"kind\", expected \"gpt2\" or \"chars\"");
        }
        Set<String> keys = KEYS.get(kind.textValue());
        if (keys == null) {
            throw new DataException(source + ": kind \"" + LabelledData.brief(kind.textValue()) + "\", expected \"gpt2\" or \"chars\"");
        }
        for (Map.Entry<String, JsonNode> entry : json.properties()) {
            if (!keys.contains(entry.getKey())) {
                throw new DataException(source + ": unknown key \"" + LabelledData.brief(entry.getKey()) + "\" of a tokenizer of kind \""
                        + kind.textValue() + "\"");
            }
        }
        if (kind.textValue().equals(Gpt2Tokenizer.NAME)) {
            return new Gpt2Tokenizer();
        }
        if (!json.path("characters").isTextual()) {
            throw new DataException(source + ": no \"characters\", expected the characters of ids 2, 3, ... as one string");
        }
        try {
            return CharTokenizer.ofVocabulary(json.get("characters").textValue());
        } catch (InvalidArgumentException e) {
            throw new DataException(source + ": " + e.getMessage());
        }
    }

    static int checked(int token, int vocabulary) {
        if (token < 0 || token >= vocabulary) {
            throw new InvalidArgumentException("token: " + token + ", expected 0 to " + (vocabulary - 1));
        }
        return token;
    }
}
