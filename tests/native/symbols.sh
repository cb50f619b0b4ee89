#!/bin/sh
# symbols.sh library LIBRARY HEADERS   exports exactly the functions that the headers declare; glibc at most 2.34; no RUNPATH; RELRO, BIND_NOW
# symbols.sh kernels ISA OBJECTS       weak symbols only in dualform::cpu::ISA, so no code of one instruction set is linked into another
fail() { echo "FAILED: $*"; exit 1; }
skip() { echo "SKIPPED: symbols: $*"; exit 77; }
for tool in nm objdump readelf; do command -v $tool > /dev/null || skip "no $tool"; done
mode=$1; shift
case $mode in
library)
    library=$1 headers=$2
    exported=$(nm -D --defined-only "$library" | awk '$2 ~ /[A-Za-z]/ { sub(/@.*/, "", $3); print $3 }' | sort)
    declared=$(sed -n 's/^DF_API.*[ *]\(df_[a-z0-9_]*\)(.*/\1/p' "$headers/df.h" "$headers/df_ops.h" | sort)
    [ -n "$declared" ] || fail "no declaration found in $headers"
    [ "$exported" = "$declared" ] || fail "exports differ from the headers: $(printf '%s\n%s\n' "$exported" "$declared" | sort | uniq -u | tr '\n' ' ')"
    newest=$(objdump -T "$library" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -V | tail -1)
    [ "$(printf '%s\n2.34\n' "$newest" | sort -V | tail -1)" = 2.34 ] || fail "needs glibc $newest, at most 2.34"
    readelf -d "$library" | grep -E 'RUNPATH|RPATH' && fail "has a run path"
    readelf -d "$library" | grep -qE 'BIND_NOW|FLAGS.*NOW' || fail "is not bound at load time"
    readelf -lW "$library" | grep -q GNU_RELRO || fail "has no RELRO segment"
    readelf -lW "$library" | awk '/GNU_STACK/ { exit !($0 ~ /RWE/) }' && fail "has an executable stack"
    nm -D --undefined-only "$library" | grep -wE 'exit|_exit|abort|printf|puts' && fail "can exit or print"
    echo "$(echo "$exported" | wc -l) functions exported, glibc $newest"
    ;;
kernels)
    isa=$1; shift
    [ $# -gt 0 ] || fail "no objects"
    stray=$(nm -C "$@" 2> /dev/null | awk '$2 ~ /^[WVu]$/' | cut -d' ' -f3- | grep -v "dualform::cpu::$isa::" | sort -u)
    [ -z "$stray" ] || fail "weak symbols outside dualform::cpu::$isa: $(echo "$stray" | head -5 | tr '\n' ';')"
    echo "$# objects of $isa have no weak symbols of others"
    ;;
*) fail "mode $mode" ;;
esac
echo "1 passed, 0 failed, 0 skipped"
