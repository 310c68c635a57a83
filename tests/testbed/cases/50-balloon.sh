# The balloon: inflated, the guest has less and the monitor's resident memory shrinks; deflated, the guest has it back.
. "$(dirname "$0")/../lib.sh"
# The guest touches 384 MiB first, so that there is resident memory to give back. Some of what was free then holds the kernel's
# own things in the end; what the balloon has is asked of the monitor.
start --memory 768M -- sh -c '
    mount -t tmpfs -o size=100% tmpfs /mnt
    dd if=/dev/zero of=/mnt/ballast bs=1M count=384 2>/dev/null
    echo "ballast made"
    sleep 2
    rm /mnt/ballast
    free() { awk "/MemFree/ { print int(\$2 / 1024) }" /proc/meminfo; }
    start=$(free)
    echo "start $start"
    until [ $(free) -lt $((start - 300)) ]; do usleep 50000; done
    echo "inflated $(free)"
    until [ $(free) -gt $((start - 100)) ]; do usleep 50000; done
    echo "deflated $(free)"
    until [ -e /tmp/never ]; do usleep 100000; done'
wait_for "^ballast "
full=$(resident)
[ "$full" -gt $((384 * 1024)) ] || fail "384 MiB were written in the guest, but $full KiB are resident"
wait_for "^start "
control '{"cmd":"balloon","target":"256M"}' >/dev/null
wait_for "^inflated "
# The last pages may still be on their way.
limit=$(((256 + 24) * 1024)) steps=400
until [ "$(resident)" -lt $limit ]; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "256 MiB are left to the guest, but $(resident) KiB stay resident ($full before)"
    sleep 0.05
done
small=$(resident)
steps=400
until actual=$(control '{"cmd":"metrics"}' | field actual_bytes); [ "$actual" -gt $((400 << 20)) ]; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "metrics: the balloon has $actual bytes"
    sleep 0.05
done
control '{"cmd":"balloon","target":"768M"}' >/dev/null
steps=400
until actual=$(control '{"cmd":"metrics"}' | field actual_bytes); [ "$actual" = 0 ]; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "metrics: the balloon keeps $actual bytes"
    sleep 0.05
done
wait_for "^deflated "
control '{"cmd":"stop"}' >/dev/null
ended || fail "exit code $?"
echo "resident $full KiB, inflated $small KiB; the guest's free memory in MiB: $(said start), $(said inflated), $(said deflated)"
