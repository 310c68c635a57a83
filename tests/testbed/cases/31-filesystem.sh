# A file system on virtio-blk with several queues, under both ring formats: made and filled by the guest, discarded blocks
# given back, checked by the host's e2fsck.
. "$(dirname "$0")/../lib.sh"
for ring in on off; do
    rm -f disk
    truncate -s 96M disk
    mke2fs -q -t ext4 disk || skip "no mke2fs (apt install e2fsprogs)"
    guest --cpus 4 --disk "$work/disk,packed=$ring,queues=4" -- sh -c '
        set -e
        echo "queues $(ls /sys/block/vda/mq | wc -l)"
        mount -t ext4 /dev/vda /mnt
        for i in 1 2 3 4; do
            (taskset -c $((i - 1)) sh -c "head -c $((6 << 20)) /dev/urandom >/mnt/file$i; sync") &
        done
        wait
        cd /mnt
        sha256sum file1 file2 file3 file4 >sums
        echo 3 >/proc/sys/vm/drop_caches
        sha256sum -c sums
        rm file4
        fstrim /mnt && echo "trimmed yes"
        cd /
        umount /mnt
        echo done' >"$log" 2>&1 || fail "packed=$ring: exit code $?"
    grep -q '^done' "$log" || fail "packed=$ring: the guest did not get to the end"
    expect "packed=$ring: queues" 4 "$(said queues)"
    expect "packed=$ring: files with the right checksum" 4 "$(grep -c '^file[1-4]: OK' "$log")"
    e2fsck -fn disk >fsck 2>&1 || fail "packed=$ring: e2fsck: $(tail -5 fsck)"
done
