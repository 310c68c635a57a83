# limit: 300 s
# 64 vCPUs in 4 sockets, all online, by our own local APICs.
. "$(dirname "$0")/../lib.sh"
guest --cpus 64,sockets=4,cores=8,threads=2 --irqchip user --memory 1G --timeout 240 -- sh -c '
    echo "cpus $(nproc)"
    echo "sockets $(cat /sys/devices/system/cpu/cpu*/topology/physical_package_id | sort -u | wc -l)"' >"$log" 2>&1 || fail "exit code $?"
expect "vCPUs" 64 "$(said cpus)"
expect "sockets" 4 "$(said sockets)"
