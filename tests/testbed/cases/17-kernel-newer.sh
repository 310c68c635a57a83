# limit: 400 s
# A newer stock kernel, from Debian's backports: every virtio device, 1, 2 and 4 vCPUs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../kernel.sh"
kernel=$BUILD/guest/backports/vmlinuz
[ -e "$kernel" ] || skip "no $kernel (tests/guest/image/fetch-kernel fetches it; needs Debian's archive)"
boot_kernel "$(cat "$BUILD/guest/backports/release")" "$BUILD/guest/backports/modules"
