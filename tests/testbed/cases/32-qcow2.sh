# limit: 240 s
# A qcow2 disk over a backing file, with compressed base and with LUKS: what the base holds is read, what the guest writes is
# there after a second boot, the base stays as it was, and both our check and QEMU's find nothing wrong.
. "$(dirname "$0")/../lib.sh"
disk=$BUILD/tools/queztl-disk
head -c 32M /dev/urandom >base.raw
"$disk" convert --compress base.raw base.qcow2,format=qcow2 >"$log" 2>&1 || fail "convert: exit code $?"
base_sum=$(sha256sum <base.qcow2)
want=$(sha256sum <base.raw | cut -d' ' -f1)
printf 'a secret' >key

try() { # try NAME OPTIONS: the image is there
    name=$1 options=$2
    guest --cpus 2 --disk "$work/$name,$options" -- sh -c '
        set -e
        echo "read $(dd if=/dev/vda bs=1M count=32 2>/dev/null | sha256sum | cut -d" " -f1)"
        head -c $((8 << 20)) /dev/urandom >/tmp/data
        dd if=/tmp/data of=/dev/vda bs=64k seek=1024 conv=fsync 2>/dev/null
        dd if=/tmp/data of=/dev/vda bs=3k seek=7 count=11 conv=fsync,notrunc 2>/dev/null
        echo "written $(sha256sum </tmp/data | cut -d" " -f1)"
        echo done' >"$log" 2>&1 || fail "$name: exit code $?"
    grep -q '^done' "$log" || fail "$name: the guest did not get to the end"
    [ $# = 2 ] || expect "$name: what the base holds" "$3" "$(said read)"
    written=$(said written)
    guest --disk "$work/$name,$options,readonly" -- sh -c '
        echo "again $(dd if=/dev/vda bs=64k skip=1024 count=128 2>/dev/null | sha256sum | cut -d" " -f1)"' >"$log" 2>&1 ||
        fail "$name: second boot: exit code $?"
    expect "$name: what the guest wrote" "$written" "$(said again)"
}

"$disk" create --backing base.qcow2 --backing-format qcow2 top.qcow2,format=qcow2 128MiB >"$log" 2>&1 || fail "create: exit code $?"
try top.qcow2 format=qcow2,backing=header "$want"
expect "the base" "$base_sum" "$(sha256sum <base.qcow2)"
"$disk" check top.qcow2,format=qcow2 >"$log" 2>&1 || fail "check: exit code $?"
qemu-img check top.qcow2 >"$log" 2>&1 || fail "qemu-img check: exit code $?"

"$disk" create secret.qcow2,format=qcow2,encryption=luks,key_file="$work/key",luks_iterations=1000 128MiB >"$log" 2>&1 ||
    fail "create with LUKS: exit code $?"
try secret.qcow2 format=qcow2,key_file="$work/key"
guest --disk "$work/secret.qcow2,format=qcow2" -- true >"$log" 2>&1 && fail "an encrypted disk opened without a key"
grep -q 'key' "$log" || fail "nothing about the key: $(cat "$log")"
