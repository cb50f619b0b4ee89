package org.dualform.tests;

import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/** A Java process started by a test: its class path and options, then what it came to. */
final class Jvm {
    static final Path ROOT = Path.of(property("root")).toAbsolutePath().normalize();
    static final Path TARGET = Path.of(property("target"));
    static final String VERSION = property("version");
    static final String PLATFORM = property("platform");

    private final List<String> options = new ArrayList<>();
    private final Map<String, String> environment = new LinkedHashMap<>();
    private final Path folder;
    private String classPath = System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"));

    /** exit code, everything printed, and the folder it ran in. */
    record Result(int code, String output, Path folder) {
        /** Crash logs of the JVM in the folder. */
        List<Path> crashLogs() {
            try (Stream<Path> files = Files.list(folder)) {
                return files.filter(file -> file.getFileName().toString().matches("hs_err.*|core.*")).toList();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }

    /** name: the folder under target it runs in, emptied of earlier crash logs. */
    Jvm(String name) {
        try {
            folder = Files.createDirectories(TARGET.resolve("jvm").resolve(name));
            for (Path log : new Result(0, "", folder).crashLogs()) {
                Files.delete(log);
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        // No -Xmx beyond need: the machine that tests has other work too.
        options("-Xmx512m", "-Dorg.bytedeco.javacpp.maxPhysicalBytes=0", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
                "-Dorg.bytedeco.javacpp.cachedir=" + folder.resolve("cache"));
    }

    static String property(String name) {
        String value = System.getProperty("dualform.test." + name);
        if (value == null) {
            throw new IllegalStateException("dualform.test." + name + " is not set: run these tests with mvn verify");
        }
        return value;
    }

    static Path java() {
        return Path.of(System.getProperty("java.home"), "bin", "java");
    }

    Jvm options(String... more) {
        options.addAll(Arrays.asList(more));
        return this;
    }

    Jvm environment(String key, String value) {
        environment.put(key, value);
        return this;
    }

    /** Ahead of everything else on the class path. */
    Jvm classPathStartsWith(Path entry) {
        classPath = entry + File.pathSeparator + classPath;
        return this;
    }

    Jvm classPath(String entries) {
        classPath = entries;
        return this;
    }

    Result run(Class<?> main, String... arguments) {
        List<String> command = new ArrayList<>(List.of(java().toString()));
        command.addAll(options);
        command.addAll(List.of("-cp", classPath, main.getName()));
        command.addAll(Arrays.asList(arguments));
        return run(folder, environment, command, 300);
    }

    /** Any command; the test fails when it takes longer than the limit. */
    static Result run(Path folder, Map<String, String> environment, List<String> command, int seconds) {
        try {
            Path log = Files.createTempFile(folder, "output", ".log");
            ProcessBuilder builder = new ProcessBuilder(command).directory(folder.toFile()).redirectErrorStream(true)
                    .redirectOutput(log.toFile());
            builder.environment().putAll(environment);
            Process process = builder.start();
            process.getOutputStream().close();
            boolean ended = process.waitFor(seconds, TimeUnit.SECONDS);
            if (!ended) {
                process.destroyForcibly().waitFor();
            }
            String output = Files.readString(log);
            Files.delete(log);
            if (!ended) {
                throw new AssertionError("not done after " + seconds + " s: " + command + "\n" + output);
            }
            return new Result(process.exitValue(), output, folder);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            throw new AssertionError(e);
        }
    }
}
