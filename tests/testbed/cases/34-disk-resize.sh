# A disk grows while the guest runs: raw and qcow2, on several threads; what is written behind the old end is in the image, and a
# disk does not shrink.
. "$(dirname "$0")/../lib.sh"
disk=$BUILD/tools/queztl-disk
truncate -s 32M raw
"$disk" create qcow2,format=qcow2 32MiB >"$log" 2>&1 || fail "create: exit code $?"

for format in raw qcow2; do
    start --cpus 2 --disk "$work/$format,format=$format,queues=2,iothreads=2" -- sh -c '
        echo "before $(cat /sys/block/vda/size)"
        until [ "$(cat /sys/block/vda/size)" = 131072 ]; do usleep 20000; done
        head -c $((2 << 20)) /dev/urandom >/tmp/data
        dd if=/tmp/data of=/dev/vda bs=64k seek=992 conv=fsync 2>/dev/null
        echo "after $(cat /sys/block/vda/size) $(sha256sum </tmp/data | cut -d" " -f1)"'
    wait_for '^before 65536'
    ! grep -q libcrypto "/proc/$(control '{"cmd":"info"}' | field pid)/maps" || fail "a disk that is not encrypted costs libcrypto"
    expect "threads" 2 "$(control '{"cmd":"info"}' | field threads)"
    case $("$ctl" "$socket" '{"cmd":"resize","disk":"0","size":"16MiB"}') in
    *'only grows'*) ;;
    *) fail "$format: a disk in use was shrunk" ;;
    esac
    case $("$ctl" "$socket" '{"cmd":"resize","disk":"7","size":"64MiB"}') in
    *'no disk has the name 7'*) ;;
    *) fail "a disk that is not there" ;;
    esac
    control '{"cmd":"resize","disk":"0","size":"64MiB"}' >/dev/null
    wait_for '^after 131072'
    ended || fail "$format: exit code $?"
    [ $format = raw ] || "$disk" convert qcow2,format=qcow2 copy >/dev/null 2>&1 || fail "convert: exit code $?"
    [ $format = raw ] && image=raw || image=copy
    expect "$format: size of the image" 67108864 "$(stat -c %s $image)"
    expect "$format: what was written behind the old end" "$(said "after 131072")" \
        "$(dd if=$image bs=64k skip=992 2>/dev/null | sha256sum | cut -d' ' -f1)"
done
"$disk" check qcow2,format=qcow2 >"$log" 2>&1 || fail "check: exit code $?"
