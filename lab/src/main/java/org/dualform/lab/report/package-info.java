/**
 * Charts, tables and pages: everything a run shows a person, written as text.
 *
 * <p>Charts are drawn as SVG by this package and by no charting library. The Java ones paint through AWT, which needs fonts and a
 * fontconfig that headless machines often lack, and whose text metrics, and so whose pictures, differ from machine to machine. Here the
 * same data give the same bytes everywhere: coordinates are rounded to a tenth, logarithms come from {@link java.lang.StrictMath}, numbers
 * are written without a locale, and text widths are estimated rather than measured.
 *
 * <p>{@link org.dualform.lab.report.Chart} and {@link org.dualform.lab.report.Panels} are the two kinds of
 * {@link org.dualform.lab.report.Figure}; {@link org.dualform.lab.report.Table} and {@link org.dualform.lab.report.Csv} hold numbers;
 * {@link org.dualform.lab.report.Page} puts them all into one HTML file that needs nothing beside it.
 */
package org.dualform.lab.report;
