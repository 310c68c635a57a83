# One vCPU to init and a command; the command's exit code and output come back.
. "$(dirname "$0")/../lib.sh"
code=0
guest --cpus 1 -- sh -c 'echo "cpus $(nproc)"; echo "memory $(awk "/MemTotal/ { print \$2 }" /proc/meminfo)"; exit 42' >"$log" 2>&1 || code=$?
expect "exit code of the command" 42 "$code"
expect "vCPUs" 1 "$(said cpus)"
[ "$(said memory)" -gt 400000 ] || fail "512M of memory were given, the guest has $(said memory) KiB"
