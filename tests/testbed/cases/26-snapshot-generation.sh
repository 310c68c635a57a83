# limit: 500 s
# Machines that go on from one moment do not draw the same random numbers: each has a generation identifier of its own, and
# Linux (vmgenid, which Debian's cloud kernel lacks) takes new randomness as soon as it is told.
. "$(dirname "$0")/../lib.sh"
kernel=$(newest_kernel generic)
[ -n "$kernel" ] || skip "no generic kernel (apt install linux-image-amd64)"
release=${kernel#/boot/vmlinuz-}
grep -q '^CONFIG_VMGENID=y' "/boot/config-$release" || skip "Linux $release has no driver for it (CONFIG_VMGENID)"
initrd=$work/initrd
"$here/../guest/image/make-initrd" "$initrd" "/lib/modules/$release"

# A line: how often the kernel was told, then the identifier (vmgenid.h has its address), then what a program is given.
start --cpus 1 --memory 192M --name origin --net none -- sh -c '
    while :; do
        told=$(dmesg | grep -c "crng reseeded due to virtual machine fork")
        echo "told $told $(devmem 0xfed60000 64)$(devmem 0xfed60008 64) $(head -c 16 /dev/urandom | md5sum | cut -c 1-32)"
        usleep 100000
    done'
# told LOG TIMES: waits for it; the first identifier and the first bytes that were drawn then. A log that was emptied begins
# with zeros.
told() {
    steps=1200
    until now=$(tr -d '\r\000' <"$1" | awk -v times="$2" '$1 == "told" && $2 == times && NF == 4 { print $3, $4; exit }') && [ -n "$now" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$1 was not told $2 times: $(tail -n 3 "$1")"
        sleep 0.05
    done
    case $now in
    *0x*0x*) echo "$now" ;;
    *) fail "$1 does not read its identifier: $now" ;;
    esac
}
different() { # different "IDENTIFIER BYTES"...
    for column in 1 2; do
        [ "$(printf '%s\n' "$@" | cut -d ' ' -f $column | sort -u | wc -l)" = $# ] || fail "the same twice: $*"
    done
}
origin=$(told "$log" 0)

# Clones, one of them cloned again.
mkdir clones
"$hv" clone "$socket" --count 2 --folder clones >list || fail "clone"
helpers=$(awk '{ print $2 }' list | tr '\n' ' ')
first=$(told clones/origin-1.console 1)
second=$(told clones/origin-2.console 1)
mkdir again
"$hv" clone clones/origin-1.sock --folder again >list || fail "clone of a clone"
helpers="$helpers $(awk '{ print $2 }' list)"
third=$(told again/origin-1-1.console 2)
different "$origin" "$first" "$second" "$third"
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
different "$origin" "$first" "$second" "$(cat folder-1)" "$(cat folder-2)"

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
[ "$(awk '$1 == "told" && NF == 4 { print $2, $3 }' "$log" | sort -u | wc -l)" = 1 ] || fail "the machine that others began from was told, too"
for round in 1 2; do
    control '{"cmd":"restore"}' >/dev/null
    : >"$log"
    told "$log" 1 >round-$round
done
different "$origin" "$(cat round-1)" "$(cat round-2)"

# A guest that boots again is the machine that it was.
control '{"cmd":"reset"}' >/dev/null
: >"$log"
again=$(told "$log" 0)
expect "identifier after a reset" "$(cut -d ' ' -f 1 round-2)" "${again% *}"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
