# lib.sh - what the two runs of the bare-metal port share: a disk, and the verdict on what the payload said. Read with `.`

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
truncate -s 16M "$dir/disk"
failed=0

judge() { # judge CODE WANTED-CODE WORDS KNOWN WHAT: KNOWN is a pattern of the deviations that are no failure
    deviations=$(grep '^DEVIATES' "$dir/out" | grep -Ev -- "${4:-^$}")
    if [ "$1" = "$2" ] && grep -q "OK $3" "$dir/out" && [ -z "$deviations" ]; then
        grep -aE '^(OK|DEVIATES|demands)' "$dir/out" | sort | uniq -c
    else
        echo "FAILED (exit code $1, wanted $2 and \"$3\"): $5"
        cat "$dir/out"
        failed=1
    fi
}
