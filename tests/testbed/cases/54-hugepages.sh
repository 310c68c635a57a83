# --hugepages: a guest on transparent and on reserved huge pages boots, is reset, and computes the same; too few are told with the
# cure; what reserved pages cannot do is refused.
# limit: 300 s
. "$(dirname "$0")/../lib.sh"
pages=/proc/sys/vm/nr_hugepages
shmem=/sys/kernel/mm/transparent_hugepage/shmem_enabled
before=$(cat $pages)
shmem_before=$(sed 's/.*\[\(.*\)\].*/\1/' $shmem)
put_back() {
    echo "$before" >$pages
    echo "$shmem_before" >$shmem
}
(echo "$before" >$pages) 2>/dev/null || skip "huge pages cannot be reserved here"
trap 'put_back; cleanup' EXIT
script='head -c 20000000 /dev/zero | md5sum; echo computed'
wanted=$(head -c 20000000 /dev/zero | md5sum)

refused() { # refused TEXT OPTIONS...
    text=$1
    shift
    guest "$@" -- true >refused.log 2>&1 && fail "$* is not refused"
    grep -q -- "$text" refused.log || fail "$*: no \"$text\" in: $(cat refused.log)"
}

echo 0 >$pages
[ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)" = 0 ] || skip "others use huge pages here"
refused "needs 128 pages and 0 are free" --memory 256M --hugepages 2MiB
refused "no multiple" --memory 255M --hugepages 2MiB
refused "never merged" --memory 256M --hugepages 2MiB --merge on
refused "do not come back" --memory 256M --hugepages 2MiB --balloon auto
echo never >$shmem
refused "echo advise >" --memory 256M --hugepages transparent

echo 128 >$pages
[ "$(cat $pages)" = 128 ] || skip "this host has no 128 huge pages"
start --memory 256M --hugepages 2MiB -- sh -c "$script; while :; do sleep 1; done"
wait_for "^computed"
grep -q "$wanted" "$log" || fail "computed on reserved pages: $(said computed)"
free=$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)
unused=$((free - $(cat /sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages)))
[ $unused = 0 ] || fail "$unused pages are not this machine's"
"$hv" snapshot "$socket" moment >out 2>&1 && fail "a snapshot of reserved pages"
grep -q "reserved huge pages" out || fail "snapshot: $(cat out)"
"$ctl" "$socket" '{"cmd":"balloon","target":"128M"}' | grep -q "do not come back" || fail "the balloon moves"
: >"$log"
control '{"cmd":"reset"}' >/dev/null
wait_for "^computed"
grep -q "$wanted" "$log" || fail "computed after a reset"
control '{"cmd":"stop"}' >/dev/null
ended || fail "exit code $?"
[ "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)" = 128 ] || fail "pages stay behind"
echo "$before" >$pages

echo advise >$shmem
start --memory 256M --hugepages transparent -- sh -c "$script; while :; do sleep 1; done"
wait_for "^computed"
grep -q "$wanted" "$log" || fail "computed on transparent pages"
huge=$(awk '/^ShmemPmdMapped:/ { n += $2 } END { print n + 0 }' "/proc/$vm/smaps")
[ "$huge" -ge 16384 ] || fail "only $huge KiB of huge pages"
"$hv" snapshot "$socket" moment >out 2>&1 || fail "snapshot: $(cat out)"
control '{"cmd":"stop"}' >/dev/null
ended || fail "exit code $?"
echo "transparent: $huge KiB on huge pages; $(cat out)"
