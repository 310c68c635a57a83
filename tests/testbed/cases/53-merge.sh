# --merge on: pages that two machines have alike are kept once, and discarding, snapshots, restoring and clones are as without it.
# limit: 700 s
. "$(dirname "$0")/../lib.sh"
ksm=/sys/kernel/mm/ksm
[ -w $ksm/run ] && [ -r /proc/self/ksm_merging_pages ] || skip "KSM cannot be switched on here, or does not tell what it merged"

for name in run sleep_millisecs pages_to_scan; do cat $ksm/$name >"$work/$name.before"; done
put_back() {
    for name in sleep_millisecs pages_to_scan run; do cat "$work/$name.before" >$ksm/$name; done
}
trap 'put_back; cleanup' EXIT
echo 0 >$ksm/run 2>/dev/null || skip "KSM cannot be switched on here"

# Both have the same 8 MiB, which no file of the guest image has; the guest sees to it that they stay as they are.
guest_does="
    mount -t tmpfs -o size=100% tmpfs /mnt
    yes 'a line of both' | head -c 8388608 >/mnt/same
    same=\$(md5sum </mnt/same)
    echo ready
    (
        while :; do
            dd if=/dev/zero of=/mnt/other bs=1M count=16 2>/dev/null
            [ \"\$(md5sum </mnt/same)\" = \"\$same\" ] || echo \"the bytes have changed\"
            rm /mnt/other
            sleep 1
        done
    ) &
    $ticking"
start --timeout 650 --memory 256M --name first --merge on -- sh -c "$guest_does"
wait_for "ksm/run is 0" 20
wait_for "^ready" 200
"$hv" run --kernel "$kernel" --initrd "$initrd" --append "$quiet" --timeout 650 --control "$work/second" --memory 256M --name second \
    --merge on -- sh -c "$guest_does" </dev/null >second.log 2>&1 &
helpers=$!
wait_ticks second.log 1
echo 4000 >$ksm/pages_to_scan
echo 10 >$ksm/sleep_millisecs
echo 1 >$ksm/run

merged() { # merged SOCKET: pages of that machine that are kept once with others
    "$ctl" "$1" '{"cmd":"metrics"}' | sed -n 's/.*"merged":{"pages":\([0-9]*\).*/\1/p'
}
wait_merged() { # wait_merged SOCKET PAGES
    steps=600
    until pages=$(merged "$1") && [ "${pages:-0}" -ge "$2" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "only $pages pages are merged after a while"
        sleep 0.1
    done
}
wait_merged "$socket" 1800
wait_merged "$work/second" 1800
echo "pages merged: $(merged "$socket") and $(merged "$work/second"); $(cat $ksm/pages_shared) kept for $(cat $ksm/pages_sharing) more"

# All that is done with memory; an emulated host would take its time.
if [ "$TESTBED" != here ]; then
    "$ctl" "$work/second" '{"cmd":"stop"}' >/dev/null
    control '{"cmd":"stop"}' >/dev/null
    ended || fail "stop: exit code $?"
    exit 0
fi
"$hv" snapshot "$socket" moment >out 2>&1 || fail "snapshot: $(cat out)"
cat out
wait_ticks "$log" $(($(grep -c '^tick' "$log") + 5))
"$hv" run --snapshot moment --control "$work/third" --timeout 200 </dev/null >third.log 2>&1 &
third=$!
helpers="$helpers $third"
wait_ticks third.log 5
[ -n "$(merged "$work/third")" ] || fail "the machine from the snapshot does not merge"
"$ctl" "$work/third" '{"cmd":"stop"}' >/dev/null
wait $third || fail "the machine from the snapshot ended with $?"
"$hv" restore "$socket" >out 2>&1 || fail "restore: $(cat out)"
wait_ticks "$log" $(($(grep -c '^tick' "$log") + 5))
mkdir clones
"$hv" clone "$socket" --count 2 --folder clones >list || fail "clone"
for i in 1 2; do
    helpers="$helpers $(awk -v i=$i 'NR == i { print $2 }' list)"
    wait_ticks clones/first-$i.console 5
    "$ctl" clones/first-$i.sock '{"cmd":"stop"}' >/dev/null
done
control '{"cmd":"reset"}' >/dev/null
wait_ticks "$log" $(($(grep -c '^tick' "$log") + 3))
"$ctl" "$work/second" '{"cmd":"stop"}' >/dev/null
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
! cat "$log" second.log third.log clones/*.console | grep "have changed" || fail "a guest's memory is not what it wrote"
