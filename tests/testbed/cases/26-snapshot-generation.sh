# limit: 400 s
# Machines that go on from one moment do not draw the same random numbers: each has a generation identifier of its own, and
# Linux (vmgenid, which Debian's cloud kernel lacks) takes new randomness as soon as it is told.
. "$(dirname "$0")/../lib.sh"
kernel=$(newest_kernel generic)
[ -n "$kernel" ] || skip "no generic kernel (apt install linux-image-amd64)"
initrd=$work/initrd
"$here/../guest/image/make-initrd" "$initrd" "/lib/modules/${kernel#/boot/vmlinuz-}"

# A line tells how often the kernel was told, and what it would give a program. The generator runs by itself from one
# reseeding to the next, every minute at the latest, and from equal states it gives equal bytes.
start --cpus 2 --memory 256M --name origin --net none -- sh -c '
    while :; do
        told=$(dmesg | grep -c "crng reseeded due to virtual machine fork")
        echo "told $told $(head -c 16 /dev/urandom | md5sum | cut -c 1-32)"
        usleep 100000
    done'
wait_for "^told 0 "

told() { # told LOG TIMES: waits for it; prints the first bytes that were drawn then
    steps=1200
    until drawn=$(tr -d '\r' <"$1" | awk -v times="$2" '$1 == "told" && $2 == times { print $3; exit }') && [ -n "$drawn" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$1 was not told $2 times: $(tail -n 3 "$1")"
        sleep 0.05
    done
    echo "$drawn"
}
different() { # different BYTES...
    [ "$(printf '%s\n' "$@" | sort -u | wc -l)" = $# ] || fail "the same random bytes twice: $*"
}

# Clones, one of them cloned again.
mkdir clones
"$hv" clone "$socket" --count 2 --folder clones >list || fail "clone"
helpers=$(awk '{ print $2 }' list | tr '\n' ' ')
first=$(told clones/origin-1.console 1)
second=$(told clones/origin-2.console 1)
mkdir again
"$hv" clone clones/origin-1.sock --folder again >list || fail "clone of a clone"
helpers="$helpers $(awk '{ print $2 }' list)"
different "$first" "$second" "$(told again/origin-1-1.console 2)"
for of in clones/origin-1 clones/origin-2 again/origin-1-1; do "$ctl" $of.sock '{"cmd":"stop"}' >/dev/null; done

# From a folder, twice.
"$hv" snapshot "$socket" folder || fail "snapshot"
for i in 1 2; do
    "$hv" run --snapshot folder --timeout 200 --control "$work/from-folder" </dev/null >folder-$i.log 2>&1 &
    pid=$!
    helpers="$helpers $pid"
    told folder-$i.log 1 >folder-$i
    "$ctl" "$work/from-folder" '{"cmd":"stop"}' >/dev/null
    wait $pid || fail "the machine from the folder ended with $?"
done
different "$first" "$second" "$(cat folder-1)" "$(cat folder-2)"

# The origin goes on as itself, until it is sent back: then it has been here before.
lines=$(grep -c "^told 0 " "$log")
wait_lines() { # wait_lines COUNT
    steps=1200
    until [ "$(grep -c "^told" "$log")" -ge "$1" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "the machine says nothing any more"
        sleep 0.05
    done
}
wait_lines $((lines + 3))
[ -z "$(grep "^told [1-9]" "$log")" ] || fail "the machine that others began from was told, too"
for round in 1 2; do
    : >"$log"
    control '{"cmd":"revert"}' >/dev/null
    told "$log" 1 >round-$round
done
different "$(cat round-1)" "$(cat round-2)"

# A guest that boots again is the machine that it was.
control '{"cmd":"reset"}' >/dev/null
: >"$log"
wait_for "^told 0 "
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
