# Power off from inside ends with 0; so does the ACPI power button, pressed by the control socket.
. "$(dirname "$0")/../lib.sh"
mkfifo keys
exec 9<>keys
power_machine() {
    : >"$log"
    "$hv" run --kernel "$kernel" --initrd "$initrd" --append "$quiet" --timeout 120 --control "$socket" <keys >"$log" 2>&1 &
    vm=$!
    wait_for "Enter 'help'"
}

power_machine
echo poweroff >&9
ended || fail "poweroff: exit code $?"

power_machine
expect "state" running "$(control '{"cmd":"info"}' | field state)"
control '{"cmd":"powerdown"}' >/dev/null
ended || fail "power button: exit code $?"
