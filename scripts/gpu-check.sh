#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run: are the kernels right, do they stay so, how fast are they beside PyTorch.
#
#   scripts/gpu-check.sh [options]        from a checkout with nvcc and cmake, which it builds
#   ./gpu-check.sh [options]              from the folder that scripts/gpu-bundle.sh made, which has all it needs
#
#   --minutes N        stop beginning stages after so long, counted from when all is built (60)
#   --only A,B         only stages whose name begins with one of these words; --list prints the names
#   --kernels A,B      of plain,mma,hopper (all three)
#   --backend NAME     cuda; cpu or cuda-emulated run the same stages with tiny shapes, to test this script where there is no GPU
#   --native DIR       where df_tests, df_bench and the libraries are, instead of building them
#   --out DIR          where <date>-<device>.json and .md go (docs/gpu of the checkout, or results in the bundle); a second run of a day is
#                      <date>-<device>-2, and so on
#   --commit HASH      what the sources are, where git cannot tell
#   --list             stages, one a line
#
# Needs bash and coreutils, tar for the Java part of a bundle; nvidia-smi, compute-sanitizer and python3 with torch are used where they are.
# A stage that fails is recorded and the next one runs. Exit code: 0 every correctness stage passed, 1 one failed, 2 bad usage, 3 no device,
# 4 none failed but one did not run.
set -uo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
minutes=60 only='' kernels=plain,mma,hopper backend=cuda native='' out='' commit='' list=0

usage() { printf 'gpu-check: %s\n' "$1" >&2; exit 2; }
while (($# > 0)); do
    case $1 in
    --minutes | --only | --kernels | --backend | --native | --out | --commit)
        (($# > 1)) || usage "$1 needs a value"
        printf -v "${1#--}" %s "$2"
        shift 2
        ;;
    --list) list=1; shift ;;
    --help | -h) sed -n '2,21s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) usage "$1 is unknown, see --help" ;;
    esac
done
[[ $minutes =~ ^[0-9]{1,4}$ && $minutes -gt 0 ]] || usage "--minutes $minutes: expected a whole number from 1"
case $backend in cuda | cpu | cuda-emulated) ;; *) usage "--backend $backend: expected cuda, cpu or cuda-emulated" ;; esac
IFS=, read -r -a kernel_list <<<"$kernels"
for k in "${kernel_list[@]}"; do
    case $k in plain | mma | hopper) ;; *) usage "--kernels $k: expected some of plain,mma,hopper" ;; esac
done
[[ $backend == cpu ]] && kernels=plain && kernel_list=(plain)
dry=$([[ $backend == cuda ]] || echo 1)

# ---- stages: names, in order of what matters most ----

stage_names=(device)
for k in "${kernel_list[@]}"; do stage_names+=("parity.$k"); done
for k in "${kernel_list[@]}"; do
    stage_names+=("aligned.$k")
    [[ $k == plain ]] || stage_names+=("vectors.$k")
    # In float32 tensor cores multiply by the kernels of mma, whatever is asked for.
    [[ $k == mma ]] && stage_names+=("parity.$k.tf32" "parity.$k.bf16x3")
    [[ $k == hopper ]] && stage_names+=("tiles.$k" "hopper.$k")
    stage_names+=("masked.$k" "hostile.$k" "errors.$k" "steady-state.$k" "graph.$k" "determinism.$k" "repeat.$k" "threads.$k" "memory.$k"
        "out-of-memory.$k")
done
for k in "${kernel_list[@]}"; do stage_names+=("java.$k"); done
for k in "${kernel_list[@]}"; do
    stage_names+=("bench.$k")
    [[ $k == hopper ]] || stage_names+=("bench-matmul.$k")
done
stage_names+=(peers.attention peers.linear-attention peers.gpt-step)
for tool in memcheck racecheck synccheck initcheck; do
    for k in "${kernel_list[@]}"; do stage_names+=("sanitizer.$tool.$k"); done
done
((list)) && { printf '%s\n' "${stage_names[@]}"; exit 0; }

# ---- what there is to run ----

start=$SECONDS
say() { printf '[%4ds] %s\n' $((SECONDS - start)) "$*"; }
work=$(mktemp -d) || exit 1
trap 'rm -rf -- "$work"' EXIT

root='' java='' app='' peers='' tests_jar='' junit='' golden=''
if [[ -f $here/bundle.txt ]]; then
    known=$(sed -n 's/^commit=//p' "$here/bundle.txt")
    native=${native:-$here/native} out=${out:-$here/results} peers=$here/peers
    if [[ -f $here/java/runtime.tar.gz ]]; then
        { tar -C "$work" -xzf "$here/java/runtime.tar.gz" || python3 -m tarfile -e "$here/java/runtime.tar.gz" "$work"; } 2>/dev/null
        [[ -x $work/runtime/bin/java ]] && java=$work/runtime/bin/java
    fi
    app=$here/java/app tests_jar=$here/java/tests.jar junit=$here/java/junit.jar golden=$here/java
else
    root=$(cd -- "$here/.." && pwd -P)
    out=${out:-$root/docs/gpu} peers=$root/bench/peers golden=$root
    # A checkout may belong to another user than the one who runs this, in a container for one.
    in_git() { git -c safe.directory="$root" -C "$root" "$@" 2>/dev/null; }
    known=$(in_git rev-parse HEAD || true)
    [[ -z $known || -z $(in_git status --porcelain --untracked-files=no) ]] || known="$known, with changes"
    app=$root/cli/target
    if [[ -z $native ]]; then
        native=$root/.dualform/gpu-check
        # Before minutes of compiling: a machine without a driver has no device.
        if [[ $backend == cuda && ! -e /dev/nvidiactl && ! -e /dev/dxg ]] && ! nvidia-smi -L >/dev/null 2>&1; then
            echo "gpu-check: no device to check: there is no NVIDIA driver on this machine (--backend cpu makes a dry run)." >&2
            exit 3
        fi
        # CUDACXX may be a path or a name in PATH.
        nvcc=$(command -v "${CUDACXX:-nvcc}" || { [[ -n ${CUDACXX:-} ]] || echo /usr/local/cuda/bin/nvcc; })
        if [[ $backend == cuda && ! -x $nvcc ]]; then
            echo "gpu-check: there is no nvcc to build the CUDA plug-in with, and no --native DIR that holds a built one." >&2
            exit 3
        fi
        mkdir -p "$native"
        export CUDACXX=$nvcc
        jobs=$(nproc 2>/dev/null || echo 2)
        say "building into $native, $jobs at a time"
        plugin_target=$([[ $backend == cuda ]] && echo dualform_cuda || { [[ $backend == cpu ]] || echo dualform_cuda_emulated; })
        # shellcheck disable=SC2086 # no target is no word
        if ! { cmake -S "$root/cmake" -B "$native" -DDF_CUDA=$([[ $backend == cuda ]] && echo ON || echo OFF) &&
            cmake --build "$native" --parallel "$jobs" --target dualform df_tests df_bench $plugin_target &&
            # What only some builds have.
            if [[ $backend == cuda ]] && cmake --build "$native" --target help | grep '\bdf_hopper\b' >/dev/null; then
                cmake --build "$native" --target df_hopper
            fi; } >"$native/build.log" 2>&1; then
            tail -n 5 "$native/build.log" >&2
            echo "gpu-check: the build failed; the whole log is $native/build.log." >&2
            exit 1
        fi
    fi
    if [[ -f $app/dualform-cli.jar ]]; then java=$(command -v java || true); fi
fi
if [[ -n $known ]]; then
    [[ -z $commit || $known == "$commit"* ]] || usage "--commit $commit: the sources are of $known"
    commit=$known
elif [[ -z $commit ]]; then
    # A result of a device is of a commit, or of no use.
    [[ -n $dry ]] || usage "which commit are the sources? git cannot tell; say --commit HASH"
    commit='not known'
fi
native=$(cd -- "$native" 2>/dev/null && pwd -P) || usage "--native: no such folder"
first_of() { local f; for f in "$@"; do [[ -e $f ]] && { printf %s "$f"; return; }; done; }
df_tests=$(first_of "$native/df_tests" "$native/tests/df_tests")
df_bench=$(first_of "$native/df_bench" "$native/bench/df_bench")
[[ -x $df_tests && -x $df_bench ]] || usage "$native holds no df_tests and df_bench"
export LD_LIBRARY_PATH=$native${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
on=(--backend "$backend")
case $backend in
cuda) on+=(--plugin "$native/libdualform_cuda.so") ;;
cuda-emulated) on+=(--plugin "$native/libdualform_cuda_emulated.so") ;;
esac
# cuBLASLt: a machine with PyTorch has it in PyTorch's own folders, which come first, so that PyTorch finds its own; else the toolkit's.
python=$(command -v "${PYTHON:-python3}" || true)
if [[ $backend == cuda && -n $python ]]; then
    nvidia=$("$python" -c '
import nvidia, os
folders = (os.path.join(path, name, "lib") for path in nvidia.__path__ for name in sorted(os.listdir(path)))
print(":".join(folder for folder in folders if os.path.isdir(folder)))' 2>/dev/null || true)
    [[ -n $nvidia ]] && LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$nvidia
fi
if [[ $backend == cuda ]]; then
    cuda=${CUDA_HOME:-/usr/local/cuda}
    for folder in "$cuda/lib64" "$cuda/targets/x86_64-linux/lib"; do [[ ! -d $folder ]] || LD_LIBRARY_PATH=$LD_LIBRARY_PATH:$folder; done
fi

if ! sentence=$("$df_bench" fill --shape 16 --seconds 0 --ceilings false "${on[@]}" 2>&1); then
    printf 'gpu-check: no device to check: %s\n' "${sentence#df_bench: }" >&2
    [[ $sentence != *GLIBC* || ! -f $here/bundle.txt ]] || sed -n 's/^needs=/gpu-check: this bundle needs /p' "$here/bundle.txt" >&2
    exit 3
fi
start=$SECONDS # of the budget: what was built before does not count

# ---- running and recording ----

json_string() { # quoted, one line, no control characters
    local s=${1//\\/\\\\}
    s=${s//\"/\\\"}
    printf '"%s"' "$(printf %s "$s" | tr -c '[:print:]' ' ' | cut -c1-600)"
}
list_of() { # KEY LINE: a list of one of our JSON lines, its strings without quotes
    printf %s "$2" | sed -n "s/.*\"$1\": \[\([^]]*\)\].*/\1/p" | tr -d '"'
}
field() { # KEY LINE: a number or a string of one of our JSON lines
    printf %s "$2" | sed -n "s/.*\"$1\": \(\"\([^\"]*\)\"\|\([^,}\[]*\)\).*/\2\3/p"
}

failed=0 missing=0 kind=''
record() { # STATUS SECONDS DETAIL
    printf '{"stage": "%s", "status": "%s", "seconds": %d, "detail": %s}\n' "$stage" "$1" "$2" "$(json_string "$3")" >>"$work/stages"
    say "$(printf '%-28s %-10s %3ds  %s' "$stage" "$1" "$2" "$(printf %s "$3" | tr '\n' ' ' | cut -c1-110)")"
    case $kind:$1 in
    speed:*) ;;
    *:FAIL) failed=1 ;;
    required:'NOT RUN' | required:UNVERIFIED) missing=1 ;;
    esac
}
left() { echo $((minutes * 60 - (SECONDS - start))); }
# limited SECONDS COMMAND...: its output goes to $work/log; 124 when it took longer than that, or than is left
limited() {
    local limit=$1 rest
    shift
    rest=$(left)
    ((limit > rest)) && limit=$rest
    ((limit < 1)) && limit=1
    timeout --kill-after=5 "$limit" "$@" >"$work/log" 2>&1
}
# What a run of df_tests came to.
judge() { # CODE SINCE [LIMIT]
    local seconds=$((SECONDS - $2)) last
    last=$(tail -n 1 "$work/log" | tr -d '\r')
    case $1 in
    0) record PASS "$seconds" "$last" ;;
    # All that it wanted to look at was skipped: nothing has been shown.
    77) record UNVERIFIED "$seconds" "$(grep -m1 -i skip "$work/log" || echo "$last")" ;;
    124 | 137)
        if (($(left) < 3)); then
            record 'NOT RUN' "$seconds" "cut short, out of time: --minutes $minutes"
        else
            # A kernel that never ends looks like this, and so does a machine that is slow.
            record FAIL "$seconds" "TIMEOUT, not a wrong result: not done in ${3:-its} s: $last"
        fi
        ;;
    *)
        record FAIL "$seconds" "exit code $1: $(grep -m1 -E '^FAILED|^failed|df_tests:|df_bench:' "$work/log" || grep -m1 -iE 'fail|error' "$work/log" || echo "$last")"
        sed 's/^/    /' "$work/log" | tail -n 8
        ;;
    esac
}
has_check() { "$df_tests" --list | grep "^check $1 " >/dev/null; }
knows() { "$df_tests" "$@" --list >/dev/null 2>&1; } # FLAG [VALUE]: whether this df_tests has it

# ---- the stages ----

stage_device() {
    local since=$SECONDS about
    about=$("$df_bench" --describe "${on[@]}" 2>&1) || { record FAIL 0 "$about"; return; }
    printf '%s\n' "$about" >"$work/describe"
    if [[ $backend == cuda ]]; then
        smi=$(nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.max.sm,power.limit,temperature.gpu --format=csv,noheader -i 0 \
            2>/dev/null || echo 'nvidia-smi is not there')
    fi
    record PASS $((SECONDS - since)) "$smi"
}

stage_native() { # CHECK KERNELS PRECISION
    local check=$1 since=$SECONDS flag limit=300 code arguments=("${on[@]}")
    # Tensors at multiples of 16 bytes: what copies 16 at a time serves no others.
    if [[ $check == aligned ]]; then
        for flag in --aligned --contiguous; do knows $flag && break; done
        knows $flag || { record SKIPPED 0 'this build does not place tensors so'; return; }
        check=parity arguments+=("$flag")
    fi
    arguments+=(--check "$check")
    # Its cases are large for the emulation; the build's own tests run them there.
    [[ -z $dry || $check != hopper ]] || { record SKIPPED 0 'not in a dry run'; return; }
    [[ $backend != cpu || $check != memory ]] || { record SKIPPED 0 'not in a dry run on the CPU'; return; }
    has_check "$check" || { record SKIPPED 0 "this build has no check $check"; return; }
    export DUALFORM_KERNELS=$2 DUALFORM_PRECISION=$3
    [[ $3 == float32 ]] || arguments+=(--dtype F32)
    case $check in
    determinism)
        # Its own placement suits no kernel that copies 16 bytes at a time.
        [[ $2 == plain ]] || arguments+=(--aligned)
        arguments+=(--cases 1 --repeat "$([[ -n $dry ]] && echo 2 || echo 1000)")
        ;;
    out-of-memory) [[ $2 == plain ]] || arguments+=(--aligned) ;;
    threads | memory) [[ $2 == plain ]] || arguments+=(--dtype BF16) ;;
    # Cases that every kind of kernels passes on the emulation: what fails here is the device's, not a plain run's luck (docs/gpu/STATUS.md).
    parity) [[ -n $dry ]] && arguments+=(--cases 1 --dtype F32) || arguments+=(--seed 2175 --cases 18 --draw large=0) ;;
    *) [[ -n $dry ]] && arguments+=(--cases 1) ;;
    esac
    [[ $check == determinism && $backend == cpu ]] && arguments+=(--op matmul)
    [[ -n $dry ]] && case $check in
    masked) arguments+=(--op attention --cases 8) ;;
    hostile | steady-state | graph) arguments+=(--op matmul --dtype F32) ;;
    out-of-memory | threads) arguments+=(--op matmul --cases 1) ;;
    memory) arguments+=(--T 256) ;;
    esac
    [[ $check == out-of-memory && $backend == cpu ]] && arguments+=(--dtype F32)
    [[ $check == determinism && $backend == cuda-emulated ]] && arguments+=(--op affine)
    [[ -n $dry && $check == parity && $backend == cuda-emulated ]] && arguments+=(--op attention)
    # Hopper's backward pass has one order of its sums where it is asked to; these compare bits.
    case $check in determinism | out-of-memory | threads | graph) export DUALFORM_DETERMINISTIC=true ;; esac
    limited $limit "$df_tests" "${arguments[@]}"
    code=$?
    [[ $check == parity ]] && keep_errors "$2" "$3" "$1"
    if [[ $check == hopper && $code == 0 ]]; then
        export DUALFORM_DETERMINISTIC=true
        limited $limit "$df_tests" "${arguments[@]}"
        code=$?
    fi
    # What the cases draw has few of the sizes that Hopper's kernels serve: those by their own list, or by a head size.
    if [[ -z $dry && $2 == hopper && $code == 0 ]]; then
        case $check in
        determinism)
            limited 300 "$df_tests" --check hopper --repeat 1000 "${on[@]}"
            code=$?
            ;;
        out-of-memory)
            for flag in attention momentum_attention linear_attention; do
                limited 100 "$df_tests" --check out-of-memory --aligned --dtype BF16 --op $flag --draw HS=64 --draw T=129 "${on[@]}"
                code=$?
                ((code == 0)) || break
            done
            ;;
        esac
    fi
    judge $code "$since" $limit
}

# By op the largest error over the tolerance, and over the naive op's own error, of what parity has just printed.
keep_errors() { # KERNELS PRECISION CHECK
    sed -n "s/^\([a-z_]*\) *\([A-Z0-9]*\) *\([0-9]*\) cases  worst error\/tolerance \([0-9.]*\)  error\/naive \([0-9.]*\) .*/{\"op\": \"\1\", \
\"dtype\": \"\2\", \"kernels\": \"$1\", \"precision\": \"$2\", \"check\": \"$3\", \"cases\": \3, \"error_over_tolerance\": \4, \
\"error_over_naive\": \5}/p" "$work/log" >>"$work/errors"
}

# The building blocks of the Hopper kernels, one tile each.
stage_tiles() {
    local since=$SECONDS program
    program=$(first_of "$native/df_hopper" "$native/tests/df_hopper")
    [[ $backend == cuda && -x $program ]] || { record SKIPPED 0 'df_hopper is not in this build'; return; }
    limited 60 "$program"
    judge $? "$since"
}

# A thousand runs at shapes that fill the device.
stage_repeat() { # KERNELS
    local since=$SECONDS line code=0 n=1000
    [[ -n $dry ]] && n=3
    export DUALFORM_KERNELS=$1 DUALFORM_DETERMINISTIC=true
    : >"$work/all"
    while read -r line; do
        [[ -n $line ]] || continue
        [[ $line == *--repeat* ]] || line="$line --repeat $n"
        # shellcheck disable=SC2086 # a list of words
        limited 120 "$df_bench" $line --seconds 0 --ceilings false --json "${on[@]}" || { code=$?; break; }
        cat "$work/log" >>"$work/all"
        if wants_wgmma "$1" "$line" && [[ $(list_of ran "$(cat "$work/log")") != *wgmma* ]]; then
            echo "failed: $line: no kernel of sm_90a ran" >>"$work/log"
            code=1
            break
        fi
    done <<<"$(repeat_works "$1")"
    ((code == 0)) && echo "$(grep -c equal_runs "$work/all") works gave equal bits in $n runs or as many as stand beside them" >"$work/log"
    judge $code "$since" 120
}
repeat_works() { # KERNELS
    if [[ -n $dry ]]; then
        echo 'attention --shape 1,9,2,8 --pass both'
        return
    fi
    cat <<'LINES'
attention --shape 1,1000,4,64 --dtype bf16 --pass both
attention --shape 1,1000,4,128 --dtype bf16 --pass both
attention --shape 2,700,1100,8,2,64 --dtype bf16 --pass both
attention --shape 1,512,4,64 --dtype f32 --pass both
momentum-attention --shape 1,1000,4,64 --dtype bf16 --pass both
momentum-attention --shape 1,1000,4,128 --dtype bf16 --pass both
linear-attention --shape 2,1000,4,64 --dtype bf16 --pass both
dual-form --shape 700,900,256,384 --dtype bf16 --pass both
matmul --shape 700,900,1100 --dtype bf16 --pass both
residual-layernorm --shape 1000,768 --dtype bf16 --pass both
gelu --shape 1000,3072 --dtype bf16 --pass both
cross-entropy --shape 500,10007 --dtype bf16 --pass both
embedding --shape 4,256,5000,256 --dtype bf16 --pass both
LINES
    # Many more blocks than the 132 multiprocessors of an H200: the order in which they add is the device's unless they see to it.
    [[ $1 == plain ]] || cat <<'LINES'
attention --shape 4,2048,16,128 --dtype bf16 --pass both --repeat 200
attention --shape 4,2048,16,64 --dtype bf16 --pass both --repeat 200
momentum-attention --shape 4,2048,16,128 --dtype bf16 --pass both --repeat 200
linear-attention --shape 16,512,16,64 --dtype bf16 --pass both --repeat 200
LINES
}

stage_java() { # KERNELS
    local since=$SECONDS line limit error lines=0 code
    if [[ -z $java || ! -x $java ]]; then record UNVERIFIED 0 'no Java runtime, or the application has not been built'; return; fi
    [[ $backend == cuda-emulated ]] && { record SKIPPED 0 'Java knows cpu and cuda'; return; }
    export DUALFORM_KERNELS=$1
    local options=(-Dorg.bytedeco.javacpp.cachedir="$work/cache" -Dorg.bytedeco.javacpp.maxPhysicalBytes=0 -Ddualform.backend="$backend")
    limited 60 "$java" "${options[@]}" -jar "$app/dualform-cli.jar" doctor --json
    code=$?
    ((code == 0)) || { judge $code "$since" 60; return; }
    while read -r line; do
        [[ -n $line ]] || continue
        # shellcheck disable=SC2086 # a list of words
        limited 120 "$java" "${options[@]}" -jar "$app/dualform-cli.jar" bench $line --seconds 0 --device "$backend" --json
        code=$?
        ((code == 0)) || { judge $code "$since" 120; return; }
        error=$(field relative_error "$(tail -n 1 "$work/log")") limit=1e-4
        [[ $line == *bf16* ]] && limit=5e-2
        [[ $line == gpt-step* ]] && limit=1e-3
        if ! LC_ALL=C awk -v e="${error:-x}" -v l=$limit 'BEGIN { exit !(e != "x" && e + 0 <= l + 0) }'; then
            echo "failed: bench $line: relative error ${error:-unknown}, at most $limit expected" >>"$work/log"
            judge 1 "$since"
            return
        fi
        lines=$((lines + 1))
    done <<<"$(java_works)"
    # The Java tests that need no more than a device, of any backend there is.
    if [[ ! -f $junit || ! -f $tests_jar ]]; then
        record UNVERIFIED $((SECONDS - since)) \
            "doctor and $lines works beside float64 are right; the Java tests did not run: no JUnit in reach, a bundle has it"
    else
        local classes='org\.dualform\.((autograd|io|nn|optim)\..*Test|(Device|Graph|Lifetime|Ops|Tensor)Test|tests\.(Golden|CudaInterop|Kernels)Test)'
        limited 600 "$java" "${options[@]}" -Ddualform.test.root="$golden" -Ddualform.test.target="$work" \
            -Ddualform.test.version=bundle -Ddualform.test.platform=linux-x86_64 \
            -cp "$app/dualform-cli.jar:$app/lib/*:$tests_jar:$junit" org.junit.platform.console.ConsoleLauncher execute --disable-banner \
            --details=summary --fail-if-no-tests --scan-classpath "$tests_jar" --include-classname "$classes"
        code=$?
        ((code == 0)) && echo "doctor, $lines works beside float64, JUnit: $(sed -n \
            's/^\[ *\([0-9]*\) tests \(successful\|skipped\|failed\).*/\1 \2/p' "$work/log" | tr '\n' ' ')" >>"$work/log"
        judge $code "$since" 600
    fi
}
java_works() {
    echo 'attention --shape 2,33,4,16 --pass both'
    [[ -n $dry ]] && return
    cat <<'LINES'
attention --shape 2,300,4,64 --dtype bf16 --pass both
momentum-attention --shape 2,300,4,64 --dtype bf16 --pass both
momentum-attention --shape 1,129,2,128 --dtype f32 --pass both
linear-attention --shape 2,300,4,64 --dtype bf16 --pass both
dual-form --shape 2,300,200,64,96 --pass both
gpt-step --shape 4,128,2,128,2 --pass both
LINES
}

stage_sanitizer() { # TOOL KERNELS
    local since=$SECONDS tool sanitizer
    if [[ $backend != cuda ]]; then record SKIPPED 0 'there is no device code to look at'; return; fi
    local cuda=${CUDA_HOME:-/usr/local/cuda}
    sanitizer=$(command -v compute-sanitizer || first_of "$cuda/bin/compute-sanitizer" "$cuda/compute-sanitizer/compute-sanitizer")
    if [[ -z $sanitizer ]]; then record UNVERIFIED 0 'compute-sanitizer is not on this machine'; return; fi
    export DUALFORM_KERNELS=$2
    # Sizes that tiles do not divide are what the cases draw.
    local check=(--check parity --cases 1 "${on[@]}") flag
    for flag in --aligned --contiguous; do
        [[ $2 != plain ]] && knows $flag && { check+=("$flag"); break; }
    done
    # Of Hopper's own list the short ones: a tool makes a kernel a hundred times as slow.
    [[ $2 == hopper ]] && has_check hopper && check=(--check hopper --T 130 "${on[@]}")
    limited 240 "$sanitizer" --tool "$1" --error-exitcode 86 "$df_tests" "${check[@]}"
    local code=$?
    if ((code == 124 || code == 137)); then
        record UNVERIFIED $((SECONDS - since)) "$1 was not done in 240 s, or in what was left"
    elif ((code == 86)); then
        record FAIL $((SECONDS - since)) \
            "$1: $(grep -m1 -E 'Invalid|Race|Error|hazard|Uninitialized' "$work/log") $(grep -m1 SUMMARY "$work/log")"
    elif ! grep -q 'SUMMARY' "$work/log" || grep -qiE 'device not supported|not supported on|unable to|internal error' "$work/log"; then
        record UNVERIFIED $((SECONDS - since)) \
            "$1 did not do its work here: $(grep -m1 -iE 'not supported|unable|error' "$work/log" || tail -n 1 "$work/log")"
    elif ((code == 0)); then
        record PASS $((SECONDS - since)) "$(grep -m1 SUMMARY "$work/log")"
    else
        judge $code "$since"
    fi
}

bench_works() { # KERNELS
    if [[ -n $dry ]]; then
        echo 'attention --shape 1,9,2,8 --pass both'
        echo 'momentum-attention --shape 1,9,2,8 --pass both'
        echo 'copy --shape 100'
        return
    fi
    cat <<'LINES'
attention --shape 4,4096,16,128 --dtype bf16 --pass forward
attention --shape 4,4096,16,128 --dtype bf16 --pass backward
attention --shape 4,4096,32,64 --dtype bf16 --pass forward
attention --shape 4,4096,32,64 --dtype bf16 --pass backward
attention --shape 8,2048,16,128 --dtype bf16 --pass forward
attention --shape 8,2048,16,128 --dtype bf16 --pass backward
attention --shape 8,2048,32,64 --dtype bf16 --pass forward
attention --shape 8,2048,32,64 --dtype bf16 --pass backward
attention --shape 4,4096,16,128 --dtype bf16 --pass forward --causal false
attention --shape 4,4096,16,128 --dtype bf16 --pass backward --causal false
attention --shape 2,4096,4096,32,8,128 --dtype bf16 --pass forward
momentum-attention --shape 4,4096,16,128 --dtype bf16 --pass forward
momentum-attention --shape 4,4096,16,128 --dtype bf16 --pass backward
momentum-attention --shape 4,4096,32,64 --dtype bf16 --pass forward
momentum-attention --shape 4,4096,32,64 --dtype bf16 --pass backward
momentum-attention --shape 8,2048,16,128 --dtype bf16 --pass forward
momentum-attention --shape 8,2048,32,64 --dtype bf16 --pass forward
linear-attention --shape 16,4096,16,64 --dtype bf16 --pass forward --decay 0.97
linear-attention --shape 16,4096,16,64 --dtype bf16 --pass both --decay 0.97
linear-attention --shape 16,4096,16,128 --dtype bf16 --pass forward --decay 0.97
linear-attention --shape 16,4096,16,128 --dtype bf16 --pass both --decay 0.97
linear-attention --shape 4,2048,64,64 --dtype bf16 --pass forward
linear-attention --shape 4,2048,64,64 --dtype bf16 --pass backward
linear-attention --shape 4,4096,16,64 --dtype bf16 --pass forward
linear-attention --shape 4,4096,16,128 --dtype bf16 --pass forward
LINES
    # No kernels of sm_90a have these; the memory-bound ones have kernels of 16-byte accesses with mma.
    [[ $1 == hopper ]] || cat <<'LINES'
linear-attention-step --shape 64,16,128 --dtype bf16
residual-layernorm --shape 16384,4096 --dtype bf16 --pass forward
residual-layernorm --shape 16384,4096 --dtype bf16 --pass backward
gelu --shape 16384,12288 --dtype bf16 --pass forward
gelu --shape 16384,12288 --dtype bf16 --pass backward
cross-entropy --shape 8192,50304 --dtype bf16 --pass both
adamw-ranges --shape 124000000 --dtype bf16
LINES
    [[ $1 == mma ]] && cat <<'LINES'
attention --shape 2,2048,16,64 --dtype f32 --pass forward --option precision=tf32
attention --shape 2,2048,16,64 --dtype f32 --pass backward --option precision=tf32
attention --shape 2,2048,16,64 --dtype f32 --pass forward --option precision=bf16x3
attention --shape 2,2048,16,64 --dtype f32 --pass backward --option precision=bf16x3
LINES
    [[ $1 == plain ]] && cat <<'LINES'
attention --shape 2,2048,16,64 --dtype f32 --pass forward
attention --shape 2,2048,16,64 --dtype f32 --pass backward
embedding --shape 16,1024,50304,768 --dtype bf16 --pass both
clip-step --shape 124000000 --dtype bf16
random-normal-next --shape 124000000 --dtype f32
copy --shape 200000000 --dtype bf16
LINES
    return 0
}
# What cuBLASLt serves with kernels other than plain.
matmul_works() {
    if [[ -n $dry ]]; then
        echo 'matmul --shape 9,9,9'
        return
    fi
    cat <<'LINES'
matmul --shape 4096,4096,4096 --dtype bf16 --pass forward
matmul --shape 16384,3072,768 --dtype bf16 --pass both
matmul --shape 4096,4096,4096 --dtype f32 --pass forward
matmul-gelu --shape 16384,3072,768 --dtype bf16 --pass both
dual-form --shape 4096,4096,1024,1024 --dtype bf16 --pass forward
LINES
}

# The first of a shape that kernels of sm_90a have to serve: without them its row would be another kernel's.
wants_wgmma() { # KERNELS LINE
    [[ $1 == hopper && -z $dry ]] || return 1
    case $2 in *f32*) return 1 ;; attention* | momentum-attention* | 'linear-attention --shape 16,'*) return 0 ;; *) return 1 ;; esac
}

stage_bench() { # KERNELS WORKS
    local since=$SECONDS line row wrong='' late=0 n=0
    export DUALFORM_KERNELS=$1
    while read -r line; do
        [[ -n $line ]] || continue
        "$df_bench" --list | grep "^${line%% *} " >/dev/null || continue # a work of a later version of this script
        if (($(left) < 5)); then late=1; break; fi
        # shellcheck disable=SC2086 # a list of words
        limited 120 "$df_bench" $line --seconds "$([[ -n $dry ]] && echo 0 || echo 0.3)" \
            --ceilings "$([[ -n $dry && $n -gt 0 ]] && echo false || echo true)" --json "${on[@]}"
        local code=$?
        row=$(grep '^{' "$work/log")
        if [[ -n $row ]]; then
            printf '%s\n' "$row" | sed "s/^{/{\"asked\": \"$1\", /" >>"$work/bench"
            n=$((n + 1))
            ! wants_wgmma "$1" "$line" || [[ $(list_of ran "$row") == *wgmma* ]] || wrong="$wrong$line: no kernel of sm_90a ran; "
        fi
        ((code == 0)) || wrong="$wrong$line: $(grep -m1 df_bench: "$work/log" || echo "exit code $code"); "
    done <<<"$($2 "$1")"
    if [[ -n $wrong ]]; then record FAIL $((SECONDS - since)) "$wrong"
    elif ((late)); then record 'NOT RUN' $((SECONDS - since)) "out of time after $n works"
    elif [[ $2 == matmul_works && $1 != plain && -z $dry ]] && grep -q '"cublaslt":{"found":false' "$work/describe"; then
        record UNVERIFIED $((SECONDS - since)) "$n works are right, but by our own tiled kernel: no cuBLASLt was found"
    elif ((n == 0)); then record UNVERIFIED $((SECONDS - since)) 'no work was timed'
    else record PASS $((SECONDS - since)) "$n works, each right beside float64 before it was timed"; fi
}

stage_peers() { # NAME
    local since=$SECONDS script=$peers/${1//-/_}_cuda.py device=cuda more=()
    if [[ -z $python ]] || ! "$python" -c 'import torch' 2>/dev/null; then record UNVERIFIED 0 'no python3 with torch'; return; fi
    [[ -f $script ]] || { record UNVERIFIED 0 "no $script"; return; }
    if [[ $backend == cuda ]]; then
        if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
            record UNVERIFIED 0 'this torch sees no GPU'
            return
        fi
    else
        device=cpu more=(--tiny)
    fi
    [[ -n $java && -x $java ]] && more+=(--java "$java" --application "$app/dualform-cli.jar")
    # Three rounds of some dozens of works, ours and theirs; gpt-step compiles two models too.
    local limit=600 kinds=$kernels
    [[ $1 == linear-attention ]] || limit=1200
    [[ -z $not_hopper ]] || kinds=$(printf %s "$kernels" | tr , '\n' | grep -v hopper | paste -sd,)
    [[ -n $kinds ]] || { record SKIPPED 0 "$not_hopper"; return; }
    limited $limit "$python" "$script" --device $device --bench "$df_bench" --backend "$backend" ${on[3]:+--plugin "${on[3]}"} --kernels "$kinds" \
        "${more[@]}" --json "$work/peer"
    local code=$? line
    # What a peer or a shape failed with, each sentence once.
    grep '^  [^ ]' "$work/log" | sed 's/^ *//' | sort -u | while read -r line; do json_string "$line" && echo; done >>"$work/notes"
    [[ -f $work/peer ]] && { grep '^{' "$work/peer" >>"$work/peers"; rm -f "$work/peer"; }
    if ((code == 0)); then record PASS $((SECONDS - since)) "$(tail -n 1 "$work/log")"; else judge $code "$since" $limit; fi
}

wanted() { # NAME
    [[ -z $only ]] && return 0
    local word
    for word in ${only//,/ }; do [[ $1 == "$word"* ]] && return 0; done
    return 1
}

: >"$work/stages"; : >"$work/bench"; : >"$work/peers"; : >"$work/errors"; : >"$work/notes"; echo '{}' >"$work/describe"
say "commit $commit, backend $backend, kernels ${kernel_list[*]}, ${minutes} minutes"
ran=0 not_hopper='' smi='not asked'
for stage in "${stage_names[@]}"; do
    export DUALFORM_KERNELS=plain DUALFORM_PRECISION=float32
    unset DUALFORM_DETERMINISTIC
    [[ $stage == device ]] || wanted "$stage" || continue
    # What this machine has no means for (UNVERIFIED) is said, and makes a run incomplete only where it is required.
    case $stage in device | peers.*) kind=speed ;; java.* | sanitizer.*) kind=optional ;; *) kind=required ;; esac
    ran=$((ran + 1))
    if (($(left) < 3)); then record 'NOT RUN' 0 "out of time: --minutes $minutes"; continue; fi
    # The kernels of sm_90a run on that architecture only, and what would serve instead has its own stages.
    if [[ -n $not_hopper && $stage.. == *.hopper.* ]]; then record SKIPPED 0 "$not_hopper"; continue; fi
    IFS=. read -r name a b <<<"$stage"
    case $name in
    device)
        stage_device
        cc=$(sed -n 's/.*"devices":\[{[^}]*"cc":"\([^"]*\)".*/\1/p' "$work/describe")
        [[ $backend != cuda || $cc == 9.0 ]] || not_hopper="the device has compute capability ${cc:-unknown}, these kernels are for 9.0"
        ;;
    tiles) stage_tiles ;;
    parity | aligned | vectors | hopper | masked | hostile | errors | steady-state | graph | determinism | threads | memory | out-of-memory)
        stage_native "$name" "$a" "${b:-float32}"
        ;;
    repeat) stage_repeat "$a" ;;
    java) stage_java "$a" ;;
    bench) stage_bench "$a" bench_works ;;
    bench-matmul) stage_bench "$a" matmul_works ;;
    peers) stage_peers "$a" ;;
    sanitizer) stage_sanitizer "$a" "$b" ;;
    esac
done
((ran > 1)) || usage "--only $only: no such stage, see --list"

# ---- the result ----

mkdir -p "$out" || exit 1
device=$(sed -n 's/.*"devices":\[{"name":"\([^"]*\)".*/\1/p' "$work/describe")
device=${device:-$backend}
driver=$(sed -n 's/.*"driver":\([0-9]*\).*/\1/p' "$work/describe")
build=$(field build "$(head -n 1 "$work/bench")")
verdict='every correctness stage passed' code=0
if ((failed)); then verdict='FAILED' code=1; elif ((missing)); then verdict='incomplete: a correctness stage did not run' code=4; fi
[[ -n $dry ]] && verdict="dry run on $backend, says nothing about a GPU: $verdict"
[[ -n $only ]] && verdict="$verdict (only $only)"
name=$(date +%F)-$(printf %s "$device" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
# One run overwrites no other: what --only split over a day lies in several files.
if [[ -e $out/$name.json || -e $out/$name.md ]]; then
    n=2
    while [[ -e $out/$name-$n.json || -e $out/$name-$n.md ]]; do n=$((n + 1)); done
    name=$name-$n
fi
joined() { paste -sd, "$1"; }
shape_of() { list_of shape "$1" | tr -d ' '; }
# Momentum's time over that of attention by the same kernels on the same shape, causal as momentum is.
while read -r line; do
    same="$(shape_of "$line") $(field dtype "$line") $(field pass "$line") $(field asked "$line") $(field precision "$line")"
    while read -r other; do
        [[ $same == "$(shape_of "$other") $(field dtype "$other") $(field pass "$other") $(field asked "$other") $(field precision "$other")" ]] ||
            continue
        ms=$(field median_ms "$line") other_ms=$(field median_ms "$other")
        printf '{"shape": [%s], "dtype": "%s", "pass": "%s", "asked": "%s", "momentum_ms": %s, "attention_ms": %s, "time_over_attention": %s}\n' \
            "$(shape_of "$line")" "$(field dtype "$line")" "$(field pass "$line")" "$(field asked "$line")" "$ms" "$other_ms" \
            "$(LC_ALL=C awk -v m="$ms" -v a="$other_ms" 'BEGIN { printf "%.3f", m / a }')"
    done < <(grep '"op": "attention".*"causal": true' "$work/bench")
done < <(grep '"op": "momentum-attention"' "$work/bench") >"$work/momentum"
{
    printf '{"date": "%s", "commit": %s, "build": "%s", "device": %s, "cuda_driver": "%s", "smi": %s,\n' "$(date -u +%FT%TZ)" \
        "$(json_string "$commit")" "$build" "$(json_string "$device")" "${driver:-}" "$(json_string "$smi")"
    printf ' "verdict": %s, "exit_code": %d, "seconds": %d,\n' "$(json_string "$verdict")" $code $((SECONDS - start))
    printf ' "backend": %s,\n "stages": [%s],\n "errors": [%s],\n "bench": [%s],\n "momentum": [%s],\n "peers": [%s],\n "did_not_run": [%s]}\n' \
        "$(cat "$work/describe")" "$(joined "$work/stages")" "$(joined "$work/errors")" "$(joined "$work/bench")" "$(joined "$work/momentum")" \
        "$(joined "$work/peers")" "$(joined "$work/notes")"
} >"$out/$name.json"

percent() { LC_ALL=C awk -v x="$1" 'BEGIN { if (x == "null" || x == "") print ""; else printf "%.0f %%", 100 * x }'; }
op_of() { # with what is not usual about it
    local decay
    decay=$(field decay "$1")
    field op "$1"
    [[ $(field causal "$1") != false ]] || printf ', not causal'
    [[ -z $decay || $decay == 1 ]] || printf ', decay %s' "$decay"
    [[ -z $(field vocabulary "$1") ]] || printf ', vocabulary %s' "$(field vocabulary "$1")"
}
cells() { printf '|'; printf ' %s |' "$@"; printf '\n'; } # one row
{
    printf '# GPU check of %s: %s\n\n**%s.**\n\n' "$(date +%F)" "$device" "$verdict"
    printf 'Commit %s, build %s. Driver and clocks: %s. Made by `scripts/gpu-check.sh`; all fields are in `%s.json`.\n\n' \
        "$commit" "${build:-not known}" "$smi" "$name"
    printf '## Stages\n\n| stage | status | seconds | detail |\n|---|---|---|---|\n'
    while read -r line; do
        cells "$(field stage "$line")" "$(field status "$line")" "$(field seconds "$line")" \
            "$(printf %s "$line" | sed 's/.*"detail": "//; s/"}$//; s/\\"/"/g; s/|/\\|/g' | cut -c1-160)"
    done <"$work/stages"
    if [[ -s $work/errors ]]; then
        printf '\n## Errors\n\nThe largest of each over the cases of parity, with tensors placed in any way and at multiples of 16 bytes:\n'
        printf 'over the tolerance, where 1 is the most, and the largest error over the largest of the naive op in the same type.\n\n'
        cells op type kernels precision 'error / tolerance' 'error / naive'
        printf '|---|---|---|---|---|---|\n'
        LC_ALL=C awk -F'"' '{
            key = $4 " | " $8 " | " $12 " | " $16
            t = $0; sub(/.*tolerance": /, "", t); sub(/,.*/, "", t)
            n = $0; sub(/.*naive": /, "", n); sub(/}.*/, "", n)
            if (!(key in tolerance)) keys[++count] = key
            if (t + 0 >= tolerance[key] + 0) tolerance[key] = t
            if (n + 0 >= naive[key] + 0) naive[key] = n
        } END { for (i = 1; i <= count; ++i) print "| " keys[i] " | " tolerance[keys[i]] " | " naive[keys[i]] " |" }' "$work/errors"
    fi
    if [[ -s $work/bench ]]; then
        printf '\n## Works\n\nError: beside float64, over its largest value. Peak and copy were measured in the same process; what the peak is stands\n'
        printf 'beside it.\n\n'
        cells work shape type pass 'kernels asked for' 'kernels that ran' ms TFLOP/s 'of peak' peak GB/s 'of copy' error
        printf '|---|---|---|---|---|---|---|---|---|---|---|---|---|\n'
        while read -r line; do
            precision=$(field precision "$line")
            cells "$(op_of "$line")" "$(shape_of "$line")" "$(field dtype "$line")" "$(field pass "$line")" \
                "$(field asked "$line")$([[ ${precision:-float32} == float32 ]] || printf ', %s' "$precision")" "$(list_of ran "$line")" \
                "$(field median_ms "$line")" "$(field tflops "$line" | sed 's/null//')" "$(percent "$(field fraction_of_peak "$line")")" \
                "$([[ $(field tflops "$line") == null ]] || field peak_of "$line")" "$(field gbytes_per_s "$line")" \
                "$(percent "$(field fraction_of_copy "$line")")" "$(field relative_error "$line")"
        done <"$work/bench"
    fi
    if [[ -s $work/momentum ]]; then
        printf '\n## Momentum over attention\n\nThe time of momentum attention over that of attention, both by the kernels asked for.\n\n'
        cells shape type pass 'kernels asked for' 'momentum ms' 'attention ms' 'time over attention'
        printf '|---|---|---|---|---|---|---|\n'
        while read -r line; do
            cells "$(shape_of "$line")" "$(field dtype "$line")" "$(field pass "$line")" "$(field asked "$line")" "$(field momentum_ms "$line")" \
                "$(field attention_ms "$line")" "$(field time_over_attention "$line")"
        done <"$work/momentum"
    fi
    if [[ -s $work/peers ]]; then
        printf '\n## Beside PyTorch\n\nIn turns, in the same run; ratio above 1: ours is faster.\n\n'
        cells work shape type pass ours 'kernels that ran' ms peer ms ratio
        printf '|---|---|---|---|---|---|---|---|---|---|\n'
        while read -r line; do
            cells "$(op_of "$line")" "$(shape_of "$line")" "$(field dtype "$line")" "$(field pass "$line")" "$(field kernels "$line")" \
                "$(field ran "$line")" "$(field ours_ms "$line")" "$(field peer "$line")" "$(field peer_ms "$line")" "$(field ratio "$line")"
        done <"$work/peers"
    fi
    if [[ -s $work/notes ]]; then
        printf '\nWhat did not run:\n\n'
        sed 's/^"\(.*\)"$/- \1/; s/\\"/"/g' "$work/notes"
    fi
} >"$out/$name.md"
say "$verdict; $out/$name.json and .md"
exit $code
