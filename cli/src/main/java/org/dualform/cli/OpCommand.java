package org.dualform.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import org.dualform.Backend;
import org.dualform.Backends;
import org.dualform.DType;
import org.dualform.Device;
import org.dualform.InvalidArgumentException;
import org.dualform.Tensor;
import org.dualform.io.Safetensors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Runs one operation on the tensors of a file. Prints nothing; the output file appears whole or not at all. */
@Command(
        name = "op",
        description = {
            "Runs one operation on tensors in a safetensors file. The stored dtype (F64, F32, BF16) is the compute type.",
            "",
            "  attention           q (B,T,NH,HS) k,v (B,S,NKV,HS) [lengths (B) I32] -> out, lse (B,NH,T)",
            "                      dout -> dq dk dv          settings: causal=true|false (true), scale=number (1/sqrt(HS))",
            "  momentum-attention  the same, and eta (NH) -> out, lse",
            "                      dout -> dq dk dv deta     settings: scale, eta=number when there is no tensor eta",
            "  dual-form           w0 (O,I) e (N,O) xp (N,I) x (M,I) -> out (M,O), dw (O,I)",
            "                      dout -> dw0 de dxp dx     settings: form=auto|primal|dual (auto)",
            "  linear-attention    q k v (B,T,NH,HS) [decay (NH)] [s0 (B,NH,HS,HS)] -> out, state (B,NH,HS,HS)",
            "                      dout -> dq dk dv [ddecay] [ds0]",
            ""
        },
        mixinStandardHelpOptions = true)
final class OpCommand implements Callable<Integer> {
    private static final int MAX_LINKS = 40; // as many as Linux follows

    @Parameters(index = "0", paramLabel = "NAME", description = "attention, momentum-attention, dual-form or linear-attention")
    private String name;

    @Option(names = "--in", required = true, paramLabel = "IN", description = "safetensors file to read")
    private Path source;

    @Option(names = "--out", required = true, paramLabel = "OUT", description = "safetensors file to write")
    private Path target;

    @Option(names = "--backward", arity = "0", description = "also read dout and write the gradients")
    private boolean backward;

    @Option(names = "--device", paramLabel = "DEVICE", description = "auto, cpu or cuda (default: DUALFORM_BACKEND, else auto)")
    private String device;

    @Option(names = "--set", paramLabel = "KEY=VALUE", description = "a setting of the operation; may be repeated")
    private List<String> words = List.of();

    @Override
    public Integer call() throws IOException {
        Operation operation = Operation.parse(name);
        Settings settings = new Settings(words, operation.id(), operation.settings());
        Backend backend = demanded(device);
        target = linked(target);
        checkTarget(target);
        try (Safetensors file = Inputs.open(source)) {
            DType dtype = Inputs.dtype(file, operation.main());
            // Float64 exists on the CPU only; whoever demands CUDA for it gets an error instead.
            Backend chosen = backend == Backend.AUTO && dtype == DType.F64 ? Backend.CPU : backend;
            try (Device opened = Device.open(chosen);
                    Inputs in = new Inputs(file, opened, dtype)) {
                write(operation.run(in, settings, backward), operation);
            }
        }
        return ExitCode.OK;
    }

    private void write(Map<String, Tensor> results, Operation operation) {
        try {
            Safetensors.write(target, results, Map.of("op", operation.id()));
        } catch (IOException e) {
            throw new UsageException("--out: " + target + " cannot be written: " + e.getMessage());
        }
    }

    /** --device, then what the library itself goes by. */
    static Backend demanded(String device) {
        if (device != null) {
            return parse("--device", device);
        }
        String property = System.getProperty(Backends.PROPERTY);
        if (property != null && !property.isBlank()) {
            return parse("-D" + Backends.PROPERTY, property);
        }
        String variable = System.getenv(Backends.ENVIRONMENT);
        return variable == null || variable.isBlank() ? Backend.AUTO : parse(Backends.ENVIRONMENT, variable);
    }

    private static Backend parse(String source, String id) {
        try {
            return Backend.parse(id);
        } catch (InvalidArgumentException e) {
            throw new UsageException(source + " " + id + ": expected auto, cpu or cuda");
        }
    }

    /** What a symbolic link leads to, whether that exists or not: it is written, and the link stays. */
    private static Path linked(Path target) throws IOException {
        Path end = target;
        for (int links = 0; Files.isSymbolicLink(end); links++) {
            if (links == MAX_LINKS) {
                throw new UsageException("--out: " + target + " is a symbolic link that leads nowhere");
            }
            end = end.resolveSibling(Files.readSymbolicLink(end));
        }
        return end;
    }

    /** Before any work: a result that could not be written would be lost. */
    private static void checkTarget(Path target) {
        Path folder = target.toAbsolutePath().getParent();
        if (folder == null || Files.isDirectory(target)) {
            throw new UsageException("--out: " + target + " is a folder, expected a file");
        }
        if (Files.exists(target) && !Files.isRegularFile(target)) {
            throw new UsageException("--out: " + target + " is not a regular file");
        }
        if (!Files.isDirectory(folder)) {
            throw new UsageException("--out: there is no folder " + folder);
        }
        if (!Files.isWritable(folder)) {
            throw new UsageException("--out: the folder " + folder + " cannot be written");
        }
    }
}
