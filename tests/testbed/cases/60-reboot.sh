# Hot reboot: the guest reboots, the machine resets and boots again in the same process. The disk tells the boots apart.
. "$(dirname "$0")/../lib.sh"
truncate -s 1M disk
start --disk "$work/disk" -- sh -c '
    n=$(($(head -c 1 /dev/vda | tr "\000" 0) + 1))
    echo "boot $n"
    [ $n -lt 3 ] || exit 33
    printf $n | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null
    while [ $n = 2 ]; do usleep 100000; done # the second one ends by the control socket
    reboot -f'
pid=$vm
wait_for "^boot 1"
wait_for "^boot 2"
expect "the monitor's process" "$pid" "$(control '{"cmd":"info"}' | field pid)"
expect "resets" 1 "$(control '{"cmd":"info"}' | field resets)"
control '{"cmd":"reset"}' >/dev/null
wait_for "^boot 3"
code=0
ended || code=$?
expect "exit code of the third boot's command" 33 "$code"
