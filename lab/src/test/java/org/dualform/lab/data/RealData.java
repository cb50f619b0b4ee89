package org.dualform.lab.data;

import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Assumptions;

/** Public data sets that are not part of the project. A test that needs one says so where it is missing, and is not run. */
final class RealData {
    private RealData() {}

    static Path file(String name) {
        String folder = System.getProperty("dualform.test.data", "");
        Path file = Path.of(folder).resolve(name);
        if (folder.isEmpty() || !Files.exists(file)) {
            Assumptions.abort(name + " is not here: the data folder (system property dualform.test.data) is an optional extra");
        }
        return file;
    }
}
