# limit: 300 s
# Memory and disks in one moment: a guest counts on two disks, raw and qcow2, and reads back what it wrote before. It is frozen while
# it does; goes on, is gone on from, and is cloned; nothing is lost, and nobody sees what another one writes.
. "$(dirname "$0")/../lib.sh"
disk=$BUILD/tools/queztl-disk
start_on_disks '
    while :; do
        i=$((i + 1))
        write_both $i
        echo "tick $i $(look /dev/vda $i) $(look /dev/vdb $i) $(look /dev/vda 1) $(look /dev/vdb 1)"
    done'

# Each line is the next one, and the disks have what was written, now and at first.
whole() { # whole FILE
    tr -d '\r' <"$1" | awk '
        $1 == "tick" {
            if (n && $2 != last + 1) { print "tick " $2 " behind " last; exit 1 }
            if (NF == 10 && ($4 != $2 || $6 != $2 || $8 != 1 || $10 != 1)) { print; exit 1 }
            last = $2; n++
        }
        END { exit n < 5 }' >why || fail "$1: $(cat why) $(head -c 300 "$1")"
}

"$hv" snapshot "$socket" first || fail "snapshot"
frozen=$(cat a.img b.qcow2 | md5sum)
wait_ticks "$log" $(($(grep -c '^tick' "$log") + 5))
"$hv" snapshot "$socket" second || fail "snapshot"
[ -e a.img.second.qcow2 ] && [ -e b.second.qcow2 ] || fail "no overlays beside the images: $(ls)"
mkdir clones
"$hv" clone first --count 2 --folder clones >list || fail "clone"
for i in 1 2; do helpers="${helpers:-} $(awk -v i=$i 'NR == i { print $2 }' list)"; done
"$hv" run --snapshot second --timeout 200 --control "$work/run" </dev/null >run.log 2>&1 &
run=$!
helpers="$helpers $run"
for file in clones/origin-1.console clones/origin-2.console run.log; do wait_ticks $file 8; done
wait_ticks "$log" $(($(grep -c '^tick' "$log") + 5))
for i in 1 2; do "$ctl" clones/origin-$i.sock '{"cmd":"stop"}' >/dev/null; done
"$ctl" run '{"cmd":"stop"}' >/dev/null
wait $run || fail "the machine from second ended with $?"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
for file in clones/origin-1.console clones/origin-2.console run.log "$log"; do whole "$file"; done
expect "images that are frozen" "$frozen" "$(cat a.img b.qcow2 | md5sum)"
for image in a.img.first b.first a.img.second b.second clones/origin-1.disk0 clones/origin-2.disk1; do
    "$disk" check $image.qcow2,format=qcow2 >check.log 2>&1 || fail "$image: $(cat check.log)"
done
expect "overlays of the run that are left" "" "$(ls /tmp/queztl-*.qcow2 2>/dev/null)"

# A machine that cannot find its disks again says so, and goes on.
rm -f b.first.qcow2
"$hv" run --snapshot second --timeout 20 </dev/null >refused.log 2>&1 && fail "a snapshot without its disk runs"
grep -q "b.first.qcow2" refused.log || fail "the missing image is not named: $(cat refused.log)"
