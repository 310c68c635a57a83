# here only
# limit: 240 s
# Interpreter and translator in lock-step (tests/lockstep): registers and memory after every 10,000 instructions of a boot, as far
# as it comes in a minute; and bugs that were put into the translator are found, with the instruction.
. "$(dirname "$0")/../lib.sh"

lockstep() {
    "$BUILD/tests/lockstep/lockstep" "$@" "$BUILD/vmm/vm/queztl-vmm" -- --kernel "$kernel" --initrd "$initrd" --append "$quiet" \
        --net none --memory 256M -- true >"$log" 2>&1
}

lockstep --seconds 60 || fail "they do not agree"
cat "$log"
for bug in operation jump-cache; do
    code=0
    QZ_INJECT=$bug lockstep --seconds 40 --translator "$BUILD/tests/lockstep/queztl-vmm-injectable" || code=$?
    expect "exit code with the bug $bug" 1 "$code"
    grep -q '^first different after instruction' "$log" || fail "the bug $bug was not traced"
    grep -q ' <-- differs$' "$log" || fail "nothing is said to differ with the bug $bug"
done
