package org.dualform.lab.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;
import org.w3c.dom.Element;

class ChartTest {
    private static final Pattern LINE_STEP = Pattern.compile("([Mlhv])(-?[0-9.]+)(?: (-?[0-9.]+))?");
    private static final double[] SHOTS = {0, 1, 2, 4, 8, 12, 20};

    @Test
    void everyKindOfChartIsWellFormedAndHasNoNonFiniteNumber() throws Exception {
        for (Figure figure : figures()) {
            for (int width : new int[] {Figure.WIDE, Figure.NARROW}) {
                String svg = figure.render("t", width, true);
                Document document = Xml.parse(svg);
                assertEquals("svg", document.getDocumentElement().getLocalName());
                assertEquals("img", document.getDocumentElement().getAttribute("role"));
                assertFalse(svg.contains("NaN") || svg.contains("Infinity") || svg.contains("null"), svg);
                assertFalse(Pattern.compile("[\" ]-0(\\.0)?[\" ]").matcher(svg).find(), "negative zero");
            }
        }
    }

    @Test
    void textsNeitherOverlapNorLeaveThePicture() throws Exception {
        for (Figure figure : figures()) {
            for (int width : new int[] {Figure.WIDE, Figure.NARROW}) {
                Document document = Xml.parse(figure.render("t", width, false));
                String[] view = document.getDocumentElement().getAttribute("viewBox").split(" ");
                List<double[]> boxes = new ArrayList<>();
                List<String> words = new ArrayList<>();
                for (Element text : Xml.elements(document, "text")) {
                    double size = Double.parseDouble(text.getAttribute("font-size"));
                    double w = Letters.width(text.getTextContent(), size, text.hasAttribute("font-weight"));
                    double x = Double.parseDouble(text.getAttribute("x"));
                    x -= switch (text.getAttribute("text-anchor")) {
                        case "middle" -> w / 2;
                        case "end" -> w;
                        default -> 0;
                    };
                    double y = Double.parseDouble(text.getAttribute("y"));
                    double[] box = {x, y - size * 0.74, x + w, y + size * 0.2};
                    String what = text.getTextContent() + " at width " + width + " in "
                        + Xml.elements(document, "title").get(0).getTextContent();
                    assertTrue(box[0] >= -0.1 && box[1] >= 0 && box[2] <= width + 0.1 && box[3] <= Double.parseDouble(view[3]), what);
                    for (int i = 0; i < boxes.size(); i++) {
                        double[] other = boxes.get(i);
                        boolean apart = box[2] <= other[0] + 0.1 || other[2] <= box[0] + 0.1 || box[3] <= other[1] + 0.1
                            || other[3] <= box[1] + 0.1;
                        assertTrue(apart, what + " over " + words.get(i));
                    }
                    boxes.add(box);
                    words.add(text.getTextContent());
                }
            }
        }
    }

    @Test
    void estimatedTextIsNeitherNarrowerNorMuchWiderThanInTheWidestFont() {
        // Advance widths in em that a browser measured in DejaVu Sans: plain and bold.
        Object[][] measured = {{"1,000", 2.863, 3.163}, {"100\u00A0%", 3.177, 3.438}, {"\u22120.25", 3.064, 3.305},
            {"training step", 6.355, 7.287}, {"momentum attention, \u03b7 = 0.9", 15.022, 16.728}, {"Bayes ceiling", 6.612, 7.407},
            {"SimAOU", 4.072, 4.541}, {"When in-context learning appears", 16.989, 19.209}, {"HEAD NOQ", 5.478, 6.009}};
        for (Object[] row : measured) {
            double plain = Letters.width((String) row[0], 1, false) / (double) row[1];
            double bold = Letters.width((String) row[0], 1, true) / (double) row[2];
            assertTrue(plain >= 1 && plain < 1.2 && bold >= 0.99 && bold < 1.2, row[0] + ": " + plain + ", " + bold);
        }
    }

    @Test
    void sameDataGiveTheSameBytesInEveryLocale() {
        Locale before = Locale.getDefault();
        List<String> first = figures().stream().map(Figure::svg).toList();
        try {
            Locale.setDefault(Locale.forLanguageTag("ar-EG-u-nu-arab"));
            assertEquals(first, figures().stream().map(Figure::svg).toList());
        } finally {
            Locale.setDefault(before);
        }
    }

    @Test
    void textIsEscapedAndUnwritableCharactersAreReplaced() throws Exception {
        String name = "a<b & \"c\" 'd' ]]> \u0000\u001b\uD800 \u03b7 \uD83D\uDE00";
        Chart chart = Chart.titled(name).note(name).x(name).xNames(name, name, "b").y(name).description(name)
            .add(Series.points(name, new double[] {0, 1}, new double[] {1, 2}).floor(name, new double[] {0, 1})).reference(name, 1).build();
        Document document = Xml.parse(chart.svg());
        assertEquals("a<b & \"c\" 'd' ]]> \uFFFD\uFFFD\uFFFD \u03b7 \uD83D\uDE00", Xml.elements(document, "desc").get(0).getTextContent());
        assertEquals(0, Xml.elements(document, "b").size());
    }

    @Test
    void emptyOnePointAndConstantSeriesHaveAxesWithTicks() throws Exception {
        double[][] values = {{}, {3}, {7, 7, 7}, {0, 0}, {Double.NaN, Double.NaN}, {Double.POSITIVE_INFINITY, 1, -1e300}};
        for (double[] y : values) {
            double[] x = new double[y.length];
            Arrays.setAll(x, i -> i + 1);
            for (Scale scale : Scale.values()) {
                Chart chart = Chart.titled("t").x("x").y("y").scales(scale, scale).add(Series.line("a", x, y)).build();
                String svg = chart.svg();
                Xml.parse(svg);
                assertFalse(svg.contains("NaN") || svg.contains("Infinity"));
                int ticks = Chart.yAxis(List.of(chart), 8).ticks().size();
                assertTrue(ticks >= 2 && ticks <= 9, Arrays.toString(y) + " " + scale + ": " + ticks + " ticks");
            }
        }
    }

    @Test
    void longSeriesIsSmallAndKeepsItsExtremes() {
        int n = 100_000;
        double[] x = new double[n];
        double[] y = new double[n];
        Random random = new Random(4);
        for (int i = 0; i < n; i++) {
            x[i] = i;
            y[i] = random.nextGaussian() * 0.1;
        }
        y[12_345] = 9;
        y[77_777] = -9;
        Chart chart = Chart.titled("t").x("step").y("loss").yRange(-10, 10).add(Series.line("a", x, y)).build();
        String svg = chart.svg();
        assertTrue(svg.length() < 40_000, svg.length() + " characters");
        double[] lowHigh = {Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY};
        int points = follow(svg, lowHigh);
        assertTrue(points > 400 && points < 4 * 720, points + " points");
        // The plot is 290 high and shows -10 to 10.
        assertEquals(18.0 / 20 * 290, lowHigh[1] - lowHigh[0], 0.11);
    }

    @Test
    void shortSeriesKeepsEveryPoint() {
        double[] x = new double[700];
        double[] y = new double[700];
        Arrays.setAll(x, i -> i);
        Arrays.setAll(y, i -> Math.sin(i * 0.1));
        assertEquals(700, follow(Chart.titled("t").add(Series.line("a", x, y)).build().svg(), new double[2]));
    }

    @Test
    void gapBreaksTheLineAndALonePointShows() {
        double[] x = {0, 1, 2, 3, 4, 5};
        double[] y = {1, 2, Double.NaN, 3, Double.NaN, 2};
        String path = path(Chart.titled("t").add(Series.line("a", x, y)).build().svg());
        assertEquals(3, path.chars().filter(c -> c == 'M').count(), path);
        assertTrue(path.endsWith("h0"), path);
    }

    @Test
    void movingAverageOfAConstantIsTheConstantAndMedianIgnoresASpike() {
        double[] x = {0, 1, 2, 3, 4};
        double[] flat = Series.line("a", x, new double[] {3, 3, Double.NaN, 3, 3}).averaged(0.9).course();
        for (int i : new int[] {0, 1, 3, 4}) {
            assertEquals(3, flat[i], 1e-12);
        }
        assertTrue(Double.isNaN(flat[2]));
        assertEquals(1, Series.line("a", x, new double[] {1, 1, 100, 1, 1}).median(3).course()[2]);
        assertEquals(1.75, Series.line("a", x, new double[] {1, 2, 0, 0, 0}).averaged(1.0 / 3).course()[1], 1e-12);
    }

    @Test
    void descriptionSaysFirstAndLastValues() throws Exception {
        String spoken = Xml.elements(Xml.parse(shots().svg()), "desc").get(0).getTextContent();
        assertTrue(spoken.contains("plain: 57.0\u00A0% at 0, 98.0\u00A0% at 20."), spoken);
        assertTrue(spoken.contains("chance: 25.0\u00A0%"), spoken);
    }

    @Test
    void modelKeepsItsColourWhereItIsGiven() {
        String svg = Chart.titled("t").add(Series.line("momentum", SHOTS, SHOTS).colour(1)).build().svg();
        assertTrue(svg.contains("class=\"s1\"") && !svg.contains("class=\"s0\""));
    }

    @Test
    void wrongUseIsRefusedWithASentence() {
        refused("series a: 2 x and 1 y, expected as many", () -> Series.line("a", new double[2], new double[1]));
        refused("series a: 3 values of lower, expected 2 as of points",
            () -> Series.line("a", new double[2], new double[2]).band(new double[3], new double[2]));
        refused("series a: x 3.0, expected one of [0.0, 1.0]",
            () -> Chart.titled("t").xPlaces("x", 0, 1).add(Series.line("a", new double[] {3}, new double[1])).build());
        refused("series a: bars, expected xPlaces or xNames below them and a linear scale beside them",
            () -> Chart.titled("t").add(Series.bars("a", new double[1], new double[1])).build());
        refused("window: 4, expected an odd number", () -> Series.line("a", new double[1], new double[1]).median(4));
        assertThrows(InvalidArgumentException.class, () -> Chart.titled("t").yRange(1, 0).build());
        assertThrows(InvalidArgumentException.class, () -> Chart.titled("t").scales(Scale.LINEAR, Scale.LOG10).yRange(0, 1).build());
        assertThrows(InvalidArgumentException.class, () -> new Panels("t", "", 2, List.of()));
    }

    @Test
    void pictureIsUtf8WithItsOwnDarkColours() {
        String svg = shots().svg();
        assertEquals(svg, new String(svg.getBytes(StandardCharsets.UTF_8), StandardCharsets.UTF_8));
        assertTrue(svg.startsWith("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"));
        assertTrue(svg.contains("prefers-color-scheme:dark"));
        assertFalse(svg.contains("var("), "attributes are plain colours, so that every renderer shows them");
    }

    private static void refused(String sentence, Runnable use) {
        assertEquals(sentence, assertThrows(InvalidArgumentException.class, use::run).getMessage());
    }

    /** Follows the first line: how many points it has, and the least and greatest y. */
    private static int follow(String svg, double[] lowHigh) {
        Matcher step = LINE_STEP.matcher(path(svg));
        double y = 0;
        int points = 0;
        while (step.find()) {
            double last = Double.parseDouble(step.group(step.group(3) == null ? 2 : 3));
            y = step.group(1).equals("M") ? last : y + last;
            lowHigh[0] = Math.min(lowHigh[0], y);
            lowHigh[1] = Math.max(lowHigh[1], y);
            points++;
        }
        return points;
    }

    private static String path(String svg) {
        Matcher path = Pattern.compile("<path d=\"([^\"]+)\" class=\"s0\"").matcher(svg);
        assertTrue(path.find());
        return path.group(1);
    }

    private static Chart shots() {
        double[] plain = {0.57, 0.72, 0.81, 0.89, 0.96, 0.97, 0.98};
        return Chart.titled("Accuracy over shots").note("2,000 episodes per point").xPlaces("examples in the prompt", SHOTS).y("accuracy")
            .percent().yRange(0, 1).add(Series.line("plain", SHOTS, plain).band(shifted(plain, -0.02), shifted(plain, 0.02)))
            .add(Series.line("momentum attention with a rather long name", SHOTS, shifted(plain, 0.01))
                .errorBars(plain, shifted(plain, 0.02)))
            .add(Series.dashed("Bayes ceiling", SHOTS, shifted(plain, 0.02))).reference("chance", 0.25).reference("majority", 0.26)
            .reference("another baseline", 0.255).build();
    }

    private static Chart layers(int n, String title) {
        String[] names = new String[n];
        double[] x = new double[n];
        double[] y = new double[n];
        Random random = new Random(n);
        for (int i = 0; i < n; i++) {
            names[i] = "h." + i;
            x[i] = i;
            y[i] = random.nextDouble() * 1.5 - 0.5;
        }
        return Chart.titled(title).xNames("layer", names).y("cosine").add(Series.points("plain", x, y).floor("floor", shifted(y, -0.3)))
            .add(Series.points("momentum", x, shifted(y, 0.1)).errorBars(y, shifted(y, 0.2)).floor("floor", shifted(y, -0.2))).build();
    }

    private static List<Figure> figures() {
        List<Figure> out = new ArrayList<>();
        out.add(shots());
        for (int n : new int[] {1, 2, 12, 48}) {
            out.add(layers(n, "Similarity by layer"));
            out.add(new Panels("Similarities of a title that is long enough to need a second line where there is little room", "a note", 3,
                List.of(layers(n, "SimAOU"), layers(n, "SimAM before finetuning of keys and values"), layers(n, "SimAM"),
                    layers(n, "Kendall"))));
        }
        for (int n : new int[] {0, 1, 30, 700, 10_000}) {
            double[] x = new double[n];
            double[] y = new double[n];
            Arrays.setAll(x, i -> i + 1);
            Arrays.setAll(y, i -> i % 97 == 96 ? Double.NaN : 4 / (1 + i * 0.01) + Math.sin(i) * 0.1);
            for (Scale scale : Scale.values()) {
                out.add(Chart.titled("Loss of " + n).x("step").y("loss").scales(scale, scale).add(Series.line("raw", x, y).averaged(0.9))
                    .add(Series.step("held out", x, shifted(y, 0.1)).band(y, shifted(y, 0.3)).median(5)).reference("entropy", 1.1).build());
            }
        }
        double[] tokens = {0, 3_500_000};
        out.add(Chart.titled("Tokens").x("tokens").y("loss").add(Series.line("a", tokens, new double[] {4, 1})).build());
        double[] places = {0, 1, 2};
        out.add(Chart.titled("By setting").xNames("", "zero-shot", "in context", "finetuned").percent()
            .add(Series.bars("plain", places, new double[] {-0.1, 0.8, 0.6})
                .errorBars(new double[] {-0.2, 0.7, 0.5}, new double[] {0, 0.9, 0.7}))
            .add(Series.bars("momentum", places, new double[] {0.2, Double.NaN, 0.6})
                .floor("floor", new double[] {0.1, 0.1, 0.1})).build());
        return out;
    }

    private static double[] shifted(double[] values, double by) {
        return Arrays.stream(values).map(v -> v + by).toArray();
    }
}
