# limit: 400 s
# A bare-metal guest counts in memory, on its console, on a disk and on the network, while it is frozen, gone on from, cloned, sent
# back and killed: nothing is torn, lost or done twice, no life is lived twice, and no folder is broken (tests/snapshot/torture.c;
# run-nightly does it a thousand times).
. "$(dirname "$0")/../lib.sh"
torture=$BUILD/tests/snapshot/torture
counter=$BUILD/tests/guest/snapshot/snapshot_counter
if [ "$TESTBED" = here ]; then
    others="--accel jit,interpret"
else
    others="--accel kvm"
fi
rounds() { # rounds OPTIONS...: in a folder of its own
    mkdir "$work/rounds"
    "$torture" --hv "$hv" --guest "$counter" --folder "$work/rounds" --seconds 8 "$@" || fail "with $*"
    rm -rf "$work/rounds"
}
rounds --net --accel jit $others --seed "$(date +%s)"
rounds --net --accel jit $others --seed 2 --cpus 2
rounds --net --accel jit $others --seed 3 --disk

# The guest would notice: one moment put together from two. (On KVM it may stand still instead, whose timers are in the state.)
[ "$TESTBED" = here ] || exit 0
"$hv" run --kernel "$counter" --memory 64M --net none --timeout 60 --control "$socket" </dev/null >"$log" 2>&1 &
vm=$!
wait_for "^t 0*50$"
"$hv" snapshot "$socket" first && wait_for "^t 0*500$" && "$hv" snapshot "$socket" second || fail "snapshot"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"
cp second/state first/state
"$hv" run --snapshot first --timeout 60 --control "$socket" </dev/null >"$log" 2>&1 &
vm=$!
wait_for "^FAILED: a page's generation: wanted"
