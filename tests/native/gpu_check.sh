#!/bin/sh
# gpu_check.sh SCRIPT BUILD BACKEND...   dry runs of scripts/gpu-check.sh: what it records, what a stage that fails does, its exit codes
script=$1 build=$2
shift 2
failed=0 passed=0
fail() { echo "FAILED: $*"; failed=$((failed + 1)); }
ok() { passed=$((passed + 1)); }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT

# run CODE ARGUMENTS...: output in $folder/log
run() {
    code=$1
    shift
    bash "$script" "$@" > "$folder/log" 2>&1
    got=$?
    if [ $got = "$code" ]; then ok; else fail "$*: exit code $got, expected $code: $(tail -5 "$folder/log")"; fi
}
says() { if grep -qF -- "$1" "$folder/log"; then ok; else fail "it does not say '$1': $(tail -5 "$folder/log")"; fi; }
# A file's quotes and brackets match, and python reads it where there is one.
is_json() {
    if [ "$(tr -cd '{' < "$1" | wc -c)" = "$(tr -cd '}' < "$1" | wc -c)" ]; then ok; else fail "$1: braces"; fi
    if command -v python3 > /dev/null; then if python3 -m json.tool "$1" > /dev/null; then ok; else fail "$1 is not JSON: $(cat "$1")"; fi; fi
}

for backend in "$@"; do
    run 0 --backend "$backend" --native "$build" --out "$folder/$backend" --kernels plain
    says 'dry run on'
    json=$(ls "$folder/$backend"/*.json) md=$(ls "$folder/$backend"/*.md)
    is_json "$json"
    for stage in parity.plain masked.plain hostile.plain errors.plain steady-state.plain determinism.plain repeat.plain threads.plain \
        out-of-memory.plain bench.plain bench-matmul.plain; do
        grep -q "\"stage\": \"$stage\", \"status\": \"PASS\"" "$json" && grep -q "^| $stage | PASS |" "$md" && ok || fail "$backend: $stage is no PASS: $(grep "\"$stage\"" "$json")"
    done
    grep -q '"asked": "plain", "op": "attention", "shape": \[1, 9, 2, 8\]' "$json" && ok || fail "$backend: no attention in the works"
    grep -q '^| attention | 1,9,2,8 | f32 | both | plain |' "$md" && ok || fail "$backend: no attention in the table: $(cat "$md")"
    grep -q '"errors": \[{"op": "[a-z_]*", "dtype": "F32", "kernels": "plain", "precision": "float32", "check": "parity", "cases": 1, "error_over' "$json" &&
        grep -q '^| attention | F32 | plain | float32 | [0-9.]* | [0-9.]* |$' "$md" && ok || fail "$backend: no errors by op: $(cat "$md")"
    grep -q '"momentum": \[{"shape": \[1,9,2,8\], .*"time_over_attention": [0-9]' "$json" && ok || fail "$backend: no momentum over attention"
done

# A second run of a day overwrites nothing.
run 0 --backend cpu --native "$build" --out "$folder/cpu" --only errors
json=$(ls "$folder/cpu"/*-cpu-2.json) && is_json "$json" && grep -q '(only errors)' "$json" && [ "$(ls "$folder/cpu" | wc -l)" = 4 ] && ok ||
    fail "the second run: $(ls "$folder/cpu")"

# A device that is no Hopper, played by scripts that pass everything: what is for Hopper is skipped and costs nothing, and so do optional stages.
mkdir -p "$folder/ampere" "$folder/scripts"
cat > "$folder/ampere/df_tests" << 'END'
#!/bin/sh
case "$*" in *--list*) for c in parity hopper errors; do echo "check $c meaning"; done ;; esac
echo '1 passed, 0 failed, 0 skipped'
END
cat > "$folder/ampere/df_bench" << 'END'
#!/bin/sh
case "$*" in --describe*) echo '{"driver":13000,"devices":[{"name":"Some GPU","cc":"8.0","memory_bytes":1}],"cublaslt":{"found":false,"reason":"none"}}' ;; *) echo '{"op": "x"}' ;; esac
END
chmod +x "$folder/ampere"/*
run 0 --native "$folder/ampere" --out "$folder/a" --only parity,hopper,tiles,sanitizer.memcheck.hopper,errors
json=$(ls "$folder/a"/*-some-gpu.json)
is_json "$json"
for stage in parity.hopper hopper.hopper tiles.hopper errors.hopper sanitizer.memcheck.hopper; do
    grep -q "\"stage\": \"$stage\", \"status\": \"SKIPPED\".*compute capability 8.0" "$json" && ok || fail "$stage is not skipped: $(cat "$json")"
done
grep -q '"stage": "parity.mma", "status": "PASS"' "$json" && ok || fail 'parity.mma did not pass'
# Without cuBLASLt nothing is known about its products.
run 4 --native "$folder/ampere" --out "$folder/a" --only bench-matmul.mma
grep -q '"stage": "bench-matmul.mma", "status": "UNVERIFIED"' "$folder/a"/*-some-gpu-2.json && ok || fail 'matmul without cuBLASLt is not unverified'
# No commit, no result; a wrong one neither.
cp "$script" "$folder/scripts/"
known=$(git -c safe.directory='*' -C "$(dirname "$script")" rev-parse HEAD 2> /dev/null)
right=$script script=$folder/scripts/gpu-check.sh
run 2 --native "$folder/ampere" --out "$folder/b" --only errors
says '--commit'
run 0 --native "$folder/ampere" --out "$folder/b" --only errors --commit abcdef
grep -q '"commit": "abcdef"' "$folder/b"/*.json && ok || fail "not of the commit that was given"
script=$right
[ -z "$known" ] || run 2 --native "$folder/ampere" --out "$folder/b" --only errors --commit abcdef

# A stage that fails: the others run, and the exit code tells.
mkdir "$folder/broken"
for file in "$build"/libdualform*.so "$build/bench/df_bench"; do ln -s "$file" "$folder/broken/"; done
printf '#!/bin/sh\ncase "$*" in *"--check masked"*) echo "FAILED: one \\"key\\" in \\\\ a tab\t!"; exit 1 ;; esac\nexec "%s" "$@"\n' "$build/tests/df_tests" > "$folder/broken/df_tests"
chmod +x "$folder/broken/df_tests"
run 1 --backend cpu --native "$folder/broken" --out "$folder/failing" --only masked,errors
says 'FAILED'
json=$(ls "$folder/failing"/*.json)
is_json "$json"
grep -q '"stage": "masked.plain", "status": "FAIL"' "$json" && ok || fail 'the failure is not recorded'
grep -q '"stage": "errors.plain", "status": "PASS"' "$json" && ok || fail 'the stage after a failure did not run'

# A wrong answer of a work is a failure too.
printf '#!/bin/sh\ncase "$*" in copy*) echo "df_bench: wrong answer: copy" >&2; exit 1 ;; esac\nexec "%s" "$@"\n' "$build/bench/df_bench" > "$folder/broken/df_bench.new"
mv -f "$folder/broken/df_bench.new" "$folder/broken/df_bench"
chmod +x "$folder/broken/df_bench"
run 1 --backend cpu --native "$folder/broken" --out "$folder/wrong" --only bench
says 'wrong answer: copy'

# No device, and wrong words.
mkdir "$folder/none"
ln -s "$build/libdualform.so" "$build/bench/df_bench" "$build/tests/df_tests" "$folder/none/"
run 3 --native "$folder/none" --out "$folder/never"
says 'no device to check:'
[ "$(wc -l < "$folder/log")" = 1 ] && [ ! -e "$folder/never" ] && ok || fail "not one sentence: $(cat "$folder/log")"
if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then
    run 3 --out "$folder/never"
    says 'no device to check: there is no NVIDIA driver'
fi
run 2 --backend tpu
run 2 --kernels fast
run 2 --minutes -1
run 2 --minutes
run 2 --frobnicate
run 2 --backend cpu --native "$folder"
run 2 --backend cpu --native "$build" --out "$folder/never" --only softmax
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
