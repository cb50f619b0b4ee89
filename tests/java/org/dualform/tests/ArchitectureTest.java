package org.dualform.tests;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noMethods;
import static com.tngtech.archunit.library.GeneralCodingRules.ACCESS_STANDARD_STREAMS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaMethod;
import com.tngtech.archunit.core.domain.JavaModifier;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchCondition;
import com.tngtech.archunit.lang.ConditionEvents;
import com.tngtech.archunit.lang.SimpleConditionEvent;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

class ArchitectureTest {
    private static final JavaClasses CLASSES =
            new ClassFileImporter().withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS).importPackages("org.dualform");

    private static final List<String> PUBLIC_SOURCES = List.of(
            "java-api/src/main/java/org/dualform",
            "java-api/src/main/java/org/dualform/autograd",
            "java-api/src/main/java/org/dualform/io",
            "java-api/src/main/java/org/dualform/json",
            "java-api/src/main/java/org/dualform/nn",
            "java-api/src/main/java/org/dualform/optim",
            "java-api/src/main/java/org/dualform/spi",
            "cuda/src/main/java/org/dualform/cuda");

    @Test
    void thePublicApiShowsNoJavaCppType() {
        noMethods()
                .that(isPublicApi())
                .should(mentionJavaCpp())
                .check(CLASSES);
    }

    @Test
    void theLibraryDoesNotPrint() {
        noClasses().that().resideOutsideOfPackages("org.dualform.cli..", "org.dualform.internal..", "org.dualform.tests..")
                .should(ACCESS_STANDARD_STREAMS).check(CLASSES);
    }

    @Test
    void onlyTheInteropClassKnowsThePresets() {
        noClasses().that().doNotHaveFullyQualifiedName("org.dualform.cuda.CudaInterop").should().dependOnClassesThat()
                .resideInAPackage("org.bytedeco.cuda..").check(CLASSES);
    }

    @Test
    void nobodyOutsideTheCoreUsesItsBindings() {
        noClasses()
                .that()
                .resideInAnyPackage("org.dualform.autograd..", "org.dualform.io..", "org.dualform.json..", "org.dualform.nn..",
                        "org.dualform.optim..", "org.dualform.cuda..", "org.dualform.cli..", "org.dualform.lab..")
                .should()
                .dependOnClassesThat()
                .resideInAPackage("org.dualform.internal..")
                .check(CLASSES);
    }

    /** Without exception: enums, records and exceptions say that they are immutable. */
    @Test
    void everyPublicTypeDocumentsItsThreading() throws IOException {
        Pattern declaration = Pattern.compile("^public [a-z ]*(class|interface|enum|record) ", Pattern.MULTILINE);
        List<String> silent = new ArrayList<>();
        int types = 0;
        for (String folder : PUBLIC_SOURCES) {
            try (Stream<Path> files = Files.list(Jvm.ROOT.resolve(folder))) {
                for (Path file : files.filter(path -> path.toString().endsWith(".java")).toList()) {
                    String source = Files.readString(file);
                    Matcher type = declaration.matcher(source);
                    if (type.find()) {
                        types++;
                        String before = source.substring(0, type.start());
                        if (!before.substring(Math.max(0, before.lastIndexOf("/**"))).contains("<p>Threading: ")) {
                            silent.add(file.toString());
                        }
                    }
                }
            }
        }
        assertTrue(types > 20, "only " + types + " public types found");
        assertEquals(List.of(), silent);
    }

    private static DescribedPredicate<JavaMethod> isPublicApi() {
        return DescribedPredicate.describe("are public in the core", method -> {
            JavaClass owner = method.getOwner();
            return Stream.of("org.dualform", "org.dualform.autograd", "org.dualform.io", "org.dualform.nn", "org.dualform.optim",
                    "org.dualform.spi")
                    .anyMatch(owner.getPackageName()::equals)
                    && owner.getModifiers().contains(JavaModifier.PUBLIC)
                    && method.getModifiers().contains(JavaModifier.PUBLIC);
        });
    }

    private static ArchCondition<JavaMethod> mentionJavaCpp() {
        return new ArchCondition<>("mention a type of JavaCPP") {
            @Override
            public void check(JavaMethod method, ConditionEvents events) {
                Stream.concat(Stream.of(method.getRawReturnType()), method.getRawParameterTypes().stream())
                        .filter(type -> type.getName().startsWith("org.bytedeco"))
                        .forEach(type -> events.add(SimpleConditionEvent.satisfied(method, method.getFullName() + " mentions "
                                + type.getName())));
            }
        };
    }
}
