package org.dualform.cli;

import java.io.PrintWriter;
import org.dualform.Dualform;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Help.Ansi;
import picocli.CommandLine.IVersionProvider;
import picocli.CommandLine.ParameterException;

/** The command line: one sentence on stderr and an exit code when something is wrong, never a stack trace. */
@Command(
        name = "dualform",
        description = "Attention as gradient descent: operations on tensors, and what this machine offers them.",
        mixinStandardHelpOptions = true,
        versionProvider = Main.Version.class,
        subcommands = {DoctorCommand.class, OpCommand.class, BenchCommand.class, TrainCommand.class, IclCommand.class, DemoCommand.class},
        footer = {"", "Exit codes: 0 done, 1 internal error, 2 bad usage or input, 3 backend unavailable, 4 training stopped",
            "because its numbers were not finite, 130 and 143 asked to stop by SIGINT and SIGTERM, after saving."})
final class Main implements Runnable {
    static final class Version implements IVersionProvider {
        @Override
        public String[] getVersion() {
            return new String[] {"dualform " + Dualform.version()};
        }
    }

    private Main() {}

    @Override
    public void run() {
        throw new UsageException("a command is expected: doctor, op, bench, train, icl or demo (dualform --help tells more)");
    }

    /** Runs one command line and returns its exit code. */
    static int run(PrintWriter out, PrintWriter err, String... arguments) {
        CommandLine line = new CommandLine(new Main());
        line.setOut(out);
        line.setErr(err);
        line.setExpandAtFiles(false);
        line.setColorScheme(CommandLine.Help.defaultColorScheme(Ansi.OFF));
        line.setParameterExceptionHandler((ParameterException failure, String[] words) -> report(err, failure, ExitCode.USAGE));
        line.setExecutionExceptionHandler((failure, command, result) -> report(err, failure, ExitCode.of(failure)));
        try {
            return line.execute(arguments);
        } catch (Throwable failure) { // errors, which picocli lets through
            return report(err, failure, ExitCode.of(failure));
        } finally {
            out.flush();
            err.flush();
        }
    }

    private static int report(PrintWriter err, Throwable failure, int code) {
        String sentence = code == ExitCode.USAGE && failure instanceof ParameterException
                ? failure.getMessage().strip().replaceAll("\\s*\\R\\s*", "; ")
                : ExitCode.sentence(failure);
        err.println("dualform: " + sentence);
        return code;
    }

    public static void main(String[] arguments) {
        // Set before the first logger exists. The commands print what matters, and `op` prints nothing else.
        if (System.getProperty("org.slf4j.simpleLogger.defaultLogLevel") == null) {
            System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "off");
        }
        System.exit(run(new PrintWriter(System.out, true), new PrintWriter(System.err, true), arguments));
    }
}
