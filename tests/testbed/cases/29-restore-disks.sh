# limit: 300 s
# A running machine is sent back, with disks that it writes: to its last snapshot, to an earlier one, and so are machines that began
# from one. The guest counts on two disks, reads back what it wrote, and looks ahead: what comes next must not be there yet.
. "$(dirname "$0")/../lib.sh"
disk=$BUILD/tools/queztl-disk
start_on_disks '
    while :; do
        i=$((i + 1))
        ahead="$(look /dev/vda $i)$(look /dev/vdb $i)"
        write_both $i
        echo "tick $i $(look /dev/vda $i) $(look /dev/vdb $i) $(look /dev/vda 1) ahead:${ahead:-nothing}"
    done'

# Each line is the next one, but for the times that it went back, and the disks are as the guest remembers them.
check() { # check FILE TIMES
    tr -d '\r' <"$1" | awk -v times="$2" '
        $1 == "tick" && NF == 9 {
            if (n && $2 != last + 1) { if ($2 <= last) back++; else { print "tick " $2 " behind " last; exit } }
            if ($4 != $2 || $6 != $2 || $8 != 1 || $9 != "ahead:nothing") { print; exit }
            last = $2; n++
        }
        END { if (n < 5) print n " ticks"; if (back != times) print "went back " back + 0 " times instead of " times }' >why
    [ -s why ] && fail "$1: $(cat why)"
    return 0
}
more() { # more FILE: it goes on counting
    wait_ticks "$1" $(($(grep -c '^tick' "$1") + 5))
}
names() {
    echo *.img.*.qcow2 b.*.qcow2
}

"$hv" snapshot "$socket" first || fail "snapshot"
more "$log"
"$hv" snapshot "$socket" second || fail "snapshot"
more "$log"
expect "overlays" "a.img.first.qcow2 a.img.second.qcow2 b.first.qcow2 b.second.qcow2" "$(names)"
frozen=$(cat a.img b.qcow2 a.img.first.qcow2 b.first.qcow2 | md5sum)

# To the last one; what was written since is no file any more. Twice: names come again.
for name in restored restored-2; do
    "$hv" restore "$socket" || fail "restore"
    more "$log"
    expect "overlays after going back" \
        "a.img.first.qcow2 a.img.$name.qcow2 b.first.qcow2 b.$name.qcow2" "$(names)"
done
# To an earlier one, and there again: it is the last one now.
"$hv" restore "$socket" first || fail "restore from a folder"
more "$log"
"$hv" restore "$socket" || fail "restore"
more "$log"
check "$log" 4
"$hv" snapshot "$socket" third || fail "snapshot of a machine that went back"
more "$log"
expect "images that are frozen" "$frozen" "$(cat a.img b.qcow2 a.img.first.qcow2 b.first.qcow2 | md5sum)"

# Machines that began from a snapshot, with images of their own, and with such that have no name.
mkdir clones
"$hv" clone second --folder clones >list || fail "clone"
"$hv" run --snapshot third --timeout 200 --control "$work/run" </dev/null >run.log 2>&1 &
run=$!
helpers="$run $(awk '{ print $2 }' list)"
for file in clones/origin-1.console run.log; do more $file; done
"$hv" restore clones/origin-1.sock 2>left.log || fail "restore of a clone"
grep -q "origin-1.disk0.qcow2 is not used any more" left.log || fail "a clone's first image is not named: $(cat left.log)"
"$hv" restore run || fail "restore of a machine whose disks have no names"
for file in clones/origin-1.console run.log; do more $file; check $file 1; done
expect "images without a name that are left" "" "$(ls /tmp/queztl-*.qcow2 2>/dev/null)"

# What does not fit changes nothing.
"$hv" restore clones/origin-1.sock third 2>refused.log && fail "a clone went back to what it never was"
grep -q "none of its backing files" refused.log || fail "the reason is not told: $(cat refused.log)"
more clones/origin-1.console
check clones/origin-1.console 1
for one in "$socket" run clones/origin-1.sock; do "$ctl" "$one" '{"cmd":"stop"}' >/dev/null; done
wait $run || fail "the machine from third ended with $?"
ended || fail "stop: exit code $?"
for image in $(names) clones/*.qcow2; do
    "$disk" check $image,format=qcow2 >check.log 2>&1 || fail "$image: $(cat check.log)"
done
