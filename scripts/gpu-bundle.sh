#!/usr/bin/env bash
# Puts into one folder all that gpu-check.sh needs on a machine with a GPU and little else: no JDK, no Maven, no nvcc.
#
#   scripts/gpu-bundle.sh DIR [--native BUILD] [--no-java]
#
#   --native BUILD   a CMake build folder with dualform, dualform_cuda, df_tests and df_bench; without it they are built here, with nvcc
#   --no-java        leave Java out
#
# For the Java part the application must have been built (./dualform doctor does it; with nvcc the plug-in is in its jars). The folder may
# have 60 MiB; the script fails when it has more. Run DIR/gpu-check.sh on the other machine.
set -euo pipefail

fail() { printf 'gpu-bundle: %s\n' "$1" >&2; exit "${2:-1}"; }
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
most=$((60 * 1024 * 1024))
folder='' native='' with_java=1
while (($# > 0)); do
    case $1 in
    --native) (($# > 1)) || fail "--native needs a value" 2; native=$2; shift 2 ;;
    --no-java) with_java=0; shift ;;
    -*) fail "$1 is unknown" 2 ;;
    *) [[ -z $folder ]] || fail "one folder, not $folder and $1" 2; folder=$1; shift ;;
    esac
done
[[ -n $folder ]] || fail "which folder? gpu-bundle.sh DIR [--native BUILD] [--no-java]" 2
[[ ! -e $folder || -z $(ls -A "$folder") ]] || fail "$folder is not empty" 2
mkdir -p "$folder/native" "$folder/peers"
folder=$(cd -- "$folder" && pwd -P)

if [[ -z $native ]]; then
    native=$root/.dualform/gpu-bundle
    mkdir -p "$native"
    echo "building into $native"
    # The build id of the Java classes, so that they and the libraries here are of one build.
    cmake -DDF_ROOT="$root" -DDF_CACHE="$native/build-id.cmake" -P "$root/cmake/BuildId.cmake" >"$native/build.log" 2>&1 &&
        cmake -C "$native/build-id.cmake" -S "$root/cmake" -B "$native" -DDF_CUDA=ON >>"$native/build.log" 2>&1 &&
        cmake --build "$native" --parallel "$(nproc)" --target dualform dualform_cuda df_tests df_bench >>"$native/build.log" 2>&1 ||
        fail "the build failed; the whole log is $native/build.log."
    if cmake --build "$native" --target help | grep '\bdf_hopper\b' >/dev/null; then
        cmake --build "$native" --target df_hopper >>"$native/build.log" 2>&1 || fail "the build failed; the whole log is $native/build.log."
    fi
fi
put() { # NAME PLACES...: the first that is there, stripped
    local name=$1 place
    shift
    for place in "$@"; do
        [[ -f $place ]] || continue
        strip --strip-unneeded -o "$folder/native/$name" "$place"
        return
    done
    fail "$name is not in $native"
}
put libdualform.so "$native/libdualform.so"
# A bundle without the plug-in serves to test the bundle itself, on the CPU.
if [[ -f $native/libdualform_cuda.so ]]; then
    put libdualform_cuda.so "$native/libdualform_cuda.so"
else
    echo "no libdualform_cuda.so in $native: this bundle cannot use a GPU"
fi
put df_tests "$native/tests/df_tests" "$native/df_tests"
put df_bench "$native/bench/df_bench" "$native/df_bench"
[[ ! -f $native/tests/df_hopper ]] || put df_hopper "$native/tests/df_hopper"
cp "$root/scripts/gpu-check.sh" "$folder/"
cp "$root"/bench/peers/*_cuda.py "$root/bench/peers/peer.py" "$folder/peers/"

if ((with_java)); then
    application=$root/cli/target
    [[ -f $application/dualform-cli.jar && -d $application/lib ]] ||
        fail "the application has not been built (./dualform doctor), and --no-java is not given"
    command -v jlink >/dev/null || fail "there is no jlink to make a Java runtime with, and --no-java is not given"
    mkdir -p "$folder/java/app/lib"
    cp "$application/dualform-cli.jar" "$folder/java/app/"
    cp "$application"/lib/*.jar "$folder/java/app/lib/"
    # Tokenizers and archives of data sets: nothing that is run on the device reads text.
    rm -f "$folder"/java/app/lib/{jtokkit,xz}-*.jar
    # jdeps names java.desktop and java.sql too: Jackson asks for parts of them and does without. JUnit's console wants java.xml, and zipfs to
    # look into a jar; a test counts allocations by jdk.management.
    jlink --add-modules java.base,java.logging,java.management,java.xml,jdk.management,jdk.unsupported,jdk.zipfs --strip-debug \
        --no-header-files --no-man-pages --compress=2 --output "$folder/java/runtime"
    find "$folder/java/runtime/lib" -name '*.so' -exec strip --strip-unneeded {} +
    # Packed it is two thirds as large; gpu-check.sh unpacks it.
    tar -C "$folder/java" -czf "$folder/java/runtime.tar.gz" runtime
    rm -r "$folder/java/runtime"
    # The Java tests of the API and of the whole, of which gpu-check.sh takes those that need no more than a device: classes from the last build
    # of the tests, golden tensors, JUnit's console from Maven's repository.
    if [[ -d $root/tests/target/test-classes && -d $root/java-api/target/test-classes ]] && command -v mvn >/dev/null &&
        mvn -q -B -ntp -f "$root/pom.xml" -N dependency:copy -Dartifact=org.junit.platform:junit-platform-console-standalone:1.14.4 \
            -DoutputDirectory="$folder/java" -Dmdep.stripVersion=true >/dev/null 2>&1; then
        mv "$folder/java/junit-platform-console-standalone.jar" "$folder/java/junit.jar"
        jar --create --file "$folder/java/tests.jar" -C "$root/tests/target/test-classes" . -C "$root/java-api/target/test-classes" .
        mkdir -p "$folder/java/tests/golden"
        cp -r "$root/tests/golden/data" "$root/tests/golden/nn" "$folder/java/tests/golden/"
    else
        echo "the Java tests are left out: their classes have not been built, or JUnit's console cannot be had"
    fi
fi

in_git() { git -c safe.directory="$root" -C "$root" "$@"; }
commit=$(in_git rev-parse HEAD) || fail "which commit this is cannot be told: $root is no git checkout"
[[ -z $(in_git status --porcelain --untracked-files=no) ]] || commit="$commit, with changes"
# The newest versions of the C and C++ libraries that anything here asks for: the other machine has to have them.
needs() { objdump -T "$folder"/native/* 2>/dev/null | grep -o "(\{0,1\}$1_[0-9.]*" | tr -d '(' | sort -uV | tail -n 1; }
needed="$(needs GLIBC) $(needs GLIBCXX)"
printf 'commit=%s\ndate=%s\nneeds=%s\n' "$commit" "$(date -u +%FT%TZ)" "$needed" >"$folder/bundle.txt"
size=$(du -sb "$folder" | cut -f1)
((size <= most)) || fail "$folder has $((size / 1048576)) MiB, 60 at most"
printf '%s: %d.%d MiB of 60, commit %s, needs %s\n' "$folder" $((size / 1048576)) $((size % 1048576 * 10 / 1048576)) "$commit" "$needed"
