package org.dualform.lab.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.w3c.dom.Document;
import org.w3c.dom.Element;

class PageTest {
    private static Page page() {
        double[] x = {0, 1, 2};
        Chart chart = Chart.titled("Loss").x("step").y("nats").add(Series.line("plain", x, new double[] {3, 2, 1.5})).build();
        return Page.titled("A <run> & its \"numbers\"")
            .lead(Text.of("It ").strong("learned").plain(" <in> ").emphasis("context").plain("."))
            .fact("seed", "1").fact("d<evice", "CPU")
            .section("One").paragraph("Plain & simple <b>").figure(chart, Text.of("Caption of ").code("x < y"))
            .section("Two").table(Table.titled("T").text("a").number("b", 2).row("x", 1.0).build())
            .section("Three").callout(Page.Tone.CAUTION, Text.of("within noise")).callout(Page.Tone.FINDING, Text.of("gain"))
            .section("Four").folded("all", Table.titled("").text("a").row("<y>").build()).code("./dualform demo\n  --seeds 5")
            .points(List.of(Text.of("see ").link("the numbers", "results.csv"),
                Text.of("paper").link("arXiv", "https://arxiv.org/abs/2212.10559")))
            .figure(new Panels("P", "", 2, List.of(chart, chart)), Text.of("two")).build();
    }

    private static Document parse(Page page) throws Exception {
        String declaration = "<!DOCTYPE html>\n";
        assertTrue(page.html().startsWith(declaration));
        return Xml.parse(page.html().substring(declaration.length()));
    }

    @Test
    void pageIsWellFormedAndHoldsEverythingInOrder() throws Exception {
        Document document = parse(page());
        assertEquals("A <run> & its \"numbers\"", Xml.elements(document, "h1").get(0).getTextContent());
        assertEquals(List.of("One", "Two", "Three", "Four"), Xml.elements(document, "h2").stream().map(Element::getTextContent).toList());
        assertEquals(4, Xml.elements(document, "svg").size());
        assertEquals(2, Xml.elements(document, "table").size());
        assertEquals("It learned <in> context.", Xml.elements(document, "p").get(0).getTextContent());
    }

    @Test
    void pageNeedsNothingBesideIt() throws Exception {
        Document document = parse(page());
        for (String name : new String[] {"script", "link", "img", "iframe", "object"}) {
            assertEquals(0, Xml.elements(document, name).size(), name);
        }
        String style = Xml.elements(document, "style").get(0).getTextContent();
        assertFalse(style.contains("url(") || style.contains("@import"), style);
        assertEquals(style.chars().filter(c -> c == '{').count(), style.chars().filter(c -> c == '}').count());
    }

    @Test
    void identifiersAreUniqueAndEveryReferenceHasATarget() throws Exception {
        Document document = parse(page());
        Set<String> ids = new HashSet<>();
        for (Element element : Xml.elements(document, "*")) {
            if (element.hasAttribute("id")) {
                assertTrue(ids.add(element.getAttribute("id")), element.getAttribute("id"));
            }
        }
        for (Element element : Xml.elements(document, "*")) {
            for (String id : element.getAttribute("aria-labelledby").split(" ")) {
                assertTrue(id.isEmpty() || ids.contains(id), id);
            }
            String clip = element.getAttribute("clip-path");
            assertTrue(clip.isEmpty() || ids.contains(clip.substring("url(#".length(), clip.length() - 1)), clip);
            String address = element.getAttribute("href");
            assertTrue(!address.startsWith("#") || ids.contains(address.substring(1)), address);
        }
    }

    @Test
    void samePageIsTheSameBytes() {
        assertEquals(page().html(), page().html());
        assertTrue(page().html().length() < 40_000, page().html().length() + " characters");
    }

    @Test
    void linkWithAScriptIsRefused() {
        assertEquals("address: javascript:alert(1), expected https or a file beside the page",
            assertThrows(InvalidArgumentException.class, () -> Text.of("").link("x", "javascript:alert(1)")).getMessage());
    }

    @Test
    void savedFileReplacesTheOldOneAndLeavesNothingElse(@TempDir Path folder) throws IOException {
        Path file = folder.resolve("new/report.html");
        page().save(file);
        Files.writeString(file, "old");
        page().save(file);
        assertEquals(page().html(), Files.readString(file));
        try (Stream<Path> files = Files.list(file.getParent())) {
            assertEquals(List.of(file), files.toList());
        }
    }

    @Test
    void failedSaveLeavesTheOldFileAndNoOther(@TempDir Path folder) throws IOException {
        Path occupied = Files.createDirectories(folder.resolve("report.html"));
        Files.writeString(occupied.resolve("inside"), "kept");
        assertThrows(IOException.class, () -> page().save(occupied));
        assertEquals("kept", Files.readString(occupied.resolve("inside")));
        try (Stream<Path> files = Files.list(folder)) {
            assertEquals(List.of(occupied), files.toList());
        }
    }
}
