package org.dualform.cli;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.bytedeco.javacpp.Loader;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.Device;
import org.dualform.Dualform;
import org.dualform.NativeLibraryException;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** What is installed here, which backend serves and why; for people, or as one JSON object. */
@Command(
        name = "doctor",
        description = "Shows versions, libraries, the backend that is chosen and why, CPU features, driver and devices.",
        mixinStandardHelpOptions = true)
final class DoctorCommand implements Callable<Integer> {
    @Option(names = "--json", arity = "0", description = "print one JSON object")
    private boolean json;

    @Spec
    private CommandSpec spec;

    @Override
    public Integer call() {
        Map<String, Object> report = report();
        PrintWriter out = spec.commandLine().getOut();
        if (json) {
            out.println(Json.write(report));
        } else {
            print(out, report, "");
        }
        return report.containsKey("error") ? ExitCode.UNAVAILABLE : ExitCode.OK;
    }

    private static Map<String, Object> report() {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("dualform", Dualform.version());
        report.put("java_build_id", Dualform.buildId());
        report.put("java", System.getProperty("java.version") + " (" + System.getProperty("java.vendor") + ", "
                + System.getProperty("java.home") + ")");
        report.put("javacpp", javacppVersion());
        report.put("os", System.getProperty("os.name") + " " + System.getProperty("os.version") + " " + System.getProperty("os.arch"));
        report.put("glibc", glibcVersion());
        try {
            addNative(report);
        } catch (NativeLibraryException e) {
            report.put("error", ExitCode.sentence(e));
        }
        return report;
    }

    private static void addNative(Map<String, Object> report) {
        report.put("native", Dualform.nativeVersion());
        report.put("native_build_id", Dualform.nativeBuildId());
        Map<String, Object> backends = new LinkedHashMap<>();
        for (Backends.Status status : Backends.all()) {
            backends.put(status.backend().id(), describe(status));
        }
        Map<String, Object> libraries = new LinkedHashMap<>();
        Dualform.libraries().forEach((name, path) -> libraries.put(name, path.toString()));
        report.put("libraries", libraries);
        report.put("chosen", chosen());
        report.put("backends", backends);
    }

    private static Map<String, Object> describe(Backends.Status status) {
        Map<String, Object> described = new LinkedHashMap<>();
        described.put("available", status.available());
        described.put("devices", status.devices());
        if (status.reason() != null) {
            described.put("reason", status.reason());
        }
        described.put("library", status.library() == null ? null : status.library().toString());
        if (status.json() != null) {
            described.put("details", details(status.json()));
        }
        return described;
    }

    private static Object details(String text) {
        try {
            return Json.read(text);
        } catch (IllegalArgumentException e) {
            return text;
        }
    }

    /** What Device.open() takes, opened to see that it serves. */
    private static Map<String, Object> chosen() {
        Map<String, Object> chosen = new LinkedHashMap<>();
        try {
            Backends.Choice choice = Backends.choose();
            chosen.put("backend", choice.backend().id());
            chosen.put("reason", choice.reason());
            try (Device device = Device.open()) {
                chosen.put("device", device.description());
                if (device.backend() == Backend.CPU) {
                    chosen.put("threads", device.threads());
                }
            }
        } catch (RuntimeException e) {
            chosen.put("error", ExitCode.sentence(e));
        }
        return chosen;
    }

    private static String javacppVersion() {
        try {
            return Loader.getVersion();
        } catch (IOException e) {
            return "unknown";
        }
    }

    /** Out of the C library this process has mapped, which names itself in its text. */
    private static String glibcVersion() {
        try (Stream<String> maps = Files.lines(Path.of("/proc/self/maps"))) {
            Path library = maps.map(line -> line.substring(line.lastIndexOf(' ') + 1))
                    .filter(path -> path.matches(".*/libc[.-][^/]*so[^/]*"))
                    .map(Path::of)
                    .findFirst()
                    .orElse(null);
            if (library == null) {
                return "not found";
            }
            String text = new String(Files.readAllBytes(library), StandardCharsets.ISO_8859_1);
            Matcher version = Pattern.compile("GNU C Library [^\\n]*version (\\d+\\.\\d+)").matcher(text);
            return version.find() ? version.group(1) : "not glibc (" + library + ")";
        } catch (IOException | RuntimeException e) {
            return "unknown";
        }
    }

    private static void print(PrintWriter out, Map<?, ?> map, String indent) {
        int width = map.entrySet().stream()
                .filter(entry -> !(entry.getValue() instanceof Map))
                .mapToInt(entry -> entry.getKey().toString().length())
                .max()
                .orElse(0);
        map.forEach((key, value) -> {
            String name = key.toString().replace('_', ' ');
            if (value instanceof Map<?, ?> inner) {
                out.println(indent + name);
                print(out, inner, indent + "  ");
            } else if (value instanceof List<?> list && list.stream().anyMatch(Map.class::isInstance)) {
                for (int i = 0; i < list.size(); i++) {
                    out.println(indent + name + " " + i);
                    print(out, list.get(i) instanceof Map<?, ?> inner ? inner : Map.of("", list.get(i)), indent + "  ");
                }
            } else {
                out.println(indent + name + " ".repeat(width - key.toString().length() + 2) + text(value));
            }
        });
    }

    private static String text(Object value) {
        if (value instanceof Boolean yes) {
            return yes ? "yes" : "no";
        }
        if (value instanceof List<?> list) {
            return list.stream().map(DoctorCommand::text).collect(Collectors.joining(", "));
        }
        return value == null ? "none" : value.toString();
    }
}
