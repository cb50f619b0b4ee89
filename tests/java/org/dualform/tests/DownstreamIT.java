package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.BasicFileAttributes;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** What a user has: the jars, and nothing of this checkout. */
class DownstreamIT {
    private static final String EXPECTED = "attention on cpu: [5.0, 6.0, 7.0, 8.0]";

    @Test
    void aMavenProjectThatKnowsOnlyTheCoordinatesRunsAnOp() throws IOException {
        Path work = emptied(Jvm.TARGET.resolve("downstream"));
        copy(Jvm.ROOT.resolve("tests/downstream"), work.resolve("project"));
        Path repository = repositoryWithOurJars(work.resolve("repository"));
        String mvn = Path.of(Jvm.property("maven"), "bin", "mvn").toString();
        Jvm.Result result = Jvm.run(work.resolve("project"),
                Map.of("DUALFORM_BACKEND", "cpu", "JAVA_HOME", System.getProperty("java.home")),
                List.of(mvn, "-B", "-o", "-Dmaven.repo.local=" + repository, "-Ddualform.version=" + Jvm.VERSION, "process-classes"), 300);
        assertEquals(0, result.code(), result.output());
        assertTrue(result.output().contains(EXPECTED), result.output());
    }

    @Test
    void theJarsOnAClassPathAreEnough() throws IOException {
        Path work = emptied(Jvm.TARGET.resolve("downstream-class-path"));
        String jars = Stream.concat(
                        Stream.of(PackagingIT.jar("java-api", ""), PackagingIT.jar("java-api", "-" + Jvm.PLATFORM)),
                        Stream.of(System.getProperty("surefire.test.class.path", System.getProperty("java.class.path"))
                                .split(File.pathSeparator))
                                .map(Path::of)
                                .filter(jar -> jar.getFileName().toString().matches("(javacpp|slf4j-api)-[\\d.]+\\.jar")))
                .map(Path::toString)
                .collect(Collectors.joining(File.pathSeparator));
        Path source = Jvm.ROOT.resolve("tests/downstream/src/main/java/example/Main.java");
        Jvm.Result result = Jvm.run(work, Map.of("DUALFORM_BACKEND", "cpu"), List.of(Jvm.java().toString(),
                "-Dorg.bytedeco.javacpp.cachedir=" + work.resolve("cache"), "-cp", jars, source.toString()), 120);
        assertEquals(0, result.code(), result.output());
        assertTrue(result.output().contains(EXPECTED), result.output());
    }

    @Test
    void theCommandLineRunsAsAnExecutableJar() throws IOException {
        Path work = emptied(Jvm.TARGET.resolve("command-line"));
        Path jar = Jvm.ROOT.resolve("cli/target/dualform-cli.jar");
        List<String> java = List.of(Jvm.java().toString(), "-Dorg.bytedeco.javacpp.cachedir=" + work.resolve("cache"), "-jar",
                jar.toString());
        Jvm.Result doctor = Jvm.run(work, Map.of(), Stream.concat(java.stream(), Stream.of("doctor", "--json")).toList(), 60);
        assertEquals(0, doctor.code(), doctor.output());
        assertTrue(doctor.output().startsWith("{") && doctor.output().contains("\"native_build_id\""), doctor.output());
        Jvm.Result refused = Jvm.run(work, Map.of(), Stream.concat(java.stream(),
                Stream.of("op", "attention", "--in", "nothing", "--out", "result")).toList(), 60);
        assertEquals(2, refused.code(), refused.output());
        assertEquals("dualform: --in: there is no file nothing", refused.output().strip());
    }

    /** A local repository of links to the one this build uses, and our own jars installed beside them. */
    private static Path repositoryWithOurJars(Path repository) throws IOException {
        Path source = Path.of(Jvm.property("repository"));
        Files.createDirectories(repository.resolve("org"));
        link(source, repository, List.of("org"));
        link(source.resolve("org"), repository.resolve("org"), List.of("dualform"));
        install(repository, "dualform-parent", "", Jvm.ROOT.resolve("pom.xml"), "pom");
        install(repository, "dualform", "", Jvm.ROOT.resolve("java-api/pom.xml"), "pom");
        install(repository, "dualform", "", PackagingIT.jar("java-api", ""), "jar");
        install(repository, "dualform", "-" + Jvm.PLATFORM, PackagingIT.jar("java-api", "-" + Jvm.PLATFORM), "jar");
        return repository;
    }

    private static void link(Path from, Path to, List<String> except) throws IOException {
        try (Stream<Path> entries = Files.list(from)) {
            for (Path entry : entries.filter(path -> !except.contains(path.getFileName().toString())).toList()) {
                Files.createSymbolicLink(to.resolve(entry.getFileName()), entry);
            }
        }
    }

    private static void install(Path repository, String artifact, String classifier, Path file, String extension) throws IOException {
        Path folder = Files.createDirectories(repository.resolve("org/dualform").resolve(artifact).resolve(Jvm.VERSION));
        Files.copy(file, folder.resolve(artifact + "-" + Jvm.VERSION + classifier + "." + extension), StandardCopyOption.REPLACE_EXISTING);
    }

    private static void copy(Path from, Path to) throws IOException {
        try (Stream<Path> files = Files.walk(from)) {
            for (Path file : files.filter(path -> !path.startsWith(from.resolve("target"))).toList()) {
                Path place = to.resolve(from.relativize(file));
                if (Files.isDirectory(file)) {
                    Files.createDirectories(place);
                } else {
                    Files.copy(file, place);
                }
            }
        }
    }

    /** Links are deleted, not what they point at. */
    private static Path emptied(Path folder) throws IOException {
        if (Files.exists(folder)) {
            Files.walkFileTree(folder, new SimpleFileVisitor<>() {
                @Override
                public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
                    Files.delete(file);
                    return FileVisitResult.CONTINUE;
                }

                @Override
                public FileVisitResult postVisitDirectory(Path visited, IOException e) throws IOException {
                    Files.delete(visited);
                    return FileVisitResult.CONTINUE;
                }
            });
        }
        return Files.createDirectories(folder);
    }
}
