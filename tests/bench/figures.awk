# figures.awk - what the reports of `make bench` share: medians, ratios, goals. Not run by itself but before a report:
# awk -f figures.awk -f report.awk ...
#
# The report's own rules fill value[WHO, KEY, ROUND] and `rounds`, the highest of the rounds, numbered from 1. An empty figure is
# one that was not measured.

function sorted_median(list, n,    i, j, t) {
    for (i = 2; i <= n; i++) {
        t = list[i]
        for (j = i - 1; j > 0 && list[j] > t; j--) list[j + 1] = list[j]
        list[j + 1] = t
    }
    return n == 0 ? "" : n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

function median(who, key,    i, n, list) {
    for (i = 1; i <= rounds; i++)
        if ((who, key, i) in value) list[++n] = value[who, key, i]
    return sorted_median(list, n)
}

# The median of a's figures for one key over b's for another in the same rounds.
function paired(a, key_a, b, key_b,    i, n, list) {
    for (i = 1; i <= rounds; i++)
        if ((a, key_a, i) in value && (b, key_b, i) in value && value[b, key_b, i] > 0)
            list[++n] = value[a, key_a, i] / value[b, key_b, i]
    return sorted_median(list, n)
}

function figure(x, format) { return x == "" ? "-" : sprintf(format, x) }
function scaled(x, by) { return x == "" ? "" : x / by }
function number(x) { return x == "" ? "null" : sprintf("%.6g", x) }

# One more member of the JSON object `out`.
function member(name, text) { out = out (out == "" ? "" : ",\n") "  \"" name "\": " text }

# One more goal for goals_table() and goal_json; `by_cpu`, where given, is the same ratio by processor time.
function goal(what, got, limit, at_most, unit, by_cpu,    met) {
    met = got == "" ? "NOT MEASURED" : (at_most ? got <= limit : got >= limit) ? "met" : "MISSED"
    goal_rows = goal_rows sprintf("%-64s %11s  %-13s %s%s\n", what, got == "" ? "-" : sprintf("%.3g %s", got, unit),
        (at_most ? "at most " : "at least ") limit, met, by_cpu == "" ? "" : sprintf(", CPU %.3g x", by_cpu))
    goal_json = goal_json (goal_json == "" ? "" : ", ") sprintf("{\"goal\": \"%s\", \"got\": %s, \"%s\": %s, %s\"result\": \"%s\"}", what,
        number(got), at_most ? "at_most" : "at_least", limit, by_cpu == "" ? "" : "\"by_cpu\": " number(by_cpu) ", ", met)
}

function goals_table(title) { printf "\n%s\n%s", title, goal_rows }
