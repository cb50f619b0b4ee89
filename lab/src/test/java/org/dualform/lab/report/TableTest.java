package org.dualform.lab.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.StringReader;
import java.util.List;
import org.apache.commons.csv.CSVFormat;
import org.apache.commons.csv.CSVRecord;
import org.dualform.InvalidArgumentException;
import org.junit.jupiter.api.Test;
import org.w3c.dom.Document;

class TableTest {
    private static Table table() {
        return Table.titled("Held-out loss").text("model").number("loss", 3).percent("accuracy", 1).number("steps", 0)
            .row("plain <b>", 1.51249, 0.893, 700).row("momentum", Double.NaN, null, 1000L).build();
    }

    @Test
    void textIsAlignedByColumn() {
        assertEquals("Held-out loss\n"
            + "model       loss  accuracy  steps\n"
            + "plain <b>  1.512    89.3\u00A0%    700\n"
            + "momentum       \u2013         \u2013  1,000\n", table().text());
    }

    @Test
    void htmlIsWellFormedWithHeadersAndEscapedCells() throws Exception {
        Document document = Xml.parse(table().html());
        assertEquals("Held-out loss", Xml.elements(document, "caption").get(0).getTextContent());
        assertEquals(6, Xml.elements(document, "th").size());
        assertEquals("plain <b>", Xml.elements(document, "th").get(4).getTextContent());
        assertEquals("number", Xml.elements(document, "td").get(0).getAttribute("class"));
    }

    @Test
    void csvOfATableHasTheExactNumbers() {
        assertEquals("model,loss,accuracy,steps\nplain <b>,1.51249,0.893,700\nmomentum,NaN,,1000\n", table().csv().text());
    }

    @Test
    void csvQuotesAndComesBackAsItWas() throws Exception {
        String[] awkward = {"plain", "a,b", "say \"hi\"", "two\nlines", "cr\rlf", " spaces ", "", "\u03b7", "#comment", "-1"};
        Csv csv = new Csv("text", "number");
        double[] numbers = {0.1, -0.0, 1e-300, Math.PI, Double.MAX_VALUE, Double.MIN_VALUE, 1.0 / 3, 2e23, 5, Double.NEGATIVE_INFINITY};
        for (int i = 0; i < awkward.length; i++) {
            csv.row(awkward[i], numbers[i]);
        }
        List<CSVRecord> records = CSVFormat.RFC4180.parse(new StringReader(csv.text())).getRecords();
        assertEquals(awkward.length + 1, records.size());
        for (int i = 0; i < awkward.length; i++) {
            assertEquals(awkward[i], records.get(i + 1).get(0));
            assertEquals(Double.doubleToLongBits(numbers[i]), Double.doubleToLongBits(Double.parseDouble(records.get(i + 1).get(1))));
        }
    }

    @Test
    void csvRoundsToSignificantDigitsWhenAsked() {
        assertEquals("a,b,c\n0.333,1.23E+5,7\n2.00E-9,NaN,true\n",
            new Csv(3, "a", "b", "c").row(1.0 / 3, 123456.0, 7).row(2e-9, Double.NaN, true).text());
    }

    @Test
    void rowOfTheWrongLengthIsRefused() {
        assertEquals("row: 1 fields, expected 2",
            assertThrows(InvalidArgumentException.class, () -> new Csv("a", "b").row(1)).getMessage());
        assertEquals("row: 2 cells, expected 1 as of columns",
            assertThrows(InvalidArgumentException.class, () -> Table.titled("").text("a").row(1, 2)).getMessage());
        assertTrue(assertThrows(InvalidArgumentException.class, () -> new Csv()).getMessage().startsWith("0 columns"));
    }
}
