# Free page reporting: memory that the guest used and freed goes back to the host without a balloon, and can be used again.
. "$(dirname "$0")/../lib.sh"
start --memory 768M -- sh -c '
    mount -t tmpfs -o size=100% tmpfs /mnt
    for round in 1 2; do
        dd if=/dev/zero of=/mnt/ballast bs=1M count=384 2>/dev/null
        echo "made $round"
        sleep 2
        rm /mnt/ballast
        echo "freed $round"
        sleep 12
    done
    while :; do sleep 1; done'
for round in 1 2; do
    wait_for "^made $round"
    full=$(resident)
    wait_for "^freed $round"
    steps=400
    until [ "$(resident)" -lt $((full - 250 * 1024)) ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "round $round: the guest freed 384 MiB, resident went from $full to $(resident) KiB only"
        sleep 0.05
    done
    echo "round $round: resident $full KiB, after the guest freed it $(resident) KiB"
done
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
