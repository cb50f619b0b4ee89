package org.dualform.cli;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.dualform.DualForm;

/** The key=value words of {@code --set}: each known to the operation, given once, and within its range. */
final class Settings {
    // Java's own parser also takes NaN, hexadecimal and a trailing d or f.
    private static final Pattern NUMBER = Pattern.compile("[+-]?(\\d+(\\.\\d*)?|\\.\\d+)([eE][+-]?\\d+)?");

    private final Map<String, String> values = new LinkedHashMap<>();

    Settings(List<String> words, String operation, Set<String> known) {
        for (String word : words) {
            int equals = word.indexOf('=');
            if (equals <= 0) {
                throw new UsageException("--set " + word + ": expected key=value");
            }
            String key = word.substring(0, equals);
            if (!known.contains(key)) {
                throw new UsageException("--set " + key + ": " + operation + " has "
                        + (known.isEmpty() ? "no settings" : "no such setting, it has " + String.join(", ", known)));
            }
            if (values.put(key, word.substring(equals + 1)) != null) {
                throw new UsageException("--set " + key + ": given more than once");
            }
        }
    }

    boolean has(String key) {
        return values.containsKey(key);
    }

    double number(String key, double otherwise) {
        String text = values.get(key);
        if (text == null) {
            return otherwise;
        }
        double value = NUMBER.matcher(text).matches() ? Double.parseDouble(text) : Double.NaN;
        if (!Double.isFinite(value)) {
            throw new UsageException(key + ": '" + text + "', expected a finite number");
        }
        return value;
    }

    boolean truth(String key, boolean otherwise) {
        String text = values.getOrDefault(key, String.valueOf(otherwise));
        if (!text.equals("true") && !text.equals("false")) {
            throw new UsageException(key + ": '" + text + "', expected true or false");
        }
        return text.equals("true");
    }

    DualForm form(String key) {
        String text = values.getOrDefault(key, "auto");
        for (DualForm form : DualForm.values()) {
            if (form.name().toLowerCase(Locale.ROOT).equals(text)) {
                return form;
            }
        }
        throw new UsageException(key + ": '" + text + "', expected auto, primal or dual");
    }
}
