# here only
# limit: 300 s
# Deterministic machines: the same input gives the same run to the bit. Console, and at eleven moments the registers of all vCPUs
# and a hash of all memory, are those of the run before; with 1 and 2 vCPUs, a disk, and on the interpreter, too. Another seed
# gives another run.
. "$(dirname "$0")/../lib.sh"

truncate -s 8M "$work/empty"
work_for_guest='cat /proc/sys/kernel/random/boot_id; date; dd if=/dev/vda of=/dev/null bs=64k 2>/dev/null
dd if=/dev/zero of=/dev/vda bs=4k count=300 conv=fsync 2>/dev/null; sleep 2; cat /proc/interrupts /proc/uptime; exit 7'

# boot NAME ACCEL OPTIONS...
boot() {
    name=$1 accel=$2
    shift 2
    cp "$work/empty" "$work/disk"
    code=0
    "$hv" run --kernel "$kernel" --initrd "$initrd" --append "console=ttyS0 panic=-1" --timeout 120 --accel "$accel" --net none \
        --disk "$work/disk,format=raw" --memory 256M --state-log "$work/$name.state,every=300000000" "$@" \
        -- sh -c "$work_for_guest" </dev/null >"$work/$name" 2>&1 || code=$?
    cp "$work/$name" "$log"
    expect "exit code of the command on $name" 7 "$code"
    [ "$(wc -c <"$work/$name.state")" -gt 2000 ] || fail "no states of $name"
}

same() {
    cmp "$work/$1" "$work/$2" || fail "the console of $1 and $2 differs"
    cmp "$work/$1.state" "$work/$2.state" || fail "the states of $1 and $2 differ"
}

boot first jit,deterministic
boot second jit,deterministic
same first second
boot interpreted jit,interpret,deterministic
same first interpreted
boot two jit,deterministic --cpus 2
boot two-again jit,deterministic --cpus 2
same two two-again
boot seeded jit,deterministic,seed=1
if cmp -s "$work/first" "$work/seeded"; then fail "the seed changes nothing"; fi
