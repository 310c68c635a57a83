# limit: 400 s
# testbed only
# A machine that was booted by the software CPU goes on by KVM, is frozen there, and goes on by the software CPU.
. "$(dirname "$0")/../lib.sh"
start --accel jit --cpus 2 --memory 192M --net none -- sh -c "$ticking"
wait_for "^tick 5" 240
"$hv" snapshot "$socket" first || fail "snapshot"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"

for accel in kvm jit; do
    : >"$log"
    "$hv" run --snapshot first --accel $accel --timeout 300 --control "$socket" </dev/null >"$log" 2>&1 &
    vm=$!
    wait_for "^tick" 120
    from=$(sed -n 's/^tick //p' "$log" | head -1 | tr -d '\r')
    wait_for "^tick $((from + 5))" 120
    expect "back end" $accel "$(control '{"cmd":"info"}' | field accel)"
    rm -rf second
    "$hv" snapshot "$socket" second || fail "snapshot by $accel"
    control '{"cmd":"stop"}' >/dev/null
    ended || fail "stop: exit code $?"
    tr -d '\r' <"$log" | awk -v next_one="$from" '$1 == "tick" { if ($2 != next_one) exit 1; next_one++ }' || fail "not every tick is the next one"
    [ -z "${last:-}" ] || [ "$from" -gt "$last" ] || fail "$accel goes on with tick $from, behind $last"
    last=$from
    rm -rf first
    mv second first
done
