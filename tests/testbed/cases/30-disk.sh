# virtio-blk under packed and split rings: what the host wrote is read with the same checksum, what the guest wrote is in
# the file, a file system made by the guest is sound, a read-only disk stays as it was.
. "$(dirname "$0")/../lib.sh"
megabytes() { # megabytes FROM COUNT FILE: sha256 of that part
    dd if="$3" bs=1M skip="$1" count="$2" 2>/dev/null | sha256sum | cut -d' ' -f1
}
for ring in on off; do
    head -c 64M /dev/urandom >disk
    cp disk before
    guest --cpus 2 --disk "$work/disk,packed=$ring,serial=QZ-$ring" --disk "$work/before,readonly" -- sh -c '
        set -e
        echo "packed $(cut -c35 /sys/block/vda/device/features)"
        echo "serial $(cat /sys/block/vda/serial)"
        echo "read $(dd if=/dev/vda bs=1M count=32 2>/dev/null | sha256sum | cut -d" " -f1)"
        head -c $((8 << 20)) /dev/urandom >/tmp/data
        dd if=/tmp/data of=/dev/vda bs=64k seek=512 conv=fsync 2>/dev/null
        echo "written $(sha256sum </tmp/data | cut -d" " -f1)"
        dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct 2>/dev/null
        echo "readonly $(cat /sys/block/vdb/ro)"
        dd if=/dev/zero of=/dev/vdb bs=4k count=1 conv=fsync 2>/dev/null && echo "readonly broken"
        echo done' >"$log" 2>&1 || fail "packed=$ring: exit code $?"
    grep -q '^done' "$log" || fail "packed=$ring: the guest did not get to the end"
    expect "packed=$ring: ring format" "$([ $ring = on ] && echo 1 || echo 0)" "$(said packed)"
    expect "serial number" "QZ-$ring" "$(said serial)"
    expect "packed=$ring: checksum read by the guest" "$(megabytes 0 32 before)" "$(said read)"
    expect "packed=$ring: checksum written by the guest" "$(said written)" "$(megabytes 32 8 disk)"
    expect "packed=$ring: the rest of the disk" "$(megabytes 40 24 before)" "$(megabytes 40 24 disk)"
    expect "read-only disk" 1 "$(said readonly)"
    [ "$(megabytes 0 32 disk)" = "$(megabytes 0 32 before)" ] || fail "packed=$ring: what was only read has changed"
done
