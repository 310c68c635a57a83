# testbed only
# The unit tests of the KVM back end, which skip where there is no KVM.
. "$(dirname "$0")/../lib.sh"
"$BUILD/vmm/cpu/kvm_test" >"$log" 2>&1 || fail "exit code $?"
grep -q 'PASSED.* [1-9][0-9]* test' "$log" || fail "nothing was tested"
