# limit: 500 s
# The image of 80-firmware told to stay up: OVMF, boot loader, kernel, systemd, a login on the console, a shell, power off. While it
# is up, machines go on from it beside it, with a variable store for their firmware of their own.
. "$(dirname "$0")/../lib.sh"
image=$BUILD/guest/disk.img
[ -e "$image" ] || skip "no $image (tests/guest/image/make-disk makes it; needs Debian's archive)"
[ -e /usr/share/OVMF/OVMF_CODE_4M.fd ] || skip "no OVMF (apt install ovmf)"
cp --sparse=always "$image" copy.img
mcopy -n -i copy.img@@1M ::/loader/entries/test.conf entry
sed 's/ queztl.poweroff//' entry >stay
mcopy -D o -i copy.img@@1M stay ::/loader/entries/test.conf
mkfifo keys
# QEMU's emulated SVM fails an assertion of its own when a guest writes CR8, as OVMF's interrupt handlers do, while KVM waits for an
# interrupt window. With our local APICs KVM sees each such write.
[ "$TESTBED" = here ] || set -- --irqchip user
"$hv" run --cpus 2 --memory 1G "$@" --control "$socket" --timeout 400 copy.img <keys >"$log" 2>&1 &
vm=$!
exec 3>keys
wait_for 'queztl-disk login: ' 300
echo root >&3
wait_for 'root@queztl-disk:~# '
echo 'systemctl is-active multi-user.target | tr a-z A-Z; id' >&3
wait_for ACTIVE
wait_for 'uid=0(root)'
"$hv" snapshot "$socket" up || fail "snapshot"
mkdir clones
"$hv" clone "$socket" --folder clones >list || fail "clone"
helpers=$(awk '{ print $2 }' list)
cmp copy.img.vars clones/*.vars || fail "the clone's variable store is not a copy"
stores=$(cat copy.img.vars | md5sum)
"$hv" run --snapshot up --control "$work/run" </dev/null >run.log 2>&1 &
run=$!
helpers="$helpers $run"
for one in clones/*.sock "$work/run"; do
    steps=600
    until [ -e "$one" ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$one did not come: $(cat run.log)"
        sleep 0.05
    done
    expect "$one" running "$("$ctl" "$one" '{"cmd":"info"}' | field state)"
    "$ctl" "$one" '{"cmd":"stop"}' >/dev/null
done
wait $run || fail "the machine from the folder ended with $?"
expect "the machine's own variable store" "$stores" "$(cat copy.img.vars | md5sum)"
echo poweroff >&3
code=0
ended || code=$?
expect "exit code" 0 "$code"
