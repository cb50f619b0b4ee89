package org.dualform.cli;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import me.tongfei.progressbar.ConsoleProgressBarConsumer;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import org.dualform.lab.train.Perplexity;
import org.dualform.lab.train.TrainingListener;

/** What is seen of a training run: a bar on a terminal, elsewhere a line every ten seconds. */
final class TrainingDisplay implements AutoCloseable {
    private static final long BETWEEN_LINES = 10_000_000_000L;

    private final PrintWriter err;
    private final long steps;
    private final boolean terminal;
    private ProgressBar bar;
    private long from;
    private long started;
    private long tokensBefore = -1;
    private long lastLine;
    private TrainingListener.Step latest;

    TrainingDisplay(PrintWriter err, long steps) {
        this.err = err;
        this.steps = steps;
        terminal = isTerminal();
    }

    /** Java has no word for it: whether the standard error stream of this process is shown to somebody. */
    private static boolean isTerminal() {
        if (System.console() == null) {
            return false;
        }
        try {
            String target = Files.readSymbolicLink(Path.of("/proc/self/fd/2")).toString();
            return target.startsWith("/dev/pts/") || target.startsWith("/dev/tty");
        } catch (IOException | UnsupportedOperationException e) {
            return false;
        }
    }

    void started(long step, boolean resumed) {
        from = step;
        started = System.nanoTime();
        lastLine = started;
        if (resumed) {
            line(step == 0 ? "nothing to go on from, starting at step 0" : "going on from step " + step + " of " + steps);
        }
        if (terminal) {
            bar = new ProgressBarBuilder().setTaskName("").setInitialMax(steps).startsFrom(step, java.time.Duration.ZERO)
                    .setStyle(ProgressBarStyle.ASCII).setUpdateIntervalMillis(200).setConsumer(new ConsoleProgressBarConsumer(System.err))
                    .build();
        }
    }

    void stepped(TrainingListener.Step step) {
        if (tokensBefore < 0) {
            tokensBefore = step.tokens() / step.step() * (step.step() - 1);
        }
        latest = step;
        if (bar != null) {
            bar.stepTo(step.step());
            bar.setExtraMessage(numbers());
        } else if (System.nanoTime() - lastLine >= BETWEEN_LINES || step.step() == steps) {
            lastLine = System.nanoTime();
            line("step " + step.step() + "/" + steps + "  " + numbers() + "  " + remaining());
        }
        if (step.skipped()) {
            line("step " + step.step() + " skipped: loss " + step.loss() + ", gradient norm " + step.gradientNorm());
        }
    }

    private String numbers() {
        return String.format(Locale.ROOT, "loss %.4f lr %.1e %.0f tokens/s", latest.loss(), latest.learningRate(),
                (latest.tokens() - tokensBefore) / seconds());
    }

    private String remaining() {
        long left = Math.round(seconds() / (latest.step() - from) * (steps - latest.step()));
        return String.format(Locale.ROOT, "%d:%02d:%02d left", left / 3600, left / 60 % 60, left % 60);
    }

    private double seconds() {
        return (System.nanoTime() - started) / 1e9;
    }

    void evaluated(long step, List<Perplexity.Result> results) {
        if (!results.isEmpty()) {
            StringBuilder words = new StringBuilder("step ").append(step).append(": validation loss");
            for (Perplexity.Result result : results) {
                words.append(String.format(Locale.ROOT, " %.4f (perplexity %.2f) at context %d", result.loss(), result.perplexity(),
                        result.context()));
            }
            line(words.toString());
        }
    }

    void line(String words) {
        if (bar != null) {
            err.print("\r\033[K"); // the bar draws itself again below
        }
        err.println(words);
        err.flush();
    }

    /** Takes the bar away. */
    void ended() {
        if (bar != null) {
            bar.close();
            bar = null;
        }
    }

    @Override
    public void close() {
        ended();
    }
}
