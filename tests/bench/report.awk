# report.awk - the tables of `make bench` from samples (lib.sh says what a sample is), and build/bench.json.
#
# awk -v json=FILE -v load=TEXT -f figures.awk -f report.awk SAMPLES
# A figure is the median over the rounds. A ratio is the median of the ratios within each round, whose runs stood beside each
# other in time. TCG/ours is of the host's processor time for each operation, which a busy host disturbs least; beside it the
# ratio of the fastest slices by the machines' own clocks. The peer of a workload is the QEMU whose median costs least; of a boot
# the quickest.

function quickest(key, candidates,    i, n, names, m, best, peer) {
    n = split(candidates, names, " ")
    for (i = 1; i <= n; i++) {
        m = median(names[i], key)
        if (m != "" && (peer == "" || m < best)) { best = m; peer = names[i] }
    }
    return peer
}

function time_text(ns) { # three digits that count and a unit
    if (ns == "") return "-"
    if (ns < 1e3) return sprintf("%.3g ns", ns)
    if (ns < 1e6) return sprintf("%.3g us", ns / 1e3)
    if (ns < 1e9) return sprintf("%.3g ms", ns / 1e6)
    return sprintf("%.3g s", ns / 1e9)
}

$2 ~ /^unit\./ { unit[substr($2, 6)] = $4; next }
$2 ~ /^skip\./ {
    text = $0
    sub(/^[^ ]+ [^ ]+ [^ ]+ /, "", text)
    skipped[$1, substr($2, 6)] = text
    if (!(seen[$2]++)) note(substr($2, 6))
    next
}
function note(name) { if (!(name in known)) { known[name] = 1; order[++works] = name } }
{
    value[$1, $2, $3] = $4
    if ($3 > rounds) rounds = $3
    if ($2 ~ /^work\./) note(substr($2, 6))
}

function workloads_table(    i, name, key, peer, ratio, by_clock, clock_sum, native, ours, log_sum, n, slower, text, row) {
    row = "%-16s %-9s %10s %10s %10s %-7s %9s %9s %11s\n"
    if (works)
        printf "\n" row, "workload", "each", "native", "ours", "QEMU TCG", "", "TCG/ours", "by clock", "ours/native"
    for (i = 1; i <= works; i++) {
        name = order[i]
        key = "work." name
        peer = quickest("cpu." name, "q35-max q35-qemu64")
        native = median("native", key)
        ours = median("ours", key)
        ratio = peer == "" ? "" : paired(peer, "cpu." name, "ours", "cpu." name)
        by_clock = peer == "" ? "" : paired(peer, key, "ours", key)
        printf row, name, unit[name], time_text(native), ours == "" && ("ours", name) in skipped ? "skipped" : time_text(ours),
            time_text(peer == "" ? "" : median(peer, key)), substr(peer, 5), figure(ratio, "%.2f x"), figure(by_clock, "%.2f x"),
            figure(paired("ours", key, "native", key), "%.2f x")
        if (("ours", name) in skipped) notes = notes "  " name " on ours: skipped, " skipped["ours", name] "\n"
        if (ratio != "") {
            speed[name] = ratio
            log_sum += log(ratio)
            clock_sum += log(by_clock)
            n++
            if (ratio < 1) slower = slower " " name
        }
        text = text (text == "" ? "" : ",\n    ") sprintf("\"%s\": {\"unit\": \"%s\", \"native_ns\": %s, \"ours_ns\": %s, \"tcg_ns\": %s, \"tcg\": \"%s\", \"tcg_over_ours\": %s, \"tcg_over_ours_by_clock\": %s, \"ours_over_native\": %s}",
            name, unit[name], number(native), number(ours), number(peer == "" ? "" : median(peer, key)), peer, number(ratio), number(by_clock),
            number(paired("ours", key, "native", key)))
    }
    if (n) {
        mean = exp(log_sum / n)
        printf "%-16s %41s %-7s %9s %9s   (%d workloads)\n", "geometric mean", "", "", figure(mean, "%.2f x"), figure(exp(clock_sum / n), "%.2f x"), n
    }
    if (slower != "") notes = notes "  slower than TCG:" slower "\n"
    member("workloads", "{\n    " text "}")
    member("geometric_mean_tcg_over_ours", number(n ? mean : ""))
    return n
}

function least(names,    i, n, list, low) {
    n = split(names, list, " ")
    for (i = 1; i <= n; i++) {
        if (!(list[i] in speed)) return ""
        if (low == "" || speed[list[i]] < low) low = speed[list[i]]
    }
    return low
}

function least_of_all(    name, low) {
    for (name in speed)
        if (low == "" || speed[name] < low) low = speed[name]
    return low
}

function boots_table(    n, names, i, m, text) {
    n = split("ours ours-portable q35-max q35-qemu64 microvm-max microvm-qemu64", names, " ")
    printf "\n%-16s %10s %10s %10s %10s %12s\n", "boot to init", "ms", "CPU ms", "own MiB", "code MiB", "idle, 1/1000"
    for (i = 1; i <= n; i++) {
        m = median(names[i], "boot.wall_ms")
        printf "%-16s %10s %10s %10s %10s %12s\n", names[i], figure(m, "%.0f"), figure(median(names[i], "boot.cpu_ms"), "%.0f"),
            figure(scaled(median(names[i], "boot.own_kib"), 1024), "%.1f"), figure(scaled(median(names[i], "boot.code_kib"), 1024), "%.1f"),
            figure(median(names[i], "idle.idle_permille"), "%.1f")
        text = text (text == "" ? "" : ", ") sprintf("\"%s\": {\"wall_ms\": %s, \"cpu_ms\": %s, \"own_kib\": %s, \"code_kib\": %s, \"idle_permille\": %s}",
            names[i], number(m), number(median(names[i], "boot.cpu_ms")), number(median(names[i], "boot.own_kib")),
            number(median(names[i], "boot.code_kib")), number(median(names[i], "idle.idle_permille")))
    }
    printf "process start to first guest instruction: software CPU %s ms, KVM here %s ms\n", figure(median("ours", "start_jit.wall_ms"), "%.1f"),
        figure(median("ours", "start.wall_ms"), "%.1f")
    member("boot", "{" text "}")
}

# Clocks and disturbance: what a reader needs to know how far the figures can be trusted.
function check_runs(    i, j, n, names, off, share) {
    n = split("native ours q35-max q35-qemu64", names, " ")
    for (i = 1; i <= n; i++)
        for (j = 1; j <= rounds; j++) {
            if (!((names[i], "clock.host_s", j) in value)) continue
            off = value[names[i], "clock.guest_s", j] / value[names[i], "clock.host_s", j]
            share = value[names[i], "clock.share", j]
            if (off < 0.98 || off > 1.02)
                notes = notes sprintf("  round %d, %s: its clock told %.3f s for each second outside\n", j, names[i], off)
            if (share < 0.9 && names[i] != "native")
                notes = notes sprintf("  round %d, %s: had a processor only %.0f %% of the time\n", j, names[i], share * 100)
        }
}

END {
    fastest = quickest("boot.wall_ms", "q35-max q35-qemu64 microvm-max microvm-qemu64")
    workloads_table()
    boots_table()
    check_runs()
    idle = median("ours", "idle.idle_permille")
    goal("boot to init, ours over the quickest TCG (" fastest ")", fastest == "" ? "" : paired("ours", "boot.wall_ms", fastest, "boot.wall_ms"), 0.5, 1, "x")
    cheapest = quickest("boot.cpu_ms", "q35-max q35-qemu64 microvm-max microvm-qemu64")
    goal("the same in processor time (" cheapest ")", cheapest == "" ? "" : paired("ours", "boot.cpu_ms", cheapest, "boot.cpu_ms"), 0.5, 1, "x")
    goal("geometric mean over the workloads, times TCG's speed", mean, 3, 0, "x")
    goal("slowest workload, times TCG's speed", least_of_all(), 1, 0, "x")
    goal("SSE and crypto (chacha20, n-body, aes-ni), slowest", least("chacha20 n-body aes-ni"), 8, 0, "x")
    goal("context switch (pipe-pingpong), times TCG's speed", least("pipe-pingpong"), 5, 0, "x")
    goal("system call (getppid), times TCG's speed", least("getppid"), 3, 0, "x")
    goal("idle guest, part of a processor", idle == "" ? "" : idle / 10, 1, 1, "%")
    goal("engine's memory after the workloads, less guest and code", scaled(median("ours", "work_end.own_kib"), 1024), 16, 1, "MiB")
    goal("process start to first guest instruction on KVM here", median("ours", "start.wall_ms"), 10, 1, "ms")
    goal("boot to init on KVM in the testbed, ours over QEMU microvm", paired("kvm-ours", "boot.wall_ms", "kvm-microvm", "boot.wall_ms"), 0.6, 1, "x")
    goal("monitor beyond guest memory on KVM, at init", scaled(median("kvm-ours", "boot.own_kib"), 1024), 5, 1, "MiB")
    goals_table("goal")
    if (notes != "") printf "\nnotes\n%s", notes
    member("start_ms", sprintf("{\"kvm\": %s, \"software_cpu\": %s}", number(median("ours", "start.wall_ms")), number(median("ours", "start_jit.wall_ms"))))
    member("goals", "[" goal_json "]")
    member("host_load", "\"" load "\"")
    member("rounds", rounds + 0)
    printf "{\n%s\n}\n", out >json
}
