# The same kernel entered by the PVH protocol.
. "$(dirname "$0")/../lib.sh"
guest --protocol pvh -- sh -c 'echo "up $(cut -d. -f1 /proc/uptime)"' >"$log" 2>&1 || fail "exit code $?"
[ -n "$(said up)" ] || fail "the command did not run"
