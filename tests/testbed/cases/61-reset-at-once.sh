# A guest that asks for a reset executes nothing after the request. Linux tries one way after the other, a triple fault at last:
# a monitor that lets it run on sees a crash where a reboot was asked for.
. "$(dirname "$0")/../lib.sh"
resets=200
kernel=$BUILD/tests/guest/bare/reset_at_once
for accel in $accels; do
    start --accel "$accel" --cpus 2 --net none
    until [ -S "$socket" ]; do
        alive || died "at its start ($accel)"
        sleep 0.05
    done
    steps=1200
    until done=$(control '{"cmd":"info"}' | field resets) && [ "$done" -ge $resets ]; do
        alive || died "after ${done:-no} resets ($accel)"
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$accel: $done resets in 60 s, wanted $resets"
        sleep 0.05
    done
    control '{"cmd":"stop"}' >/dev/null
    code=0
    ended || code=$?
    expect "$accel: exit code" 0 "$code"
done
