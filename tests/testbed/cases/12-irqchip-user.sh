# Interrupts by our own local APICs instead of KVM's: two vCPUs, so that IPIs go through them too.
. "$(dirname "$0")/../lib.sh"
guest --cpus 2 --irqchip user -- sh -c 'echo "cpus $(nproc)"; taskset -c 1 sleep 0.1; echo "timer $(awk "/LOC:/ { print \$2 + \$3 }" /proc/interrupts)"' >"$log" 2>&1 ||
    fail "exit code $?"
expect "vCPUs" 2 "$(said cpus)"
[ "$(said timer)" -gt 10 ] || fail "the local timers ticked $(said timer) times"
