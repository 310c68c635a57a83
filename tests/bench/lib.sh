# lib.sh - the machines that are compared, and how a sample is written. Read with `.` by bench and its parts, which set $build
# and $here.
#
# A sample is a line `WHO KEY ROUND VALUE` in $samples. WHO is native; ours or ours-portable: our software CPU with --cpu host or the
# default model; or a QEMU: q35-max, q35-qemu64, microvm-max, microvm-qemu64.

. "$here/../guest/image/lib.sh"
until=$build/tests/bench/until
hv=$build/tools/queztl-hv
kernel=$(newest_kernel cloud)
[ -n "$kernel" ] || { echo "bench: no cloud kernel (apt install linux-image-cloud-amd64)" >&2; exit 3; }
bench_initrd=$build/bench/initrd
samples=$build/bench/samples
quiet="console=ttyS0 panic=-1 quiet"

# machine WHO PARAMETERS UNTIL-ARGUMENTS...: one run of `until` with that machine, one vCPU, 512 MiB, no network.
machine() {
    who=$1 append="$quiet $2"
    shift 2
    case $who in
    ours | ours-portable)
        model=portable
        [ "$who" = ours-portable ] || model=host
        "$until" "$@" -- "$hv" run --accel jit --cpu $model --net none --memory 512M --kernel "$kernel" --initrd "$bench_initrd" --append "$append"
        return
        ;;
    q35-*) type=q35 ;;
    microvm-*) type=microvm,acpi=off,rtc=on ;;
    esac
    "$until" "$@" -- qemu-system-x86_64 -accel tcg -cpu "${who#*-}" -machine "$type,memory-backend=ram" \
        -object memory-backend-memfd,id=ram,size=512M -m 512M -smp 1 -display none -nodefaults -no-user-config -no-reboot -serial stdio \
        -kernel "$kernel" -initrd "$bench_initrd" -append "$append"
}

# words WHO ROUND PREFIX: each KEY=VALUE of `until` or `clones` on standard input becomes a sample PREFIX.KEY.
words() {
    awk -v who="$1" -v round="$2" -v prefix="$3" '/^[a-z0-9_]*_ms=/ { for (i = 1; i <= NF; i++) { split($i, w, "="); print who, prefix "." w[1], round, w[2] } }'
}

say() {
    echo "bench: $(($(date +%s) - began)) s: $*" >&2
}
