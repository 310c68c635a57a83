# limit: 700 s
# Memory that is loaded from a folder while the machine runs already: raw, packed and upon a parent; by one machine and by several
# clones of one pager; frozen again before all of it is there. What was needed first is recorded and used. When the pager dies or a
# chunk is damaged the machine ends with an error, and never goes on with anything else than its own bytes.
. "$(dirname "$0")/../lib.sh"
start --cpus 2 --memory 256M --name origin -- sh -c "$ticking"
wait_for "^tick 5"

first() { tr -d '\r' <"$1" | sed -n 's/^tick //p' | head -1; }
follows() { # follows FILE: at least $2 ticks without a gap, and nothing else between
    tr -d '\r' <"$1" | awk -v least="$2" '
        $1 == "tick" { if (n && $2 != last + 1) { print "tick " $2 " behind " last; exit 1 } last = $2; n++ }
        END { exit n < least }' >why || fail "$1: $(cat why) $(tr '\r\n' '  ' <"$1" | head -c 300)"
}
begin() { # begin FOLDER LOG OPTIONS...: $second, with $work/second as its control socket
    folder=$1 to=$2
    shift 2
    rm -f "$work/second" # a machine that was killed leaves its own
    : >"$to"
    "$hv" run --snapshot "$folder" --timeout 200 --control "$work/second" "$@" </dev/null >"$to" 2>&1 &
    second=$!
    helpers="${helpers:-} $second"
}
second_ends() {
    "$ctl" "$work/second" '{"cmd":"stop"}' >/dev/null
    wait "$second" || fail "the machine from $folder ended with $?"
}
loading() { "$ctl" "$work/second" '{"cmd":"info"}' 2>/dev/null | grep -o '"loading":{[^}]*}'; }
until_loaded() {
    steps=600
    while loading >/dev/null; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "loading does not end: $(loading)"
        sleep 0.05
    done
}
lazily() { # lazily FOLDER: goes on from there, to the end of loading
    begin "$1" "$1.log" --load lazy --verbose
    wait_ticks "$1.log" 6
    until_loaded
    wait_ticks "$1.log" 8
    "$ctl" "$work/second" '{"cmd":"metrics"}' >metrics
    second_ends
    grep -q "loaded lazily" "$1.log" || fail "$1 was not loaded lazily: $(head -3 "$1.log")"
    follows "$1.log" 8
}

# An emulated host has time for one, which is packed and upon a parent; raw memory is what the parts below load.
folders="whole packed changes"
[ "$TESTBED" = here ] || folders=changes
"$hv" snapshot "$socket" whole && "$hv" snapshot "$socket" packed --compress || fail "snapshot"
wait_ticks "$log" $(($(grep -c '^tick' "$log") + 4))
"$hv" snapshot "$socket" changes --parent packed --compress || fail "snapshot"
control '{"cmd":"stop"}' >/dev/null
ended || fail "stop: exit code $?"

for folder in $folders; do
    lazily $folder
    faults=$(field faults <metrics)
    [ "$faults" -gt 0 ] || fail "$folder: no fault was served: $(cat metrics)"
    # The pager writes it down when it has said that all is there.
    steps=100
    until [ -s $folder/working-set ]; do
        steps=$((steps - 1))
        [ $steps -gt 0 ] || fail "$folder has no recording"
        sleep 0.05
    done
    lazily $folder
    echo "$folder: $faults faults, with the recording $(field faults <metrics), longest wait $(field longest_wait_us <metrics) us"
    "$hv" snapshots check $folder >check.log 2>&1 || fail "check: $(cat check.log)"
done

# Damaged, it is nothing but useless.
printf X | dd of=changes/working-set bs=1 seek=90 conv=notrunc 2>/dev/null
lazily changes
grep -q "working-set.*damaged" changes.log || fail "a damaged recording was not noticed: $(head -3 changes.log)"

# Frozen before all of it is there.
rm -f whole/working-set
begin whole early.log --load lazy
steps=600
until "$hv" snapshot "$work/second" early >early.out 2>&1; do
    steps=$((steps - 1))
    [ $steps -gt 0 ] || fail "snapshot while it loads: $(cat early.out)"
    sleep 0.005
done
wait_ticks early.log 6
second_ends
follows early.log 6
lazily early
lazily whole
[ "$(first early.log)" -ge "$(first whole.log)" ] || fail "early begins with tick $(first early.log), before whole"

# One pager for all.
mkdir clones
"$hv" clone whole --count 3 --folder clones --load lazy >list || fail "clone"
for i in 1 2 3; do helpers="$helpers $(awk -v i=$i 'NR == i { print $2 }' list)"; done
for i in 1 2 3; do
    wait_ticks clones/origin-$i.console 6
    expect "first tick of clone $i" "$(first clones/origin-1.console)" "$(first clones/origin-$i.console)"
    "$ctl" clones/origin-$i.sock '{"cmd":"stop"}' >/dev/null
    follows clones/origin-$i.console 6
done

# Loaded before it begins, as it is where that is quicker or nothing else is possible.
begin changes eager.log --load eager --verbose
wait_ticks eager.log 6
loading && fail "an eager machine loads"
second_ends
grep -q "loaded at once" eager.log || fail "nothing says how it was loaded: $(head -3 eager.log)"

ends_badly() { # ends_badly LOG TEXT
    code=0
    wait "$second" || code=$?
    expect "exit code ($(tail -n 2 "$1"))" 1 $code
    grep -q "$2" "$1" || fail "no \"$2\" in $(tail -n 3 "$1")"
    ! grep -q "^tick" "$1" || follows "$1" 1
}

# The pager is gone before all is there: found while it loads, held so, and killed.
for try in 1 2 3 4 5 6 7 8 9 10; do
    rm -f whole/working-set
    begin whole killed.log --load lazy
    pager=
    while [ -z "$pager" ] && kill -0 $second 2>/dev/null; do
        pager=$(loading | field pager) || true
        "$ctl" "$work/second" '{"cmd":"info"}' 2>/dev/null | grep -q '"ok":true' && break
    done
    [ -z "$pager" ] || kill -STOP "$pager" 2>/dev/null || pager=
    if [ -n "$pager" ] && loading >/dev/null; then
        sleep 0.2 # the guest runs into what is missing
        kill -9 "$pager"
        ends_badly killed.log "snapshot whole: the process that loads the snapshot's memory ended"
        break
    fi
    [ -z "$pager" ] || kill -CONT "$pager" 2>/dev/null || true
    second_ends
done
[ -n "$pager" ] || fail "no pager was found at work"

# A chunk that is damaged, where Linux lies.
cp -r whole damaged
rm -f damaged/working-set
printf XXXX | dd of=damaged/memory bs=1 seek=$((0x1200100)) conv=notrunc 2>/dev/null
begin damaged damaged.log --load lazy
ends_badly damaged.log "damaged/memory: chunk .*its checksum is wrong"

"$hv" run --snapshot whole --load sometimes </dev/null >refused.log 2>&1 && fail "--load sometimes is taken"
grep -q "choose auto, lazy or eager" refused.log || fail "$(cat refused.log)"
