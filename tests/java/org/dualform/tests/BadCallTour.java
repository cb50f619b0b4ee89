package org.dualform.tests;

/** Program: the bad calls of {@link RobustnessTest} in a JVM of their own. */
public final class BadCallTour {
    private BadCallTour() {}

    public static void main(String[] arguments) throws Exception {
        new RobustnessTest().everyPublicMethodRefusesBadArgumentsWithADocumentedException();
    }
}
