# suite.sh - runs a payload of tests/guest/suite (after lib.sh).
#
# suite PAYLOAD OPTIONS...  with every accelerator of this place and the models portable and host; fails when a test failed,
#                           when the payload did not come to its summary, or when it tested nothing

places() {
    if [ "$TESTBED" = here ]; then echo jit jit,interpret; else echo kvm; fi
}

suite() {
    payload=$BUILD/tests/guest/suite/$1
    shift
    words="cpus=2"
    if [ "$TESTBED" = here ]; then words="$words software"; else words="$words tcg"; fi
    bad=
    for accel in $(places); do
        for model in portable host; do
            echo "--- $accel, $model"
            # A test that broke the machine has said where in its output; the exit code adds nothing to that.
            "$hv" run --accel "$accel" --cpu "$model" --net none --kernel "$payload" --append "$words ${SUITE_WORDS:-}" --timeout 240 "$@" \
                </dev/null >"$log" 2>&1 || echo "exit code $?"
            grep -Ev '^ok ' "$log" || true
            summary=$(tr -d '\r' <"$log" | grep '^suite: [1-9][0-9]* passed, 0 failed, ') || bad="$bad $accel/$model"
        done
    done
    : >"$log"
    [ -z "$bad" ] || fail "the suite on$bad"
}
