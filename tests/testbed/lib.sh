# lib.sh - what the cases share (cases/*.sh read it with `.`). A case runs inside the testbed, in a folder of its own ($work, in
# memory), and ends with 0 (passed), 77 (skipped, the reason on standard output) or anything else.
#
# guest ARGS...        our monitor with Debian's cloud kernel and the small guest, standard output and error to the case's output
# start ARGS...        the same in the background: output in $log, pid in $vm, control socket $socket
# wait_for TEXT [S]    until a line of $log has TEXT; the case fails when the machine ends or S seconds (60) are over
# ended                waits for the machine of `start`; its exit code is the function's
# ticking              a guest's script: says "tick 1", "tick 2", ... as long as a file of random bytes in memory stays as it was
# wait_ticks FILE N    until FILE has N such lines
# start_on_disks SCRIPT  a guest that counts on two disks
# control JSON         one request to $socket, prints the answer, fails when that is an error

set -eu
export QUEZTL_SECCOMP=trap # a forbidden call still ends the machine, but says which it was
: "${BUILD:?} ${TESTBED:?the cases run inside the testbed}"
here=$(dirname "$(readlink -f "$0")")/..
. "$here/../guest/image/lib.sh"
hv=$BUILD/tools/queztl-hv
ctl=$BUILD/tests/testbed/ctl
kernel=$(newest_kernel cloud)
initrd=$BUILD/guest/initrd
if [ "$TESTBED" = here ]; then accels="jit jit,interpret jit,deterministic"; else accels=kvm; fi # what this place has
quiet="console=ttyS0 panic=-1 quiet"
work=$(mktemp -d "/tmp/case.XXXXXX")
log=$work/log
socket=$work/control
vm=
cd "$work"

cleanup() {
    [ -z "$vm" ] || kill -9 "$vm" 2>/dev/null || true
    for pid in ${helpers:-}; do kill "$pid" 2>/dev/null || true; done
    cd /
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' TERM INT

fail() {
    echo "FAILED: $*"
    if [ -s "$log" ]; then
        echo "--- the machine's output, last lines:"
        tail -n 25 "$log"
    fi
    exit 1
}

skip() {
    echo "$*"
    exit 77
}

expect() { # expect WHAT WANTED GOT
    [ "$2" = "$3" ] || fail "$1: wanted \"$2\", got \"$3\""
}

guest() {
    "$hv" run --kernel "$kernel" --initrd "$initrd" --append "$quiet" --timeout 120 "$@" </dev/null
}

start() {
    : >"$log"
    "$hv" run --kernel "$kernel" --initrd "$initrd" --append "$quiet" --timeout 300 --control "$socket" "$@" \
        </dev/null >"$log" 2>&1 &
    vm=$!
}

alive() {
    [ -n "$vm" ] && [ -d "/proc/$vm" ] && ! grep -q '^State:.*[ZX]' "/proc/$vm/status" 2>/dev/null
}

died() { # died WHEN: the machine of `start` ended too early
    code=0
    wait "$vm" || code=$?
    if [ "$code" -gt 128 ]; then fail "the machine was ended by signal $((code - 128)) $*"; fi
    fail "the machine ended with exit code $code $*"
}

wait_for() {
    steps=$((${2:-60} * 20))
    until grep -q -- "$1" "$log"; do
        alive || { grep -q -- "$1" "$log" && break; died "before it said \"$1\""; }
        steps=$((steps - 1))
        [ "$steps" -gt 0 ] || fail "no \"$1\" in time"
        sleep 0.05
    done
}

ended() {
    code=0
    wait "$vm" || code=$?
    vm=
    return "$code"
}

control() {
    answer=$("$ctl" "$socket" "$1") || fail "the control socket did not answer $1"
    case $answer in
    '{"ok":true'*) echo "$answer" ;;
    *) fail "control $1: $answer" ;;
    esac
}

# field NAME: the number or string of that name in JSON on standard input, the first one.
field() {
    sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" | head -1
}

# The word after KEY in a file of "KEY VALUE" lines, without the carriage returns of a terminal.
said() {
    tr -d '\r' <"${2:-$log}" | sed -n "s/^$1 //p" | tail -1
}

# Resident memory of the monitor in KiB: everything, and what is not guest memory (its memfd).
resident() {
    awk '/^Rss:/ { sum += $2 } END { print sum + 0 }' "/proc/$vm/smaps"
}
resident_own() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / { guest = $6 ~ /memfd:/ } /^Rss:/ && !guest { sum += $2 } END { print sum + 0 }' "/proc/$vm/smaps"
}

ticking='
    head -c 2000000 /dev/urandom >/tmp/data
    before=$(md5sum </tmp/data)
    i=0
    while :; do
        i=$((i + 1))
        [ "$(md5sum </tmp/data)" = "$before" ] && echo "tick $i"
        usleep 100000
    done'

wait_ticks() { # wait_ticks FILE COUNT
    steps=1200
    until [ "$(grep -c '^tick' "$1")" -ge "$2" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$1 has no $2 ticks: $(head -c 300 "$1")"
        sleep 0.05
    done
}

# Words of a guest that counts on its disks: block N says "count N"; `look` what a block says.
on_disks='
    write() { printf "count %s\n" $2 | dd of=$1 bs=4k seek=$2 conv=sync oflag=direct 2>/dev/null; }
    look() { dd if=$1 bs=4k skip=$2 count=1 iflag=direct 2>/dev/null | head -n 1 | tr -d "\0"; }
    write_both() { write /dev/vda $1; write /dev/vdb $1; }
    i=0'
start_on_disks() { # start_on_disks SCRIPT: a guest with two disks, a.img and b.qcow2, and the words above
    truncate -s 64M a.img
    "$BUILD/tools/queztl-disk" create b.qcow2,format=qcow2 64M
    start --cpus 2 --memory 192M --name origin --disk a.img --disk b.qcow2,format=qcow2 -- sh -c "$on_disks
        $1"
    wait_for "^tick 5 "
}
