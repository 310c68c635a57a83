# suite.sh - runs a payload of tests/guest/suite (after lib.sh).
#
# suite PAYLOAD OPTIONS...  with every accelerator of this place and the models portable and host; fails when a test failed,
#                           when the payload did not come to its summary, or when it tested nothing
# $suite_words              the payload's command line (suite.h); what the CPU below is, is told besides

suite() {
    payload=$BUILD/tests/guest/suite/$1
    shift
    words=${suite_words:-cpus=1}
    if [ "$TESTBED" = here ]; then words="$words software"; else words="$words tcg"; fi
    bad=
    for accel in $accels; do
        for model in portable host; do
            echo "--- $accel, $model"
            # A test that broke the machine has said where in its output; the exit code adds nothing to that.
            "$hv" run --accel "$accel" --cpu "$model" --net none --kernel "$payload" --append "$words" --timeout 240 "$@" \
                </dev/null >"$log" 2>&1 || echo "exit code $?"
            grep -Ev '^ok ' "$log" || true
            grep -q '^suite: ' "$log" || echo "no summary; the last test that ended: $(grep -aE '^(ok|not ok|skip) ' "$log" | tail -1)"
            tr -d '\r' <"$log" | grep -q '^suite: [1-9][0-9]* passed, 0 failed, ' || bad="$bad $accel/$model"
        done
    done
    : >"$log"
    [ -z "$bad" ] || fail "the suite on$bad"
}
