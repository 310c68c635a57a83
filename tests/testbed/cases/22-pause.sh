# Paused, the guest's clock stands; resumed, it goes on; stop ends the machine at once with 0.
. "$(dirname "$0")/../lib.sh"
start -- sh -c 'i=0; while :; do i=$((i + 1)); echo "tick $i $(cut -d" " -f1 /proc/uptime)"; usleep 100000; done'
wait_for "^tick 5 "
control '{"cmd":"pause"}' >/dev/null
expect "state" paused "$(control '{"cmd":"info"}' | field state)"
before=$(said tick)
sleep 2
expect "last line while paused" "$before" "$(said tick)"
control '{"cmd":"resume"}' >/dev/null
next=$((${before%% *} + 2))
wait_for "^tick $next "
# Two ticks are 0.2 s of the guest's time and some; the two seconds of the pause must not be in it.
after=$(grep "^tick $next " "$log" | tr -d '\r')
echo "${before#* } ${after##* }" | awk '{ exit !($2 - $1 < 1.9) }' || fail "the clock ran during the pause: $before, then $after"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
