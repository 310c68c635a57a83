# --balloon auto: real pressure on the host makes the guest give what it does not use, a guest that needs it has it back at once
# although pressure lasts, and without pressure all of it comes back; then the monitor's main thread sleeps.
# limit: 500 s
. "$(dirname "$0")/../lib.sh"

[ -r /proc/pressure/memory ] || skip "this kernel does not tell memory pressure (psi=1)"
# A group with less memory than what runs in it wants. Version 2 holds a task up when it goes over memory.high; with version 1
# files are read that do not fit.
presser= group=
if grep -qs memory /sys/fs/cgroup/cgroup.controllers; then
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control || skip "no control groups with memory here"
    group=/sys/fs/cgroup/queztl-case.$$
    mkdir "$group"
    echo 8M >"$group/memory.high"
    work_hard='dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null'
elif mkdir /sys/fs/cgroup/memory/queztl-case.$$ 2>/dev/null; then
    group=/sys/fs/cgroup/memory/queztl-case.$$
    echo 32M >"$group/memory.limit_in_bytes"
    # Past the page cache: what of it is in memory belongs to who reads it.
    dd if=/dev/zero of="$work/large" bs=1M count=128 oflag=direct 2>/dev/null
    work_hard="cat $work/large >/dev/null"
else
    skip "no control group with little memory can be made here"
fi
leave_group() {
    if [ -n "$presser" ]; then
        rm -f "$work/press"
        wait "$presser" 2>/dev/null || true
    fi
    steps=100
    until rmdir "$group" 2>/dev/null || [ $steps = 0 ]; do
        steps=$((steps - 1))
        sleep 0.1
    done
}
trap 'leave_group; cleanup' EXIT

press() {
    : >"$work/press"
    (
        sh -c 'echo $PPID' >"$group/cgroup.procs"
        for i in 1 2 3; do
            while [ -e "$work/press" ]; do eval "$work_hard"; done &
        done
        wait
    ) &
    presser=$!
}

relax() {
    rm -f "$work/press"
    wait "$presser" || true
    presser=
}

balloon() { control '{"cmd":"metrics"}' | field "$1"; }

wait_balloon() { # wait_balloon SECONDS TEST...: until the balloon's bytes pass the test
    steps=$(($1 * 5))
    shift
    until actual=$(balloon actual_bytes) && [ "$actual" "$@" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "the balloon has $actual bytes, not $*: $(control '{"cmd":"metrics"}')"
        sleep 0.2
    done
}

start --memory 768M --balloon auto,min=64M,pressure=2 -- sh -c '
    mount -t tmpfs -o size=100% tmpfs /mnt
    available() { awk "/MemAvailable/ { print int(\$2 / 1024) }" /proc/meminfo; }
    echo "start $(available)"
    until [ $(available) -lt 120 ]; do usleep 100000; done
    echo "squeezed $(available)"
    dd if=/dev/zero of=/mnt/needed bs=1M count=200 2>/dev/null || echo "could not write"
    until [ $(available) -ge 16 ]; do usleep 100000; done # more than was left, and it runs
    echo "served $(available)"
    rm /mnt/needed
    until [ -e /tmp/never ]; do usleep 500000; done'
wait_for "^start "
expect policy auto "$(balloon policy)"
expect "without pressure" 0 "$(balloon actual_bytes)"
"$ctl" "$socket" '{"cmd":"balloon","target":"256M"}' | grep -q '"error".*--balloon manual' || fail "the balloon is moved by hand, too"
press
wait_for "^squeezed " 120
wait_balloon 30 -gt $((400 << 20))
squeezed=$actual
pressure=$(balloon pressure_ppm)
wait_for "^served " 120
! grep -q "could not write" "$log" || fail "the guest got no memory back"
[ -e "$work/press" ] || fail "the pressure ended too early"
# Who begins from this moment has the policy, too, and goes on with what the balloon had.
"$hv" snapshot "$socket" moment >out 2>&1 || fail "snapshot: $(cat out)"
"$hv" run --snapshot moment --control "$work/second" --timeout 200 </dev/null >second.log 2>&1 &
helpers=$!
steps=400
until "$ctl" "$work/second" '{"cmd":"metrics"}' >second.json 2>/dev/null; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "the machine from the snapshot: $(cat second.log)"
    sleep 0.1
done
expect "policy from a snapshot" auto "$(field policy <second.json)"
[ "$(field actual_bytes <second.json)" -gt $((100 << 20)) ] || fail "from a snapshot: $(cat second.json)"
"$ctl" "$work/second" '{"cmd":"stop"}' >/dev/null
wait $helpers || fail "the machine from the snapshot ended with $?"
helpers=
relax
wait_balloon 150 -eq 0
steps=150
until [ "$(balloon doing)" = rests ]; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "there is no pressure, but the policy goes on: $(balloon doing)"
    sleep 0.2
done
switches() { sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "/proc/$vm/task/$vm/status"; }
before=$(switches)
sleep 10
woken=$(($(switches) - before))
[ $woken -le 5 ] || fail "a machine at rest: its main thread woke up $woken times in 10 s"
control '{"cmd":"stop"}' >/dev/null
ended || fail "exit code $?"
echo "MiB in the balloon: $((squeezed >> 20)) at $pressure ppm of pressure; available to the guest: $(said start), $(said squeezed)," \
    $(said served) "with 200 more in use; the balloon empty again, $woken wake-ups in 10 s"
