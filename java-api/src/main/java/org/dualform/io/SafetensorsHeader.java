package org.dualform.io;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.dualform.json.JsonException;
import org.dualform.json.JsonScanner;

/** The checked contents of a header: every offset lies inside the data, and the tensors fill it without gap or overlap. */
final class SafetensorsHeader {
    /** The format's own limit. */
    static final int MAX_BYTES = 100_000_000;
    static final int MAX_TENSORS = 1_000_000;
    static final int MAX_NAME_BYTES = 1024;
    static final int MAX_RANK = 8;
    static final String METADATA = "__metadata__";

    private static final Map<String, Integer> ELEMENT_BYTES = Map.ofEntries(
            Map.entry("BOOL", 1), Map.entry("U8", 1), Map.entry("I8", 1), Map.entry("F8_E5M2", 1), Map.entry("F8_E4M3", 1),
            Map.entry("U16", 2), Map.entry("I16", 2), Map.entry("F16", 2), Map.entry("BF16", 2),
            Map.entry("U32", 4), Map.entry("I32", 4), Map.entry("F32", 4),
            Map.entry("U64", 8), Map.entry("I64", 8), Map.entry("F64", 8), Map.entry("C64", 8));

    /** Where a tensor lies: begin and end count from the first byte of the data. */
    record Entry(String dtype, long[] shape, long begin, long end) {}

    final Map<String, Entry> tensors = new LinkedHashMap<>();
    final Map<String, String> metadata = new LinkedHashMap<>();

    SafetensorsHeader(ByteBuffer utf8, long dataBytes) throws SafetensorsException {
        try {
            readHeader(new JsonScanner(utf8));
        } catch (JsonException e) {
            throw new SafetensorsException("header: " + e.getMessage());
        }
        checkLayout(dataBytes);
    }

    private void readHeader(JsonScanner json) throws SafetensorsException, JsonException {
        json.expect('{');
        Set<String> names = new HashSet<>();
        if (!json.take('}')) {
            do {
                String name = json.key();
                if (!names.add(name)) {
                    throw new SafetensorsException("header: the name \"" + shortened(name) + "\" is there twice");
                }
                if (name.equals(METADATA)) {
                    readMetadata(json);
                } else {
                    tensors.put(checkedName(name), readEntry(json, name));
                }
                if (tensors.size() > MAX_TENSORS) {
                    throw new SafetensorsException("header: more than " + MAX_TENSORS + " tensors");
                }
            } while (json.take(','));
            json.expect('}');
        }
        json.expectEnd();
    }

    static String checkedName(String name) throws SafetensorsException {
        if (name.length() > MAX_NAME_BYTES || name.getBytes(StandardCharsets.UTF_8).length > MAX_NAME_BYTES) {
            throw new SafetensorsException("header: the name \"" + shortened(name) + "\" has more than " + MAX_NAME_BYTES + " bytes");
        }
        return name;
    }

    private static String shortened(String name) {
        return name.length() <= 80 ? name : name.substring(0, 80) + "...";
    }

    private void readMetadata(JsonScanner json) throws SafetensorsException, JsonException {
        json.expect('{');
        if (json.take('}')) {
            return;
        }
        do {
            String key = json.key();
            if (metadata.put(key, json.string()) != null) {
                throw new SafetensorsException("header: the metadata \"" + shortened(key) + "\" is there twice");
            }
        } while (json.take(','));
        json.expect('}');
    }

    private static Entry readEntry(JsonScanner json, String name) throws SafetensorsException, JsonException {
        String dtype = null;
        long[] shape = null;
        long[] offsets = null;
        Set<String> members = new HashSet<>();
        json.expect('{');
        if (!json.take('}')) {
            do {
                String member = json.key();
                if (!members.add(member)) {
                    throw malformed(name, "\"" + shortened(member) + "\" is there twice");
                }
                switch (member) {
                    case "dtype" -> dtype = json.string();
                    case "shape" -> shape = readCounts(json, name, MAX_RANK);
                    case "data_offsets" -> offsets = readCounts(json, name, 2);
                    default -> json.skipValue(2);
                }
            } while (json.take(','));
            json.expect('}');
        }
        if (dtype == null || shape == null || offsets == null || offsets.length != 2) {
            throw malformed(name, "expected a dtype, a shape and two data_offsets");
        }
        return checkedEntry(name, new Entry(dtype, shape, offsets[0], offsets[1]));
    }

    private static long[] readCounts(JsonScanner json, String name, int atMost) throws SafetensorsException, JsonException {
        List<Long> counts = new ArrayList<>();
        json.expect('[');
        if (!json.take(']')) {
            do {
                counts.add(json.count());
                if (counts.size() > atMost) {
                    throw malformed(name, "more than " + atMost + " numbers in an array");
                }
            } while (json.take(','));
            json.expect(']');
        }
        return counts.stream().mapToLong(Long::longValue).toArray();
    }

    private static Entry checkedEntry(String name, Entry entry) throws SafetensorsException {
        if (entry.end < entry.begin) {
            throw malformed(name, "data_offsets " + entry.begin + " to " + entry.end + " run backwards");
        }
        try {
            long numel = 1;
            for (long size : entry.shape) {
                numel = Math.multiplyExact(numel, size);
            }
            Integer bytes = ELEMENT_BYTES.get(entry.dtype);
            if (bytes != null && Math.multiplyExact(numel, (long) bytes) != entry.end - entry.begin) {
                throw malformed(name, entry.dtype + " " + Arrays.toString(entry.shape) + " needs " + numel * bytes
                        + " bytes, data_offsets have " + (entry.end - entry.begin));
            }
        } catch (ArithmeticException e) {
            throw malformed(name, "shape " + Arrays.toString(entry.shape) + " has more than 2^63 - 1 bytes");
        }
        return entry;
    }

    private static SafetensorsException malformed(String name, String what) {
        return new SafetensorsException("header: tensor \"" + shortened(name) + "\": " + what);
    }

    private void checkLayout(long dataBytes) throws SafetensorsException {
        List<Map.Entry<String, Entry>> inOrder = new ArrayList<>(tensors.entrySet());
        inOrder.sort(Comparator.comparingLong((Map.Entry<String, Entry> tensor) -> tensor.getValue().begin)
                .thenComparingLong(tensor -> tensor.getValue().end));
        long end = 0;
        for (Map.Entry<String, Entry> tensor : inOrder) {
            long begin = tensor.getValue().begin;
            if (begin != end) {
                throw malformed(tensor.getKey(), "begins at byte " + begin + " of the data, expected " + end + (begin < end
                        ? " (it overlaps another)" : " (there is a hole)"));
            }
            end = tensor.getValue().end;
        }
        if (end != dataBytes) {
            throw new SafetensorsException("data: " + dataBytes + " bytes follow the header, the tensors need " + end);
        }
    }
}
