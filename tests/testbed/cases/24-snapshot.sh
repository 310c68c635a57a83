# limit: 400 s
# One moment of a running machine: written to a folder and gone on from there, here and by another back end, packed and upon a
# parent; sent back to; cloned. Nothing of what the guest does is lost or done twice.
. "$(dirname "$0")/../lib.sh"
start --cpus 2 --memory 256M --name origin -- sh -c "$ticking"
wait_for "^tick 5"

# Every line is the next one: a guest that lost or repeated a moment would show it.
follows() { # follows FILE FIRST: ticks from FIRST on without a gap
    tr -d '\r' <"$1" | awk -v next_one="$2" '$1 == "tick" { if ($2 != next_one) exit 1; next_one++; n++ } END { exit n < 5 }' ||
        fail "$1 does not go on with tick $2: $(tr '\r\n' '  ' <"$1" | head -c 300)"
}
last() { tr -d '\r' <"$1" | sed -n 's/^tick //p' | tail -1; }

snapshot() { # snapshot FOLDER OPTIONS...: and $at, the last tick before it
    "$hv" snapshot "$socket" "$@" >out 2>&1 || fail "snapshot: $(cat out)"
    cat out
}

# The tick with which a machine that begins from FOLDER continues is one that the origin said, too: look it up there.
go_on() { # go_on FOLDER LOG OPTIONS...
    folder=$1 to=$2
    shift 2
    "$hv" run --snapshot "$folder" --timeout 200 --control "$work/second" "$@" </dev/null >"$to" 2>&1 &
    second=$!
    helpers="${helpers:-} $second"
    wait_ticks "$to" 6
    "$ctl" "$work/second" '{"cmd":"stop"}' >/dev/null
    wait "$second" || fail "the machine from $folder ended with $?"
}

snapshot whole
folders=whole
if [ "$TESTBED" = here ]; then # the files have nothing to do with the back end
    snapshot packed --compress
    snapshot changes --parent whole
    folders="whole packed changes"
fi
wait_ticks "$log" "$(($(last "$log") + 6))"
follows "$log" 1
for folder in $folders; do
    go_on $folder $folder.log
    first=$(sed -n 's/^tick //p' $folder.log | head -1 | tr -d '\r')
    [ "$first" -ge 5 ] && [ "$first" -le "$(last "$log")" ] || fail "$folder begins with tick $first"
    follows $folder.log "$first"
done

# The other back ends of this place.
if [ "$TESTBED" = here ]; then others="jit,interpret"; else others="jit"; fi
for accel in $others; do
    go_on whole other.log --accel $accel
    follows other.log "$(sed -n 's/^tick //p' whole.log | head -1 | tr -d '\r')"
    echo "went on by $accel"
done

# Back to the last snapshot, again and again.
first=$(sed -n 's/^tick //p' "$folder.log" | head -1 | tr -d '\r')
for round in 1 2 3; do
    lines=$(grep -c '^tick' "$log")
    control '{"cmd":"restore"}' >/dev/null
    wait_ticks "$log" $((lines + 8))
    tail -n 6 "$log" >tail.log
    [ "$(last tail.log)" -lt $((first + 40)) ] || fail "sent back, the machine is at tick $(last tail.log), not near $first"
done

# Clones go on from one moment each for itself.
mkdir clones
"$hv" clone "$socket" --count 3 --folder clones >list || fail "clone"
for i in 1 2 3; do
    helpers="$helpers $(awk -v i=$i 'NR == i { print $2 }' list)"
    wait_ticks clones/origin-$i.console 6
done
first=$(sed -n 's/^tick //p' clones/origin-1.console | head -1 | tr -d '\r')
for i in 1 2 3; do
    follows clones/origin-$i.console "$first"
    "$ctl" clones/origin-$i.sock '{"cmd":"stop"}' >/dev/null
done
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"

# What is damaged is refused by name.
refused() { # refused TEXT
    "$hv" run --snapshot damaged --timeout 20 </dev/null >refused.log 2>&1 && fail "a damaged snapshot runs"
    grep -q "$1" refused.log || fail "no \"$1\" in: $(cat refused.log)"
}
cp -r whole damaged
printf X | dd of=damaged/state bs=1 seek=3000 conv=notrunc 2>/dev/null
refused "its checksum is wrong"
cp whole/state damaged/state
truncate -s 1M damaged/memory
refused "it is not whole"
cp whole/memory damaged/memory
rm damaged/state
refused "damaged/state\|state: "
