package org.dualform.lab.train;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.dualform.lab.report.Chart;
import org.dualform.lab.report.Series;

/**
 * The picture of a run: training loss over the steps, and validation loss at each context length, from its logs.
 *
 * <p>Threading: safe for concurrent use, for different runs.
 */
public final class LossCurve {
    /** Name of the file in the run's folder. */
    public static final String FILE_NAME = "loss.svg";

    private static final ObjectMapper JSON = new ObjectMapper();
    /** More points than a picture has columns cannot be seen. */
    private static final int POINTS = 2000;

    private LossCurve() {}

    private record Points(List<Double> x, List<Double> y) {
        Points() {
            this(new ArrayList<>(), new ArrayList<>());
        }

        void add(double atStep, JsonNode loss) {
            if (loss.isNumber()) {
                x.add(atStep);
                y.add(loss.doubleValue());
            }
        }

        double[] steps() {
            return x.stream().mapToDouble(Double::doubleValue).toArray();
        }

        double[] losses() {
            return y.stream().mapToDouble(Double::doubleValue).toArray();
        }
    }

    /**
     * Draws {@link #FILE_NAME}; without any finite loss in the logs, does nothing.
     *
     * @param folder of the run
     * @return whether there is a picture
     * @throws IOException if a log cannot be read or the picture not be written
     */
    public static boolean save(Path folder) throws IOException {
        Points training = training(folder.resolve(RunFolder.STEPS));
        Map<Integer, Points> validation = validation(folder.resolve(RunFolder.EVALUATIONS));
        if (training.x().isEmpty() && validation.values().stream().allMatch(points -> points.x().isEmpty())) {
            return false;
        }
        Chart.Builder chart = Chart.titled("Loss").x("step").y("nats per token");
        if (!training.x().isEmpty()) {
            chart.add(Series.line("training", training.steps(), training.losses()).averaged(0.9));
        }
        validation.forEach((context, points) -> {
            if (!points.x().isEmpty()) {
                chart.add(Series.line("validation, context " + context, points.steps(), points.losses()));
            }
        });
        chart.build().save(folder.resolve(FILE_NAME));
        return true;
    }

    private static Points training(Path log) throws IOException {
        long lines;
        try (Stream<String> counted = Files.lines(log)) {
            lines = counted.count();
        }
        long every = Math.max(1, lines / POINTS);
        Points points = new Points();
        try (Stream<String> all = Files.lines(log)) {
            for (String line : (Iterable<String>) all::iterator) {
                JsonNode step = JSON.readTree(line);
                if (step.path("step").longValue() % every == 0 || lines < POINTS) {
                    points.add(step.path("step").doubleValue(), step.path("loss"));
                }
            }
        }
        return points;
    }

    private static Map<Integer, Points> validation(Path log) throws IOException {
        Map<Integer, Points> contexts = new TreeMap<>();
        for (String line : Files.readAllLines(log)) {
            JsonNode evaluation = JSON.readTree(line);
            for (JsonNode result : evaluation.path("validation")) {
                contexts.computeIfAbsent(result.path("context").intValue(), context -> new Points())
                        .add(evaluation.path("step").doubleValue(), result.path("loss"));
            }
        }
        return contexts;
    }
}
