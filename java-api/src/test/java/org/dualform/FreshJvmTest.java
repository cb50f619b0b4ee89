package org.dualform;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.Loader;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What can only be seen at start or at exit: each test runs one of the programs below in a JVM of its own. */
class FreshJvmTest {
    @TempDir
    Path extra;

    private final Map<String, String> environment = new HashMap<>();

    private record Outcome(int exitCode, String output) {}

    private Outcome run(String program, String... jvmArguments) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(List.of(Path.of(System.getProperty("java.home"), "bin", "java").toString()));
        command.addAll(List.of(jvmArguments));
        command.add("-XX:ErrorFile=" + extra.resolve("crash.log"));
        command.add("-Dorg.bytedeco.javacpp.cachedir=" + extra.resolve("cache"));
        command.addAll(List.of("-cp", extra + File.pathSeparator + System.getProperty("java.class.path")));
        command.add("org.dualform.FreshJvmTest$" + program);
        Path log = extra.resolve("output.txt");
        ProcessBuilder builder = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(log.toFile());
        builder.environment().putAll(environment);
        Process process = builder.start();
        int exitCode = process.waitFor();
        assertFalse(Files.exists(extra.resolve("crash.log")), "the JVM crashed");
        return new Outcome(exitCode, Files.readString(log, StandardCharsets.UTF_8));
    }

    private Path resource(String name, String content) throws IOException {
        Path file = extra.resolve(name);
        Files.createDirectories(file.getParent());
        return Files.writeString(file, content);
    }

    private void brokenPlugin() throws IOException {
        resource("org/dualform/cuda/" + Loader.getPlatform() + "/libdualform_cuda.so", "no library");
    }

    /** Opens the default device and names its backend. */
    static final class OpenDefault {
        public static void main(String[] args) {
            try (Device device = Device.open()) {
                System.out.println("opened " + device.backend());
            } catch (DualformException e) {
                System.out.println(e.getClass().getSimpleName() + ": " + e.getMessage());
            }
        }
    }

    /** Opens the CPU and says what it is. */
    static final class OpenCpu {
        public static void main(String[] args) {
            try (Device device = Device.cpu(1)) {
                System.out.println("opened " + device.description());
            } catch (DualformException | InvalidArgumentException e) {
                System.out.println(e.getClass().getSimpleName() + ": " + e.getMessage());
            }
        }
    }

    @Test
    void theLevelOfThePropertyGoesBeforeThatOfTheVariable() throws Exception {
        environment.put("DUALFORM_CPU", "sse9");
        String variable = run("OpenCpu").output;
        assertTrue(variable.contains("InvalidArgumentException: DUALFORM_CPU: sse9, expected one of base, "), variable);
        String property = run("OpenCpu", "-Ddualform.cpu=base").output;
        assertTrue(property.contains("opened cpu (base, 1 thread)"), property);
        environment.put("DUALFORM_CPU", "base");
        assertTrue(run("OpenCpu").output.contains("opened cpu (base, 1 thread)"));
        String wrong = run("OpenCpu", "-Ddualform.cpu=sse9").output;
        assertTrue(wrong.contains("InvalidArgumentException: -Ddualform.cpu: sse9, expected one of base, "), wrong);
    }

    /** Says which kernels were chosen, and what code makes of it. */
    static final class SayChoices {
        public static void main(String[] args) {
            try {
                System.out.println("chosen " + Backends.kernels() + " " + Backends.precision() + " " + Backends.deterministic());
            } catch (InvalidArgumentException e) {
                System.out.println(e.getMessage());
            }
            Backends.setKernels(Kernels.PLAIN);
            System.out.println("then " + Backends.kernels());
        }
    }

    @Test
    void codeGoesBeforeThePropertyAndThatBeforeTheVariable() throws Exception {
        environment.put("DUALFORM_KERNELS", "mma");
        environment.put("DUALFORM_PRECISION", "bf16x3");
        environment.put("DUALFORM_DETERMINISTIC", "true");
        String variables = run("SayChoices").output;
        assertTrue(variables.contains("chosen MMA BF16X3 true") && variables.contains("then PLAIN"), variables);
        String property = run("SayChoices", "-Ddualform.kernels=hopper").output;
        assertTrue(property.contains("chosen HOPPER BF16X3 true") && property.contains("then PLAIN"), property);
        environment.put("DUALFORM_KERNELS", "fast");
        String wrong = run("SayChoices").output;
        assertTrue(wrong.contains("DUALFORM_KERNELS: fast, expected plain, mma or hopper") && wrong.contains("then PLAIN"), wrong);
    }

    @Test
    void libraryOfAnotherBuildIsRefused() throws Exception {
        resource("org/dualform/build.properties", "version=0\nbuildId=0123456789abcdef\n");
        String output = run("OpenDefault").output;
        assertTrue(output.contains("NativeLibraryException: libdualform.so was built from other sources"), output);
        assertTrue(output.contains("0123456789abcdef"), output);
    }

    @Test
    void missingLibraryIsASentence() throws Exception {
        String output = run("OpenDefault", "-Dorg.bytedeco.javacpp.platform=linux-none").output;
        assertTrue(output.contains("NativeLibraryException: the native library of dualform could not be loaded"), output);
        assertTrue(output.contains("classifier"), output);
    }

    @Test
    void brokenPluginLeavesTheCpuAndWarnsOnce() throws Exception {
        brokenPlugin();
        String output = run("OpenDefault", "-Ddualform.backend=auto").output;
        assertTrue(output.contains("opened CPU"), output);
        assertEquals(1, output.split("WARN", -1).length - 1, output);
        assertTrue(output.contains("the CUDA plug-in is on the class path but the CPU serves"), output);
        assertEquals(1, output.split("INFO", -1).length - 1, output);
    }

    @Test
    void brokenPluginThatIsDemandedIsAnException() throws Exception {
        brokenPlugin();
        String output = run("OpenDefault", "-Ddualform.backend=cuda").output;
        assertTrue(output.contains("BackendUnavailableException") && output.contains("libdualform_cuda.so"), output);
        assertTrue(output.contains("-Ddualform.backend=cpu forces the CPU"), output);
    }

    @Test
    void absentPluginIsNoWarning() throws Exception {
        assumeTrue(!Backends.cudaPresent(), "a CUDA plug-in is on the class path");
        String output = run("OpenDefault", "-Ddualform.backend=auto").output;
        assertTrue(output.contains("opened CPU"), output);
        assertFalse(output.contains("WARN"), output);
    }

    /** Loses tensors and waits until the cleaner has found them. */
    static final class Leak {
        public static void main(String[] args) throws InterruptedException {
            try (Device device = Device.cpu(1)) {
                lose(device);
                for (int i = 0; i < 200 && device.memory().liveTensors() > 0; i++) {
                    System.gc();
                    Thread.sleep(10);
                }
            }
        }

        private static void lose(Device device) {
            Tensor.empty(device, DType.F32, 3);
            Tensor.empty(device, DType.F32, 3);
        }
    }

    @Test
    void leaksAreLoggedOnceAndWithTheirPlaceWhenParanoid() throws Exception {
        String output = run("Leak").output;
        assertEquals(1, output.split("was not closed", -1).length - 1, output);
        String paranoid = run("Leak", "-Ddualform.leakDetection=paranoid").output;
        assertEquals(2, paranoid.split("was not closed", -1).length - 1, paranoid);
        assertTrue(paranoid.contains("FreshJvmTest$Leak.lose"), paranoid);
    }

    /** Leaves the JVM while threads are in native code and objects are open. */
    static final class ExitInFlight {
        public static void main(String[] args) throws InterruptedException {
            Device device = Device.cpu(2);
            for (int t = 0; t < 4; t++) {
                Thread thread = new Thread(() -> {
                    Tensor x = Tensor.full(device, DType.F32, 1, 1 << 16);
                    while (true) {
                        Ops.unaryForward(x, x, Unary.TANH);
                    }
                });
                thread.setDaemon(true);
                thread.start();
            }
            Thread.sleep(100);
            System.exit(7);
        }
    }

    @Test
    void exitWithThreadsInNativeCodeIsNoCrash() throws Exception {
        for (int round = 0; round < 3; round++) {
            Outcome outcome = run("ExitInFlight");
            assertEquals(7, outcome.exitCode, outcome.output);
        }
    }
}
