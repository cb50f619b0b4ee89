#!/bin/sh
# check.sh works DF_BENCH BACKEND [PLUGIN]   every work, dtype and pass on a small shape: right, timed, all keys there
# check.sh words DF_BENCH                    wrong words: one sentence, a code that is not 0, nothing on the output
mode=$1 bench=$2
failed=0 passed=0
fail() { echo "FAILED: $*"; failed=$((failed + 1)); }

keys='op shape dtype pass threads median_ms min_ms gflops gbytes_per_s relative_error peak_gflops tflops copy_gbytes_per_s fraction_of_peak
fraction_of_copy peak_of correct worst checked ran samples calls_per_sample sets rotated_mib backend device build'

works() {
    backend=$1 plugin=$2
    works=0
    for line in $("$bench" --list | awk '{ print $1 "=" $2 "=" ($0 ~ /forward only/ ? "forward" : "forward backward both") }' | tr ' ' '+'); do
        name=${line%%=*} rest=${line#*=}
        layout=${rest%%=*}
        works=$((works + 1))
        # Sizes of 9, 7, ... in the first layout: odd, and heads that divide.
        case $name in
        attention | momentum-attention) shapes='--shape 1,9,2,8 --shape 2,5,9,4,2,8' ;;
        linear-attention) shapes='--shape 1,9,2,8' ;;
        linear-attention-step) shapes='--shape 2,3,8' ;;
        dual-form) shapes='--shape 7,5,6,8 --shape 2,3,4,5,6' ;;
        embedding) shapes='--shape 2,5,11,8' ;;
        *) case $layout in N) shapes='--shape 100' ;; *,*,*) shapes='--shape 7,5,6' ;; *) shapes='--shape 9,33' ;; esac ;;
        esac
        for pass in $(echo "${rest#*=}" | sed 's/.*both/both/' | tr '+' ' '); do
            for dtype in f32 bf16; do
                # shellcheck disable=SC2086 # lists of words
                out=$("$bench" "$name" $shapes --dtype $dtype --pass "$pass" --backend "$backend" ${plugin:+--plugin "$plugin"} --threads 1 \
                    --seconds 0 --rotate 0.01 --ceilings false --json 2>&1) || { fail "$name $dtype $pass: $out"; continue; }
                expected=$(echo "$shapes" | tr ' ' '\n' | grep -c -- --shape)
                [ "$(echo "$out" | wc -l)" = "$expected" ] || fail "$name $dtype $pass: not $expected lines: $out"
                for key in $keys; do
                    [ "$(echo "$out" | grep -c "\"$key\": ")" = "$expected" ] || fail "$name $dtype $pass: no $key in $out"
                done
                case $out in *'"correct": true'*) ;; *) fail "$name $dtype $pass: not correct: $out" ;; esac
                case $out in *'"checked": []'*) fail "$name $dtype $pass: nothing was checked" ;; esac
                passed=$((passed + 1))
            done
        done
    done
    # Left operands that a level without AVX-512 packs for all tasks, by the task, and reads in place, and operands that level amx splits in
    # three: right, and with the same bits, so the same error, on any number of threads.
    if [ "$backend" = cpu ]; then
        for shape in 200,208,512 97,193,513 1600,200,60 96,400,300 300,401,900; do
            for dtype in f32 bf16; do
                errors=''
                for threads in 1 3; do
                    out=$("$bench" matmul --shape $shape --dtype $dtype --pass both --threads $threads --seconds 0 --ceilings false --json 2>&1) ||
                        fail "matmul $shape $dtype: $out"
                    case $out in *'"correct": true'*) ;; *) fail "matmul $shape $dtype: not correct: $out" ;; esac
                    errors="$errors $(echo "$out" | sed 's/.*"relative_error": \([^,]*\),.*/\1/')"
                done
                # shellcheck disable=SC2086 # two words
                set -- $errors
                if [ $# = 2 ] && [ "$1" = "$2" ]; then passed=$((passed + 1)); else fail "matmul $shape $dtype: errors$errors"; fi
            done
        done
    fi
    # A backward pass alone has its forward pass first, which is not timed; ceilings are measured, and their shares are numbers.
    for name in attention layernorm; do
        case $name in attention) shapes='1,9,2,8' ;; *) shapes='9,33' ;; esac
        out=$("$bench" $name --shape $shapes --pass backward --repeat 3 --backend "$backend" ${plugin:+--plugin "$plugin"} --threads 1 --seconds 0.001 --json 2>&1) ||
            fail "$name backward: $out"
        case $out in *'"correct": true'*'"checked": ["whole"], "equal_runs": 3'*) passed=$((passed + 1)) ;; *) fail "$name backward: $out" ;; esac
        echo "$out" | grep -q '"copy_gbytes_per_s": [0-9].*"fraction_of_copy": [0-9]' || fail "$name backward: no share of the copy: $out"
    done
    echo "$out" | grep -q '"peak_gflops": [0-9]' || fail "no peak: $out"
    # Which kernels were timed, by the backend's own count; the peak is named by what was multiplied, each precision by its own.
    for dtype in f32 bf16; do
        out=$("$bench" layernorm --shape 9,64 --dtype $dtype --backend "$backend" ${plugin:+--plugin "$plugin"} --threads 1 --seconds 0 --json \
            --check false 2>&1) || fail "without a check: $out"
        case $out in *'"relative_error": null'*'"correct": null'*'"checked": []'*) passed=$((passed + 1)) ;; *) fail "without a check: $out" ;; esac
        case $backend:$out in
        cpu:*'"peak_of": "multiply-adds in registers"'*'"ran": []'*) passed=$((passed + 1)) ;;
        cuda-emulated:*"\"peak_of\": \"matmul $dtype 64,64,64, own tiled kernel\""*'"ran": ["layernorm_forward'*'"kernels": "plain"'*) passed=$((passed + 1)) ;;
        *) fail "what ran, beside which peak: $out" ;;
        esac
    done
    [ "$backend" = cpu ] && large
    [ $works -ge 40 ] || fail "only $works works"
}

# What is checked in parts of itself, beside a smaller shape.
large() {
    for line in 'copy --shape 17000000 --dtype bf16=["at 8500000", "N 8500000..16999999: out"]' \
        'attention --shape 1,3600,1,256 --pass both=["at 1,1800,1800,1,1,256", "T 1800..3599: out lse dq dk dv"]'; do
        # shellcheck disable=SC2086 # a list of words
        out=$("$bench" ${line%%=*} --seconds 0 --ceilings false --json 2>&1)
        case $out in *'"correct": true'*"\"checked\": ${line#*=}"*) passed=$((passed + 1)) ;; *) fail "in parts: $out" ;; esac
    done
}

# refused CODE SENTENCE WORDS...
refused() {
    code=$1 sentence=$2
    shift 2
    out=$("$bench" "$@" 2>/tmp/df_bench_words.$$)
    got=$? err=$(cat /tmp/df_bench_words.$$)
    rm -f /tmp/df_bench_words.$$
    [ $got = "$code" ] || fail "$*: exit code $got, expected $code ($err)"
    [ -z "$out" ] || fail "$*: it printed $out"
    [ "$(printf '%s\n' "$err" | wc -l)" = 1 ] || fail "$*: more than one line: $err"
    case $err in "df_bench: "*"$sentence"*) passed=$((passed + 1)) ;; *) fail "$*: '$err' does not say '$sentence'" ;; esac
}

words() {
    refused 2 'a work is missing'
    refused 2 'softmax: no such work, expected one of attention, ' softmax --shape 1,1
    refused 2 '--shape is missing: attention takes B,T,S,NH,NKV,HS' attention
    refused 2 '--shape : expected B,T,NH,HS or B,T,S,NH,NKV,HS, each' attention --shape ''
    refused 2 'expected B,T,NH,HS or B,T,S,NH,NKV,HS' attention --shape 1,2,3
    refused 2 'expected B,T,NH,HS or B,T,S,NH,NKV,HS' attention --shape 1,2,3,4,5
    refused 2 'expected M,N,K' matmul --shape 1,2,3,4
    refused 2 'expected M,N,K' matmul --shape 1,0,1
    refused 2 'expected M,N,K' matmul --shape 1,-4,1
    refused 2 'expected M,N,K' matmul --shape 1.5,2,3
    refused 2 'expected M,N,K' matmul --shape 2x2x3
    refused 2 'expected M,N,K' matmul --shape '2, 2,3'
    refused 2 'expected M,N,K' matmul --shape 2,2,
    refused 2 'from 1 to 999999999' matmul --shape 99999999999,1,1
    refused 2 'from 1 to 999999999' matmul --shape 18446744073709551617,1,1
    refused 1 'no memory for' layernorm --shape 999999999,999999999
    refused 1 'no memory for' matmul --shape 999999999,1,99999 --seconds 0
    refused 2 'k: 2 key heads, expected a divisor' attention --shape 1,4,4,3,2,8
    refused 2 'q: head size 257, expected 1..256' attention --shape 1,4,1,257
    refused 2 '--dtype f64: expected one of f32, bf16' matmul --shape 1,1,1 --dtype f64
    refused 2 '--pass all: expected one of forward, backward, both' matmul --shape 1,1,1 --pass all
    refused 2 '--pass: adamw has no backward pass' adamw --shape 1 --pass both
    refused 2 '--threads -1: expected 0 to 1024' matmul --shape 1,1,1 --threads -1
    refused 2 '--threads 5000: expected 0 to 1024' matmul --shape 1,1,1 --threads 5000
    refused 2 '--threads 1.5: expected a whole number' matmul --shape 1,1,1 --threads 1.5
    refused 2 '--threads two: expected' matmul --shape 1,1,1 --threads two
    refused 2 '--seconds nan: expected 0 to 3600' matmul --shape 1,1,1 --seconds nan
    refused 2 '--seconds -1: expected 0 to 3600' matmul --shape 1,1,1 --seconds -1
    refused 2 '--eta 1: expected' momentum-attention --shape 1,4,1,8 --eta 1
    refused 2 '--decay 2: expected 0 to 1' linear-attention --shape 1,4,1,8 --decay 2
    refused 2 '--causal no: expected one of true, false' attention --shape 1,4,1,8 --causal no
    refused 2 'momentum attention is causal' momentum-attention --shape 1,4,1,8 --causal false
    refused 2 '--check no: expected one of true, false' attention --shape 1,4,1,8 --check no
    refused 2 '--option level: expected KEY=VALUE' matmul --shape 1,1,1 --option level
    refused 2 'option: speed, the cpu backend has level only' matmul --shape 1,1,1 --option speed=high
    refused 2 '--frobnicate: no such option' matmul --shape 1,1,1 --frobnicate 1
    refused 2 '--seconds: a value is missing' matmul --shape 1,1,1 --seconds
    refused 2 '--repeat: adamw changes what it reads' adamw --shape 100 --repeat 2
    refused 2 'one work at a time' matmul gelu --shape 1,1,1
    refused 3 'abacus is not loaded' matmul --shape 1,1,1 --backend abacus
    refused 3 'cuda' matmul --shape 1,1,1 --backend cuda --plugin /nowhere/libdualform_cuda.so
}

case $mode in
works) works "$3" "$4" ;;
words) words ;;
*) fail "mode $mode" ;;
esac
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
