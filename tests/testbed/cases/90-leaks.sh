# limit: 1200 s
# 20 boots in a row. In one process by hot reboot: descriptors, threads and memory outside the guest stay as they were. Then a
# few processes: nothing stays on the host.
. "$(dirname "$0")/../lib.sh"
boots=20
# The first boots fill the allocator's pools, and the software CPU's caches, which have a bound.
settled=3
[ "$TESTBED" != here ] || settled=10
truncate -s 1M disk
mkdir before
kept() { # what a monitor could leave on the host
    ls -A "$work" /dev/shm /run | sort >"$1/files"
    pgrep -f "queztl-(vmm|hv).*$work" >"$1/processes" || true # others' machines are theirs
    ls /sys/class/net >"$1/links"
}
kept before
rm -f before/files
shmem_before=$(awk '/^Shmem:/ { print $2 }' /proc/meminfo)

start --cpus 2 --timeout 1100 --disk "$work/disk" --net user --vsock "5,$work/vs" -- sh -c "
    n=\$((\$(head -c 2 /dev/vda | tr -d '\\000') + 1))
    echo \"boot \$n \"
    [ \$n -le $boots ] || exit 44
    printf %02d \$n | sed 's/^0//' | dd of=/dev/vda conv=fsync,notrunc 2>/dev/null
    wait-net
    vsock send 2 1 </dev/null 2>/dev/null
    echo \"ready \$n \"
    while [ ! -e /tmp/never ]; do usleep 100000; done"
descriptors() { ls "/proc/$vm/fd" | wc -l; }
# Kernel workers that io_uring starts and stops as it likes are not ours.
threads() { cat "/proc/$vm"/task/*/comm | grep -vc '^iou-'; }
n=1
while [ $n -le $boots ]; do
    wait_for "^ready $n "
    now="$(descriptors) $(threads) $(resident_own)"
    echo "boot $n: descriptors, threads, own KiB: $now"
    [ $n -ne $settled ] || early=$now
    late=$now
    control '{"cmd":"reset"}' >/dev/null
    n=$((n + 1))
done
code=0
ended || code=$?
expect "exit code after the last boot" 44 "$code"
set -- $early $late
expect "descriptors at boot $settled and $boots" "$1" "$4"
expect "threads at boot $settled and $boots" "$2" "$5"
[ $(($6 - $3)) -le 256 ] || fail "memory outside the guest grew from $3 to $6 KiB in $((boots - settled)) boots"

for i in 1 2 3; do
    guest --cpus 2 --net user --vsock "5,$work/vs" --control "$socket" -- true >"$log" 2>&1 || fail "process $i: exit code $?"
done
[ ! -e "$socket" ] && [ ! -e "$work/vs" ] || fail "a socket file stayed"
mkdir after
kept after
expect "processes left" "$(cat before/processes)" "$(cat after/processes)"
expect "network links" "$(cat before/links)" "$(cat after/links)"
shmem=$(awk '/^Shmem:/ { print $2 }' /proc/meminfo)
[ $((shmem - shmem_before)) -lt 16384 ] || fail "shared memory on the host went from $shmem_before to $shmem KiB"
