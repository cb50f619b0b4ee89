#!/bin/sh
# Runs nvcc, the arguments, and fails when ptxas notes a loss of performance: C75xx, for instance products of Hopper's tensor cores that it
# had to serialise. To ptxas that is information, which no option turns into an error. C7519 may stay: one more warpgroup.arrive, at a place
# where the registers of a product change hands.
notes=$(mktemp) || exit 1
trap 'rm -f "$notes"' EXIT
"$@" 2>"$notes"
status=$?
cat "$notes" >&2
[ $status -eq 0 ] || exit $status
if grep -o '(C75[0-9][0-9])' "$notes" | grep -qv C7519; then
    echo "ptxas-notes.sh: a performance note of ptxas (above) fails the build" >&2
    exit 1
fi
