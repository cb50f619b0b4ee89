package org.dualform.tests;

import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noMethods;
import static com.tngtech.archunit.library.GeneralCodingRules.ACCESS_STANDARD_STREAMS;

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
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

class ArchitectureTest {
    private static final JavaClasses CLASSES =
            new ClassFileImporter().withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS).importPackages("org.dualform");

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
                .resideInAnyPackage("org.dualform.autograd..", "org.dualform.io..", "org.dualform.cuda..", "org.dualform.cli..",
                        "org.dualform.lab..")
                .should()
                .dependOnClassesThat()
                .resideInAPackage("org.dualform.internal..")
                .check(CLASSES);
    }

    private static DescribedPredicate<JavaMethod> isPublicApi() {
        return DescribedPredicate.describe("are public in the core", method -> {
            JavaClass owner = method.getOwner();
            return Stream.of("org.dualform", "org.dualform.autograd", "org.dualform.io", "org.dualform.spi")
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
