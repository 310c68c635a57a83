#!/bin/sh
# gdb_test.sh MONITOR GUEST [OPTIONS...] - Debian's gdb at a real machine: what it sees is compared with what must be seen.
# Ends with 77 (skipped) where there is no gdb. BREAK names gdb's command for breakpoints (break or hbreak).
set -eu
monitor=$1 guest=$2
shift 2
command -v gdb >/dev/null || { echo "skipped: no gdb (apt install gdb)"; exit 77; }

work=$(mktemp -d)
vm=
finish() {
    [ -z "$vm" ] || kill -9 "$vm" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' TERM INT

# start OPTIONS... - returns when the machine waits for its debugger.
start() {
    mkfifo "$work/ready"
    "$monitor" --kernel "$guest" --protocol pvh --memory 16M --net none --console none --timeout 60 "$@" \
        </dev/null >/dev/null 2>"$work/ready" &
    vm=$!
    exec 3<"$work/ready"
    rm "$work/ready"
    while read -r line <&3; do
        case $line in *"waits for a debugger"*) return 0 ;; esac
        echo "$line"
    done
    echo "the monitor ended"
    exit 1
}

# ended CODE - the machine ends with that exit code.
ended() {
    code=0
    wait "$vm" || code=$?
    vm=
    cat <&3 >"$work/errors"
    [ "$code" = "$1" ] && return 0
    echo "the machine ended with $code, not $1"
    cat "$work/errors"
    exit 1
}

# debug - gdb's commands on standard input; its lines that begin with "=" must be those of $work/wanted.
debug() {
    cat >"$work/commands"
    timeout 40 gdb -nx -batch -iex "set debuginfod enabled off" -ex "set pagination off" -ex "set confirm off" \
        -x "$work/commands" "$guest" >"$work/output" 2>&1 </dev/null || true
    grep '^=' "$work/output" >"$work/seen" || true
    diff "$work/wanted" "$work/seen" && return 0
    echo "--- all that gdb said:"
    cat "$work/output"
    exit 1
}

# ---- breakpoints, steps, registers, memory, watchpoints, interrupting, detaching
start --gdb "unix:$work/gdb,wait" "$@"
cat >"$work/wanted" <<END
= at the entry: 1
= at work: 1, counter 0
= stepped over 3 bytes, rbx 1
= again: rbx 1
= the next line: 1
= returned to the call: 1, rax 2
= worked on 101: 101, in xmm1 101
= paging 1, efer 0x500
= linear 0x1122334455667788
= written 0xabcd
= watched 102
= interrupted between: 1
= physical 0xabcd
= jumped to the crash: 1
END
debug <<END
target remote $work/gdb
printf "= at the entry: %d\n", \$pc == (unsigned long)&entry
${BREAK:-break} work
continue
printf "= at work: %d, counter %d\n", \$pc == (unsigned long)&work, *(long *)&counter
stepi
printf "= stepped over %d bytes, rbx %d\n", \$pc - (unsigned long)&work, \$rbx
continue
printf "= again: rbx %d\n", \$rbx
next
printf "= the next line: %d\n", \$pc == (unsigned long)&work + 3
finish
printf "= returned to the call: %d, rax %d\n", \$pc == (unsigned long)&count + 5, \$rax
set var \$rbx = 100
delete
t${BREAK:-break} worked
continue
printf "= worked on 101: %d, in xmm1 %d\n", *(long *)&counter, \$xmm1.v2_int64[0]
printf "= paging %d, efer 0x%x\n", (\$cr0 >> 31) & 1, \$efer
printf "= linear 0x%lx\n", *(long *)(0xffffffff80000000 + (unsigned long)&untouched)
set var *(long *)(0xffffffff80000000 + (unsigned long)&untouched) = 0xabcd
printf "= written 0x%lx\n", *(long *)&untouched
watch *(long *)&counter
continue
printf "= watched %d\n", *(long *)&counter
delete
python gdb.post_event(lambda: gdb.execute("interrupt"))
continue
printf "= interrupted between: %d\n", \$pc >= (unsigned long)&count && \$pc <= (unsigned long)&worked
monitor physical on
printf "= physical 0x%lx\n", *(long *)&untouched
monitor physical off
${BREAK:-break} crash
set var *(long *)&crash_now = 1
continue
printf "= jumped to the crash: %d\n", \$pc == (unsigned long)&crash
set var *(long *)&crash_now = 0
set var \$pc = &count
delete
detach
END

# ---- attaching to a running machine, a triple fault, the end
cat >"$work/wanted" <<END
= ran on: 1
= crashed at the instruction: 1
= ended
END
debug <<END
target remote $work/gdb
printf "= ran on: %d\n", *(long *)&counter > 103
set var *(long *)&crash_now = 1
continue
printf "= crashed at the instruction: %d\n", \$pc == (unsigned long)&crash
python gdb.events.exited.connect(lambda e: print("= ended"))
continue
END
ended 70 # the guest crashed
