# A panic of the guest's kernel ends the monitor with 70; so does a triple fault.
. "$(dirname "$0")/../lib.sh"
code=0
guest -- sh -c 'echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger' >"$log" 2>&1 || code=$?
expect "exit code of a panic" 70 "$code"
grep -q "panicked" "$log" || fail "the monitor does not say that the guest panicked"

# reboot=t resets by a triple fault on purpose; that is a reset on a PC, but here nobody asked for one: a crash.
code=0
"$hv" run --kernel "$kernel" --initrd "$initrd" --append "$quiet reboot=t" --timeout 120 -- reboot -f </dev/null >"$log" 2>&1 || code=$?
expect "exit code of a triple fault" 70 "$code"
