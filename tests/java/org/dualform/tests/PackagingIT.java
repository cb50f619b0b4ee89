package org.dualform.tests;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.jar.JarFile;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.zip.ZipEntry;
import org.dualform.Dualform;
import org.dualform.internal.global.DualformNative;
import org.junit.jupiter.api.Test;

class PackagingIT {
    private static final Path MAIN = jar("java-api", "");
    private static final Path NATIVE = jar("java-api", "-" + Jvm.PLATFORM);
    private static final String NATIVES = "org/dualform/" + Jvm.PLATFORM + "/";

    static Path jar(String module, String classifier) {
        String artifact = module.equals("java-api") ? "dualform" : "dualform-cuda13";
        return Jvm.ROOT.resolve(module).resolve("target").resolve(artifact + "-" + Jvm.VERSION + classifier + ".jar");
    }

    @Test
    void jarsStayWithinTheirBudget() throws IOException {
        assertTrue(Files.size(MAIN) < 1_000_000, MAIN + " has " + Files.size(MAIN) + " bytes");
        assertTrue(Files.size(NATIVE) < 5_000_000, NATIVE + " has " + Files.size(NATIVE) + " bytes");
        System.out.println("packaging: main jar " + Files.size(MAIN) + " bytes, native jar " + Files.size(NATIVE) + " bytes");
    }

    @Test
    void nativesLieInTheNativeJarOnly() throws IOException {
        assertTrue(entries(MAIN).stream().noneMatch(name -> name.endsWith(".so")), "natives in " + MAIN);
        Set<String> natives = entries(NATIVE).stream().filter(name -> name.endsWith(".so")).collect(Collectors.toCollection(TreeSet::new));
        assertEquals(Set.of(NATIVES + "libdualform.so", NATIVES + "libjniDualformNative.so"), natives);
        assertTrue(entries(NATIVE).stream().noneMatch(name -> name.endsWith(".class")), "classes in " + NATIVE);
    }

    @Test
    void noFileTellsOfTheMachineItWasBuiltOn() throws IOException {
        String root = Jvm.ROOT.toString();
        for (String library : List.of("libdualform.so", "libjniDualformNative.so")) {
            String bytes = Files.readString(unpacked(library), java.nio.charset.StandardCharsets.ISO_8859_1);
            assertTrue(!bytes.contains(root), library + " contains " + root);
        }
    }

    @Test
    void librariesAreSearchedBesideEachOtherOnly() throws IOException {
        assertEquals("$ORIGIN/", runPath("libjniDualformNative.so"));
        assertEquals("", runPath("libdualform.so"));
    }

    @Test
    void everyExportedFunctionIsDeclaredInJavaAndTheReverse() throws IOException {
        Set<String> exported = tool("nm", "-D", "--defined-only", unpacked("libdualform.so").toString())
                .lines()
                .map(line -> line.substring(line.lastIndexOf(' ') + 1).replaceAll("@.*", ""))
                .collect(Collectors.toCollection(TreeSet::new));
        Set<String> declared = Arrays.stream(DualformNative.class.getDeclaredMethods())
                .filter(method -> Modifier.isNative(method.getModifiers()) && method.getName().startsWith("df_"))
                .map(java.lang.reflect.Method::getName)
                .collect(Collectors.toCollection(TreeSet::new));
        exported.removeIf(name -> name.matches("_init|_fini"));
        assertTrue(declared.size() > 50, declared.toString());
        assertEquals(declared, exported);
    }

    @Test
    void librariesNeedNoNewerSystemThanStated() throws IOException {
        for (String library : List.of("libdualform.so", "libjniDualformNative.so")) {
            Matcher versions = Pattern.compile("\\b(GLIBC|GLIBCXX)_(\\d+)\\.(\\d+)(?:\\.(\\d+))?")
                    .matcher(tool("objdump", "-T", unpacked(library).toString()));
            while (versions.find()) {
                int number = Integer.parseInt(versions.group(2)) * 1000 + Integer.parseInt(versions.group(3));
                int patch = versions.group(4) == null ? 0 : Integer.parseInt(versions.group(4));
                boolean fits = versions.group(1).equals("GLIBC") ? number <= 2034 : number < 3004 || (number == 3004 && patch <= 30);
                assertTrue(fits, library + " needs " + versions.group());
            }
        }
    }

    @Test
    void javaAndNativeComeFromTheSameSources() {
        assertEquals(Dualform.buildId(), Dualform.nativeBuildId());
    }

    private static String runPath(String library) throws IOException {
        Matcher path = Pattern.compile("\\((?:RUNPATH|RPATH)\\).*\\[(.*)\\]").matcher(tool("readelf", "-d", unpacked(library).toString()));
        return path.find() ? path.group(1) : "";
    }

    private static Path unpacked(String library) throws IOException {
        Path file = Files.createDirectories(Jvm.TARGET.resolve("unpacked")).resolve(library);
        try (JarFile jar = new JarFile(NATIVE.toFile())) {
            Files.write(file, jar.getInputStream(jar.getEntry(NATIVES + library)).readAllBytes());
        }
        return file;
    }

    private static List<String> entries(Path jar) throws IOException {
        try (JarFile file = new JarFile(jar.toFile())) {
            return file.stream().map(ZipEntry::getName).toList();
        }
    }

    private static String tool(String... command) {
        Jvm.Result result = Jvm.run(Jvm.TARGET, Map.of("LC_ALL", "C"), List.of(command), 60);
        assertEquals(0, result.code(), result.output());
        return result.output();
    }
}
