# 2 vCPUs, all of them online and running code.
. "$(dirname "$0")/../lib.sh"
guest --cpus 2 -- sh -c 'echo "cpus $(nproc)"; for i in $(seq 0 1); do taskset -c $i sh -c "echo ran $i"; done' >"$log" 2>&1 ||
    fail "exit code $?"
expect "vCPUs" 2 "$(said cpus)"
expect "vCPUs that ran a program" 2 "$(grep -c '^ran ' "$log")"
