# limit: 400 s
# Debian's generic kernel, not made for virtual machines only: every virtio device, 1, 2 and 4 vCPUs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../kernel.sh"
kernel=$(newest_kernel generic)
[ -n "$kernel" ] || skip "no generic kernel (apt install linux-image-amd64)"
release=${kernel#/boot/vmlinuz-}
boot_kernel "$release" "/lib/modules/$release"
