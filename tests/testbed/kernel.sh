# kernel.sh - boots one kernel with every virtio device and 1, 2 and 4 vCPUs (after lib.sh).
#
# boot_kernel RELEASE MODULES    $kernel is the kernel's file; MODULES the folder of its modules

boot_kernel() {
    initrd=$work/initrd
    "$here/../guest/image/make-initrd" "$initrd" "$2"
    truncate -s 8M disk
    for cpus in 1 2 4; do
        code=0
        guest --cpus $cpus --disk "$work/disk" --net user --vsock "5,$work/vs" -- sh -c '
            echo "release $(uname -r)"
            echo "cpus $(nproc)"
            echo "devices $(cat /sys/bus/virtio/devices/*/device | sort | tr -d "\n")"
            wait-net && echo "net up"
            echo text | dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null && echo "disk $(head -c 4 /dev/vda)"
            exit 7' >"$log" 2>&1 || code=$?
        expect "exit code with $cpus vCPUs" 7 "$code"
        expect "vCPUs" $cpus "$(said cpus)"
        expect "release" "$1" "$(said release)"
        # Network, disk, console, entropy, balloon, sockets (VirtIO 1.3 section 5).
        expect "virtio devices" 0x00010x00020x00030x00040x00050x0013 "$(said devices)"
        expect "network" up "$(said net)"
        expect "disk" text "$(said disk)"
    done
}
