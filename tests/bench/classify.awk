# classify.awk - samples in translated code by what the instruction there is for.
#
# awk -v base=HEX -f classify.awk DISASSEMBLY SAMPLES    DISASSEMBLY is objdump's of the code cache from address 0, SAMPLES are
# perf's lines `IP SYMBOL (FILE)`, base is where the executable view was mapped. A sample without a precise event lies behind the
# slow instruction, so the moves of flags (PUSHF, POPF, slow on every processor) take what falls on the next one or two as well.

function hex(s,    i, v) {
    v = 0
    s = tolower(s)
    for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
    return v
}

function kind_of(text) {
    if (text ~ /^popf/) return "flags from memory (popf)"
    if (text ~ /^pushf/) return "flags to memory (pushf)"
    if (text ~ /^push .*%gs:/) return "flags from memory (popf)"
    if (text ~ /^pop .*%gs:/) return "flags to memory (pushf)"
    if (text ~ /^cmpl .*\$0x0,%gs:/) return "attention check"
    if (text ~ /^cmpb .*\$0x0,%gs:/ || text ~ /^call/) return "vector check, calls of routines"
    if (text ~ /^rorx .*,%r10/ || text ~ /^and .*\$0x1ff0,%r10d/ || text ~ /%gs:0x[0-9a-f]+\(%r10/ || text ~ /^cmp .*\$0xff[0-9a-f],%r11/ || text ~ /^cmp .*\$0x1000,%r11/) return "TLB lookup"
    if (text ~ /%gs:/) return "guest state in memory (r10, r11, r15, code base)"
    if (text ~ /^jmp/) return "jumps between blocks"
    if (text ~ /^j/) return "branches"
    if (text ~ /\(%r11\)/) return "guest memory"
    return "the guest's own work in registers"
}

FNR == NR {
    n = index($0, "\t")
    if (!n || $0 !~ /^ *[0-9a-f]+:/) next
    address = $1
    sub(/:$/, "", address)
    at = hex(address)
    text = substr($0, n + 1)
    kind = kind_of(text)
    if (before ~ /^popf/) kind = "flags from memory (popf)"
    if (before ~ /^pushf/ || (before ~ /^pop .*%gs:/ && kind == "branches")) kind = "flags to memory (pushf)"
    # the branch behind a check belongs to it
    if (kind == "branches" && (before_kind == "TLB lookup" || before_kind == "attention check")) kind = before_kind
    kinds[at] = at < 16384 ? "routines (jump cache, fills, saving registers)" : kind
    before = text
    before_kind = kind
    next
}

/queztl-code/ {
    at = hex($1) - hex(base)
    count[at in kinds ? kinds[at] : "between instructions"]++
    total++
}

END { for (k in count) printf "        %5.1f %% %s\n", 100 * count[k] / total, k | "sort -rn" }
