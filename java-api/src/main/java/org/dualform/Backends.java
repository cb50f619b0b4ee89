package org.dualform;

import static org.dualform.internal.global.DualformNative.*;

import java.io.File;
import java.io.IOException;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.function.Function;
import org.bytedeco.javacpp.Loader;
import org.dualform.spi.BackendProvider;

/**
 * Which backends can serve, why, and which one {@link Device#open()} takes.
 *
 * <p>Which kernels CUDA takes, and in what arithmetic, is a choice for the whole process: {@link #setKernels}, {@link #setPrecision},
 * {@link #setDeterministic}.
 *
 * <p>Threading: all methods may be called from any thread.
 */
public final class Backends {
    /** System property that chooses the backend of {@link Device#open()}: auto, cpu or cuda. */
    public static final String PROPERTY = "dualform.backend";
    /** Environment variable read when the property is not set. */
    public static final String ENVIRONMENT = "DUALFORM_BACKEND";
    /** System property with the number of CPU threads; 0 or unset means all the process may use. */
    public static final String THREADS = "dualform.threads";
    /** System property with the instructions CPU kernels may use: base, avx2, avx512, avx512bf16 or amx; unset means the best there is. */
    public static final String CPU = "dualform.cpu";
    /** System property with the absolute path of the cuBLASLt library the CUDA backend opens first. */
    public static final String CUBLASLT = "dualform.cublaslt";
    /** System property with the kernels CUDA ops may use: plain, mma or hopper; plain when unset. */
    public static final String KERNELS = "dualform.kernels";
    /** System property with how tensor-core kernels multiply float32: float32 (not at all, the default), tf32 or bf16x3. */
    public static final String PRECISION = "dualform.precision";
    /** System property with true to give the sums of CUDA kernels one fixed order; false when unset. */
    public static final String DETERMINISTIC = "dualform.deterministic";

    private static final Object LOCK = new Object();
    private static Plugin cuda; // written once, under LOCK

    /** A choice for the CUDA ops of the process: what code says goes before the property, which goes before the variable. */
    private static final class Chosen<T> {
        final String key;
        final String property;
        final Function<String, T> parse;
        final Function<T, String> id;
        final T usual;
        T inCode; // null: none; under LOCK

        Chosen(String key, String property, Function<String, T> parse, Function<T, String> id, T usual) {
            this.key = key;
            this.property = property;
            this.parse = parse;
            this.id = id;
            this.usual = usual;
        }

        T get() {
            synchronized (LOCK) {
                if (inCode != null) {
                    return inCode;
                }
            }
            String variable = property.toUpperCase(Locale.ROOT).replace('.', '_');
            String value = System.getProperty(property);
            return value != null && !value.isBlank() ? parsed("-D" + property, value) : parsed(variable, System.getenv(variable));
        }

        private T parsed(String source, String value) {
            try {
                return value == null || value.isBlank() ? usual : parse.apply(value);
            } catch (InvalidArgumentException e) {
                throw new InvalidArgumentException(e.getMessage().replaceFirst("^" + key, source));
            }
        }

        void set(T value) {
            synchronized (LOCK) {
                inCode = value;
                if (cuda != null && cuda.failure == null) {
                    pass();
                }
            }
        }

        void pass() {
            synchronized (LOCK) {
                Backends.pass(Backend.CUDA, key, property, inCode == null ? System.getProperty(property) : id.apply(inCode));
            }
        }
    }

    private static final Chosen<Kernels> CHOSEN_KERNELS = new Chosen<>("kernels", KERNELS, Kernels::parse, Kernels::id, Kernels.PLAIN);
    private static final Chosen<Precision> CHOSEN_PRECISION =
            new Chosen<>("precision", PRECISION, Precision::parse, Precision::id, Precision.FLOAT32);
    private static final Chosen<Boolean> CHOSEN_DETERMINISTIC =
            new Chosen<>("deterministic", DETERMINISTIC, Backends::yes, String::valueOf, false);

    /** What came of looking for a plug-in: present and failure null means loaded. */
    private record Plugin(boolean present, Path library, String failure) {}

    private Backends() {}

    /**
     * What a backend can do on this machine.
     *
     * @param backend CPU or CUDA
     * @param available whether a device of it can be opened now
     * @param devices how many
     * @param library the library it lives in; null when there is none
     * @param reason why it is not available; null when it is
     * @param json the backend's description of itself, one JSON object; null when it is not loaded
     */
    public record Status(Backend backend, boolean available, int devices, Path library, String reason, String json) {}

    /**
     * What {@link Device#open()} would take.
     *
     * @param backend CPU or CUDA
     * @param demanded whether it was asked for by name, so that no other may serve
     * @param reason why, as part of a sentence
     */
    public record Choice(Backend backend, boolean demanded, String reason) {}

    /**
     * Looks at one backend, loading its plug-in if need be, without opening a device.
     *
     * @param backend CPU or CUDA
     * @return what it can do here
     * @throws InvalidArgumentException for AUTO; for the CPU if the property {@value #CPU} or the variable DUALFORM_CPU is no level; for
     *     CUDA, where it is loaded, if one of the properties {@value #KERNELS}, {@value #PRECISION} and {@value #DETERMINISTIC} or of the
     *     variables DUALFORM_KERNELS, DUALFORM_PRECISION and DUALFORM_DETERMINISTIC is not understood
     * @throws BackendUnavailableException for the CPU if this machine lacks the level they demand
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Status status(Backend backend) {
        if (Arguments.notNull(backend, "backend") == Backend.AUTO) {
            throw new InvalidArgumentException("backend: AUTO, expected CPU or CUDA");
        }
        NativeLibrary.require();
        Path library = NativeLibrary.loaded().get("dualform");
        if (backend == Backend.CUDA) {
            Plugin plugin = cudaPlugin();
            library = plugin.library;
            if (plugin.failure != null) {
                return new Status(backend, false, 0, library, plugin.failure, null);
            }
        }
        passOptions(backend);
        int[] devices = {0};
        String reason = df_backend_device_count(backend.id(), devices) == DF_OK ? null : NativeStatus.lastError();
        if (reason == null && devices[0] == 0) {
            reason = "the " + backend.id() + " backend reports no device";
        }
        String json = NativeStatus.text((text, n) -> df_backend_describe(backend.id(), text, n));
        return new Status(backend, reason == null, devices[0], library, reason, json);
    }

    /**
     * The status of every backend.
     *
     * @return CPU, then CUDA
     * @throws InvalidArgumentException as {@link #status}
     * @throws BackendUnavailableException as {@link #status}
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static List<Status> all() {
        return List.of(status(Backend.CPU), status(Backend.CUDA));
    }

    /**
     * Which backend {@link Device#open()} would take now, by the property {@value #PROPERTY}, then the environment variable
     * {@value #ENVIRONMENT}, then automatically. A backend that was demanded is named even if it cannot serve.
     *
     * @return the backend and why
     * @throws InvalidArgumentException if the property or variable is not auto, cpu or cuda
     * @throws NativeLibraryException if the native library cannot be used
     */
    public static Choice choose() {
        String source = "-D" + PROPERTY;
        String value = System.getProperty(PROPERTY);
        if (value == null || value.isBlank()) {
            source = ENVIRONMENT;
            value = System.getenv(ENVIRONMENT);
        }
        if (value == null || value.isBlank()) {
            return automatic("no " + PROPERTY + " given");
        }
        Backend backend;
        try {
            backend = Backend.parse(value);
        } catch (InvalidArgumentException e) {
            throw new InvalidArgumentException(source + ": " + value + ", expected auto, cpu or cuda");
        }
        String demand = source + "=" + value.trim();
        return backend == Backend.AUTO ? automatic(demand) : new Choice(backend, true, demand);
    }

    /**
     * Chooses the kernels of all CUDA ops of this process, from the next call on, also on devices that are open; captured graphs keep
     * theirs. Goes before the property {@value #KERNELS} and the variable DUALFORM_KERNELS. Calls that other threads are in meanwhile take
     * either.
     *
     * @param kernels which serve where they can
     */
    public static void setKernels(Kernels kernels) {
        CHOSEN_KERNELS.set(Arguments.notNull(kernels, "kernels"));
    }

    /**
     * The kernels CUDA ops take where they can, by {@link #setKernels}, else the property {@value #KERNELS}, else the variable
     * DUALFORM_KERNELS; a property or variable is read by the process's ops when a CUDA device is opened.
     *
     * @return PLAIN when nothing was chosen
     * @throws InvalidArgumentException if the property or variable is not understood
     */
    public static Kernels kernels() {
        return CHOSEN_KERNELS.get();
    }

    /**
     * Chooses how the tensor-core kernels of this process multiply float32, as {@link #setKernels} chooses kernels. Goes before the property
     * {@value #PRECISION} and the variable DUALFORM_PRECISION.
     *
     * @param precision of products
     */
    public static void setPrecision(Precision precision) {
        CHOSEN_PRECISION.set(Arguments.notNull(precision, "precision"));
    }

    /**
     * How tensor-core kernels multiply float32, by {@link #setPrecision}, else the property {@value #PRECISION}, else the variable
     * DUALFORM_PRECISION; as {@link #kernels}.
     *
     * @return FLOAT32 when nothing was chosen
     * @throws InvalidArgumentException if the property or variable is not understood
     */
    public static Precision precision() {
        return CHOSEN_PRECISION.get();
    }

    /**
     * Chooses whether the CUDA ops of this process keep out sums without a fixed order, as {@link #setKernels} chooses kernels. Goes before
     * the property {@value #DETERMINISTIC} and the variable DUALFORM_DETERMINISTIC.
     *
     * @param deterministic true for the same bits every time
     */
    public static void setDeterministic(boolean deterministic) {
        CHOSEN_DETERMINISTIC.set(deterministic);
    }

    /**
     * Whether CUDA ops keep out sums without a fixed order, by {@link #setDeterministic}, else the property {@value #DETERMINISTIC}, else
     * the variable DUALFORM_DETERMINISTIC; as {@link #kernels}.
     *
     * @return false when nothing was chosen
     * @throws InvalidArgumentException if the property or variable is not understood
     */
    public static boolean deterministic() {
        return CHOSEN_DETERMINISTIC.get();
    }

    /**
     * Takes back what {@link #setKernels}, {@link #setPrecision} and {@link #setDeterministic} chose: properties and variables count again.
     *
     * @throws InvalidArgumentException if CUDA is loaded and a property is not understood
     */
    public static void clearChoices() {
        synchronized (LOCK) {
            CHOSEN_KERNELS.inCode = null;
            CHOSEN_PRECISION.inCode = null;
            CHOSEN_DETERMINISTIC.inCode = null;
            if (cuda != null && cuda.failure == null) {
                passOptions(Backend.CUDA);
            }
        }
    }

    private static boolean yes(String text) {
        return switch (text.trim().toLowerCase(Locale.ROOT)) {
            case "true" -> true;
            case "false" -> false;
            default -> throw new InvalidArgumentException("deterministic: " + text + ", expected true or false");
        };
    }

    static Choice automatic(String demand) {
        Status status = status(Backend.CUDA);
        if (status.available) {
            return new Choice(Backend.CUDA, false, demand + " and " + status.devices + " CUDA device(s) found");
        }
        return new Choice(Backend.CPU, false, demand + " and CUDA is not available: " + status.reason);
    }

    /** Whether a CUDA plug-in is on the class path, usable or not. */
    static boolean cudaPresent() {
        return cudaPlugin().present;
    }

    static int threads() {
        String value = System.getProperty(THREADS);
        if (value == null || value.isBlank()) {
            return 0;
        }
        try {
            int threads = Integer.parseInt(value.trim());
            if (threads >= 0) {
                return threads;
            }
        } catch (NumberFormatException e) {
            // reported below
        }
        throw new InvalidArgumentException("-D" + THREADS + ": " + value + ", expected a whole number of at least 0");
    }

    /** Hands the properties of a loaded backend to it, which goes by them whenever a device is opened. */
    static void passOptions(Backend backend) {
        if (backend == Backend.CPU) {
            pass(backend, "level", CPU, System.getProperty(CPU));
        } else {
            DualformException first = null; // what is right is passed whatever else is wrong
            for (Chosen<?> chosen : List.of(CHOSEN_KERNELS, CHOSEN_PRECISION, CHOSEN_DETERMINISTIC)) {
                try {
                    chosen.pass();
                } catch (DualformException e) {
                    first = first == null ? e : first;
                }
            }
            if (first != null) {
                throw first;
            }
        }
    }

    private static void pass(Backend backend, String key, String property, String value) {
        int status = df_backend_set_option(backend.id(), key, value == null ? "" : value.trim().toLowerCase(Locale.ROOT));
        if (status != DF_OK) {
            throw NativeStatus.exception(status, NativeStatus.lastError().replaceFirst("^" + key, "-D" + property));
        }
    }

    private static Plugin cudaPlugin() {
        synchronized (LOCK) {
            if (cuda == null) {
                cuda = loadCuda();
            }
            return cuda;
        }
    }

    private static Plugin loadCuda() {
        URL resource;
        Map<String, String> options = Map.of();
        try {
            BackendProvider provider = provider(Backend.CUDA.id());
            resource = provider == null ? null : provider.library();
            if (resource == null) {
                resource = Backends.class.getResource("cuda/" + Loader.getPlatform() + "/libdualform_cuda.so");
            }
            if (resource == null) {
                // A jar built without nvcc is as good as none: no reason to warn.
                return new Plugin(
                        false,
                        null,
                        provider == null
                                ? "no CUDA plug-in on the class path (org.dualform:dualform-cuda13 with the classifier of this platform)"
                                : "the CUDA plug-in on the class path has no library for " + Loader.getPlatform());
            }
            if (provider != null) {
                options = provider.options();
            }
        } catch (ServiceConfigurationError | LinkageError | RuntimeException e) {
            return new Plugin(true, null, "the CUDA plug-in on the class path cannot be used: " + e);
        }
        Path library;
        try {
            File file = "file".equals(resource.getProtocol()) ? new File(resource.toURI()) : Loader.cacheResource(resource);
            if (file == null) {
                return new Plugin(true, null, "the CUDA plug-in " + resource + " could not be unpacked");
            }
            library = file.toPath().toAbsolutePath();
        } catch (IOException | URISyntaxException | RuntimeException e) {
            return new Plugin(true, null, "the CUDA plug-in " + resource + " could not be unpacked: " + e);
        }
        if (df_backend_load(library.toString()) != DF_OK) {
            return new Plugin(true, library, NativeStatus.lastError());
        }
        NativeLibrary.addLoaded("dualform_cuda", library);
        for (Map.Entry<String, String> option : options.entrySet()) {
            if (df_backend_set_option("cuda", option.getKey(), option.getValue()) != DF_OK) {
                return new Plugin(true, library, NativeStatus.lastError());
            }
        }
        String cublaslt = System.getProperty(CUBLASLT);
        if (cublaslt != null && df_backend_set_option("cuda", "cublaslt", cublaslt) != DF_OK) {
            return new Plugin(true, library, NativeStatus.lastError());
        }
        return new Plugin(true, library, null);
    }

    private static BackendProvider provider(String backend) {
        for (BackendProvider provider : ServiceLoader.load(BackendProvider.class, Backends.class.getClassLoader())) {
            if (backend.equals(provider.backend())) {
                return provider;
            }
        }
        return null;
    }
}
