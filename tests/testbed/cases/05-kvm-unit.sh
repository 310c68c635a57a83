# testbed only
# The unit tests of the KVM back end, which skip where there is no KVM.
. "$(dirname "$0")/../lib.sh"
for t in exit apic state; do
    "$BUILD/vmm/cpu/kvm_${t}_test" >"$log" 2>&1 || fail "kvm_${t}_test: exit code $?"
    grep -q 'PASSED.* [1-9][0-9]* test' "$log" || fail "kvm_${t}_test: nothing was tested"
    grep 'PASSED' "$log"
done
