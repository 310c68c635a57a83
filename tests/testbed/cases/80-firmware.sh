# limit: 500 s
# A stock disk image boots by itself: OVMF, its boot loader, Debian's kernel, systemd, power off.
. "$(dirname "$0")/../lib.sh"
image=$BUILD/guest/disk.img
[ -e "$image" ] || skip "no $image (tests/guest/image/make-disk makes it; needs Debian's archive)"
[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || skip "no OVMF (apt install ovmf)"
cp --sparse=always "$image" copy.img
code=0
"$hv" run --cpus 2 --memory 1G --timeout 400 copy.img </dev/null >"$log" 2>&1 || code=$?
expect "exit code" 0 "$code"
grep -q QUEZTL-DISK-BOOTED "$log" || fail "the image did not boot to its own init"
[ -s copy.img.vars ] || fail "the machine has no variable store of its own"
