#!/usr/bin/env bash
# Builds and runs the reduced suite under the address and undefined-behaviour sanitizers, then the threads under the thread sanitizer.
#   tests/native/sanitize.sh [BUILD_FOLDER] [address,undefined | thread ...]
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build/sanitize}
shift || true
sanitizers=("$@")
[ ${#sanitizers[@]} -gt 0 ] || sanitizers=(address,undefined thread)
for sanitizer in "${sanitizers[@]}"; do
    folder=$build/${sanitizer//,/-}
    mkdir -p "$folder"
    cmake -S "$root/cmake" -B "$folder" -DDF_CUDA=OFF -DDF_BENCH=OFF -DDF_BUILD_ID=sanitize -DDF_SANITIZE="$sanitizer" -DCMAKE_CXX_FLAGS_RELEASE=-O1 > "$folder.log" 2>&1 ||
        { cat "$folder.log"; exit 1; }
    cmake --build "$folder" --parallel "${DF_JOBS:-2}" --target df_tests
    ctest --test-dir "$folder" --output-on-failure -j "${DF_JOBS:-2}"
done
