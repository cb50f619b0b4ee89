package org.dualform.nn;

import java.io.IOException;
import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.dualform.InvalidArgumentException;
import org.dualform.json.JsonException;
import org.dualform.json.JsonScanner;

/**
 * The {@code config.json} of a model folder: the keys of Hugging Face's GPT-2, and where the attention is another, keys of our own.
 */
final class ConfigFile {
    /** What Hugging Face loads as GPT-2; whatever computes something else must not be called that. */
    private static final String GPT2 = "gpt2";
    private static final String OWN = "dualform_gpt";
    private static final long MAX_BYTES = 1 << 20;
    private static final String WHOLE = "a whole number from 1 to " + Integer.MAX_VALUE;
    private static final List<String> TANH_GELU = List.of("gelu_new", "gelu_pytorch_tanh");

    private final Path path;
    private final Map<String, Object> members;

    private ConfigFile(Path path, Map<String, Object> members) {
        this.path = path;
        this.members = members;
    }

    // ---- writing ----

    static String of(GptConfig config) {
        boolean plain = config.attention() == AttentionKind.SOFTMAX;
        Map<String, Object> members = new LinkedHashMap<>();
        members.put("model_type", quoted(plain ? GPT2 : OWN));
        members.put("architectures", plain ? "[\"GPT2LMHeadModel\"]" : "[\"DualformGpt\"]");
        members.put("vocab_size", config.vocabulary());
        members.put("n_positions", config.context());
        members.put("n_ctx", config.context());
        members.put("n_embd", config.width());
        members.put("n_layer", config.layers());
        members.put("n_head", config.heads());
        members.put("n_inner", config.hidden());
        members.put("activation_function", quoted("gelu_new"));
        members.put("layer_norm_epsilon", config.epsilon());
        members.put("tie_word_embeddings", true);
        members.put("bos_token_id", null);
        members.put("eos_token_id", null);
        members.put("positions", quoted(name(config.positions())));
        members.put("attention", quoted(name(config.attention())));
        if (config.attention() == AttentionKind.MOMENTUM) {
            members.put("eta", config.eta());
            members.put("eta_learned", config.learnedEta());
        } else if (config.attention() == AttentionKind.LINEAR) {
            members.put("decay", Double.isNaN(config.decay()) ? null : config.decay());
        }
        StringBuilder json = new StringBuilder("{\n");
        members.forEach((key, value) -> json.append("  ").append(quoted(key)).append(": ").append(value).append(",\n"));
        return json.replace(json.length() - 2, json.length(), "\n}\n").toString();
    }

    private static String quoted(String plain) {
        return '"' + plain + '"';
    }

    private static String name(Enum<?> kind) {
        return kind.name().toLowerCase(Locale.ROOT);
    }

    // ---- reading ----

    static GptConfig read(Path path) throws IOException {
        long bytes = Files.size(path);
        if (bytes > MAX_BYTES) {
            throw new ModelFileException(path + ": " + bytes + " bytes, expected at most " + MAX_BYTES);
        }
        try {
            return new ConfigFile(path, new JsonScanner(ByteBuffer.wrap(Files.readAllBytes(path))).object()).config();
        } catch (JsonException e) {
            throw new ModelFileException(path + ": not the JSON of a model: " + e.getMessage());
        }
    }

    private GptConfig config() throws ModelFileException {
        AttentionKind attention = oneOf("attention", AttentionKind.values(), AttentionKind.SOFTMAX);
        String expected = attention == AttentionKind.SOFTMAX ? GPT2 : OWN;
        String type = text("model_type", null);
        if (!expected.equals(type)) {
            throw refused("model_type", expected + " for " + name(attention) + " attention");
        }
        checkIsGpt2();
        int width = whole("n_embd");
        boolean learned = attention == AttentionKind.MOMENTUM && truth("eta_learned", false);
        try {
            return new GptConfig(whole("vocab_size"), whole("n_positions"), whole("n_layer"), width,
                    whole("n_head"), members.get("n_inner") == null ? Math.multiplyExact(4, width) : whole("n_inner"),
                    attention, attention == AttentionKind.MOMENTUM ? number("eta", null) : 0, learned,
                    attention == AttentionKind.LINEAR && members.get("decay") != null ? number("decay", null) : Double.NaN,
                    oneOf("positions", Positions.values(), Positions.LEARNED), number("layer_norm_epsilon", 1e-5));
        } catch (InvalidArgumentException e) {
            throw new ModelFileException(path + ": " + e.getMessage());
        } catch (ArithmeticException e) {
            throw refused("n_embd", "a smaller number");
        }
    }

    /** Options of Hugging Face's GPT-2 that would change what is computed. */
    private void checkIsGpt2() throws ModelFileException {
        if (!TANH_GELU.contains(text("activation_function", "gelu_new"))) {
            throw refused("activation_function", "gelu_new");
        }
        only("tie_word_embeddings", true);
        only("scale_attn_weights", true);
        only("scale_attn_by_inverse_layer_idx", false);
        only("add_cross_attention", false);
    }

    private void only(String key, boolean value) throws ModelFileException {
        if (truth(key, value) != value) {
            throw refused(key, String.valueOf(value));
        }
    }

    private ModelFileException refused(String key, String expected) {
        Object found = members.get(key);
        String shown = !members.containsKey(key) ? "missing" : String.valueOf(found);
        return new ModelFileException(path + ": " + key + ": " + (shown.length() <= 80 ? shown : shown.substring(0, 80) + "...")
                + ", expected " + expected);
    }

    private String text(String key, String otherwise) throws ModelFileException {
        Object value = members.get(key);
        if (value == null && otherwise != null) {
            return otherwise;
        }
        if (value == null || value instanceof String) {
            return (String) value;
        }
        throw refused(key, "a string");
    }

    private <E extends Enum<E>> E oneOf(String key, E[] values, E otherwise) throws ModelFileException {
        String text = text(key, name(otherwise));
        StringBuilder names = new StringBuilder();
        for (E value : values) {
            if (name(value).equals(text)) {
                return value;
            }
            names.append(names.length() == 0 ? "" : " or ").append(name(value));
        }
        throw refused(key, names.toString());
    }

    private boolean truth(String key, boolean otherwise) throws ModelFileException {
        Object value = members.get(key);
        if (value == null) {
            return otherwise;
        }
        if (value instanceof Boolean truth) {
            return truth;
        }
        throw refused(key, "true or false");
    }

    private int whole(String key) throws ModelFileException {
        try {
            if (members.get(key) instanceof BigDecimal number && number.signum() > 0) {
                return number.intValueExact();
            }
        } catch (ArithmeticException e) {
            throw refused(key, WHOLE);
        }
        throw refused(key, WHOLE);
    }

    private double number(String key, Double otherwise) throws ModelFileException {
        Object value = members.get(key);
        if (value == null && otherwise != null) {
            return otherwise;
        }
        if (value instanceof BigDecimal number) {
            return number.doubleValue();
        }
        throw refused(key, "a number");
    }
}
